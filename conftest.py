"""Doctests of packages whose libraries are not installed are left out, as their tests are."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("starlette") else ["cylstm/serve/*"]
