"""Logging of a server: one line per event, regardless of what clients send."""

import asyncio
import logging
from typing import Any

import h11
from websockets.exceptions import WebSocketException

WRITTEN_BY_SERVER = logging.getLogger("uvicorn.error"), logging.getLogger("asyncio")
# Errors caused by clients, and by requests that are abandoned at shutdown.
OF_CLIENTS = (h11.ProtocolError, WebSocketException, ConnectionError, EOFError, UnicodeError)


def warn(message: str) -> None:
    """Log a warning."""
    WRITTEN_BY_SERVER[0].warning("%s", message)


class OneLine(logging.Filter):
    """A filter that removes control characters, and tracebacks of errors caused by clients.

    Examples
    --------
    >>> record = logging.LogRecord("x", logging.WARNING, "", 0, "GET %s", ("/\\x1b[2J",), None)
    >>> OneLine().filter(record), record.getMessage()
    (True, 'GET /\\\\x1b[2J')
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Sanitise a record; return whether to write it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):  # the shutdown timed out
            return False
        message = record.getMessage()
        if isinstance(error, OF_CLIENTS):
            reason = error.__cause__ or error
            message = f"{message.strip()}: {type(reason).__name__}: {reason}"
            record.exc_info = record.exc_text = None
        record.msg, record.args = printable(message), ()
        if hasattr(record, "color_message"):
            del record.color_message
        return True


def printable(text: Any) -> str:
    """Escape control characters of a text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text).strip())


def tidy() -> None:
    """Add the filter to the loggers of the server."""
    for logger in WRITTEN_BY_SERVER:
        if not any(isinstance(one, OneLine) for one in logger.filters):
            logger.addFilter(OneLine())
