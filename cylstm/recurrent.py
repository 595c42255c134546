"""Recurrent layers: cells unrolled over time, stacked, with PyTorch's names, shapes and layouts."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._engine.planning import Arena, Plan, Shape
from cylstm.cells import CELLS
from cylstm.parameters import ParameterStore
from cylstm.sequence_layer import SequenceLayer

Array = NDArray[Any]
State = tuple[Array, ...]


class RecurrentLayer(SequenceLayer):
    """A stack of `num_layers` layers of the cell `cell`; see `LSTM`."""

    cell: ClassVar[str]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = _checks.positive("input_size", input_size)
        self.hidden_size = self.output_size = _checks.positive("hidden_size", hidden_size)
        self.num_layers = _checks.positive("num_layers", num_layers)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.spec = CELLS[self.cell]
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes())), _checks.real_dtype(dtype))
        # U(-1/sqrt(H), 1/sqrt(H)) for every parameter: PyTorch's choice.
        bound = self.hidden_size**-0.5
        with self._store.writing() as flat:
            flat[...] = _checks.generator(seed).uniform(-bound, bound, flat.size)

    def _sizes(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
        }

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        return {**self._sizes(), "batch_first": self.batch_first, "dtype": self.dtype.name}

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`weight_ih_l0` (G.H, I), `weight_hh_l0` (G.H, H), `bias_ih_l0`, `bias_hh_l0` (G.H), and so on."""
        H = config["hidden_size"]
        GH = len(CELLS[cls.cell].gates) * H
        for layer in range(config["num_layers"]):
            yield f"weight_ih_l{layer}", (GH, H if layer else config["input_size"])
            yield f"weight_hh_l{layer}", (GH, H)
            if config["bias"]:
                yield f"bias_ih_l{layer}", (GH,)
                yield f"bias_hh_l{layer}", (GH,)

    def _checked_state(self, name: str, state: Any, B: int | None) -> State | None:
        if state is None:
            return None
        names = self.spec.states
        shape = (self.num_layers, self.hidden_size) if B is None else (self.num_layers, B, self.hidden_size)
        if not isinstance(state, (tuple, list)) or len(state) != len(names):
            raise TypeError(
                f"{name}: expected a tuple ({', '.join(names)}) of arrays {shape}, got {type(state).__name__}"
            )
        arrays = (
            _checks.shaped(f"{name} {part}", value, shape) for part, value in zip(names, state, strict=True)
        )
        return tuple(array[:, None] if B is None else array for array in arrays)

    def _without_batch(self, state: State) -> State:
        return tuple(part[:, 0] for part in state)

    def _new_workspace(self, training: bool) -> "_Workspace":
        return _Workspace(self, training)

    def _forward(self, workspace: "_Workspace", x: Array, state: State | None) -> tuple[Array, State]:
        return workspace.forward(x, state)

    def _backward(
        self, workspace: "_Workspace", dy: Array, dstate: State | None, need_dx: bool
    ) -> tuple[Array | None, State]:
        return workspace.backward(dy, dstate, need_dx)


class _Workspace:
    """Planned buffers of one stack and its engine passes; remade only when T, B or the store change."""

    def __init__(self, layer: RecurrentLayer, training: bool) -> None:
        self.layer, self.training = layer, training
        self.arena = Arena()
        self.key: tuple[Any, ...] = ()
        self.batch_shape = (0, 0)

    def prepare(self, T: int, B: int) -> None:
        from cylstm._engine import _recurrent, isa  # brings in SciPy's BLAS, so only now

        layer = self.layer
        if self.key == (T, B, layer._store.root):
            return
        self.key = ()
        self.plan = Plan(
            T, B, layer.input_size, layer.hidden_size, len(layer.spec.gates), layer.num_layers, self.training
        )
        self.buffers = self.arena.cut(self.plan.shapes(), layer.dtype)
        self.passes = [
            _recurrent.LayerPass(
                layer.spec.row, isa.selected(), T, B, arrays["x"].shape[2], self.plan.H, self.plan.G, arrays
            )
            for arrays in map(self._arrays, range(layer.num_layers))
        ]
        self.batch_shape = (T, B)
        self.key = (T, B, layer._store.root)

    def hidden(self, layer: int) -> Array:
        return self.buffers[f"h{self.plan.slot(layer, 2)}"]

    def _arrays(self, layer: int) -> dict[str, Array]:
        """What the engine calls by which name, for one layer of the stack."""
        buffers, parameters, gradients = self.buffers, self.layer.parameters, self.layer.gradients
        arrays = {
            "x": self.hidden(layer - 1)[1:] if layer else buffers["x"],
            "bias": buffers["bias"],
            "gates": buffers[f"gates{self.plan.slot(layer, 1)}"],
            "h": self.hidden(layer),
            "c": buffers[f"c{layer}"],
            "w_ih": parameters[f"weight_ih_l{layer}"],
            "w_hh": parameters[f"weight_hh_l{layer}"],
        }
        if self.training:
            # dL/dx of a layer is dL/dy of the one below; the first one's takes the place of x, read by then.
            arrays |= {"dy": buffers["dy"], "dx": buffers["dy"] if layer else buffers["x"]}
            arrays |= {"dh": buffers["dh"][layer], "dc": buffers["dc"][layer]}
            arrays |= {"dw_ih": gradients[f"weight_ih_l{layer}"], "dw_hh": gradients[f"weight_hh_l{layer}"]}
        if self.layer.bias:
            arrays |= {"b_ih": parameters[f"bias_ih_l{layer}"], "b_hh": parameters[f"bias_hh_l{layer}"]}
            if self.training:
                arrays |= {"db_ih": gradients[f"bias_ih_l{layer}"], "db_hh": gradients[f"bias_hh_l{layer}"]}
        return arrays

    def forward(self, x: Array, state: State | None) -> tuple[Array, State]:
        T, B = x.shape[:2]
        self.prepare(T, B)
        self.buffers["x"][...] = x
        final = tuple(
            np.empty((self.plan.L, B, self.plan.H), self.layer.dtype) for _ in self.layer.spec.states
        )
        for layer, engine_pass in enumerate(self.passes):
            h, c = self.hidden(layer), self.buffers[f"c{layer}"]
            h[0], c[0] = (state[0][layer], state[1][layer]) if state is not None else (0, 0)
            engine_pass.forward()
            final[0][layer], final[1][layer] = h[T], c[T % len(c)]
        return self.hidden(self.plan.L - 1)[1:], final

    def backward(self, dy: Array, dstate: State | None, need_dx: bool) -> tuple[Array | None, State]:
        buffers = self.buffers
        buffers["dy"][...] = dy
        buffers["dh"][...], buffers["dc"][...] = dstate if dstate is not None else (0, 0)
        for layer in reversed(range(self.plan.L)):
            self.passes[layer].backward(need_dx or layer > 0)
        return buffers["x"] if need_dx else None, (buffers["dh"].copy(), buffers["dc"].copy())


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000).

    For every step t, with σ the logistic function and ⊙ the product of elements::

        i = σ(W_ii x + b_ii + W_hi h + b_hi)      f = σ(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)   o = σ(W_io x + b_io + W_ho h + b_ho)
        c' = f ⊙ c + i ⊙ g                         h' = o ⊙ tanh(c')

    Parameters
    ----------
    input_size : int
        Features of a step, I.
    hidden_size : int
        Units, H.
    num_layers : int
        Layers, L, each reading the hidden states of the one below.
    bias : bool
        Whether there are `bias_ih_l*` and `bias_hh_l*`.
    batch_first : bool
        Whether x and y are (B, T, features) instead of (T, B, features). States never are.
    dtype : {"float32", "float64"}
    seed : int, optional
        Of the initial parameters, drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Notes
    -----
    Parameters have PyTorch's names, layouts and order of gates: `weight_ih_l0` is (4H, I),
    with the rows of i, f, g and o. The state is `(h, c)`, each (L, B, H), or (L, H) for one
    sequence without a batch. In the mode of `eval()`, the first one, a layer may be called from
    any number of threads; training is for one thread at a time.

    Examples
    --------
    >>> import numpy as np
    >>> layer = LSTM(3, 5, seed=0)
    >>> x = np.ones((7, 2, 3))
    >>> y, (h_n, c_n) = layer(x)
    >>> y.shape, h_n.shape, bool((y[-1] == h_n[0]).all())
    ((7, 2, 5), (1, 2, 5), True)
    >>> _ = layer.train()
    >>> y, _ = layer(x)
    >>> dx, (dh_0, dc_0) = layer.backward(np.ones_like(y))
    >>> dx.shape, layer.gradients["weight_hh_l0"].shape
    ((7, 2, 3), (20, 5))
    """

    cell = "lstm"
