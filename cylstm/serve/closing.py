"""Closing of connections after answers to requests whose body was not read."""

import time
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER = 2.0  # seconds for a client to receive its answer while it is still sending


class Closing:
    """Middleware that closes a connection if the request was answered before its body was complete.

    Otherwise the server would read the rest of the body, however long, before the next request. For a short
    time, up to `max_bytes` are read and discarded, because a client that is still sending would otherwise
    get a reset instead of the answer.

    Parameters
    ----------
    app : ASGI application
    max_bytes : int
        Maximum number of bytes to discard.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["http_version"].startswith("1"):
            await self._app(scope, *_Exchange(scope, receive, send, self._max_bytes).functions)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        names = {name for name, value in scope["headers"] if value != b"0"}
        self._complete = not names & {b"content-length", b"transfer-encoding"}
        self._closes = False
        self.functions = self.receive, self.send

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # the last part, or the client has disconnected
            self._complete = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._complete:
            self._closes = True
            message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (last and self._closes):
            return await self._send(message)
        await self._send({**message, "more_body": True})  # the whole body, but keep the connection open
        await self._drop()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drop(self) -> None:
        """Read and discard what the client still sends."""
        size, end = 0, time.monotonic() + LINGER
        with anyio.move_on_after(LINGER):
            while not self._complete and size <= self._max_bytes and time.monotonic() < end:
                message: Any = await self.receive()
                size += len(message.get("body", b""))
