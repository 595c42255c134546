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
from cylstm.serve.bodies import JSON, RAW, Refusal, json_of
from cylstm.serve.closing import Closing
from cylstm.serve.limits import Limits
from cylstm.serve.service import Service
from cylstm.serve.shares import Holding, client_of, evictable
from cylstm.serve.streams import stream

PART = 2**16  # bytes of an answer that are written at a time


def application(
    model: "str | os.PathLike[str] | SequenceLayer | Session", *, threads: int | None = None, **limits: Any
) -> Starlette:
    """A model as an ASGI application, to be run by `cylstm serve`, uvicorn, gunicorn or mounted in another.

    ===============  ==================================================================================
    POST /predict    JSON `{"x": [[...], ...]}`, (T, I), gives `{"y": [[...], ...]}`, of the network as it is,
                     without scaling; one step (I,) gives one.
                     With `"state"`, null or what an earlier answer had, the answer has the state after
                     the last step. Or `application/octet-stream`: float32, little-endian, T rows of I, gives
                     such rows of O. Where an `Embedding` comes first, x is T indices, raw ones are int32.
    POST /classify   With the file of a classifier, JSON `{"x": ...}` in the units of its data gives
                     `{"label": ..., "probabilities": {...}}`.
    /stream          WebSocket, one stream a connection, whose state is kept: JSON `{"x": ...}`, one step
                     or (T, I), or raw rows in a binary message; each is answered in kind, in order.
                     Of browsers, only pages of the same host and of `origins` may open one.
    GET /healthz     Status 200; once the server has stopped listening, none. 503 if still asked after the
                     end of the lifespan, as in an application that this one is mounted in.
    GET /metrics     For Prometheus.
    ===============  ==================================================================================

    A request that cannot be answered gets `{"error": "x: expected ..."}`: 400 no JSON, 408 came too slowly,
    413 too large, 415 of another type, 422 not for this model, 503 too many at a time (with
    `Retry-After`), 504 took too long. If its body was not read to the end,
    the connection is closed. Results have the bits of `Session.run`, whatever else is computed.

    Parameters
    ----------
    model : path, SequenceLayer or Session
        A model file of any kind but a forecaster's, or what `Session` takes.
    threads : int, optional
        CPUs for all requests together, as for `Session`.
    **limits
        As for `cylstm.serve.Limits`.

    Raises
    ------
    ModelFileError, OSError
        If the file cannot be read, or holds a forecaster: its network outputs scaled changes, not forecasts.
    ValueError, TypeError
        If another argument is not as above.

    Examples
    --------
    A file `app.py` for `gunicorn --preload -w 4 -k cylstm.serve.Worker app:app`, whose workers share the
    weights in memory and count for /metrics together (`pip install gunicorn`)::

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
    """The application over a service."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:  # a second Ctrl-C: nothing is waited for
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
        raise Refusal(415, f"content-type: expected {JSON}, got {RAW}")
    y, _ = await service.run(await service.converted(len(body), service.scaled_of_json, body))
    p = softmax(y.astype(np.float64))
    probabilities = dict(zip(service.classes, p.tolist(), strict=True))
    return json_of(label=service.classes[int(p.argmax())], probabilities=probabilities), JSON


class Endpoint:
    """An ASGI application for the requests that `function` has results for: limits, refusals, metrics.

    While its body is read a request holds the bytes that it has sent; when it is complete, a turn as well;
    then the bytes of its answer, until the client has read it.
    """

    def __init__(
        self, path: str, service: Service, function: Callable[[Service, bytes, str], Awaitable[Answer]]
    ) -> None:
        self._path, self._service, self._function = path, service, function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        service, client = self._service, client_of((scope.get("client") or [None])[0])
        memory, turn = service.memory.holding(client), service.turns.holding(client)
        try:
            response = await self._counted(Request(scope, receive), memory, turn)
            if response is None:  # the client has gone
                return
            if memory.amount <= PART:
                return await response(scope, receive, send)
            with contextlib.suppress(
                Refusal
            ):  # then the rest of the answer is missing, and the server closes
                await evictable(response(scope, receive, send), memory)
        finally:
            memory.release()

    async def _counted(self, request: Request, memory: Holding, turn: Holding) -> Response | None:
        """The response, whatever it is, in the metrics; None if nobody waits for it."""
        metrics = self._service.metrics
        begin, status = time.perf_counter(), 500
        metrics.in_progress.inc()
        try:
            response = await evictable(self._answer(request, memory, turn), memory, turn)
            status = response.status_code
            return response
        except Refusal as refusal:
            status = refusal.status
            headers = {"Retry-After": "1"} if status == 503 else None
            content = json_of(error=str(refusal))
            return InParts(
                self._service.limits, content, status_code=status, headers=headers, media_type=JSON
            )
        except ClientDisconnect:
            status = 0
            return None
        finally:
            turn.release()
            metrics.in_progress.dec()
            metrics.requests.labels(self._path, status).inc()
            metrics.seconds.observe(time.perf_counter() - begin)

    async def _answer(self, request: Request, memory: Holding, turn: Holding) -> Response:
        service = self._service
        kind = _kind(request)
        body = await _body(request, service.limits, memory)
        turn.claim(1)
        content, type_ = await self._function(service, body, kind)
        memory.claim(len(content))
        return InParts(service.limits, content, media_type=type_)


def _kind(request: Request) -> str:
    """The type of a body that can be read."""
    if {"content-length", "transfer-encoding"} <= set(request.headers):  # where it ends, readers may disagree
        raise Refusal(400, "transfer-encoding: expected no content-length with it")
    given = request.headers.get("content-type", "")
    kind: str = given.partition(";")[0].strip().lower()
    if kind not in (JSON, RAW):
        raise Refusal(415, f"content-type: expected {JSON} or {RAW}, got {given!r:.80}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(415, f"content-encoding: expected none, got {encoding!r:.80}")
    return kind


async def _body(request: Request, limits: Limits, memory: Holding) -> bytes:
    """All of it, if it is not too long, and in time."""
    too_large = Refusal(413, f"body: expected at most {limits.max_body} bytes")
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
        raise Refusal(408, f"body: expected within {limits.timeout:g} s") from None


class InParts(Response):
    """A response of which each part has to be taken in time, and each `max_body` bytes of all of it.

    If they are not, the server closes the connection, for the body has not been completed.
    """

    def __init__(self, limits: Limits, content: bytes, **options: Any) -> None:
        super().__init__(content, **options)
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
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
    """No such path, or method."""
    words = f"{request.method} {request.scope['path']}: {error.detail}"
    return Response(json_of(error=words[:200]), error.status_code, dict(error.headers or {}), JSON)


async def _internal_error(request: Request, error: Exception) -> Response:
    """A defect, which the server logs."""
    return Response(json_of(error="server: internal error"), 500, media_type=JSON)
