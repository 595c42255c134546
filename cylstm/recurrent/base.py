"""The base class of LSTM, GRU and RNN: a cell unrolled over time, in stacked layers."""

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm._checks.options import raise_unknown, warn_without_effect
from cylstm._engine.planning import Shape
from cylstm.layers.masks import Masks
from cylstm.layers.parameters import ParameterStore, fill_random
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.recurrent.cells import CELLS
from cylstm.recurrent.panels import SharedWeights
from cylstm.recurrent.parameter_names import parameter_name
from cylstm.recurrent.spec import StackSpec
from cylstm.recurrent.workspace import Workspace
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]
State = tuple[Array, ...]

# Options that PyTorch does not have, and their defaults. Configurations omit options at their defaults.
COMMON_OPTIONS: dict[str, Any] = {
    "reverse": False,
    "input_dropout": 0.0,
    "recurrent_dropout": 0.0,
    "zoneout": 0.0,
    "clip": None,
    "learn_state": False,
}
CELL_OPTIONS: dict[str, Any] = {
    "proj_size": 0,
    "zoneout_cell": 0.0,
    "peephole": False,
    "coupled": False,
    "layer_norm": False,
    "reset_after": True,
    "nonlinearity": "tanh",
}


class RecurrentLayer(SequenceLayer, abstract=True):
    """A stack of `num_layers` layers of one cell; see `LSTM` for the parameters."""

    is_recurrent = True
    probabilities: ClassVar = ("dropout", "input_dropout", "recurrent_dropout", "zoneout", "zoneout_cell")
    cell_options: ClassVar[tuple[str, ...]] = ()  # the CELL_OPTIONS that a subclass supports

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add a constructor whose errors name the class and its options, unless the class defines one."""
        super().__init_subclass__(**kwargs)
        inherited: Any = cls.__init__
        if inherited is not RecurrentLayer.__init__:
            return
        initialize = types.FunctionType(
            inherited.__code__,
            inherited.__globals__,
            "__init__",
            inherited.__defaults__,
            inherited.__closure__,
        )
        initialize.__kwdefaults__, initialize.__qualname__ = (
            inherited.__kwdefaults__,
            f"{cls.__qualname__}.__init__",
        )

        @functools.wraps(inherited)
        def constructor(self: RecurrentLayer, *args: Any, **options: Any) -> None:
            if unknown := [name for name in options if name not in inherited.__annotations__]:
                raise_unknown(type(self).__name__, unknown, self._option_names())
            initialize(self, *args, **options)

        cls.__init__ = constructor  # type: ignore[method-assign]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        reverse: bool = False,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
        clip: float | None = None,
        learn_state: bool = False,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        reset_after: bool = True,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
    ) -> None:
        arguments = dict(locals())
        super().__init__()
        self.input_size = _checks.positive("input_size", input_size)
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.num_layers = _checks.positive("num_layers", num_layers)
        self.bias = _checks.flag("bias", bias)
        self.batch_first = _checks.flag("batch_first", batch_first)
        self.bidirectional = _checks.flag("bidirectional", bidirectional)
        self.reverse = _checks.flag("reverse", reverse)
        self.learn_state = _checks.flag("learn_state", learn_state)
        self.peephole = _checks.flag("peephole", peephole)
        self.coupled = _checks.flag("coupled", coupled)
        self.layer_norm = _checks.flag("layer_norm", layer_norm)
        self.reset_after = _checks.flag("reset_after", reset_after)
        self.proj_size = _checks.natural("proj_size", proj_size)
        for name in self.probabilities:
            setattr(self, name, _checks.number(name, arguments[name], 0, 1))
        self.clip = None if clip is None else _checks.above("clip", clip, 0)
        self.nonlinearity = nonlinearity
        self._check_options()
        self.num_directions = 2 if self.bidirectional else 1
        self.spec = CELLS[self.cell_of(self.config_of_cell())]
        self.output_size = self.num_directions * self.state_width("h")
        shapes = dict(self.parameter_shapes(self._sizes()))
        self._store = ParameterStore(shapes, _checks.real_dtype(dtype))
        rng = _checks.generator(seed)
        self._store.initialize(lambda flat: self._draw_parameters(flat, rng))
        self._shared = SharedWeights(self._store)
        # Independent of the random numbers of the weights.
        self.masks = Masks(np.random.default_rng(None if seed is None else [seed, 1]))
        self._options: tuple[Any, ...] = self._current_options()
        self._stack = StackSpec(
            self.spec, self.input_size, self.hidden_size, self.state_width("h"), self.num_layers,
            self.num_directions, self.dtype, *self._options,
        )  # fmt: skip

    dropout: float
    input_dropout: float
    recurrent_dropout: float
    zoneout: float
    zoneout_cell: float

    def _check_options(self) -> None:
        """Reject options that the cell does not support, and incompatible combinations."""
        for name, default in CELL_OPTIONS.items():
            value, kind = getattr(self, name), type(self).__name__
            if name not in self.cell_options and value != default:
                raise ValueError(
                    f"{name}: expected {default!r}, because {kind} has no such option; got {shown(value)}"
                )
        if self.bidirectional and self.reverse:
            raise ValueError(
                "reverse: expected False with bidirectional=True, which has both directions; got True"
            )
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size, {self.hidden_size}, got {self.proj_size}"
            )
        if self.layer_norm and (self.peephole or self.coupled):
            raise ValueError("layer_norm: expected False with peephole or coupled, got True")
        if self.layer_norm and not self.bias:
            raise ValueError("bias: expected True with layer_norm, whose norms have a bias; got False")
        if self.dropout and self.num_layers == 1:
            warn_without_effect(
                "dropout",
                self.dropout,
                "it acts between layers, and num_layers is 1; put a cylstm.Dropout after the layer, or see "
                "input_dropout and recurrent_dropout",
            )

    @classmethod
    def _option_names(cls) -> set[str]:
        """The constructor arguments that the class supports."""
        names = RecurrentLayer.__init__.__annotations__.keys() - {"return"}
        return names - (CELL_OPTIONS.keys() - set(cls.cell_options))

    def _draw_parameters(self, flat: Array, rng: "np.random.Generator") -> None:
        """Draw from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch does; set norms to 1, learned states to 0."""
        bound = self.hidden_size**-0.5
        fill_random(flat, lambda n: rng.uniform(-bound, bound, n))
        for name, view in self._store.views(flat).items():
            kind = name.split("_l")[0]
            if kind.startswith("norm_"):
                view[...] = 1
            elif kind in ("bias", "bias_c", "h_0", "c_0"):
                view[...] = 0

    @classmethod
    def cell_of(cls, options: Mapping[str, Any]) -> str:
        """Return the name of the cell that these values of `cell_options` select."""
        raise NotImplementedError

    def config_of_cell(self) -> dict[str, Any]:
        """Return the options that select the cell."""
        return {name: getattr(self, name) for name in self.cell_options}

    def state_width(self, state: str) -> int:
        """Number of features of a state: `proj_size` for a projected h, else `hidden_size`."""
        return self.proj_size if state == "h" and self.proj_size else self.hidden_size

    def _sizes(self) -> dict[str, Any]:
        names = ("input_size", "hidden_size", "num_layers", "bias", "bidirectional")
        options = COMMON_OPTIONS | {name: CELL_OPTIONS[name] for name in self.cell_options}
        changed = {
            name: value for name, default in options.items() if (value := getattr(self, name)) != default
        }
        return {name: getattr(self, name) for name in names} | changed

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values; options at their defaults are omitted."""
        return self._sizes() | {
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "dtype": self.dtype.name,
        }

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """Names and shapes: `weight_ih_l0` (G.H, I), `weight_hh_l0` (G.H, P), `bias_ih_l0` (G.H), ..."""
        options = CELL_OPTIONS | {name: config[name] for name in cls.cell_options if name in config}
        spec = CELLS[cls.cell_of(options)]
        H, D = config["hidden_size"], 2 if config["bidirectional"] else 1
        P, GH = options["proj_size"] or H, len(spec.gates) * H
        for layer in range(config["num_layers"]):
            for d in range(D):
                yield parameter_name("weight_ih", layer, d), (GH, D * P if layer else config["input_size"])
                yield parameter_name("weight_hh", layer, d), (GH, P)
                if config["bias"] and spec.biases:
                    yield parameter_name("bias_ih", layer, d), (GH,)
                    yield parameter_name("bias_hh", layer, d), (GH,)
                if options["proj_size"]:
                    yield parameter_name("weight_hr", layer, d), (P, H)
                for name, width in spec.cell_parameters:
                    yield parameter_name(name, layer, d), (width * H,)
                for state in spec.states if config.get("learn_state") else ():
                    yield parameter_name(f"{state}_0", layer, d), (P if state == "h" else H,)

    def _checked_state(self, name: str, state: Any, B: int | None) -> State | None:
        if state is None:
            return None
        names, LD = self.spec.states, self.num_layers * self.num_directions
        shapes = [(LD, *(() if B is None else (B,)), self.state_width(part)) for part in names]
        if len(names) == 1:
            arrays = [_checks.shaped(f"{name} {names[0]}", state, shapes[0])]
        else:
            if not isinstance(state, (tuple, list)) or len(state) != len(names):
                raise TypeError(
                    f"{name}: expected a tuple ({', '.join(names)}) of arrays "
                    f"{' and '.join(map(str, dict.fromkeys(shapes)))}, got {type(state).__name__}"
                )
            arrays = [
                _checks.shaped(f"{name} {part}", a, shape)
                for part, a, shape in zip(names, state, shapes, strict=True)
            ]
        return tuple(array[:, None] if B is None else array for array in arrays)

    def trace(self, x: Any, state: Any = None, *, lengths: Any = None) -> dict[str, Array]:
        """Compute every gate and state of every step, as in `eval()` mode.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.

        Returns
        -------
        dict of str to ndarray
            For each gate and state of the cell (`i f g o h c` of an LSTM, `r z n h` of a GRU, `h` of an RNN)
            (L·D, T, B, H), or (L·D, B, T, H) if `batch_first`, or (L·D, T, H) for one sequence; h is as wide
            as the layer's state. Padding is 0.

        Examples
        --------
        >>> import numpy as np
        >>> import cylstm
        >>> gates = cylstm.LSTM(3, 5, seed=0).trace(np.ones((7, 2, 3)))
        >>> sorted(gates), gates["f"].shape, bool((gates["f"] < 1).all())
        (['c', 'f', 'g', 'h', 'i', 'o'], (1, 7, 2, 5), True)
        """
        call = self.checked_call(x, state, lengths)
        workspace = self.inspect(call.batch, call.state)
        return {
            name: np.stack([self._to_caller_layout(part, call.unbatched) for part in parts])
            for name, parts in workspace.collect_trace().items()
        }

    def inspect(self, batch: Batch, state: State | None) -> Workspace:
        """Run a forward pass in a separate workspace, and return the workspace, for diagnostics."""
        workspace = Workspace(self._store, self.masks, self._shared, training=True, inspected=True)
        self.forward_batch(workspace, batch, state)
        return workspace

    def _random_state(self) -> Any:
        return self.masks.state

    def _set_random_state(self, state: Any) -> None:
        self.masks.state = state

    def state_for_caller(self, state: State, unbatched: bool) -> Any:
        """Convert a state from internal form to the caller's."""
        parts = tuple(part[:, 0] if unbatched else part for part in state)
        return parts[0] if len(parts) == 1 else parts

    @property
    def causal(self) -> bool:
        """Whether the output at a step depends on no later step."""
        return not (self.bidirectional or self.reverse)

    def initial_state(self, B: int) -> State:
        """Return the initial state in internal form: zeros or learned."""
        LD, states = self.num_layers * self.num_directions, self.spec.states
        state = tuple(np.zeros((LD, B, self.state_width(name)), self.dtype) for name in states)
        if self.learn_state:
            parameters = self.parameters
            for name, array in zip(states, state, strict=True):
                for k in range(LD):
                    array[k] = parameters[parameter_name(f"{name}_0", *divmod(k, self.num_directions))]
        return state

    def _current_options(self) -> tuple[Any, ...]:
        """The options of a `StackSpec`, in its order; users may change them at any time."""
        return (
            self.reverse, self.dropout, self.input_dropout, self.recurrent_dropout, self.zoneout,
            self.zoneout_cell, self.clip,
        )  # fmt: skip

    def _current_spec(self) -> StackSpec:
        """The current `StackSpec`; the same object as long as no option changes."""
        options = self._current_options()
        if options != self._options:
            names = StackSpec._fields[-len(options) :]
            self._stack = self._stack._replace(**dict(zip(names, options, strict=True)))
            self._options = options
        return self._stack

    def new_workspace(self, training: bool, in_place: bool = False) -> Workspace:
        """Create the buffers of a forward pass and, in training, of its backward pass."""
        return Workspace(self._store, self.masks, self._shared, training, in_place)

    def _is_output_donated(self, workspace: Workspace) -> bool:
        return workspace.plan.donates_output

    def _donate_output(self, workspace: Workspace) -> bool:
        return self.training and workspace.donate_output()

    def forward_batch(self, workspace: Workspace, batch: Batch, state: State | None) -> tuple[Array, State]:
        """Return y of a batch, as rows of the workspace, and the final state."""
        workspace.prepare(batch.packing, self._current_spec())
        return workspace.forward(batch, state)

    def step_stages(self, workspace: Workspace, state: State, packing: Packing) -> list[tuple[Any, ...]]:
        """Return the stages of one step for `_engine._steps.Steps`."""
        workspace.prepare(packing, self._current_spec())
        return workspace.stages(state)

    def backward_batch(
        self, workspace: Workspace, dy: Batch, dstate: State | None, need_dx: bool
    ) -> tuple[Array | None, State]:
        """Return dx and the gradient of the initial state; add to the gradients of the parameters."""
        return workspace.backward(dy, dstate, need_dx)
