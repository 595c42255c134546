"""Layers around the recurrent ones, and `Sequential`, which puts layers one after the other."""
