"""Doctests of packages whose libraries are not installed are left out, as their tests are."""

import importlib.util

SERVER = "starlette", "uvicorn", "prometheus_client"
collect_ignore_glob = [] if all(map(importlib.util.find_spec, SERVER)) else ["cylstm/serve/*"]
