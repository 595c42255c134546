"""Concurrent inference: an immutable snapshot of a model that any number of threads may call."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._engine import _steps, isa
from cylstm._system.cpus import PROCESS, CpuPool
from cylstm._system.threads import checked, get_num_threads
from cylstm.layers import states
from cylstm.layers.base import store_of
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.sequences.packed import PackedSequences
from cylstm.sequences.packing import Packing

if TYPE_CHECKING:
    from cylstm.data.scalers import Scaler
    from cylstm.inference.micro_batch import MicroBatch

Array = NDArray[Any]


class Session:
    """A snapshot of a model that any number of Python threads can run at once.

    A session copies the model's parameters and options and packs them once; later changes of the model have
    no effect on it, and the model can be trained meanwhile. Results are bit-identical to those of the
    model in `eval()` mode.

    Calls hold no lock while they compute, and release the GIL. Together they use at most `threads` cores:
    further calls wait for a free core, and a single call uses all of them. There is one set of buffers for
    each concurrent call; buffers are reused.

    Sessions can be used before and after a fork, in parent and child, and can be pickled.

    Parameters
    ----------
    model : SequenceLayer
        A recurrent layer, a Sequential or another layer over sequences. Other threads must not change it
        while the session is created.
    threads : int, optional
        Maximum number of cores of all calls together. By default, the sessions of a process share
        `cylstm.get_num_threads()` cores. On the BLAS path, whose threads belong to the process, calls run
        sequentially.

    Raises
    ------
    TypeError, ValueError
        If the model is not one of these, or threads is not a positive int.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 2, seed=1))
    >>> session = cylstm.Session(model, threads=1)
    >>> x = np.ones((10, 4, 3), np.float32)
    >>> y, state = session.run(x)
    >>> bool((y == model(x)[0]).all())
    True
    >>> y, state = session.run(x, state, out=(y, state))  # continue, without allocating arrays
    """

    def __init__(self, model: SequenceLayer, *, threads: int | None = None) -> None:
        if not isinstance(model, SequenceLayer):
            raise TypeError(
                "model: expected a recurrent layer or a Sequential, which can hold any other layer, "
                f"got {type(model).__name__}"
            )
        if not model.input_size:
            raise ValueError("model: expected a layer with a size; give it features=")
        if model.scalers:
            from cylstm.data.scalers import warn_not_applied  # imported with the first scaler

            warn_not_applied("Session", model.scalers)
        self._set_up(model, threads)

    def _set_up(self, model: SequenceLayer, threads: int | None) -> None:
        self._threads = None if threads is None else checked("threads", threads)
        self._cpus = PROCESS if self._threads is None else CpuPool(self._threads)
        self._model: SequenceLayer = copy.copy(model).eval()
        store_of(self._model).freeze()
        self._first = self._model.initial_state(1)
        self._spare: list[_CallBuffers] = []  # unused ones; list operations are atomic
        self._has_fast_path = False  # whether the layers can be run without Python in between
        x = np.zeros((1, 1, model.input_size), int if model.reads_indices else model.dtype)
        self.run(x[..., 0] if model.reads_single_indices else x)
        if isa.path() == "packed" and self._model.causal:
            buffers = self._spare[0]
            self._has_fast_path = (
                self._model.step_stages(buffers.workspace, self._first, buffers.packing) is not None
            )

    @property
    def input_size(self) -> int:
        """Number of features of x."""
        return self._model.input_size

    @property
    def output_size(self) -> int:
        """Number of features of y."""
        return self._model.output_size

    @property
    def batch_first(self) -> bool:
        """Whether x is (B, T, I), as in the model."""
        return bool(self._model.batch_first)

    @property
    def dtype(self) -> "np.dtype[Any]":
        """float32 or float64, the type of parameters and results."""
        return self._model.dtype

    @property
    def scalers(self) -> "dict[str, Scaler]":
        """Copies of the model's scalers; like the model, `run` does not apply them."""
        return {name: copy.copy(scaler) for name, scaler in self._model.scalers.items()}

    @property
    def threads(self) -> int | None:
        """Maximum number of cores of the session, or None if it shares those of the process."""
        return self._threads

    def run(self, x: Any, state: Any = None, *, lengths: Any = None, out: Any = None) -> tuple[Any, Any]:
        """Run over whole sequences.

        After a call of the same or a larger size, only the returned arrays are allocated; with `out`, none.
        Exceptions are Python objects, fixed-size buffers of NumPy and, for sequences of different lengths,
        indices and a copy of the states.

        Parameters
        ----------
        x : array of real numbers, or PackedSequences
            (T, B, I), or (B, T, I) if `batch_first`, or one sequence (T, I); ints without the last axis if
            the first layer is an `Embedding`; or the result of `cylstm.data.pack`. T and B may differ between
            calls.
        state : optional
            The state before the first step, as returned by an earlier call.
        lengths : array of int, optional
            (B,), the number of valid (non-padded) steps of each sequence.
        out : ndarray, or tuple (y, state), optional
            Array to write y to, or the result (y, state) of an earlier call to write both to; it is returned
            instead of new arrays. The state in it may be the one passed as `state`.

        Returns
        -------
        y : ndarray or PackedSequences
            Outputs of every step, in the layout of x; (B, O) if a layer pools over time.
        state
            The state after the last step.

        Raises
        ------
        ValueError, TypeError
            If a shape, a dtype or the state is not as above.
        """
        y, state_out = _split_out(out)
        with self._cpus.slot():
            try:
                buffers = self._spare.pop()
            except IndexError:
                buffers = _CallBuffers(self._model)
            try:
                result = None if lengths is not None else self._run_fast(buffers, x, state, y, state_out)
                if result is None:
                    result = self._run_general(buffers, x, state, lengths, y, state_out)
            except (ValueError, TypeError):  # from argument checks; other errors discard the buffers
                self._spare.append(buffers)
                raise
            self._spare.append(buffers)
        return result

    def _run_general(
        self, buffers: "_CallBuffers", x: Any, state: Any, lengths: Any, y: Any, state_out: Any
    ) -> tuple[Any, Any]:
        """Run the general path, with all checks; it may plan the fast path for calls of the same shape."""
        model = self._model
        call = model.checked_call(x, state, lengths)
        model.check_out(y, call)
        final = self._final_state(state_out, call.state, call.batch.packing.B, call.unbatched)
        is_repeated = buffers.set_packing(call.batch.packing)
        rows, final = model.forward_batch(buffers.workspace, call.batch, final)
        y = model.y_for_caller(rows, call, y)
        if is_repeated and self._has_fast_path and buffers.steps is None:
            buffers.plan(model)
        return y, model.state_for_caller(final, call.unbatched) if state_out is None else state_out

    def _run_fast(self, buffers: "_CallBuffers", x: Any, state: Any, y: Any, state_out: Any) -> Any:
        """Run the fast path for a call of the same shape; return None if it does not apply."""
        model, steps = self._model, buffers.steps
        if steps is None or not _is_plain(x, model.dtype):
            return None
        y_shape = buffers.shapes.get(x.shape)
        if y_shape is None:
            return None
        if y is None:
            y = np.empty(y_shape, model.dtype)
        elif not _is_plain(y, model.dtype) or y.shape != y_shape or not y.flags.writeable:
            return None
        B, unbatched = buffers.packing.B, x.ndim == 2
        checked = model._checked_state("state", state, None if unbatched else B)
        final = self._final_state(state_out, checked, B, unbatched)
        arrays = states.arrays(final)
        for carried, array in zip(buffers.carried, arrays, strict=True):
            carried[...] = array
        steps.step(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), get_num_threads())
        for carried, array in zip(buffers.carried, arrays, strict=True):
            array[...] = carried
        return y, model.state_for_caller(final, unbatched) if state_out is None else state_out

    def _final_state(self, state_out: Any, state: Any, B: int, unbatched: bool) -> Any:
        """Copy the initial state to arrays that the final state may overwrite: `state_out`, or new ones."""
        if state_out is None:
            final = self._model.initial_state(B)
            states.assign(final, state)
            return final
        _check_writable(state_out, self._model.dtype)
        final = self._model._checked_state("out[1]", state_out, None if unbatched else B)
        if len(states.arrays(final)) != len(states.arrays(self._first)):
            raise ValueError("out[1]: expected a state as run returns it, got one with None for a layer")
        states.initialize(final, state, self._first)
        return final

    def micro_batch(
        self, *, max_batch: int = 16, max_delay: float = 0.001, max_queue: int = 1024
    ) -> "MicroBatch":
        """Create a queue that combines requests of many threads into batches; see `MicroBatch`."""
        from cylstm.inference.micro_batch import MicroBatch

        return MicroBatch(self, self._model, max_batch=max_batch, max_delay=max_delay, max_queue=max_queue)

    def release(self) -> None:
        """Release unused buffers; later calls allocate new ones."""
        self._spare.clear()

    def __reduce__(self) -> Any:
        """Copy and pickle as model and number of threads."""
        return _session, (self._model, self._threads)

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"Session({self._model!r}, threads={self._threads})"


class _CallBuffers:
    """Buffers of one call at a time, and the plan of the fast path through them."""

    def __init__(self, model: SequenceLayer) -> None:
        self.workspace = model.new_workspace(training=False, in_place=True)
        self.packing = Packing(0, 0)  # for which the buffers are planned
        self.steps: _steps.Steps | None = None
        self.carried: list[Array] = []  # the state before and after the planned steps
        self.shapes: dict[tuple[int, ...], tuple[int, ...]] = {}  # accepted shapes of x, and the shapes of y

    def set_packing(self, packing: Packing) -> bool:
        """Set the packing of a call on the general path; return whether it is that of the previous call."""
        if packing == self.packing:
            return True
        self.packing, self.steps = packing, None  # the next pass replans the buffers
        return False

    def plan(self, model: SequenceLayer) -> None:
        """Plan the fast path for batches of the same shape, if their steps are contiguous in memory."""
        T, B, I, O = self.packing.T, self.packing.B, model.input_size, model.output_size
        if self.packing.order is not None or not self.packing.N or (model.batch_first and min(T, B) > 1):
            return
        state = model.initial_state(B)
        stages = model.step_stages(self.workspace, state, self.packing)
        assert stages is not None
        self.steps = _steps.Steps(stages, T, B, model, store_of(model), [])
        self.carried = states.arrays(state)
        self.shapes = {(B, T, I): (B, T, O)} if model.batch_first else {(T, B, I): (T, B, O)}
        if B == 1:
            self.shapes[T, I] = T, O


def _session(model: SequenceLayer, threads: int | None) -> Session:
    session = Session.__new__(Session)
    session._set_up(model, threads)
    return session


def _is_plain(array: Any, dtype: "np.dtype[Any]") -> bool:
    """Whether an array can be used without conversion."""
    return type(array) is np.ndarray and array.dtype is dtype and array.flags.c_contiguous


def _split_out(out: Any) -> tuple[Any, Any]:
    """Split the argument `out`, an array or a tuple, into the arrays for y and for the final state."""
    if not isinstance(out, tuple) or isinstance(out, PackedSequences):
        return out, None
    if len(out) != 2:
        raise ValueError(f"out: expected an array or a tuple (y, state), got a tuple of {len(out)}")
    return out


def _check_writable(state: Any, dtype: "np.dtype[Any]") -> None:
    if isinstance(state, (tuple, list)):
        for part in state:
            _check_writable(part, dtype)
    elif state is not None:
        _checks.output("out[1]", state, np.shape(state), dtype)
