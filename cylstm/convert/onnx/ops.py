"""Operators of ONNX by name: each maps a node's inputs to its outputs, and may add a layer to the chain.

An operator is called with the context, the node's name for messages, its attributes and its inputs.
"""

from collections.abc import Callable
from typing import Any

from cylstm.convert.onnx.layers import LAYER_OPERATORS
from cylstm.convert.onnx.layout import LAYOUT_OPERATORS
from cylstm.convert.onnx.lengths import mask_of_lengths, zero_padding
from cylstm.convert.onnx.recurrent import recurrent

OPERATORS: dict[str, Callable[..., list[Any]]] = {
    **LAYER_OPERATORS,
    **LAYOUT_OPERATORS,
    "GRU": recurrent("GRU"),
    "LSTM": recurrent("LSTM"),
    "RNN": recurrent("RNN"),
    "Less": mask_of_lengths,
    "Where": zero_padding,
}
