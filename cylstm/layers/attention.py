"""Attention over the states of a sequence."""

from collections.abc import Iterator, Mapping
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
    """Base of the attention layers: y_t = sum_j a_tj v_j, with a_t = softmax(e_t) over the real steps j.

    Computed on padded batches (B, T, F), whose padding weighs nothing. A subclass gives the shapes of its
    planes, and what its scores e_tj, queries, keys and values v_j are, forward and back.
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
            warn_without_effect("causal", causal, "with query='last' the last step sees all before it")
        self._sizes = {"features": self.input_size, **sizes}
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes)), _checks.real_dtype(dtype))
        rng = _checks.generator(seed)
        self._store.initialize(lambda flat: self._draw_parameters(flat, rng))

    def _draw_parameters(self, flat: Array, rng: "np.random.Generator") -> None:
        """Those of Glorot and Bengio 2010; biases are zeros."""
        for view in self._store.views(flat).values():
            if view.ndim == 2:
                bound = np.sqrt(6 / sum(view.shape))
                view[...] = rng.uniform(-bound, bound, view.shape)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        chosen = {"query": self.query, "causal": self.attends_before}
        return {**self._sizes, **chosen, "dtype": self.dtype.name}

    def weights(self, x: Any, *, lengths: Any = None) -> Array:
        """The attention weights a, as computed in the mode of `eval()`.

        Parameters
        ----------
        x, lengths
            As in a call of the layer.

        Returns
        -------
        ndarray
            (B, heads, T, T), or (B, heads, 1, T) with `query="last"`: of every query on every step; 0 for
            queries and steps of padding.
        """
        call = self._checked_call(x, None, lengths)
        workspace = self._new_workspace(False)
        self._forward(workspace, call.batch, None)
        weights: Array = workspace["weights"].copy()
        lengths = call.batch.packing.lengths[:, None]
        padding = lengths == 0 if self.pools else np.arange(call.batch.packing.T) >= lengths
        weights.swapaxes(1, 2)[padding] = 0  # (B, queries, heads, T)
        return weights

    def _new_workspace(self, training: bool, in_place: bool = False) -> "AttentionWorkspace":
        return AttentionWorkspace()

    def _planes(self, B: int, queries: int, T: int) -> dict[str, Shape]:
        """Buffers of its own, for so many queries a sequence."""
        raise NotImplementedError

    def _scores(self, w: "AttentionWorkspace") -> None:
        """w["weights"] (B, heads, queries, T) = e, from w["x"] (B,T,F) and w["q"] (B,queries,F)."""
        raise NotImplementedError

    def _scores_back(self, w: "AttentionWorkspace") -> None:
        """From w["dweights"] = dL/de to w["dx"] and w["dq"], added to; adds to the gradients."""
        raise NotImplementedError

    def _context(self, w: "AttentionWorkspace") -> None:
        """w["y"] (B,queries,F) = a v; v is x."""
        np.matmul(w["weights"][:, 0], w["x"], out=w["y"])

    def _context_back(self, w: "AttentionWorkspace") -> None:
        """From w["dy"] to w["dweights"] = dL/da, and to w["dx"], which it writes."""
        np.matmul(w["dy"], w["x"].swapaxes(1, 2), out=w["dweights"][:, 0])
        np.matmul(w["weights"][:, 0].swapaxes(1, 2), w["dy"], out=w["dx"])

    def _forward(self, workspace: "AttentionWorkspace", batch: Batch, state: None) -> tuple[Array, None]:
        w = workspace
        w.prepare(batch.packing, self)
        if not batch.packing.N:
            return np.zeros((batch.packing.B if self.pools else 0, self.output_size), self.dtype), None
        batch.into(w["rows"])
        batch.packing.scatter(w["rows"], w["x"].swapaxes(0, 1))
        w["q"][...] = w["x"][w.sequences, w.last][:, None] if self.pools else w["x"]
        self._scores(w)
        a, of_row = w["weights"], w["of_row"]
        a += w.mask
        a -= a.max(axis=-1, keepdims=True, initial=np.finfo(a.dtype).min, out=of_row)
        np.exp(a, out=a)
        a /= np.maximum(a.sum(axis=-1, keepdims=True, out=of_row), np.finfo(a.dtype).tiny, out=of_row)
        self._context(w)
        if self.pools:
            w["y"][batch.packing.lengths == 0] = 0
            return w["y"][:, 0], None
        Batch(w["y"].swapaxes(0, 1), batch.packing).into(w["rows"])
        return w["rows"], None

    def _backward(
        self, workspace: "AttentionWorkspace", dy: Batch, dstate: None, need_dx: bool
    ) -> tuple[Array | None, None]:
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
        da -= np.einsum("bhtj,bhtj->bht", a, da)[..., None]  # through softmax: a (da - sum a da)
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
    """Padded buffers (B, T, …) by name, and the mask of what must not be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._arena = Arena()
        self.packing: Any = None

    def prepare(self, packing: Packing, layer: Attention) -> None:
        """Cut the buffers for a batch, if it is another one."""
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
        shapes["of_row"] = (B, layer.heads, queries, 1)  # the largest number, the sum
        self.update(self._arena.cut(shapes | layer._planes(B, queries, T), layer.dtype))
        self.sequences, self.last = np.arange(B), np.maximum(packing.lengths - 1, 0)
        steps = np.arange(T)
        hidden = steps >= packing.lengths[:, None, None, None]
        if layer.attends_before and not layer.pools:
            hidden = hidden | (steps > steps[:, None])
        # Finite, so that a query of which nothing is left gives a number and no NaN.
        self.mask = np.where(hidden, np.finfo(layer.dtype).min / 2, 0).astype(layer.dtype)


class MultiplicativeAttention(Attention):
    """e_tj = q_t W x_j, the general score of Luong et al. 2015; y_t = sum_j a_tj x_j.

    Parameters
    ----------
    features : int
        Numbers in a row of x and of y.
    query : {"steps", "last"}
        Whether every step looks at all others, y being (T, B, features), or only each sequence's last one, y
        being (B, features), with zeros for a sequence of no steps.
    causal : bool
        Whether a step sees only itself and the ones before.
    dtype : {"float32", "float64"}
    seed : int, optional

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> layer = cylstm.MultiplicativeAttention(4, query="last", seed=0)
    >>> y, _ = layer(np.ones((5, 2, 4)), lengths=[5, 3])
    >>> y.shape, layer.weights(np.ones((5, 2, 4)), lengths=[5, 3])[1, 0, 0].astype(float).round(3).tolist()
    ((2, 4), [0.333, 0.333, 0.333, 0.0, 0.0])
    """

    def __init__(
        self,
        features: int,
        query: Query = "steps",
        causal: bool = False,
        *,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(features, query, causal, dtype, seed)

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`weight` (features, features)."""
        yield "weight", (config["features"], config["features"])

    def _planes(self, B: int, queries: int, T: int) -> dict[str, Shape]:
        return {"qw": (B, queries, self.input_size)}

    def _scores(self, w: AttentionWorkspace) -> None:
        np.matmul(w["q"], self.parameters["weight"], out=w["qw"])
        np.matmul(w["qw"], w["x"].swapaxes(1, 2), out=w["weights"][:, 0])

    def _scores_back(self, w: AttentionWorkspace) -> None:
        de = w["dweights"][:, 0]
        w["dx"] += de.swapaxes(1, 2) @ w["qw"]
        np.matmul(de, w["x"], out=w["qw"])  # dL/d(q W)
        F = self.input_size
        self.gradients["weight"] += w["q"].reshape(-1, F).T @ w["qw"].reshape(-1, F)
        np.matmul(w["qw"], self.parameters["weight"].T, out=w["dq"])


class AdditiveAttention(Attention):
    """e_tj = v tanh(W_q q_t + W_k x_j + b), the score of Bahdanau et al. 2015; y_t = sum_j a_tj x_j.

    Parameters
    ----------
    features : int
        Numbers in a row of x and of y.
    attention_size : int
        Numbers in v and b.
    query, causal, dtype, seed
        As for `MultiplicativeAttention`.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> attention = cylstm.AdditiveAttention(8, 4, query="last")
    >>> model = cylstm.Sequential(cylstm.LSTM(3, 8), attention, cylstm.Linear(8, 2))
    >>> model(np.ones((5, 6, 3)))[0].shape
    (6, 2)
    """

    def __init__(
        self,
        features: int,
        attention_size: int,
        query: Query = "steps",
        causal: bool = False,
        *,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        self.attention_size = _checks.positive("attention_size", attention_size)
        super().__init__(features, query, causal, dtype, seed, attention_size=self.attention_size)

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`query_weight` and `key_weight` (A, features), `bias` (A), `score` (1, A); A = attention_size."""
        F, A = config["features"], config["attention_size"]
        yield from {"query_weight": (A, F), "key_weight": (A, F), "bias": (A,), "score": (1, A)}.items()

    def _planes(self, B: int, queries: int, T: int) -> dict[str, Shape]:
        A = self.attention_size
        return {"Q": (B, queries, A), "K": (B, T, A), "tanh": (queries, T, A)}

    def _tanh(self, w: AttentionWorkspace, b: int) -> Array:
        """tanh(Q_t + K_j) of one sequence, (queries, T, A)."""
        np.add(w["Q"][b][:, None], w["K"][b], out=w["tanh"])
        return np.tanh(w["tanh"], out=w["tanh"])

    def _scores(self, w: AttentionWorkspace) -> None:
        p = self.parameters
        np.matmul(w["q"], p["query_weight"].T, out=w["Q"])
        w["Q"] += p["bias"]
        np.matmul(w["x"], p["key_weight"].T, out=w["K"])
        for b in range(len(w["Q"])):
            np.matmul(self._tanh(w, b), p["score"][0], out=w["weights"][b, 0])

    def _scores_back(self, w: AttentionWorkspace) -> None:
        p, g, F, A = self.parameters, self.gradients, self.input_size, self.attention_size
        for b in range(len(w["Q"])):
            de, tanh = w["dweights"][b, 0], self._tanh(w, b)
            g["score"][0] += np.einsum("tj,tja->a", de, tanh)
            np.multiply(tanh, tanh, out=tanh)
            np.subtract(1, tanh, out=tanh)
            tanh *= de[..., None]
            tanh *= p["score"][0]
            tanh.sum(axis=1, out=w["Q"][b])  # dL/dQ, dL/dK
            tanh.sum(axis=0, out=w["K"][b])
        g["bias"] += w["Q"].sum(axis=(0, 1))
        g["query_weight"] += w["Q"].reshape(-1, A).T @ w["q"].reshape(-1, F)
        g["key_weight"] += w["K"].reshape(-1, A).T @ w["x"].reshape(-1, F)
        np.matmul(w["Q"], p["query_weight"], out=w["dq"])
        w["dx"] += w["K"] @ p["key_weight"]


class MultiHeadAttention(Attention):
    """Scaled dot-product self-attention of several heads (Vaswani et al. 2017).

    Parameters are those of `torch.nn.MultiheadAttention`, by its names.

    Parameters
    ----------
    features : int
        Numbers in a row of x and of y.
    num_heads : int
        A divisor of features.
    query, causal, dtype, seed
        As for `MultiplicativeAttention`.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> layer = cylstm.MultiHeadAttention(8, 2, causal=True, seed=0)
    >>> y, _ = layer(np.ones((5, 3, 8)))
    >>> y.shape, layer.weights(np.ones((5, 3, 8)))[0, 0, 1].round(3).tolist()
    ((5, 3, 8), [0.5, 0.5, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        features: int,
        num_heads: int,
        query: Query = "steps",
        causal: bool = False,
        *,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        self.heads = _checks.positive("num_heads", num_heads)
        if _checks.positive("features", features) % self.heads:
            raise ValueError(f"num_heads: expected a divisor of features, {features}, got {num_heads}")
        super().__init__(features, query, causal, dtype, seed, num_heads=self.heads)

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`in_proj_weight` (3 F, F), `in_proj_bias` (3 F), `out_proj.weight` (F, F), `out_proj.bias` (F)."""
        F = config["features"]
        yield from {
            "in_proj_weight": (3 * F, F), "in_proj_bias": (3 * F,),
            "out_proj.weight": (F, F), "out_proj.bias": (F,),
        }.items()  # fmt: skip

    def _planes(self, B: int, queries: int, T: int) -> dict[str, Shape]:
        F = self.input_size
        rows: dict[str, Shape] = dict.fromkeys(("K", "V", "dV"), (B, T, F))
        return rows | {"Q": (B, queries, F), "context": (B, queries, F)}

    def _by_head(self, plane: Array) -> Array:
        """(B, heads, T, F / heads), a view of (B, T, F)."""
        return plane.reshape(*plane.shape[:2], self.heads, self.input_size // self.heads).swapaxes(1, 2)

    def _thirds(self, arrays: dict[str, Array]) -> list[tuple[Array, Array]]:
        """Weight and bias of queries, keys and values."""
        F = self.input_size
        weight, bias = arrays["in_proj_weight"], arrays["in_proj_bias"]
        return [(weight[k * F : (k + 1) * F], bias[k * F : (k + 1) * F]) for k in range(3)]

    def _scores(self, w: AttentionWorkspace) -> None:
        of = zip(("Q", "K", "V"), ("q", "x", "x"), self._thirds(self.parameters), strict=True)
        for name, source, (weight, bias) in of:
            np.matmul(w[source], weight.T, out=w[name])
            w[name] += bias
        np.matmul(self._by_head(w["Q"]), self._by_head(w["K"]).swapaxes(2, 3), out=w["weights"])
        w["weights"] *= self._scale

    @property
    def _scale(self) -> float:
        return float((self.input_size // self.heads) ** -0.5)

    def _context(self, w: AttentionWorkspace) -> None:
        np.matmul(w["weights"], self._by_head(w["V"]), out=self._by_head(w["context"]))
        np.matmul(w["context"], self.parameters["out_proj.weight"].T, out=w["y"])
        w["y"] += self.parameters["out_proj.bias"]

    def _context_back(self, w: AttentionWorkspace) -> None:
        g, F = self.gradients, self.input_size
        g["out_proj.bias"] += w["dy"].sum(axis=(0, 1))
        g["out_proj.weight"] += w["dy"].reshape(-1, F).T @ w["context"].reshape(-1, F)
        np.matmul(w["dy"], self.parameters["out_proj.weight"], out=w["context"])
        d = self._by_head(w["context"])
        np.matmul(d, self._by_head(w["V"]).swapaxes(2, 3), out=w["dweights"])
        self._by_head(w["dV"])[...] = w["weights"].swapaxes(2, 3) @ d
        w["dx"][...] = 0

    def _scores_back(self, w: AttentionWorkspace) -> None:
        de = w["dweights"]
        de *= self._scale
        dq = de @ self._by_head(w["K"])
        self._by_head(w["K"])[...] = de.swapaxes(2, 3) @ self._by_head(w["Q"])
        self._by_head(w["Q"])[...] = dq
        F, weights = self.input_size, self._thirds(self.parameters)
        for name, source, to, (weight, _), (dweight, dbias) in zip(
            ("Q", "K", "dV"), ("q", "x", "x"), ("dq", "dx", "dx"),
            weights, self._thirds(self.gradients), strict=True,
        ):  # fmt: skip
            d = w[name]
            dbias += d.sum(axis=(0, 1))
            dweight += d.reshape(-1, F).T @ w[source].reshape(-1, F)
            w[to] += d @ weight
