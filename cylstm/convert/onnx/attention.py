"""Attention layers as nodes of ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cylstm.convert.onnx.graph import Graph
from cylstm.layers.attention import AdditiveAttention, MultiHeadAttention, MultiplicativeAttention


def attention(graph: Graph, layer: Any, x: str, where: str) -> str:
    """Add an attention layer: (T, B, F) to the same shape, or to (B, F) if only the last step is a query."""
    keys = graph.op("Transpose", x, perm=[1, 0, 2])
    queries = graph.op("Unsqueeze", graph.last_step(x), graph.integers(1)) if layer.pools else keys
    y = _KINDS[type(layer)](graph, layer, queries, keys)  # (B, T or 1, F)
    if not layer.pools:
        return graph.op("Transpose", y, perm=[1, 0, 2])
    y = graph.op("Squeeze", y, graph.integers(1))
    graph.pooled = True
    if graph.lengths:
        none = graph.op("Unsqueeze", graph.op("Equal", graph.lengths, graph.integer(0)), graph.integers(1))
        y = graph.op("Where", none, graph.number(0), y)
    return y


def _softmax(graph: Graph, layer: Any, scores: str, heads: bool) -> str:
    """Softmax over the steps that a query may attend to, of scores (B, [heads,] queries, T)."""
    hidden = []
    if graph.lengths:
        padding = graph.op("Transpose", graph.op("Not", graph.valid()), perm=[1, 0])  # (B, T)
        hidden.append(graph.op("Unsqueeze", padding, graph.integers(*([1, 2] if heads else [1]))))
    if layer.attends_before and not layer.pools:
        rows = graph.op("Unsqueeze", graph.steps(), graph.integers(1))
        hidden.append(graph.op("Greater", graph.steps(), rows))  # (T, T)
    for mask in hidden:
        scores = graph.op("Where", mask, graph.number(float(np.finfo(layer.dtype).min / 2)), scores)
    return graph.op("Softmax", scores, axis=-1)


def _multiplicative(graph: Graph, layer: Any, queries: str, keys: str) -> str:
    product = graph.op("MatMul", queries, graph.constant("weight", layer.parameters["weight"]))
    scores = graph.op("MatMul", product, graph.op("Transpose", keys, perm=[0, 2, 1]))
    return graph.op("MatMul", _softmax(graph, layer, scores, False), keys)


def _additive(graph: Graph, layer: Any, queries: str, keys: str) -> str:
    p = layer.parameters
    q = graph.op("MatMul", queries, graph.constant("query_weight", p["query_weight"].T))
    q = graph.op("Add", q, graph.constant("bias", p["bias"]))
    k = graph.op("MatMul", keys, graph.constant("key_weight", p["key_weight"].T))
    # (B, queries, 1, A) and (B, 1, T, A)
    both = graph.op(
        "Add", graph.op("Unsqueeze", q, graph.integers(2)), graph.op("Unsqueeze", k, graph.integers(1))
    )
    scores = graph.op("MatMul", graph.op("Tanh", both), graph.constant("score", p["score"][0]))
    return graph.op("MatMul", _softmax(graph, layer, scores, False), keys)


def _multi_head(graph: Graph, layer: Any, queries: str, keys: str) -> str:
    p, heads = layer.parameters, layer.heads
    width = layer.input_size // heads

    def projected(x: str, third: int, perm: list[int]) -> str:
        rows = slice(third * layer.input_size, (third + 1) * layer.input_size)
        y = graph.op("MatMul", x, graph.constant("weight", p["in_proj_weight"][rows].T))
        y = graph.op("Add", y, graph.constant("bias", p["in_proj_bias"][rows]))
        y = graph.op("Reshape", y, graph.integers(0, 0, heads, width))
        return graph.op("Transpose", y, perm=perm)

    scores = graph.op("MatMul", projected(queries, 0, [0, 2, 1, 3]), projected(keys, 1, [0, 2, 3, 1]))
    a = _softmax(graph, layer, graph.op("Mul", scores, graph.number(width**-0.5)), True)
    context = graph.op(
        "Transpose", graph.op("MatMul", a, projected(keys, 2, [0, 2, 1, 3])), perm=[0, 2, 1, 3]
    )
    context = graph.op("Reshape", context, graph.integers(0, 0, layer.input_size))
    y = graph.op("MatMul", context, graph.constant("out_weight", p["out_proj.weight"].T))
    return graph.op("Add", y, graph.constant("out_bias", p["out_proj.bias"]))


_KINDS: dict[type, Callable[[Graph, Any, str, str], str]] = {
    MultiplicativeAttention: _multiplicative,
    AdditiveAttention: _additive,
    MultiHeadAttention: _multi_head,
}
