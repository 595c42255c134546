"""Columns of numbers from CSV files; implemented in `cylstm.data.series`."""

from cylstm.data.series import interpolated, known_rows, read_csv

__all__ = ["interpolated", "known_rows", "read_csv"]
