"""Formats of files: safetensors, kinds of files by content, what a file may ask a reader for."""
