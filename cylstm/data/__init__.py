"""Data on their way to a model: sources of minibatches, scalers, vocabularies, packed sequences."""

from cylstm.data.packed import pack, unpack
from cylstm.sequence_layer import PackedSequences

__all__ = ["PackedSequences", "pack", "unpack"]
