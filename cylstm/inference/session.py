"""A model as a server runs it: an immutable snapshot that any number of threads may call."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._engine import _steps, isa
from cylstm._system.cpus import PROCESS, CpuPool
from cylstm._system.threads import checked, get_num_threads
from cylstm.layers import states
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.sequences.packed import PackedSequences
from cylstm.sequences.packing import Packing

if TYPE_CHECKING:
    from cylstm.data.scalers import Scaler
    from cylstm.inference.micro_batch import MicroBatch

Array = NDArray[Any]


class Session:
    """A snapshot of a model, to be run by any number of Python threads at once.

    It has copies of the model's parameters and options, packed once; nothing that happens to the model
    afterwards changes it, and the model may be trained on meanwhile. It computes as the model does in the
    mode of `eval()`, to the same bits.

    A call holds no lock while it computes, nor the interpreter's. Together the calls of all threads use as
    many CPUs as `threads` says and no more: those that find none free wait their turn, and a call that is
    alone takes them all. Buffers are as many as the calls that compute at the same time, and are used again.

    Sessions may be used before and after a fork, in parent and child, and be pickled.

    Parameters
    ----------
    model : SequenceLayer
        A recurrent layer, a Sequential or another layer over sequences. It must not be written to by another
        thread just while the snapshot is taken.
    threads : int, optional
        CPUs of all calls together. By default the sessions of a process share those of
        `cylstm.get_num_threads()`. On the BLAS path, whose threads belong to the process, calls go one after
        the other.

    Raises
    ------
    TypeError, ValueError
        If the model is none of these, or threads is no positive int.

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
    >>> y, state = session.run(x, state, out=(y, state))  # goes on, and allocates nothing
    """

    def __init__(self, model: SequenceLayer, *, threads: int | None = None) -> None:
        if not isinstance(model, SequenceLayer):
            raise TypeError(
                "model: expected a recurrent layer or a Sequential, into which any other layer can be put, "
                f"got {type(model).__name__}"
            )
        if not model.input_size:
            raise ValueError("model: expected a layer with a size; give it features=")
        if model.scalers:
            from cylstm.data.scalers import warn_not_applied  # loaded with the first scaler

            warn_not_applied("Session", model.scalers)
        self._set_up(model, threads)

    def _set_up(self, model: SequenceLayer, threads: int | None) -> None:
        self._threads = None if threads is None else checked("threads", threads)
        self._cpus = PROCESS if self._threads is None else CpuPool(self._threads)
        self._model: SequenceLayer = copy.copy(model).eval()
        self._model._store.freeze()
        self._first = self._model._initial_state(1)
        self._spare: list[_Place] = []  # those not in use; list operations are atomic
        self._chain = False  # whether its layers can be gone through without Python
        x = np.zeros((1, 1, model.input_size), int if model.reads_indices else model.dtype)
        self.run(x[..., 0] if model.reads_single_indices else x)
        if isa.path() == "packed" and self._model.causal:
            place = self._spare[0]
            self._chain = self._model._step_stages(place.workspace, self._first, place.packing) is not None

    @property
    def input_size(self) -> int:
        """Features of x."""
        return self._model.input_size

    @property
    def output_size(self) -> int:
        """Features of y."""
        return self._model.output_size

    @property
    def batch_first(self) -> bool:
        """Whether x is (B, T, I), as the model has it."""
        return bool(self._model.batch_first)

    @property
    def dtype(self) -> "np.dtype[Any]":
        """float32 or float64, of parameters and results."""
        return self._model.dtype

    @property
    def scalers(self) -> "dict[str, Scaler]":
        """Copies of the model's scalers, which `run` does not apply: it computes as the model does."""
        return {name: copy.copy(scaler) for name, scaler in self._model.scalers.items()}

    @property
    def threads(self) -> int | None:
        """CPUs of its own, or None where it shares those of the process."""
        return self._threads

    def run(self, x: Any, state: Any = None, *, lengths: Any = None, out: Any = None) -> tuple[Any, Any]:
        """Run over whole sequences.

        Once a call as large as this one was made, it allocates nothing but what it returns; with `out`,
        nothing. Not counted are objects of Python and buffers of NumPy, of a fixed size, and for sequences of
        different length indices and a copy of the states.

        Parameters
        ----------
        x : array of real numbers, or PackedSequences
            (T, B, I), or (B, T, I) if `batch_first`, or one sequence (T, I); ints without the last axis where
            an `Embedding` comes first; or what `cylstm.data.pack` makes. T and B may be others in every call.
        state : optional
            The state before the first step, as an earlier call returned it.
        lengths : array of int, optional
            (B,), the real steps of each sequence.
        out : ndarray, or tuple (y, state), optional
            Written with y and returned instead of a new array. In a tuple, as an earlier call returned it,
            both are; its state may be the one that is passed as `state`.

        Returns
        -------
        y : ndarray or PackedSequences
            Outputs of every step, in the form of x; where a layer pools over time, (B, O).
        state
            The state after the last step.

        Raises
        ------
        ValueError, TypeError
            If a shape, a dtype or the form of the state is not as above.
        """
        y, given = _parts_of(out)
        with self._cpus.slot():
            try:
                place = self._spare.pop()
            except IndexError:
                place = _Place(self._model)
            try:
                result = None if lengths is not None else self._run_again(place, x, state, y, given)
                if result is None:
                    result = self._run_any(place, x, state, lengths, y, given)
            except (ValueError, TypeError):  # about an argument; after anything else the place is not trusted
                self._spare.append(place)
                raise
            self._spare.append(place)
        return result

    def _run_any(
        self, place: "_Place", x: Any, state: Any, lengths: Any, y: Any, given: Any
    ) -> tuple[Any, Any]:
        """The long way, with every check; the next call that is like this one may take the short one."""
        model = self._model
        call = model._checked_call(x, state, lengths)
        model._check_out(y, call)
        final = self._state_to_fill(given, call.state, call.batch.packing.B, call.unbatched)
        again = place.begin(call.batch.packing)
        rows, final = model._forward(place.workspace, call.batch, final)
        y = model._y_for_caller(rows, call, y)
        if again and self._chain and place.steps is None:
            place.plan(model)
        return y, model._state_for_caller(final, call.unbatched) if given is None else given

    def _run_again(self, place: "_Place", x: Any, state: Any, y: Any, given: Any) -> Any:
        """The short way of a call like the last ones; None, and nothing is done, if it is not like them."""
        model, steps = self._model, place.steps
        if steps is None or not _is_plain(x, model.dtype):
            return None
        y_shape = place.shapes.get(x.shape)
        if y_shape is None:
            return None
        if y is None:
            y = np.empty(y_shape, model.dtype)
        elif not _is_plain(y, model.dtype) or y.shape != y_shape or not y.flags.writeable:
            return None
        B, unbatched = place.packing.B, x.ndim == 2
        checked = model._checked_state("state", state, None if unbatched else B)
        final = self._state_to_fill(given, checked, B, unbatched)
        arrays = states.arrays(final)
        for carried, array in zip(place.carried, arrays, strict=True):
            carried[...] = array
        steps.step(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), get_num_threads())
        for carried, array in zip(place.carried, arrays, strict=True):
            array[...] = carried
        return y, model._state_for_caller(final, unbatched) if given is None else given

    def _state_to_fill(self, given: Any, state: Any, B: int, unbatched: bool) -> Any:
        """The state before the first step, in arrays that the last one may be written to."""
        if given is None:
            final = self._model._initial_state(B)
            states.assign(final, state)
            return final
        _check_writable(given, self._model.dtype)
        final = self._model._checked_state("out[1]", given, None if unbatched else B)
        if len(states.arrays(final)) != len(states.arrays(self._first)):
            raise ValueError("out[1]: expected a state as run returns it, got one with None for a part")
        states.initialize(final, state, self._first)
        return final

    def micro_batch(
        self, *, max_batch: int = 16, max_delay: float = 0.001, max_queue: int = 1024
    ) -> "MicroBatch":
        """A queue that joins single requests of many threads into batches; see `MicroBatch`."""
        from cylstm.inference.micro_batch import MicroBatch

        return MicroBatch(self, self._model, max_batch=max_batch, max_delay=max_delay, max_queue=max_queue)

    def release(self) -> None:
        """Release the buffers that no call uses; the next ones allocate what they need."""
        self._spare.clear()

    def __reduce__(self) -> Any:
        """Copy and pickle as a session of the same model."""
        return _session, (self._model, self._threads)

    def __repr__(self) -> str:
        """As it was constructed."""
        return f"Session({self._model!r}, threads={self._threads})"


class _Place:
    """Where one call at a time computes: buffers, and the plan of how to go through them without Python."""

    def __init__(self, model: SequenceLayer) -> None:
        self.workspace = model._new_workspace(training=False, in_place=True)
        self.packing = Packing(0, 0)  # for which the buffers are planned
        self.steps: _steps.Steps | None = None
        self.carried: list[Array] = []  # the state that the steps begin and end with
        self.shapes: dict[tuple[int, ...], tuple[int, ...]] = {}  # of y, by those of x that they take

    def begin(self, packing: Packing) -> bool:
        """For a batch that goes the long way: whether it is packed as the last one."""
        if packing == self.packing:
            return True
        self.packing, self.steps = packing, None  # whose buffers will be planned anew
        return False

    def plan(self, model: SequenceLayer) -> None:
        """Plan the short way for batches like the last one, if their steps stand in order in memory."""
        T, B, I, O = self.packing.T, self.packing.B, model.input_size, model.output_size
        if self.packing.order is not None or not self.packing.N or (model.batch_first and min(T, B) > 1):
            return
        state = model._initial_state(B)
        stages = model._step_stages(self.workspace, state, self.packing)
        assert stages is not None
        self.steps = _steps.Steps(stages, T, B, model, [])
        self.carried = states.arrays(state)
        self.shapes = {(B, T, I): (B, T, O)} if model.batch_first else {(T, B, I): (T, B, O)}
        if B == 1:
            self.shapes[T, I] = T, O


def _session(model: SequenceLayer, threads: int | None) -> Session:
    session = Session.__new__(Session)
    session._set_up(model, threads)
    return session


def _is_plain(array: Any, dtype: "np.dtype[Any]") -> bool:
    """Whether an argument can be taken as it stands."""
    return type(array) is np.ndarray and array.dtype is dtype and array.flags.c_contiguous


def _parts_of(out: Any) -> tuple[Any, Any]:
    """The array for y, and the state, of what may be either both or the first."""
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
