"""The ASGI application: /predict, /classify, /stream, /healthz, /metrics."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from cylstm.inference.session import Session
from cylstm.layers.activation import softmax
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.serve.bodies import JSON, RAW, RequestError, json_of
from cylstm.serve.closing import Closing
from cylstm.serve.limits import Limits
from cylstm.serve.quotas import Reservation, client_of, evictable
from cylstm.serve.service import Service
from cylstm.serve.streams import stream

PART = 2**16  # bytes of an answer to write at a time


def application(
    model: "str | os.PathLike[str] | SequenceLayer | Session", *, threads: int | None = None, **limits: Any
) -> Starlette:
    """Create an ASGI application that serves a model, for `cylstm serve`, uvicorn, gunicorn or mounting.

    ===============  ==================================================================================
    POST /predict    JSON `{"x": [[...], ...]}` with shape (T, I) returns `{"y": [[...], ...]}`, the outputs
                     of the network without scaling; a single step (I,) returns a single step.
                     With `"state"`, null or that of an earlier answer, the answer includes the state after
                     the last step. `application/octet-stream` with T rows of I little-endian float32 returns
                     such rows of O. If the model starts with an `Embedding`, x is T indices, raw ones int32.
    POST /classify   For a classifier file, JSON `{"x": ...}` in the units of the data returns
                     `{"label": ..., "probabilities": {...}}`.
    /stream          WebSocket, one stateful stream per connection: JSON `{"x": ...}`, a step or (T, I), or
                     raw rows in a binary message; answers have the same format and order.
                     Browsers may open streams only for pages of the same host and of `origins`.
    GET /healthz     Status 200, until the server stops listening; 503 after the end of the lifespan, if the
                     application is mounted in another one.
    GET /metrics     Prometheus metrics.
    ===============  ==================================================================================

    An error is answered with `{"error": "x: expected ..."}`: 400 invalid JSON, 408 request timeout, 413 too
    large, 415 unsupported type, 422 does not fit the model, 503 overloaded (with `Retry-After`), 504
    computation timeout. If the body was not completely read, the connection is closed. Results are
    bit-identical to `Session.run`.

    Parameters
    ----------
    model : path, SequenceLayer or Session
        A model file other than a forecaster, or an argument of `Session`.
    threads : int, optional
        CPUs for all requests together, as for `Session`.
    **limits
        As for `cylstm.serve.Limits`.

    Raises
    ------
    ModelFileError, OSError
        If the file cannot be read, or contains a forecaster, whose network outputs scaled differences.
    ValueError, TypeError
        If another argument is invalid.

    Examples
    --------
    A file `app.py` for `gunicorn --preload -w 4 -k cylstm.serve.Worker app:app`, whose workers share the
    weights in memory and sum their metrics (`pip install gunicorn`)::

        import cylstm

        app = cylstm.serve.application("model.safetensors", threads=1, max_steps=500)

    >>> import cylstm
    >>> from cylstm.serve import application
    >>> app = application(cylstm.LSTM(3, 8, seed=0), max_steps=500)
    >>> [route.path for route in app.routes]
    ['/healthz', '/metrics', '/predict', '/stream']
    """
    return app_of(Service(model, Limits(**limits), threads))


def app_of(service: Service) -> Starlette:
    """Create the application of a service."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:  # a second Ctrl-C: do not wait for requests
            return
        await service.close()

    async def healthz(request: Request) -> Response:
        status = "stopping" if service.stopping else "ok"
        return Response(json_of(status=status), 503 if service.stopping else 200, media_type=JSON)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def streams(socket: Any) -> None:
        await stream(service, socket)

    routes: list[Any] = [
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        Route("/predict", Endpoint("/predict", service, _predict), methods=["POST"]),
        WebSocketRoute("/stream", streams),
    ]
    if service.classes:
        routes.append(Route("/classify", Endpoint("/classify", service, _classify), methods=["POST"]))
    handlers: Any = {HTTPException: _http_error, Exception: _internal_error}
    closing = Middleware(Closing, max_bytes=service.limits.max_body)  # type: ignore[arg-type, unused-ignore]
    app = Starlette(routes=routes, middleware=[closing], lifespan=lifespan, exception_handlers=handlers)
    app.state.limits, app.state.scaled = service.limits, service.scaled  # for the server
    return app


Answer = tuple[bytes, str]  # content and its type


async def _predict(service: Service, body: bytes, kind: str) -> Answer:
    answer = service.answer_raw if kind == RAW else service.answer_json
    content, _ = await answer(body)
    return content, kind


async def _classify(service: Service, body: bytes, kind: str) -> Answer:
    if kind == RAW:
        raise RequestError(415, f"content-type: expected {JSON}, got {RAW}")
    y, _ = await service.run(await service.converted(len(body), service.scaled_of_json, body))
    p = softmax(y.astype(np.float64))
    probabilities = dict(zip(service.classes, p.tolist(), strict=True))
    return json_of(label=service.classes[int(p.argmax())], probabilities=probabilities), JSON


class Endpoint:
    """An ASGI application that answers requests with `function` and handles limits, errors and metrics.

    A request reserves memory for its body while that is read, then also a slot of the queue, and finally
    memory for its answer until the client has read it.
    """

    def __init__(
        self, path: str, service: Service, function: Callable[[Service, bytes, str], Awaitable[Answer]]
    ) -> None:
        self._path, self._service, self._function = path, service, function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        service, client = self._service, client_of((scope.get("client") or [None])[0])
        memory, slot = service.memory.reservation(client), service.slots.reservation(client)
        try:
            response = await self._counted(Request(scope, receive), memory, slot)
            if response is None:  # the client has disconnected
                return
            if memory.amount <= PART:
                return await response(scope, receive, send)
            with contextlib.suppress(RequestError):  # evicted: the server closes the incomplete answer
                await evictable(response(scope, receive, send), memory)
        finally:
            memory.release()

    async def _counted(self, request: Request, memory: Reservation, slot: Reservation) -> Response | None:
        """Answer a request and update the metrics; None if the client has disconnected."""
        metrics = self._service.metrics
        begin, status = time.perf_counter(), 500
        metrics.in_progress.inc()
        try:
            response = await evictable(self._answer(request, memory, slot), memory, slot)
            status = response.status_code
            return response
        except RequestError as error:
            status = error.status
            headers = {"Retry-After": "1"} if status == 503 else None
            content = json_of(error=str(error))
            return InParts(
                self._service.limits, content, status_code=status, headers=headers, media_type=JSON
            )
        except ClientDisconnect:
            status = 0
            return None
        finally:
            slot.release()
            metrics.in_progress.dec()
            metrics.requests.labels(self._path, status).inc()
            metrics.seconds.observe(time.perf_counter() - begin)

    async def _answer(self, request: Request, memory: Reservation, slot: Reservation) -> Response:
        service = self._service
        kind = _kind(request)
        body = await _body(request, service.limits, memory)
        slot.claim(1)
        content, type_ = await self._function(service, body, kind)
        memory.claim(len(content))
        return InParts(service.limits, content, media_type=type_)


def _kind(request: Request) -> str:
    """Check the headers, and return the content type."""
    if {"content-length", "transfer-encoding"} <= set(request.headers):  # ambiguous: request smuggling
        raise RequestError(400, "transfer-encoding: expected no content-length with it")
    given = request.headers.get("content-type", "")
    kind: str = given.partition(";")[0].strip().lower()
    if kind not in (JSON, RAW):
        raise RequestError(415, f"content-type: expected {JSON} or {RAW}, got {given!r:.80}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise RequestError(415, f"content-encoding: expected none, got {encoding!r:.80}")
    return kind


async def _body(request: Request, limits: Limits, memory: Reservation) -> bytes:
    """Read the body within the limits of size and time."""
    too_large = RequestError(413, f"body: expected at most {limits.max_body} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.max_body):
        raise too_large

    async def read() -> bytes:
        body = bytearray()
        async for part in request.stream():
            if len(body) + len(part) > limits.max_body:
                raise too_large
            body += part
            memory.claim(len(body))
        return bytes(body)

    try:
        with anyio.fail_after(limits.timeout):
            return await read()
    except TimeoutError:
        raise RequestError(408, f"body: expected to be complete within {limits.timeout:g} s") from None


class InParts(Response):
    """A response with a timeout for each part and for each `max_body` bytes.

    After a timeout the body is incomplete, so that the server closes the connection.
    """

    def __init__(self, limits: Limits, content: bytes, **options: Any) -> None:
        super().__init__(content, **options)
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        body = bytes(self.body)
        limits = self._limits
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            with anyio.fail_after(limits.timeout * (1 + len(body) // limits.max_body)):
                await send(head)
                for begin in range(0, max(len(body), 1), PART):
                    end = begin + PART
                    more = end < len(body)
                    with anyio.fail_after(limits.timeout):
                        await send({"type": "http.response.body", "body": body[begin:end], "more_body": more})
        except TimeoutError:
            return


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Answer an unknown path or method."""
    words = f"{request.method} {request.scope['path']}: {error.detail}"
    return Response(json_of(error=words[:200]), error.status_code, dict(error.headers or {}), JSON)


async def _internal_error(request: Request, error: Exception) -> Response:
    """Answer after an unexpected exception, which the server logs."""
    return Response(json_of(error="server: internal error"), 500, media_type=JSON)
