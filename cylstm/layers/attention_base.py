"""Base class and workspace of the attention layers."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm._checks.options import warn_without_effect
from cylstm._engine.planning import Arena, Shape
from cylstm.layers.parameters import ParameterStore
from cylstm.layers.stateless import StatelessLayer
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]
Query = Literal["steps", "last"]


class Attention(StatelessLayer, abstract=True):
    """Base class of attention layers: y_t = sum_j a_tj v_j with a_t = softmax(e_t) over valid steps j.

    It operates on padded batches (B, T, F) with a mask. A subclass defines its buffers, and the forward and
    backward passes of scores e_tj and values v_j.
    """

    heads = 1
    pads = True

    def __init__(
        self, features: int, query: Query, causal: bool, dtype: DTypeLike, seed: int | None, **sizes: Any
    ) -> None:
        super().__init__()
        self.input_size = self.output_size = _checks.positive("features", features)
        if query not in get_args(Query):
            raise ValueError(f"query: expected one of {', '.join(get_args(Query))}, got {shown(query)}")
        self.query, self.attends_before = query, _checks.flag("causal", causal)
        self.pools = query == "last"
        if self.pools and self.attends_before:
            warn_without_effect("causal", causal, "with query='last', the query has no later steps")
        self._sizes = {"features": self.input_size, **sizes}
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes)), _checks.real_dtype(dtype))
        rng = _checks.generator(seed)
        self._store.initialize(lambda flat: self._draw_parameters(flat, rng))

    def _draw_parameters(self, flat: Array, rng: "np.random.Generator") -> None:
        """Initialise weights as Glorot and Bengio 2010, and biases to 0."""
        for view in self._store.views(flat).values():
            if view.ndim == 2:
                bound = np.sqrt(6 / sum(view.shape))
                view[...] = rng.uniform(-bound, bound, view.shape)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        options = {"query": self.query, "causal": self.attends_before}
        return {**self._sizes, **options, "dtype": self.dtype.name}

    def weights(self, x: Any, *, lengths: Any = None) -> Array:
        """Compute the attention weights a in evaluation mode.

        Parameters
        ----------
        x, lengths
            As in a call of the layer.

        Returns
        -------
        ndarray
            (B, heads, T, T), or (B, heads, 1, T) with `query="last"`: the weight of each step for each query;
            0 for padding.
        """
        call = self.checked_call(x, None, lengths)
        workspace = self.new_workspace(False)
        self.forward_batch(workspace, call.batch, None)
        weights: Array = workspace["weights"].copy()
        lengths = call.batch.packing.lengths[:, None]
        padding = lengths == 0 if self.pools else np.arange(call.batch.packing.T) >= lengths
        weights.swapaxes(1, 2)[padding] = 0  # (B, queries, heads, T)
        return weights

    def new_workspace(self, training: bool, in_place: bool = False) -> "AttentionWorkspace":
        """Buffers of one forward pass, and of its backward pass in training."""
        return AttentionWorkspace()

    def _planes(self, B: int, queries: int, T: int) -> dict[str, Shape]:
        """Shapes of additional buffers, for the number of queries per sequence."""
        raise NotImplementedError

    def _scores(self, w: "AttentionWorkspace") -> None:
        """Compute w["weights"] (B, heads, queries, T) = e from w["x"] (B,T,F) and w["q"] (B,queries,F)."""
        raise NotImplementedError

    def _scores_back(self, w: "AttentionWorkspace") -> None:
        """Add to w["dx"], w["dq"] and the gradients, given w["dweights"] = dL/de."""
        raise NotImplementedError

    def _context(self, w: "AttentionWorkspace") -> None:
        """Compute w["y"] (B,queries,F) = a v with v = x."""
        np.matmul(w["weights"][:, 0], w["x"], out=w["y"])

    def _context_back(self, w: "AttentionWorkspace") -> None:
        """Compute w["dweights"] = dL/da and initialise w["dx"], given w["dy"]."""
        np.matmul(w["dy"], w["x"].swapaxes(1, 2), out=w["dweights"][:, 0])
        np.matmul(w["weights"][:, 0].swapaxes(1, 2), w["dy"], out=w["dx"])

    def forward_batch(self, workspace: "AttentionWorkspace", batch: Batch, state: None) -> tuple[Array, None]:
        """y of a batch, as rows of the workspace, and the final state."""
        w = workspace
        w.prepare(batch.packing, self)
        if not batch.packing.N:
            return np.zeros((batch.packing.B if self.pools else 0, self.output_size), self.dtype), None
        batch.into(w["rows"])
        batch.packing.scatter(w["rows"], w["x"].swapaxes(0, 1))
        w["q"][...] = w["x"][w.sequences, w.last][:, None] if self.pools else w["x"]
        self._scores(w)
        a, reduced = w["weights"], w["reduced"]
        a += w.mask
        a -= a.max(axis=-1, keepdims=True, initial=np.finfo(a.dtype).min, out=reduced)
        np.exp(a, out=a)
        a /= np.maximum(a.sum(axis=-1, keepdims=True, out=reduced), np.finfo(a.dtype).tiny, out=reduced)
        self._context(w)
        if self.pools:
            w["y"][batch.packing.lengths == 0] = 0
            return w["y"][:, 0], None
        Batch(w["y"].swapaxes(0, 1), batch.packing).into(w["rows"])
        return w["rows"], None

    def backward_batch(
        self, workspace: "AttentionWorkspace", dy: Batch, dstate: None, need_dx: bool
    ) -> tuple[Array | None, None]:
        """dx of the last forward pass and the gradient of its initial state; adds to the gradients."""
        w = workspace
        if not w.packing.N:
            return w["rows"], None
        if self.pools:
            w["dy"][:, 0] = dy.values
            w["dy"][w.packing.lengths == 0] = 0
        else:
            dy.into(w["rows"])
            w.packing.scatter(w["rows"], w["dy"].swapaxes(0, 1))
        self._context_back(w)
        a, da = w["weights"], w["dweights"]
        da -= np.einsum("bhtj,bhtj->bht", a, da)[..., None]  # gradient of softmax: a (da - sum a da)
        da *= a
        w["dq"][...] = 0
        self._scores_back(w)
        if not need_dx:
            return None, None
        if self.pools:
            w["dx"][w.sequences, w.last] += w["dq"][:, 0]
        else:
            w["dx"] += w["dq"]
        Batch(w["dx"].swapaxes(0, 1), w.packing).into(w["rows"])
        return w["rows"], None


class AttentionWorkspace(dict[str, Array]):
    """Padded buffers (B, T, …) by name, and the attention mask."""

    def __init__(self) -> None:
        super().__init__()
        self._arena = Arena()
        self.packing: Any = None

    def prepare(self, packing: Packing, layer: Attention) -> None:
        """Allocate the buffers if the packing has changed."""
        if packing is self.packing:
            return
        self.packing = packing
        B, T, F = packing.B, packing.T, layer.input_size
        queries = 1 if layer.pools else T
        shapes: dict[str, Shape] = {"rows": (packing.N, F)}
        shapes |= dict.fromkeys(("x", "dx"), (B, T, F)) | dict.fromkeys(
            ("q", "dq", "y", "dy"), (B, queries, F)
        )
        shapes |= dict.fromkeys(("weights", "dweights"), (B, layer.heads, queries, T))
        shapes["reduced"] = (B, layer.heads, queries, 1)  # maximum, then sum over steps
        self.update(self._arena.cut(shapes | layer._planes(B, queries, T), layer.dtype))
        self.sequences, self.last = np.arange(B), np.maximum(packing.lengths - 1, 0)
        steps = np.arange(T)
        hidden = steps >= packing.lengths[:, None, None, None]
        if layer.attends_before and not layer.pools:
            hidden = hidden | (steps > steps[:, None])
        # Finite instead of -inf, so that a fully masked query gives no NaN.
        self.mask = np.where(hidden, np.finfo(layer.dtype).min / 2, 0).astype(layer.dtype)
