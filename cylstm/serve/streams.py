"""Streams over WebSocket: one a connection, whose state is carried from message to message."""

from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from cylstm.serve.bodies import Refusal, json_of
from cylstm.serve.service import Service
from cylstm.serve.shares import client_of, evictable

GOING_AWAY, POLICY, TOO_BIG, TRY_LATER = 1001, 1008, 1009, 1013  # codes of RFC 6455 and its registry


async def stream(service: Service, socket: WebSocket) -> None:
    """Answer the messages of a connection, one after the other, until it ends.

    The steps of all streams go through the queue of requests, which joins those that wait into a batch; so
    the state is all that a stream has, and goes with it. A message that is refused leaves it as it was.
    """
    if not _may_open(socket, service.limits.origins):
        await socket.close()  # before it is accepted: status 403
        return
    await socket.accept()
    if not service.causal:
        await socket.close(POLICY, "model: expected layers that read forward only")
        return
    client = client_of(socket.client.host if socket.client else None)
    open_ = service.streams.holding(client)
    if service.stopping or not open_.resize(1):
        await socket.close(TRY_LATER, str(open_.refusal))
        return
    service.metrics.streams.inc()
    try:
        await evictable(_answer_all(service, socket, client), open_)
    except Refusal as refusal:
        await socket.close(TRY_LATER, str(refusal))
    except (WebSocketDisconnect, RuntimeError) as error:
        if isinstance(error, RuntimeError) and socket.client_state.name == "CONNECTED":
            raise
    finally:
        open_.release()
        service.metrics.streams.dec()


def _may_open(socket: WebSocket, origins: tuple[str, ...]) -> bool:
    """Whether a browser may open it for the page that it shows; others name no origin.

    Browsers open WebSockets of any page to any server, and send what authorises their user along.
    """
    given = socket.headers.getlist("origin")
    if not given or "*" in origins:
        return True
    if len(given) > 1:
        return False
    origin = given[0].lower()
    same = urlsplit(origin).netloc == socket.headers.get("host", "").lower() != ""
    return same or origin in (one.lower() for one in origins)


async def _answer_all(service: Service, socket: WebSocket, client: str) -> None:
    state: Any = None
    while True:
        given = await _message(service, socket)
        if given is None:
            return
        try:
            state = await _answer(service, socket, client, given, state)
        except (TimeoutError, Refusal):  # nobody reads the answer
            return
        del given  # a stream that waits holds its state and no more


async def _message(service: Service, socket: WebSocket) -> str | bytes | None:
    """The next message; None if the stream has ended, perhaps because there was none to be answered."""
    limits = service.limits
    try:
        with anyio.fail_after(limits.idle_timeout):
            message = await socket.receive()
    except TimeoutError:
        await socket.close(GOING_AWAY, f"stream: no message for {limits.idle_timeout:g} s")
        return None
    if message["type"] == "websocket.disconnect":
        return None
    raw: bytes | None = message.get("bytes")
    given: str | bytes = message["text"] if raw is None else raw
    if len(given) > limits.max_body:
        await socket.close(TOO_BIG, f"message: expected at most {limits.max_body} bytes")
        return None
    return given


async def _answer(service: Service, socket: WebSocket, client: str, given: str | bytes, state: Any) -> Any:
    """Send the answer to a message; the state after it, which is the one before if it is refused."""
    memory, turn = service.memory.holding(client), service.turns.holding(client)
    raw = isinstance(given, bytes)
    answer_of: Any = service.answer_raw if raw else service.answer_json
    try:
        try:
            memory.claim(len(given))
            turn.claim(1)
            answer, after = await evictable(answer_of(given, state), memory, turn)
            memory.claim(len(answer))
        except Refusal as refusal:
            raw, answer, after = False, json_of(error=str(refusal)), state
        finally:
            turn.release()
        sent = socket.send_bytes(answer) if raw else socket.send_text(answer.decode())
        del answer  # until the client reads, memory holds it once
        with anyio.fail_after(service.limits.timeout):
            await evictable(sent, memory)
        return after
    finally:
        memory.release()
