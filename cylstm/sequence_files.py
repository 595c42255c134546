"""Sequences from .ts and CSV files; implemented in `cylstm.data.sequence_files`."""

from cylstm.data.sequence_files import SequenceSet, read_sequences, read_ts

__all__ = ["SequenceSet", "read_sequences", "read_ts"]
