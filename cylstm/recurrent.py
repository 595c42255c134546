"""Stacks of a cell unrolled over time, in one or both directions: what LSTM, GRU and RNN share."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks, threads
from cylstm._engine.planning import Shape
from cylstm.cells import CELLS
from cylstm.parameters import ParameterStore
from cylstm.sequence_layer import SequenceLayer
from cylstm.workspace import Workspace, parameter_name

Array = NDArray[Any]
State = tuple[Array, ...]


class RecurrentLayer(SequenceLayer, abstract=True):
    """A stack of `num_layers` layers of one cell; see `LSTM` for the parameters."""

    options: ClassVar[tuple[str, ...]] = ()  # constructor arguments of the subclass, kept as attributes

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = _checks.positive("input_size", input_size)
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.num_layers = _checks.positive("num_layers", num_layers)
        self.bias, self.batch_first = bool(bias), bool(batch_first)
        self.dropout = _checks.number("dropout", dropout, 0, 1)
        self.bidirectional, self.reverse = bool(bidirectional), bool(reverse)
        if self.bidirectional and self.reverse:
            raise ValueError(
                "reverse: expected False with bidirectional=True, which has both directions; got True"
            )
        self.num_directions = 2 if self.bidirectional else 1
        self.output_size = self.num_directions * self.hidden_size
        self.spec = CELLS[self.cell_of(self._sizes())]
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes())), _checks.real_dtype(dtype))
        # U(-1/sqrt(H), 1/sqrt(H)) for every parameter: PyTorch's choice.
        bound = self.hidden_size**-0.5
        with self._store.writing() as flat:
            flat[...] = _checks.generator(seed).uniform(-bound, bound, flat.size)
        self.masks = np.random.default_rng(
            None if seed is None else [seed, 1]
        )  # apart from the weights' numbers

    @classmethod
    def cell_of(cls, config: Mapping[str, Any]) -> str:
        """Name of the cell of a layer with this configuration."""
        raise NotImplementedError

    def _sizes(self) -> dict[str, Any]:
        names = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional", *self.options)
        return {name: getattr(self, name) for name in names}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        return {
            **self._sizes(),
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "reverse": self.reverse,
            "dtype": self.dtype.name,
        }

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`weight_ih_l0` (G.H, I), `weight_hh_l0` (G.H, H), `bias_ih_l0`, `bias_hh_l0` (G.H), and so on."""
        H, D = config["hidden_size"], 2 if config["bidirectional"] else 1
        GH = len(CELLS[cls.cell_of(config)].gates) * H
        for layer in range(config["num_layers"]):
            for d in range(D):
                yield parameter_name("weight_ih", layer, d), (GH, D * H if layer else config["input_size"])
                yield parameter_name("weight_hh", layer, d), (GH, H)
                if config["bias"]:
                    yield parameter_name("bias_ih", layer, d), (GH,)
                    yield parameter_name("bias_hh", layer, d), (GH,)

    def _checked_state(self, name: str, state: Any, B: int | None) -> State | None:
        if state is None:
            return None
        names = self.spec.states
        LD = self.num_layers * self.num_directions
        shape = (LD, self.hidden_size) if B is None else (LD, B, self.hidden_size)
        if len(names) == 1:
            arrays = [_checks.shaped(f"{name} {names[0]}", state, shape)]
        else:
            if not isinstance(state, (tuple, list)) or len(state) != len(names):
                raise TypeError(
                    f"{name}: expected a tuple ({', '.join(names)}) of arrays {shape}, "
                    f"got {type(state).__name__}"
                )
            arrays = [
                _checks.shaped(f"{name} {part}", a, shape) for part, a in zip(names, state, strict=True)
            ]
        return tuple(array[:, None] if B is None else array for array in arrays)

    def trace(self, x: Any, state: Any = None, *, lengths: Any = None) -> dict[str, Array]:
        """Every gate and state of every step, as computed in the mode of `eval()`.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.

        Returns
        -------
        dict of str to ndarray
            For each gate and state of the cell (`i f g o h c` of an LSTM, `r z n h` of a GRU, `h` of an RNN)
            (L·D, T, B, H), or (L·D, B, T, H) if `batch_first`, or (L·D, T, H) for one sequence. Zeros
            where there is no step.

        Examples
        --------
        >>> import numpy as np
        >>> import cylstm
        >>> gates = cylstm.LSTM(3, 5, seed=0).trace(np.ones((7, 2, 3)))
        >>> sorted(gates), gates["f"].shape, bool((gates["f"] < 1).all())
        (['c', 'f', 'g', 'h', 'i', 'o'], (1, 7, 2, 5), True)
        """
        steps, unbatched, initial, checked_lengths = self._checked_call(x, state, lengths)
        workspace = self.inspect(steps, initial, checked_lengths)
        return {
            name: np.stack([self._as_caller(part, unbatched) for part in parts])
            for name, parts in workspace.traced().items()
        }

    def inspect(self, steps: Array, state: State | None, lengths: Array | None) -> Workspace:
        """A workspace of its own after a forward pass over time-major steps, for diagnostics."""
        threads.blas_libraries()
        workspace = Workspace(self, training=True, inspected=True)
        self._forward(workspace, steps, state, lengths)
        return workspace

    def _state_for_caller(self, state: State, unbatched: bool) -> Any:
        parts = tuple(part[:, 0] if unbatched else part for part in state)
        return parts[0] if len(parts) == 1 else parts

    @property
    def causal(self) -> bool:
        """Whether the layer reads forward only."""
        return not (self.bidirectional or self.reverse)

    def _zero_state(self, B: int) -> State:
        shape = (self.num_layers * self.num_directions, B, self.hidden_size)
        return tuple(np.zeros(shape, self.dtype) for _ in self.spec.states)

    def _new_workspace(self, training: bool, in_place: bool = False) -> Workspace:
        return Workspace(self, training, in_place)

    def _forward(
        self, workspace: Workspace, x: Array, state: State | None, lengths: Array | None
    ) -> tuple[Array, State]:
        workspace.prepare(x.shape[0], x.shape[1], lengths)
        return workspace.forward(x, state)

    def _backward(
        self, workspace: Workspace, dy: Array, dstate: State | None, need_dx: bool
    ) -> tuple[Array | None, State]:
        return workspace.backward(dy, dstate, need_dx)
