"""ONNX files: read as chains of layers, and written."""
