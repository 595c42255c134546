"""The ASGI application: /predict, /classify, /stream, /healthz, /metrics."""

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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from cylstm.layers.activation import softmax
from cylstm.sequence_layer import SequenceLayer
from cylstm.serve.bodies import JSON, RAW, Refusal, json_of
from cylstm.serve.limits import Limits
from cylstm.serve.service import Service, converted
from cylstm.serve.streams import stream
from cylstm.session import Session

PART = 2**16  # bytes that are written at a time


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
    GET /healthz     Status 200; once the server has stopped listening, none. 503 if still asked after the
                     end of the lifespan, as in an application that this one is mounted in.
    GET /metrics     For Prometheus.
    ===============  ==================================================================================

    A request that cannot be answered gets `{"error": "x: expected ..."}`: 400 no JSON, 408 came too slowly,
    413 too large, 415 of another type, 422 not for this model, 503 too many at a time (with
    `Retry-After`), 504 took too long. Results have the bits of `Session.run`, whatever else is computed.

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
    A file `app.py` for `gunicorn --preload -w 4 -k uvicorn_worker.UvicornWorker app:app`, whose workers
    share the weights in memory (`pip install gunicorn uvicorn-worker`)::

        from cylstm.serve import application

        app = application("model.safetensors", threads=1, max_steps=500)

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
        yield
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
        Route("/predict", _answering(service, _predict), methods=["POST"]),
        WebSocketRoute("/stream", streams),
    ]
    if service.classes:
        routes.append(Route("/classify", _answering(service, _classify), methods=["POST"]))
    handlers: Any = {HTTPException: _http_error, Exception: _internal_error}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


Answer = tuple[bytes, str]  # content and its type


async def _predict(service: Service, body: bytes, kind: str) -> Answer:
    answer = service.answer_raw if kind == RAW else service.answer_json
    content, _ = await answer(body)
    return content, kind


async def _classify(service: Service, body: bytes, kind: str) -> Answer:
    if kind == RAW:
        raise Refusal(415, f"content-type: expected {JSON}, got {RAW}")
    y, _ = await service.run(await converted(len(body), service.scaled_of_json, body))
    p = softmax(y.astype(np.float64))
    probabilities = dict(zip(service.classes, p.tolist(), strict=True))
    return json_of(label=service.classes[int(p.argmax())], probabilities=probabilities), JSON


def _answering(
    service: Service, function: Callable[[Service, bytes, str], Awaitable[Answer]]
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of requests that `function` has results for: limits, refusals, metrics."""
    metrics, limits = service.metrics, service.limits

    async def answer(request: Request) -> Response:
        if service.waiting >= limits.max_queue:
            raise Refusal(503, f"server: {limits.max_queue} requests are in progress; try again later")
        service.waiting += 1
        metrics.in_progress.inc()
        try:
            kind = _kind(request)
            content, type_ = await function(service, await _body(request, limits), kind)
        finally:
            service.waiting -= 1
            metrics.in_progress.dec()
        return InParts(limits.timeout, content, media_type=type_)

    async def handler(request: Request) -> Response:
        begin, status = time.perf_counter(), 500
        try:
            response = await answer(request)
            status = response.status_code
        except Refusal as refusal:
            status = refusal.status
            response = Response(json_of(error=str(refusal)), status, media_type=JSON)
            if status == 503:
                response.headers["Retry-After"] = "1"
        except ClientDisconnect:
            status, response = 0, Response()  # which nobody gets
        finally:
            metrics.requests.labels(request.url.path, status).inc()
            metrics.seconds.observe(time.perf_counter() - begin)
        return response

    return handler


def _kind(request: Request) -> str:
    """The type of a body that can be read."""
    given = request.headers.get("content-type", "")
    kind: str = given.partition(";")[0].strip().lower()
    if kind not in (JSON, RAW):
        raise Refusal(415, f"content-type: expected {JSON} or {RAW}, got {given!r:.80}")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refusal(415, f"content-encoding: expected none, got {encoding!r:.80}")
    return kind


async def _body(request: Request, limits: Limits) -> bytes:
    """All of it, if it is not too long, and in time."""
    too_large = Refusal(413, f"body: expected at most {limits.max_body} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.max_body):
        raise too_large

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > limits.max_body:
                raise too_large
            parts.append(part)
        return b"".join(parts)

    try:
        with anyio.fail_after(limits.timeout):
            return await read()
    except TimeoutError:
        raise Refusal(408, f"body: expected within {limits.timeout:g} s") from None


class InParts(Response):
    """A response of which each part has to be taken in time: who reads nothing holds up one part.

    The server then closes the connection, for the body has not been completed.
    """

    def __init__(self, timeout: float, content: bytes, **options: Any) -> None:
        super().__init__(content, **options)
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        body = bytes(self.body)
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(head)
        for begin in range(0, max(len(body), 1), PART):
            end = begin + PART
            message = {"type": "http.response.body", "body": body[begin:end], "more_body": end < len(body)}
            try:
                with anyio.fail_after(self._timeout):
                    await send(message)
            except TimeoutError:
                return


async def _http_error(request: Request, error: HTTPException) -> Response:
    """No such path, or method."""
    words = f"{request.method} {request.url.path}: {error.detail}"
    return Response(json_of(error=words[:200]), error.status_code, dict(error.headers or {}), JSON)


async def _internal_error(request: Request, error: Exception) -> Response:
    """A defect, which the server logs."""
    return Response(json_of(error="server: internal error"), 500, media_type=JSON)
