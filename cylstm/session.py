"""A model as a server runs it: an immutable snapshot that any number of threads may call."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks, states
from cylstm.cpus import PROCESS, Cpus
from cylstm.micro_batch import MicroBatch
from cylstm.sequence_layer import Call, PackedSequences, SequenceLayer
from cylstm.threads import checked

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
        self._threads = None if threads is None else checked("threads", threads)
        self._cpus = PROCESS if self._threads is None else Cpus(self._threads)
        self._model: SequenceLayer = copy.copy(model).eval()
        self._model._store.freeze()
        self._first = self._model._initial_state(1)
        self._spare: list[Any] = []  # workspaces not in use; list operations are atomic
        self.run(np.zeros((1, 1), int) if model.reads_indices else np.zeros((1, 1, model.input_size)))

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
    def threads(self) -> int | None:
        """CPUs of its own; None: it shares those of the process."""
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
        model = self._model
        with self._cpus.share():
            call = model._checked_call(x, state, lengths)
            y, given = _parts_of(out)
            model._check_out(y, call)
            final = self._state_to_fill(given, call)
            try:
                workspace = self._spare.pop()
            except IndexError:
                workspace = model._new_workspace(training=False, in_place=True)
            rows, final = model._forward(workspace, call.batch, final)
            y = model._rows_for_caller(rows, call, model.pools, y)
            self._spare.append(workspace)
        return y, model._state_for_caller(final, call.unbatched) if given is None else given

    def _state_to_fill(self, given: Any, call: Call) -> Any:
        """The state before the first step, in arrays that the last one may be written to."""
        B = call.batch.packing.B
        if given is None:
            final = self._model._initial_state(B)
            states.assign(final, call.state)
            return final
        _check_writable(given, self.dtype)
        final = self._model._checked_state("out[1]", given, None if call.unbatched else B)
        if len(states.arrays(final)) != len(states.arrays(self._first)):
            raise ValueError("out[1]: expected a state as run returns it, got one with None for a part")
        states.begin(final, call.state, self._first)
        return final

    def micro_batch(
        self, *, max_batch: int = 16, max_delay: float = 0.001, max_queue: int = 1024
    ) -> MicroBatch:
        """A queue that joins single requests of many threads into batches; see `MicroBatch`."""
        return MicroBatch(self, max_batch=max_batch, max_delay=max_delay, max_queue=max_queue)

    def __reduce__(self) -> Any:
        """Copy and pickle as a session of the same model."""
        return _session, (self._model, self._threads)

    def __repr__(self) -> str:
        """As it was constructed."""
        return f"Session({self._model!r}, threads={self._threads})"


def _session(model: SequenceLayer, threads: int | None) -> Session:
    return Session(model, threads=threads)


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
