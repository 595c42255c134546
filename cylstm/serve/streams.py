"""Streams over WebSocket: one per connection, whose state is carried from message to message."""

from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from cylstm.serve.bodies import RequestError, json_of
from cylstm.serve.quotas import client_of, evictable
from cylstm.serve.service import Service

GOING_AWAY, POLICY, TOO_BIG, TRY_LATER = 1001, 1008, 1009, 1013  # codes of RFC 6455 and its registry


async def stream(service: Service, socket: WebSocket) -> None:
    """Answer the messages of a connection in order until it is closed.

    The steps of all streams go through the request queue, which combines waiting requests into batches. A
    stream only holds its state. A message that causes an error does not change the state.
    """
    if not _may_open(socket, service.limits.origins):
        await socket.close()  # before accepting it: status 403
        return
    await socket.accept()
    if not service.causal:
        await socket.close(POLICY, "model: expected layers that read forward only")
        return
    client = client_of(socket.client.host if socket.client else None)
    open_ = service.streams.reservation(client)
    if service.stopping or not open_.resize(1):
        await socket.close(TRY_LATER, str(open_.error))
        return
    service.metrics.streams.inc()
    try:
        await evictable(_answer_all(service, socket, client), open_)
    except RequestError as error:
        await socket.close(TRY_LATER, str(error))
    except (WebSocketDisconnect, RuntimeError) as error:
        if isinstance(error, RuntimeError) and socket.client_state.name == "CONNECTED":
            raise
    finally:
        open_.release()
        service.metrics.streams.dec()


def _may_open(socket: WebSocket, origins: tuple[str, ...]) -> bool:
    """Whether the Origin header permits the stream; only browsers send it.

    Browsers allow any page to open a WebSocket to any server, and send the credentials of the user.
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
        except (TimeoutError, RequestError):  # the client does not read the answer
            return
        del given  # a waiting stream only holds its state


async def _message(service: Service, socket: WebSocket) -> str | bytes | None:
    """Receive the next message; None if the stream has ended or timed out."""
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
    """Answer a message and return the new state, which is unchanged after an error."""
    memory, slot = service.memory.reservation(client), service.slots.reservation(client)
    raw = isinstance(given, bytes)
    answer_of: Any = service.answer_raw if raw else service.answer_json
    try:
        try:
            memory.claim(len(given))
            slot.claim(1)
            answer, after = await evictable(answer_of(given, state), memory, slot)
            memory.claim(len(answer))
        except RequestError as error:
            raw, answer, after = False, json_of(error=str(error)), state
        finally:
            slot.release()
        sent = socket.send_bytes(answer) if raw else socket.send_text(answer.decode())
        del answer  # hold the bytes only once until the client reads them
        with anyio.fail_after(service.limits.timeout):
            await evictable(sent, memory)
        return after
    finally:
        memory.release()
