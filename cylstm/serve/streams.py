"""Streams over WebSocket: one a connection, whose state is carried from message to message."""

from typing import Any

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from cylstm.serve.bodies import Refusal, json_of
from cylstm.serve.service import Service

GOING_AWAY, POLICY, TOO_BIG, TRY_LATER = 1001, 1008, 1009, 1013  # codes of RFC 6455 and its registry


async def stream(service: Service, socket: WebSocket) -> None:
    """Answer the messages of a connection, one after the other, until it ends.

    The steps of all streams go through the queue of requests, which joins those that wait into a batch; so
    the state is all that a stream has, and goes with it. A message that is refused leaves it as it was.
    """
    limits, metrics = service.limits, service.metrics
    await socket.accept()
    if not service.causal:
        await socket.close(POLICY, "model: expected layers that read forward only")
        return
    if service.streams >= limits.max_streams or service.stopping:
        await socket.close(TRY_LATER, "server: too many streams; try again later")
        return
    service.streams += 1
    metrics.streams.inc()
    try:
        await _answer_all(service, socket)
    except (WebSocketDisconnect, RuntimeError) as error:
        if isinstance(error, RuntimeError) and socket.client_state.name == "CONNECTED":
            raise
    finally:
        service.streams -= 1
        metrics.streams.dec()


async def _answer_all(service: Service, socket: WebSocket) -> None:
    limits = service.limits
    state: Any = None
    while True:
        try:
            with anyio.fail_after(limits.idle_timeout):
                message = await socket.receive()
        except TimeoutError:
            await socket.close(GOING_AWAY, f"stream: no message for {limits.idle_timeout:g} s")
            return
        if message["type"] == "websocket.disconnect":
            return
        given: Any = message.get("bytes")
        if given is None:
            given = message["text"]
        if len(given) > limits.max_body:
            await socket.close(TOO_BIG, f"message: expected at most {limits.max_body} bytes")
            return
        raw = isinstance(given, bytes)
        try:
            answer, state = await (service.answer_raw if raw else service.answer_json)(given, state)
        except Refusal as refusal:
            raw, answer = False, json_of(error=str(refusal))
        try:
            with anyio.fail_after(limits.timeout):
                await (socket.send_bytes(answer) if raw else socket.send_text(answer.decode()))
        except TimeoutError:
            return
