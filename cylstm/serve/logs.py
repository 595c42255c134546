"""What a server writes to its log: a line for each event, whatever clients send."""

import asyncio
import logging
from typing import Any

import h11
from websockets.exceptions import WebSocketException

WRITTEN_BY_SERVER = logging.getLogger("uvicorn.error"), logging.getLogger("asyncio")
# What clients do, and what becomes of their requests when the server does not wait for them any longer.
OF_CLIENTS = (h11.ProtocolError, WebSocketException, ConnectionError, EOFError, UnicodeError)


def warn(message: str) -> None:
    """Write a line."""
    WRITTEN_BY_SERVER[0].warning("%s", message)


class OneLine(logging.Filter):
    """No control characters, and no tracebacks of what clients have done.

    Examples
    --------
    >>> record = logging.LogRecord("x", logging.WARNING, "", 0, "GET %s", ("/\\x1b[2J",), None)
    >>> OneLine().filter(record), record.getMessage()
    (True, 'GET /\\\\x1b[2J')
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; changed so that it can be."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):  # the server has stopped and waited for long enough
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
    """Text without characters that a terminal or a log would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text).strip())


def tidy() -> None:
    """Let the loggers of the server write so."""
    for logger in WRITTEN_BY_SERVER:
        if not any(isinstance(one, OneLine) for one in logger.filters):
            logger.addFilter(OneLine())
