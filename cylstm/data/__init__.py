"""Data preparation: sources of minibatches, scalers, vocabularies, packed sequences."""

from cylstm.data.arrays import Arrays, source_of
from cylstm.data.prefetching import prefetch
from cylstm.data.scalers import MinMaxScaler, Scaler, ScalersWarning, StandardScaler
from cylstm.data.source import Minibatch, Source
from cylstm.data.splits import split, stratified_split
from cylstm.data.tokens import TokenStream
from cylstm.data.vocabulary import Vocabulary
from cylstm.data.windows import Windows
from cylstm.sequences.packed import PackedSequences, pack, unpack

__all__ = [
    "Arrays",
    "MinMaxScaler",
    "Minibatch",
    "PackedSequences",
    "Scaler",
    "ScalersWarning",
    "Source",
    "StandardScaler",
    "TokenStream",
    "Vocabulary",
    "Windows",
    "pack",
    "prefetch",
    "source_of",
    "split",
    "stratified_split",
    "unpack",
]
