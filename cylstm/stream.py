"""Sequences that arrive one step, or a few, at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._engine import _steps, isa
from cylstm.layer import Layer
from cylstm.layers.sequential import Sequential
from cylstm.packing import Batch, Packing
from cylstm.recurrent import RecurrentLayer
from cylstm.sequence_layer import SequenceLayer
from cylstm.threads import get_num_threads, of_call

Array = NDArray[Any]


class Stream:
    """Runs a model step by step, keeping the state in between: as if the whole sequence had been there.

    Parameters
    ----------
    model : Layer
        Of layers that read forward only. It is run as in the mode of `eval()`, whichever it is in,
        and may be trained on meanwhile.
    batch_size : int
        Streams run side by side, B.

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
    """

    def __init__(self, model: Layer, batch_size: int = 1) -> None:
        if not isinstance(model, Layer):
            raise TypeError(f"model: expected a cylstm layer or Sequential, got {type(model).__name__}")
        if not model.causal:
            raise ValueError(
                "model: expected layers that read forward only and keep what they need in their state, "
                "got one with bidirectional=True, reverse=True, pooling or attention"
            )
        self.model = model
        self.batch_size = _checks.positive("batch_size", batch_size)
        self._workspace = model._new_workspace(training=False, in_place=True)
        self._state = model._initial_state(self.batch_size)
        self._packing = Packing(1, self.batch_size)
        self._steps: _steps.Steps | None = None  # the short way for one step, on the packed path
        self._steps_workspace = model._new_workspace(training=False, in_place=True)

    def step(self, x: Any, *, out: Array | None = None, threads: int | None = None) -> Array:
        """One step of every stream.

        Parameters
        ----------
        x : array of real numbers
            (B, I), or (I,) for a single stream; for a model that begins with an `Embedding` ints, (B,)
            or one of them.
        out : ndarray, optional
            Written with y and returned instead of a new array.
        threads : int, optional
            For this call, instead of `cylstm.get_num_threads()`.

        Returns
        -------
        ndarray
            (B, O), or (O,).
        """
        if threads is not None:
            with of_call(threads):
                return self.step(x, out=out)
        if self._steps is not None:
            y = self._steps.step(x, out, get_num_threads())
            if y is not None:
                return y
        return self._planned_step(x, out)

    def _planned_step(self, x: Any, out: Array | None) -> Array:
        """The long way, with every check; the next step may take the short one."""
        if isa.path() == "packed" and (self._steps is None or not self._steps.current()):
            self._steps = self._plan_steps()
        array = self._checked(x)
        if array.ndim == 1 and self.batch_size == 1:
            return self._run(array[None, None], array, 1, (self.model.output_size,), out)
        return self._run(array[None], array, 2, (self.batch_size, self.model.output_size), out)

    def _checked(self, x: Any) -> Array:
        """An array with a last axis of features, which single indices come without."""
        if self.model.reads_indices:
            array = _checks.index_array("x", x)
            return array if self.model.input_size > 1 else array[..., None]
        return _checks.real_array("x", x)

    def _plan_steps(self) -> _steps.Steps | None:
        """None if the model has a layer that cannot be stepped without Python."""
        stages = self.model._step_stages(self._steps_workspace, self._state, self._packing_of(1))
        if stages is None:
            return None
        layers = [layer for layer in _layers(self.model) if isinstance(layer, RecurrentLayer)]
        watched = [(layer, layer.clip, layer.zoneout, layer.zoneout_cell) for layer in layers]
        return _steps.Steps(stages, self.batch_size, self.model, watched)

    def _packing_of(self, T: int) -> Packing:
        if T != self._packing.T:
            self._packing = Packing(T, self.batch_size)
        return self._packing

    def run(self, x: Any, *, out: Array | None = None, threads: int | None = None) -> Array:
        """Several steps of every stream.

        Parameters
        ----------
        x : array of real numbers
            (T, B, I), time first whatever the model's `batch_first`; ints (T, B) where they are indices.
        out : ndarray, optional
            Written with y and returned instead of a new array.
        threads : int, optional
            For this call, instead of `cylstm.get_num_threads()`.

        Returns
        -------
        ndarray
            (T, B, O).
        """
        if threads is not None:
            with of_call(threads):
                return self.run(x, out=out)
        array = self._checked(x)
        return self._run(
            array,
            array,
            3,
            (array.shape[0] if array.ndim else 0, self.batch_size, self.model.output_size),
            out,
        )

    def _run(self, steps: Array, x: Array, ndim: int, shape: tuple[int, ...], out: Array | None) -> Array:
        B, I = self.batch_size, self.model.input_size
        if x.ndim != ndim or steps.shape[1:] != (B, I):
            expected = {1: f"({I},)", 2: f"({B}, {I})", 3: f"(T, {B}, {I})"}[max(ndim, 2)]
            raise ValueError(f"x: expected {expected}, got {x.shape}")
        y = (
            np.empty(shape, self.model.dtype)
            if out is None
            else _checks.output("out", out, shape, self.model.dtype)
        )
        batch = Batch(steps, self._packing_of(len(steps)))
        rows, self._state = self.model._forward(self._workspace, batch, self._state)
        y[...] = rows.reshape(shape)
        return y

    def reset(self, rows: Any = None) -> None:
        """Begin anew: all streams, or those of an index, a list of them, a slice or a mask.

        Raises
        ------
        IndexError
            If there is no such stream.
        """
        chosen = slice(None) if rows is None else rows
        np.empty(self.batch_size)[chosen]  # an index that does not fit fails before anything is changed
        initial = self.model._initial_state(self.batch_size)
        for array, first in zip(_arrays(self._state), _arrays(initial), strict=True):
            array[:, chosen] = first[:, chosen]

    @property
    def state(self) -> Any:
        """A copy of the state, in the form in which the model takes and gives it; may be set."""
        if not isinstance(self.model, SequenceLayer):
            return None
        return _copied(self.model._state_for_caller(self._state, unbatched=False))

    @state.setter
    def state(self, state: Any) -> None:
        if isinstance(self.model, SequenceLayer):
            checked = self.model._checked_state("state", state, self.batch_size)
            new = self.model._initial_state(self.batch_size)
            _assign(new, checked)
            _assign(self._state, new)


def _layers(model: Layer) -> list[Layer]:
    """The layers of a model, one after the other."""
    if isinstance(model, Sequential):
        return [layer for part in model.layers for layer in _layers(part)]
    return [model]


def _arrays(state: Any) -> list[Array]:
    """All arrays of a state, whatever its nesting."""
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state or () for array in _arrays(part)]


def _assign(state: Any, values: Any) -> None:
    """Write values into a state's arrays; None leaves a part as it is."""
    if isinstance(state, np.ndarray) and values is not None:
        state[...] = values
    elif isinstance(state, tuple) and values is not None:
        for part, value in zip(state, values, strict=True):
            _assign(part, value)


def _copied(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(map(_copied, state))
    return None if state is None else state.copy()
