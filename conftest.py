"""Doctests of packages whose libraries are not installed are left out, as their tests are."""

import importlib.util

NEEDED = {
    "cylstm/serve/*": ["starlette", "uvicorn", "prometheus_client", "websockets"],
    "cylstm/serve/worker.py": ["gunicorn"],
    "cylstm/convert/onnx/*": ["onnx"],
    "cylstm/sklearn/*": ["sklearn"],
}
collect_ignore_glob = [
    files for files, libraries in NEEDED.items() if not all(map(importlib.util.find_spec, libraries))
]
