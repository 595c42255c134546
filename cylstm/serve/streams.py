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
        answer_of = service.answer_raw if raw else service.answer_json
        memory, turn = service.memory.holding(client), service.turns.holding(client)
        try:
            try:
                memory.claim(len(given))
                turn.claim(1)
                answer, after = await evictable(answer_of(given, state), memory, turn)
                memory.claim(len(answer))
                state = after
            except Refusal as refusal:
                raw, answer = False, json_of(error=str(refusal))
            finally:
                turn.release()
            sent = socket.send_bytes(answer) if raw else socket.send_text(answer.decode())
            with anyio.fail_after(limits.timeout):
                await evictable(sent, memory)
        except (TimeoutError, Refusal):
            return
        finally:
            memory.release()
