"""Base class of losses. It handles layouts, steps and lengths, so that subclasses see (T, B, ...) views."""

import inspect
import math
import threading
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown

Array = NDArray[Any]
Index = NDArray[np.intp]
Steps = Literal["all", "last"]
LOSSES: dict[str, type["Loss"]] = {}  # by name


class Loss:
    """Base class of losses: a mean over the counted steps, and its gradient with respect to the outputs.

    Threads can share a loss: all state of a call is thread-local. A subclass must not store results of a call
    as attributes, and allocates its buffers with `_buffer`. It sets an attribute for each constructor
    argument, and implements:

    `_targets(target, layout)`
        Check the targets and convert them for `_compute`.
    `_compute(dy, y, targets, begin, end)` -> (value, counted)
        Compute the loss of y (T, B, V) over steps begin[b] to end[b] - 1 of each sequence b, at least one in
        all, and write dy there. `counted` is the denominator of the mean; if it is 0, value and dy are those
        of the sum.
    `_check(target, outputs, name)` -> int
        Check an array of targets and return the number of values that count.
    """

    steps: Steps = "all"
    batch_first: bool = False
    of_sequences = False  # whether a target belongs to a whole sequence, regardless of `steps`

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        """Register a concrete class under its name."""
        super().__init_subclass__(**kwargs)
        if not abstract:
            LOSSES.setdefault(cls.__name__, cls)  # a user's class does not replace a built-in one

    def __init__(self, steps: Steps = "all", batch_first: bool = False) -> None:
        if not isinstance(steps, str) or steps not in ("all", "last"):
            raise ValueError(f"steps: expected 'all' or 'last', got {shown(steps)}")
        self.steps, self.batch_first = steps, _checks.flag("batch_first", batch_first)
        self._local = _ThreadState()

    @property
    def counted(self) -> float:
        """Denominator of the mean in this thread's last call: a number of values or sequences, or a weight.

        Use it to weight values in a mean over batches. If it is 0, the value is a sum instead of a mean.
        """
        return self._local.counted

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        values = ((name, getattr(self, name)) for name in inspect.signature(type(self)).parameters)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    def __repr__(self) -> str:
        """Show the constructor call."""
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config.items())})"

    def __call__(self, y: Any, target: Any, lengths: Any = None) -> tuple[float, Array]:
        """Compute the loss and its gradient dL/dy.

        Parameters
        ----------
        y : array
            (T, B, V), (B, T, V) if `batch_first`, or (T, V) for one sequence. Rows without a time axis, (B,
            V), are accepted with `steps="all"`.
        target : array
            As described for the class, for all steps, or without the time axis for `steps="last"`.
        lengths : array of int, optional
            (B,), the number of valid steps of each sequence. Later steps are ignored, and `steps="last"`
            means the last valid step. Sequences of length 0 are ignored.

        Returns
        -------
        value : float
            0 if there are no valid steps.
        dy : ndarray
            In y's shape and dtype; overwritten by the next call in the same thread.
        """
        y = _outputs(y)
        layout = Layout(y, self.batch_first, self.steps == "last")
        begin, end = layout.counted(lengths)
        targets = self._targets(target, layout)
        local = self._local
        dy = local.dy.array(y.shape, y.dtype, (y, target))
        local.counted, value = 0.0, 0.0
        steps = int((end - begin).sum())
        if steps < layout.T * layout.B:
            dy[...] = 0
        if steps:
            y_steps, dy_steps = layout.time_major(y), layout.time_major(dy)
            value, local.counted = self._compute(dy_steps, y_steps, targets, begin, end)
        return value, dy

    def row_shape(self, outputs: int) -> tuple[int, ...] | None:
        """The shape of the target of one step for a number of model outputs; None if unknown.

        >>> from cylstm.losses import CrossEntropy, Quantile
        >>> CrossEntropy().row_shape(6), Quantile([0.1, 0.9]).row_shape(6)
        ((), (3,))
        """
        return None

    def check(self, target: Any, outputs: int, name: str = "target", lengths: Any = None) -> None:
        """Check all targets of a data set before training.

        Parameters
        ----------
        target : array, or list of arrays
        outputs : int
            V, the number of model outputs.
        name : str
            Name of the target in error messages.
        lengths : array of int, optional
            (B,), the steps of each sequence, if `target` has one element per sequence. `CTC` checks that the
            labels fit into them.

        Raises
        ------
        ValueError, TypeError
            If a value is invalid, or all values are ignored.
        """
        outputs = _checks.positive("outputs", outputs)
        if isinstance(target, list | tuple):
            counted = sum(self._check(array, outputs, f"{name}[{i}]") for i, array in enumerate(target))
        else:
            counted = self._check(target, outputs, name)
        if not counted:
            raise ValueError(f"{name}: expected at least one value that counts, got none")

    def _targets(self, target: Any, layout: "Layout") -> Any:
        raise NotImplementedError

    def _compute(self, dy: Array, y: Array, targets: Any, begin: Index, end: Index) -> tuple[float, float]:
        raise NotImplementedError

    def _check(self, target: Any, outputs: int, name: str) -> int:
        raise NotImplementedError

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return uninitialised thread-local memory, which later calls with the same name reuse."""
        return self._local.scratch.setdefault(name, ScratchArray()).array(shape, dtype)

    def _converted(self, target: Array, dtype: Any) -> Array:
        """Convert the target to a dtype, in scratch memory if necessary."""
        if target.dtype == dtype and target.dtype.isnative and target.flags.aligned:
            return target
        converted = self._buffer("target", target.shape, dtype)
        with np.errstate(all="ignore"):  # padding may hold any values
            np.copyto(converted, target, casting="same_kind")
        return converted


class Layout:
    """The axes of y: (T, B, V), (B, T, V), or (T, V) with B = 1."""

    def __init__(self, y: Array, batch_first: bool, last: bool) -> None:
        self.shape, self.dtype, self.last = y.shape, y.dtype, last
        self.single = y.ndim == 2
        self.swap = batch_first and not self.single
        self.T, self.B, self.V = self.time_major(y).shape

    def time_major(self, array: Array) -> Array:
        """Return a view (T, B, ...)."""
        if self.single:
            return array[:, None]
        return array.swapaxes(0, 1) if self.swap else array

    def target_shape(self, *inner: int) -> tuple[int, ...]:
        """The expected shape of targets whose steps have shape `inner`."""
        time = 1 if self.swap else 0
        lead = self.shape[:-1]
        return (lead[:time] + lead[time + 1 :] if self.last else lead) + inner

    def broadcast(self, target: Array) -> Array:
        """Return a view (T, B, ...) of targets; a target of one step is repeated over time."""
        if not self.last:
            return self.time_major(target)
        target = target[None] if self.single else target
        return np.broadcast_to(target, (self.T, *target.shape))

    def counted(self, lengths: Any) -> tuple[Index, Index]:
        """Return the half-open range of steps that count for each sequence: begin (B,) and end (B,)."""
        if lengths is None:
            end = np.full(self.B, self.T, np.intp)
        elif self.single:
            raise ValueError(f"lengths: expected y to be a batch of sequences, got {self.shape}")
        else:
            end = _checks.sequence_lengths(lengths, self.T, self.B)
        return (np.maximum(end - 1, 0) if self.last else np.zeros_like(end)), end


class ScratchArray:
    """A reusable array that grows but never shrinks."""

    def __init__(self) -> None:
        self._block: Array = np.empty(0)
        self._array: Array = self._block

    def array(self, shape: tuple[int, ...], dtype: Any, avoid: tuple[Any, ...] = ()) -> Array:
        """Return uninitialised memory of this shape that does not overlap with the arrays in `avoid`."""
        size = math.prod(shape)
        overlaps = any(isinstance(a, np.ndarray) and np.may_share_memory(self._block, a) for a in avoid)
        if overlaps or self._block.size < size or self._block.dtype != dtype:
            self._block = np.empty(size, dtype)
            self._array = self._block.reshape(shape)
        elif self._array.shape != shape:
            self._array = self._block[:size].reshape(shape)
        return self._array


class _ThreadState(threading.local):
    """Buffers and results of a thread's calls, because several threads may share a loss."""

    def __init__(self) -> None:
        self.counted = 0.0
        self.dy = ScratchArray()
        self.scratch: dict[str, ScratchArray] = {}

    def __reduce__(self) -> Any:
        """Copies start empty."""
        return _ThreadState, ()


def _outputs(y: Any) -> Array:
    """Convert y (T, B, V), (B, T, V) or (T, V) to float32 or float64 with a contiguous last axis."""
    y = _checks.real_array("y", y)
    if y.ndim not in (2, 3) or 0 in y.shape:
        raise ValueError(f"y: expected a non-empty (T, B, V), (B, T, V) or (T, V), got {y.shape}")
    dtype = y.dtype if y.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    y = y.astype(dtype, copy=False)
    result: Array = y if y.strides[-1] == y.itemsize and y.flags.aligned else y.copy("C")
    return result


def weights(name: str, value: Any, scalar: bool = False) -> Any:
    """Check finite non-negative weights: return a tuple, or one number if a scalar is allowed and given."""
    array = _checks.real_array(name, value).astype(np.float64)
    if scalar and array.ndim == 0:
        return _checks.number(name, array, 0)
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array < np.inf)).all():
        raise ValueError(f"{name}: expected finite numbers >= 0, one per output, got {shown(value)}")
    return tuple(array.tolist())
