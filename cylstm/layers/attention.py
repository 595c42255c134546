"""Attention layers: multiplicative, additive, multi-head."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._engine.planning import Shape
from cylstm.layers.attention_base import Attention, AttentionWorkspace, Query

Array = NDArray[Any]


class MultiplicativeAttention(Attention):
    """Attention with scores e_tj = q_t W x_j, "general" in Luong et al. 2015; y_t = sum_j a_tj x_j.

    Parameters
    ----------
    features : int
        Number of features of x and y.
    query : {"steps", "last"}
        "steps": every step is a query, and y is (T, B, features). "last": only the last valid step of each
        sequence is, and y is (B, features), with zeros for sequences of length 0.
    causal : bool
        Whether steps only attend to themselves and earlier steps.
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
    """Scores e_tj = v tanh(W_q q_t + W_k x_j + b) (Bahdanau et al. 2015); y_t = sum_j a_tj x_j.

    Parameters
    ----------
    features : int
        Number of features of x and y.
    attention_size : int
        Size of v and b.
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
        """Compute tanh(Q_t + K_j) of sequence b, (queries, T, A)."""
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
    """Multi-head scaled dot-product self-attention (Vaswani et al. 2017).

    Parameter names are those of `torch.nn.MultiheadAttention`.

    Parameters
    ----------
    features : int
        Number of features of x and y.
    num_heads : int
        Must divide `features`.
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
        """Return a view (B, heads, T, F / heads) of (B, T, F)."""
        return plane.reshape(*plane.shape[:2], self.heads, self.input_size // self.heads).swapaxes(1, 2)

    def _thirds(self, arrays: dict[str, Array]) -> list[tuple[Array, Array]]:
        """Return weight and bias of queries, keys and values."""
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
