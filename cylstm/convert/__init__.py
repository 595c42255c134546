"""Models from and to other libraries, none of which is imported unless it is needed to parse a file."""

from cylstm.convert._common import ConversionError
from cylstm.convert._state_dict import to_safetensors
from cylstm.convert.keras import from_keras
from cylstm.convert.onnx.reader import from_onnx
from cylstm.convert.onnx.writer import to_onnx
from cylstm.convert.torch import from_torch

__all__ = ["ConversionError", "from_keras", "from_onnx", "from_torch", "to_onnx", "to_safetensors"]
