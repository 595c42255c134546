"""What every loss is: layouts, steps and lengths, handled once; a subclass sees (T, B, ...) views only."""

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
    """Base of all losses: a mean over what counts, and its gradient with respect to the outputs.

    Several threads may use one loss: whatever a call writes to belongs to its thread, so a subclass keeps
    nothing of a call on itself and takes its buffers from `_buffer`. It sets an attribute for each of its
    constructor's arguments, and gives:

    `_targets(target, layout)`
        The targets, checked, in the form that `_compute` takes.
    `_compute(dy, y, targets, begin, end)` -> (value, counted)
        From the outputs y (T, B, V), of which the steps from begin[b] to before end[b] of sequence b count,
        at least one of them; writes dy there. `counted` is what the mean was divided by; if it is 0, value
        and dy are those of the sum.
    `_check(target, outputs, name)` -> int
        Refuses one array of targets, or says how many of its values count.
    """

    steps: Steps = "all"
    batch_first: bool = False
    of_sequences = False  # whether a target belongs to a whole sequence, whatever `steps` says

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        """Register a class that can be built, under its name."""
        super().__init_subclass__(**kwargs)
        if not abstract:
            LOSSES.setdefault(cls.__name__, cls)  # the name of a loss of ours stays its own

    def __init__(self, steps: Steps = "all", batch_first: bool = False) -> None:
        if not isinstance(steps, str) or steps not in ("all", "last"):
            raise ValueError(f"steps: expected 'all' or 'last', got {shown(steps)}")
        self.steps, self.batch_first = steps, _checks.flag("batch_first", batch_first)
        self._own = _OfThread()

    @property
    def counted(self) -> float:
        """Denominator of the mean of the thread's last call: numbers, weights of labels, or sequences.

        A mean over batches weighs each value by it. If it is 0, the value is a sum, divided by nothing.
        """
        return self._own.counted

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        values = ((name, getattr(self, name)) for name in inspect.signature(type(self)).parameters)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    def __repr__(self) -> str:
        """As it is constructed."""
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config.items())})"

    def __call__(self, y: Any, target: Any, lengths: Any = None) -> tuple[float, Array]:
        """Value and dL/dy.

        Parameters
        ----------
        y : array
            (T, B, V), (B, T, V) if `batch_first`, or (T, V) for one sequence. Rows without time, (B, V),
            are taken as they are with `steps="all"`.
        target : array
            What the class says, for all steps, or without the time axis for `steps="last"`.
        lengths : array of int, optional
            (B,), the real steps of each sequence: what follows them does not count, and the last
            step is each sequence's own. A sequence of no steps counts for nothing.

        Returns
        -------
        value : float
            0 if no step counts.
        dy : ndarray
            In y's shape and dtype, overwritten by the thread's next call.
        """
        y = _outputs(y)
        layout = Layout(y, self.batch_first, self.steps == "last")
        begin, end = layout.counted(lengths)
        targets = self._targets(target, layout)
        own = self._own
        dy = own.dy.array(y.shape, y.dtype, (y, target))
        own.counted, value = 0.0, 0.0
        steps = int((end - begin).sum())
        if steps < layout.T * layout.B:
            dy[...] = 0
        if steps:
            y_steps, dy_steps = layout.time_major(y), layout.time_major(dy)
            value, own.counted = self._compute(dy_steps, y_steps, targets, begin, end)
        return value, dy

    def row_shape(self, outputs: int) -> tuple[int, ...] | None:
        """The axes of the target of one step, for a model of so many outputs; None: not known.

        >>> from cylstm.losses import CrossEntropy, Quantile
        >>> CrossEntropy().row_shape(6), Quantile([0.1, 0.9]).row_shape(6)
        ((), (3,))
        """
        return None

    def check(self, target: Any, outputs: int, name: str = "target", lengths: Any = None) -> None:
        """Refuse targets that this loss cannot use, once for all data before training.

        Parameters
        ----------
        target : array, or list of arrays
        outputs : int
            V, the outputs of the model.
        name : str
            What errors call the target.
        lengths : array of int, optional
            (B,), the steps of each sequence, where `target` holds those of whole sequences. `CTC` checks that
            labels fit into them.

        Raises
        ------
        ValueError, TypeError
            If any value is unusable, or none counts.
        """
        outputs = _checks.positive("outputs", outputs)
        if isinstance(target, list | tuple):
            counted = sum(self._check(array, outputs, f"{name}[{i}]") for i, array in enumerate(target))
        else:
            counted = self._check(target, outputs, name)
        if not counted:
            raise ValueError(f"{name}: expected something that counts, got nothing")

    def _targets(self, target: Any, layout: "Layout") -> Any:
        raise NotImplementedError

    def _compute(self, dy: Array, y: Array, targets: Any, begin: Index, end: Index) -> tuple[float, float]:
        raise NotImplementedError

    def _check(self, target: Any, outputs: int, name: str) -> int:
        raise NotImplementedError

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory of this thread's that holds anything; a later call with this name uses it again."""
        return self._own.scratch.setdefault(name, Kept()).array(shape, dtype)

    def _converted(self, target: Array, dtype: Any) -> Array:
        """The target in a dtype, in scratch memory where it has another one."""
        if target.dtype == dtype and target.dtype.isnative and target.flags.aligned:
            return target
        wanted = self._buffer("target", target.shape, dtype)
        with np.errstate(all="ignore"):  # padding may hold anything
            np.copyto(wanted, target, casting="same_kind")
        return wanted


class Layout:
    """Where time and sequences are in y: (T, B, V), (B, T, V), or (T, V) with B = 1."""

    def __init__(self, y: Array, batch_first: bool, last: bool) -> None:
        self.shape, self.dtype, self.last = y.shape, y.dtype, last
        self.single = y.ndim == 2
        self.swap = batch_first and not self.single
        self.T, self.B, self.V = self.time_major(y).shape

    def time_major(self, array: Array) -> Array:
        """A view (T, B, ...)."""
        if self.single:
            return array[:, None]
        return array.swapaxes(0, 1) if self.swap else array

    def target_shape(self, *inner: int) -> tuple[int, ...]:
        """The shape of targets with these axes a step."""
        time = 1 if self.swap else 0
        lead = self.shape[:-1]
        return (lead[:time] + lead[time + 1 :] if self.last else lead) + inner

    def spread(self, target: Array) -> Array:
        """A view (T, B, ...) of targets, one step's standing at every step."""
        if not self.last:
            return self.time_major(target)
        target = target[None] if self.single else target
        return np.broadcast_to(target, (self.T, *target.shape))

    def counted(self, lengths: Any) -> tuple[Index, Index]:
        """(B,) and (B,): the steps of each sequence that count, from the first to before the second."""
        if lengths is None:
            end = np.full(self.B, self.T, np.intp)
        elif self.single:
            raise ValueError(f"lengths: expected y to be a batch of sequences, got {self.shape}")
        else:
            end = _checks.sequence_lengths(lengths, self.T, self.B)
        return (np.maximum(end - 1, 0) if self.last else np.zeros_like(end)), end


class Kept:
    """An array that is used again, and grows only."""

    def __init__(self) -> None:
        self._block: Array = np.empty(0)
        self._array: Array = self._block

    def array(self, shape: tuple[int, ...], dtype: Any, apart_from: tuple[Any, ...] = ()) -> Array:
        """Memory of this shape that holds anything, and does not overlap with these arrays."""
        size = math.prod(shape)
        overlaps = any(isinstance(a, np.ndarray) and np.may_share_memory(self._block, a) for a in apart_from)
        if overlaps or self._block.size < size or self._block.dtype != dtype:
            self._block = np.empty(size, dtype)
            self._array = self._block.reshape(shape)
        elif self._array.shape != shape:
            self._array = self._block[:size].reshape(shape)
        return self._array


class _OfThread(threading.local):
    """What a call writes to and leaves behind, of each thread: several may train models with one loss."""

    def __init__(self) -> None:
        self.counted = 0.0
        self.dy = Kept()
        self.scratch: dict[str, Kept] = {}

    def __reduce__(self) -> Any:
        """Copies start with nothing."""
        return _OfThread, ()


def _outputs(y: Any) -> Array:
    """(T, B, V), (B, T, V) or (T, V) in float32 or float64, with adjacent outputs."""
    y = _checks.real_array("y", y)
    if y.ndim not in (2, 3) or 0 in y.shape:
        raise ValueError(f"y: expected (T, B, V), (B, T, V) or (T, V), no size being 0, got {y.shape}")
    dtype = y.dtype if y.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    y = y.astype(dtype, copy=False)
    result: Array = y if y.strides[-1] == y.itemsize and y.flags.aligned else y.copy("C")
    return result


def weights(name: str, value: Any, scalar: bool = False) -> Any:
    """Finite numbers, 0 or more: a tuple of some, or one where a scalar may be."""
    array = _checks.real_array(name, value).astype(np.float64)
    if scalar and array.ndim == 0:
        return _checks.number(name, array, 0)
    if array.ndim != 1 or array.size == 0 or not ((array >= 0) & (array < np.inf)).all():
        raise ValueError(f"{name}: expected finite numbers, 0 or more, one an output, got {shown(value)}")
    return tuple(array.tolist())
