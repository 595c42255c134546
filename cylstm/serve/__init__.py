"""Serving of models over HTTP and WebSocket: `cylstm serve`, or `application` in any ASGI server.

`Worker` runs it in gunicorn. Requires starlette, uvicorn, websockets and prometheus-client
(`pip install "cylstm[serve]"`), which `import cylstm` does not load. `help(cylstm.serve.application)`
describes the protocol.
"""

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("prometheus_client", "starlette"):
        raise
    raise ModuleNotFoundError(
        f'cylstm.serve: expected {error.name} to be installed; pip install "cylstm[serve]"', name=error.name
    ) from None

from typing import TYPE_CHECKING, Any

from cylstm.serve.app import application
from cylstm.serve.limits import Limits

if TYPE_CHECKING:
    from cylstm.serve.worker import Worker

__all__ = ["Limits", "Worker", "application"]


def __getattr__(name: str) -> Any:
    """Import `Worker`, which requires gunicorn."""
    if name != "Worker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from cylstm.serve.worker import Worker
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("gunicorn"):
            raise
        message = "cylstm.serve.Worker: expected gunicorn to be installed; pip install gunicorn"
        raise ModuleNotFoundError(message, name="gunicorn") from None
    return Worker
