"""A model behind HTTP and WebSocket: `cylstm serve`, or `application` in any ASGI server.

`Worker` runs it in gunicorn. Needs starlette, uvicorn, websockets and prometheus-client
(`pip install "cylstm[serve]"`); `import cylstm` alone does not load them. What clients send and get is in
`help(cylstm.serve.application)`.
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
    """`Worker`, for which gunicorn is needed."""
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
