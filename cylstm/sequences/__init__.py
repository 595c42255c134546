"""Sequences of different length: packed for the engine, and packed by callers."""
