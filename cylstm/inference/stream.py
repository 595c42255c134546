"""Streaming inference: sequences that arrive step by step."""

import heapq
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._engine import _steps, isa
from cylstm._system.cpus import CpuPool
from cylstm._system.threads import call_threads, get_num_threads
from cylstm.inference.session import Session
from cylstm.layers import states
from cylstm.layers.base import Layer, check_indices, store_of
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.layers.sequential import layers_of
from cylstm.recurrent.base import RecurrentLayer
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class Stream:
    """Runs a model step by step and carries the state, as if the model had been run on the whole sequence.

    A stream must be used by one thread at a time; any number of streams can share a session. Copies and
    unpickled streams have separate states.

    Parameters
    ----------
    model : Layer or Session
        A forward-only model. It is run as in `eval()` mode, whatever its mode, and can be trained meanwhile.
        A session uses the weights of its snapshot, and steps share its cores with other calls.
    batch_size : int
        Number of parallel streams, B. Streams can join and leave at any time: see `join` and `step`.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 2, seed=1))
    >>> x = np.random.default_rng(0).standard_normal((5, 3))
    >>> stream = cylstm.Stream(model)
    >>> y = np.array([stream.step(x_t) for x_t in x])
    >>> bool(np.allclose(y, model(x)[0], atol=1e-6))
    True

    Streams of a server, each with a separate row while it is connected:

    >>> stream = cylstm.Stream(cylstm.Session(model), batch_size=1000)
    >>> anna, ben = stream.join(), stream.join()
    >>> stream.step(x[:2], rows=[anna, ben]).shape  # both have sent a step
    (2, 2)
    >>> y_ben = stream.step(x[2], rows=ben)
    >>> stream.leave(anna)
    """

    def __init__(self, model: "Layer | Session", batch_size: int = 1) -> None:
        if isinstance(model, Layer) and model.scalers:
            from cylstm.data.scalers import warn_not_applied  # imported with the first scaler

            warn_not_applied("Stream", model.scalers)
        self._set_up(model, batch_size)

    def _set_up(self, model: "Layer | Session", batch_size: int) -> None:
        self.model = model
        self._cpus: CpuPool | None = None
        if isinstance(model, Session):
            self._cpus, model = model._cpus, model._model
        if not isinstance(model, Layer):
            raise TypeError(
                f"model: expected a cylstm layer, Sequential or Session, got {type(model).__name__}"
            )
        if not model.causal:
            raise ValueError(
                "model: expected layers that read forward only and carry all they need in their state, "
                "got one with bidirectional=True, reverse=True, pooling, attention or masked steps"
            )
        self._model = model
        self.batch_size = _checks.positive("batch_size", batch_size)
        self._workspace = model.new_workspace(training=False, in_place=True)
        self._state = model.initial_state(self.batch_size)
        self._packing = Packing(1, self.batch_size)
        self._steps: _steps.Steps | None = None  # the fast path for one step, if it is planned
        self._steps_workspace = model.new_workspace(training=False, in_place=True)
        self._all = np.arange(self.batch_size)
        self._is_selected = np.zeros(self.batch_size, bool)
        self._is_joined = np.zeros(self.batch_size, bool)
        self._free: list[int] = self._all.tolist()  # unused rows, a heap
        self._chunks: dict[int, Stream] = {}  # by size, for steps of selected rows

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"Stream({self.model!r}, batch_size={self.batch_size})"

    def step(
        self, x: Any, *, rows: Any = None, out: Array | None = None, threads: int | None = None
    ) -> Array:
        """Run one step of all streams, or of selected ones.

        Parameters
        ----------
        x : array of real numbers
            (B, I), or (I,) for a single stream; ints (B,) or a single int if the first layer is an
            `Embedding`. With rows, one x for each row, in the same order.
        rows : optional
            An index, a list of indices, a slice or a mask that selects streams; the others do not change.
        out : ndarray, optional
            Array to write y to; it is returned instead of a new array.
        threads : int, optional
            Number of threads of this call, instead of `cylstm.get_num_threads()`. None on a session.

        Returns
        -------
        ndarray
            (B, O), or (O,).

        Raises
        ------
        IndexError
            If a row does not exist.
        ValueError, TypeError
            If a shape or dtype is not as above, or a row is selected twice.
        """
        if threads is None and self._cpus is None:
            return self._step(x, out) if rows is None else self._step_rows(x, rows, out)
        with self._thread_context(threads):
            return self._step(x, out) if rows is None else self._step_rows(x, rows, out)

    def _thread_context(self, threads: int | None) -> AbstractContextManager[Any]:
        """Return a context manager for computation with the number of threads of the call."""
        if self._cpus is None:
            return nullcontext() if threads is None else call_threads(threads)
        if threads is not None:
            raise ValueError(f"threads: expected None on a session, which sets the number, got {threads}")
        return self._cpus.slot()

    def _step(self, x: Any, out: Array | None) -> Array:
        if self._steps is not None:
            y = self._steps.step(x, out, get_num_threads())
            if y is not None:
                return y
        return self._step_general(x, out)

    def _step_general(self, x: Any, out: Array | None) -> Array:
        """Run the general path, with all checks; it plans the fast path for the next step."""
        if isa.path() == "packed" and (self._steps is None or not self._steps.current()):
            self._steps = self._plan_steps()
        array = self._checked(x)
        if array.ndim == 1 and self.batch_size == 1:
            return self._run(array[None, None], array, 1, (self._model.output_size,), out)
        return self._run(array[None], array, 2, (self.batch_size, self._model.output_size), out)

    def _checked(self, x: Any) -> Array:
        """Convert x to an array with a feature axis, which single indices do not have."""
        if self._model.reads_indices:
            array = _checks.index_array("x", x)
            return array if self._model.input_size > 1 else array[..., None]
        return _checks.real_array("x", x)

    def _plan_steps(self) -> _steps.Steps | None:
        """Plan the fast path; None if a layer of the model does not support it."""
        stages = self._model.step_stages(self._steps_workspace, self._state, self._packing_of(1))
        if stages is None:
            return None
        layers = [layer for layer in layers_of(self._model) if isinstance(layer, RecurrentLayer)]
        watched = [(layer, layer.clip, layer.zoneout, layer.zoneout_cell) for layer in layers]
        return _steps.Steps(stages, 1, self.batch_size, self._model, store_of(self._model), watched)

    def _packing_of(self, T: int) -> Packing:
        if T != self._packing.T:
            self._packing = Packing(T, self.batch_size)
        return self._packing

    def run(self, x: Any, *, out: Array | None = None, threads: int | None = None) -> Array:
        """Run several steps of all streams.

        Parameters
        ----------
        x : array of real numbers
            (T, B, I), time-major whatever the model's `batch_first`; ints (T, B) for indices.
        out : ndarray, optional
            Array to write y to; it is returned instead of a new array.
        threads : int, optional
            Number of threads of this call, instead of `cylstm.get_num_threads()`. None on a session.

        Returns
        -------
        ndarray
            (T, B, O).
        """
        array = self._checked(x)
        shape = (array.shape[0] if array.ndim else 0, self.batch_size, self._model.output_size)
        with self._thread_context(threads):
            return self._run(array, array, 3, shape, out)

    def _step_rows(self, x: Any, rows: Any, out: Array | None) -> Array:
        """Run one step of selected streams, in chunks whose sizes are powers of two and planned once each."""
        selected, model = self._all[_index(rows)], self._model
        self._check_unique(selected)
        steps, n = self._checked(x), selected.size
        expected, shape = (*selected.shape, model.input_size), (*selected.shape, model.output_size)
        if steps.shape != expected:
            raise ValueError(
                f"x: expected {expected[:-1] if model.reads_single_indices else expected}, got {np.shape(x)}"
            )
        y = np.empty(shape, model.dtype) if out is None else _checks.output("out", out, shape, model.dtype)
        check_indices(model, steps)  # before any state changes
        # The fast path needs contiguous arrays, and x in the model's dtype.
        contiguous = y if y.flags.c_contiguous else np.empty_like(y, order="C")
        dtype = steps.dtype if model.reads_indices else model.dtype
        inputs = np.ascontiguousarray(steps, dtype).reshape(n, model.input_size)
        inputs = inputs[:, 0] if model.reads_single_indices else inputs
        if np.may_share_memory(inputs, contiguous):  # a chunk could overwrite x of the next one
            inputs = inputs.copy()
        row_indices, results, start = selected.reshape(n), contiguous.reshape(n, model.output_size), 0
        while start < n:
            end = start + (1 << ((n - start).bit_length() - 1))
            self._step_chunk(inputs[start:end], row_indices[start:end], results[start:end])
            start = end
        if contiguous is not y:
            y[...] = contiguous
        return y

    def _check_unique(self, rows: Array) -> None:
        self._is_selected[rows] = True
        is_unique = np.count_nonzero(self._is_selected) == rows.size
        self._is_selected[rows] = False
        if not is_unique:
            raise ValueError(f"rows: expected each row once, got {rows.tolist()}")

    def _step_chunk(self, x: Array, rows: Array, y: Array) -> None:
        """Run one step of a chunk, in a separate stream of its size."""
        chunk = self._chunks.get(len(rows))
        if chunk is None:
            chunk = self._chunks[len(rows)] = Stream.__new__(Stream)
            chunk._set_up(self._model, len(rows))
        chunk_arrays, all_arrays = states.arrays(chunk._state), states.arrays(self._state)
        for state, whole in zip(chunk_arrays, all_arrays, strict=True):
            np.take(whole, rows, axis=1, out=state, mode="clip")
        chunk._step(x, y)
        for state, whole in zip(chunk_arrays, all_arrays, strict=True):
            whole[:, rows] = state

    def join(self, state: Any = None) -> int:
        """Add a stream and return its row.

        Parameters
        ----------
        state : optional
            State of a single sequence, as returned by `session.run`. By default the initial state.

        Raises
        ------
        RuntimeError
            If all rows are in use.
        ValueError, TypeError
            If the state does not match the model.
        """
        if not self._free:
            raise RuntimeError(
                f"all {self.batch_size} rows are in use: call leave for one, or use a larger batch_size"
            )
        row = self._free[0]
        checked = self._checked_state(state, None)
        self.reset(row)
        states.assign(states.row(self._state, row), checked)
        self._is_joined[heapq.heappop(self._free)] = True
        return row

    def leave(self, row: int) -> None:
        """Remove the stream in this row, which a later `join` may reuse.

        Raises
        ------
        ValueError
            If no stream uses this row.
        """
        row = _checks.natural("row", row)
        if row >= self.batch_size or not self._is_joined[row]:
            raise ValueError(f"row: expected one returned by join, got {row}")
        self._is_joined[row] = False
        heapq.heappush(self._free, row)

    def _run(self, steps: Array, x: Array, ndim: int, shape: tuple[int, ...], out: Array | None) -> Array:
        B, I = self.batch_size, self._model.input_size
        if x.ndim != ndim or steps.shape[1:] != (B, I):
            expected = {1: f"({I},)", 2: f"({B}, {I})", 3: f"(T, {B}, {I})"}[max(ndim, 2)]
            raise ValueError(f"x: expected {expected}, got {x.shape}")
        y = (
            np.empty(shape, self._model.dtype)
            if out is None
            else _checks.output("out", out, shape, self._model.dtype)
        )
        batch = Batch(steps, self._packing_of(len(steps)))
        rows, self._state = self._model.forward_batch(self._workspace, batch, self._state)
        y[...] = rows.reshape(shape)
        return y

    def reset(self, rows: Any = None) -> None:
        """Reset all streams, or those selected by an index, a list, a slice or a mask, to the initial state.

        Raises
        ------
        IndexError
            If a row does not exist.
        """
        selected = slice(None) if rows is None else np.atleast_1d(self._all[_index(rows)])
        initial = self._model.initial_state(1)
        for array, value in zip(states.arrays(self._state), states.arrays(initial), strict=True):
            array[:, selected] = value

    @property
    def state(self) -> Any:
        """A copy of the state, in the layout that the model accepts and returns; can be set."""
        if not isinstance(self._model, SequenceLayer):
            return None
        return states.copied(self._model.state_for_caller(self._state, unbatched=False))

    @state.setter
    def state(self, state: Any) -> None:
        checked = self._checked_state(state, self.batch_size)
        new = self._model.initial_state(self.batch_size)
        states.assign(new, checked)
        states.assign(self._state, new)

    def __getstate__(self) -> Any:
        """Return the contents of a copy or pickle, including the state."""
        rows = self._is_joined.copy(), list(self._free)
        return self.model, self.batch_size, states.copied(self._state), rows

    def __setstate__(self, state: Any) -> None:
        """Set up a copied or unpickled stream."""
        model, batch_size, carried, (joined, free) = state
        self._set_up(model, batch_size)
        states.assign(self._state, carried)
        self._is_joined[:], self._free = joined, free

    def _checked_state(self, state: Any, B: int | None) -> Any:
        if isinstance(self._model, SequenceLayer):
            return self._model._checked_state("state", state, B)
        if state is not None:
            raise ValueError(f"state: expected None for a layer without one, got {type(state).__name__}")
        return None


def _index(rows: Any) -> Any:
    """Check `rows` of `step` and `reset`; return an index for NumPy."""
    if isinstance(rows, (bool, np.bool_)):
        raise TypeError(f"rows: expected an index, a list of them, a slice or a mask, got {rows}")
    if isinstance(rows, (int, np.integer, slice)):
        return rows
    array = _checks.real_array("rows", rows)
    return array if array.size else array.astype(np.intp)
