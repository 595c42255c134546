"""Connections of a server: how many there may be, and which of them end when nothing comes or is read."""

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from cylstm.serve.limits import Limits
from cylstm.serve.logs import warn
from cylstm.serve.shares import Shares, client_of

try:
    import resource
except ImportError:  # Windows, where no bound is so low
    resource = None  # type: ignore[assignment]

KEEP_ALIVE = 75  # seconds that an idle connection is kept: longer than proxies keep theirs
LINGER = 1  # seconds that it is kept when the server stops: a request may be on its way
IDLE_CONNECTIONS = 1000  # beside those of requests and streams
OTHER_FILES = 200  # that a process has open, and connections that are accepted at once
HTTP_READ, STREAM_READ = 2**14, 2**12  # bytes that are read at a time: what they hold is worked off at once
HEAD = 2**15  # bytes of a request's head
FRAGMENTS = 1024  # of a message of a stream


class Connections(ServerState):  # type: ignore[misc]
    """Those of one server, in one process.

    Attributes
    ----------
    limits : Limits
    room : int
        Connections at most.
    bytes : Shares
        What lies between the sockets and the application: answers that clients do not read, and messages of
        streams that are not complete.
    stopping : bool
        Whether the server stops: a connection that is made from now on answers one request.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.stopping = False
        self.room = _files(limits.max_queue + limits.max_streams + IDLE_CONNECTIONS)
        self.bytes = Shares(limits.max_bytes, "server: too many bytes")
        self._clients: dict[str, dict[asyncio.BaseTransport, Watched]] = {}
        self._count = 0

    def begin(self, client: str, transport: asyncio.BaseTransport, protocol: "Watched") -> None:
        """A connection is there, or has become a stream; if there are too many, another one ends."""
        own = self._clients.setdefault(client, {})
        new = transport not in own
        own[transport] = protocol
        if new:
            self._count += 1
            if self._count > self.room:
                self._end_another()

    def end(self, client: str, transport: asyncio.BaseTransport) -> None:
        """A connection is there no longer."""
        own = self._clients.get(client, {})
        if own.pop(transport, None) is not None:
            self._count -= 1
            if not own:
                del self._clients[client]

    def _end_another(self) -> None:
        """Of the client with most of them, the connection that has waited for its client for longest."""
        for own in sorted(self._clients.values(), key=len, reverse=True):
            waiting = [one for one in own.values() if one.waits_for_client()]
            if waiting:
                min(waiting, key=lambda one: one.since).abort()
                return


def _files(wanted: int) -> int:
    """Of so many connections, those for which a process may open files; it asks for more if it has to."""
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    more = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    except (OSError, ValueError):  # macOS has a bound of its own
        more = soft
    return max(more - OTHER_FILES, more // 2)


class Watched(asyncio.Protocol):
    """What both kinds of connections have: a place among all, and an end if nothing moves for `timeout`.

    Unread answers that a transport holds are bounded; while there are any, nothing is read.
    """

    transport: Any
    loop: Any
    _all: Connections
    since = 0.0  # when it last began to wait for its client

    def watch(self, connections: Connections, read: int) -> None:
        """Begin, when the connection is made."""
        transport = self.transport
        self._all, self.since = connections, self.loop.time()
        name = transport.get_extra_info("peername")
        self._client = client_of(name[0] if isinstance(name, tuple) else None)
        if hasattr(transport, "max_size"):  # of asyncio: the bytes of one recv
            transport.max_size = read
        transport.set_write_buffer_limits(high=0)
        self._unread = connections.bytes.holding(self._client, self.abort)
        self._full = False
        self._timer = self.loop.call_later(connections.limits.timeout, self._look, None)
        connections.begin(self._client, transport, self)

    def unwatch(self) -> None:
        """End, when the connection is lost or another protocol watches it."""
        self._timer.cancel()
        self._unread.release()

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def waits_for_client(self) -> bool:
        """Whether the connection may be ended, for it waits for its client and computes nothing."""
        raise NotImplementedError

    def stuck_at(self) -> Any:
        """What is to be another thing after `timeout`; None: it may take longer."""
        raise NotImplementedError

    def _look(self, before: Any) -> None:
        if self._full or self.transport.is_closing():
            at: Any = ("unread", self.transport.get_write_buffer_size())
        else:
            at = self.stuck_at()
        if at is not None and at == before:
            self.abort()
            return
        self._timer = self.loop.call_later(self._all.limits.timeout, self._look, at)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        self._full = True
        self._hold_unread()

    def _hold_unread(self) -> None:
        if not self._unread.resize(self.transport.get_write_buffer_size()):
            self.abort()

    def resume_writing(self) -> None:
        """It has read."""
        self._full = False
        self._unread.release()


class Http(Watched, H11Protocol):  # type: ignore[misc]
    """uvicorn's, without the connections that would stay: nothing comes, or nothing is read.

    A connection that neither answers a request, for which the application has its time-outs, nor waits for
    one, for which uvicorn has, is ended if after `timeout` seconds it is still the same. When the server
    stops, an idle connection stays for a moment, and its next request is answered: it may be on its way.
    """

    _stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Watch it."""
        H11Protocol.connection_made(self, cast(asyncio.Transport, transport))
        self.watch(cast(Connections, self.server_state), HTTP_READ)
        if self._all.stopping:  # it was accepted before, but its turn in the loop came later
            self.shutdown()

    def connection_lost(self, error: Exception | None) -> None:
        """Watch it no longer."""
        self.unwatch()
        self._all.end(self._client, self.transport)
        H11Protocol.connection_lost(self, error)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Another protocol watches it from now on."""
        self.unwatch()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """As both do."""
        Watched.pause_writing(self)
        H11Protocol.pause_writing(self)

    def resume_writing(self) -> None:
        """As both do."""
        Watched.resume_writing(self)
        H11Protocol.resume_writing(self)

    def shutdown(self) -> None:
        """Answer what is there or on its way, as the last request of the connection."""
        if self._answers():
            self._answer_as_last()
        else:
            self._stopping = True
            self.loop.call_later(LINGER, self._shutdown)

    def _shutdown(self) -> None:
        if not self.transport.is_closing():
            H11Protocol.shutdown(self)

    def data_received(self, data: bytes) -> None:
        """As it is, but of a connection that lingers; what is no HTTP ends it."""
        try:
            H11Protocol.data_received(self, data)
        except (h11.ProtocolError, UnicodeError) as error:  # in the middle of an answer, or in a handshake
            warn(f"Invalid HTTP request received: {error}")
            self.abort()
            return
        if self._stopping and self._answers():
            self._answer_as_last()

    def on_response_complete(self) -> None:
        """It waits for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def _answer_as_last(self) -> None:
        self.cycle.keep_alive = False
        self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def waits_for_client(self) -> bool:
        """For a request, the rest of one, or that an answer is read."""
        return self._full or not self._answers() or self.cycle.more_body

    def stuck_at(self) -> Any:
        """Heads that do not come; the rest has time-outs of its own."""
        waits = self.timeout_keep_alive_task is not None
        return None if self._answers() or waits else ("head", self.cycle)


class Stream(Watched, WebSocketsSansIOProtocol):  # type: ignore[misc]
    """uvicorn's, with bounds on what a client sends before the application takes it."""

    def __init__(self, *, server_state: Any, **options: Any) -> None:
        super().__init__(server_state=server_state, **options)
        self._state = server_state
        self._fragments, self._fragment_bytes = 0, 0  # of a message that is not complete
        self._messages, self._queued = 0, 0  # complete; bytes of those that the application has not taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Watch it."""
        WebSocketsSansIOProtocol.connection_made(self, transport)
        self.watch(self._state, STREAM_READ)
        self._arriving = self._state.bytes.holding(self._client, self.abort)

    def connection_lost(self, error: Exception | None) -> None:
        """Watch it no longer."""
        self.unwatch()
        self._arriving.release()
        self._all.end(self._client, self.transport)
        WebSocketsSansIOProtocol.connection_lost(self, error)

    def data_received(self, data: bytes) -> None:
        """Hold what is not complete, or not taken; what is no WebSocket ends it."""
        try:
            super().data_received(data)
        except (ValueError, LookupError, AssertionError) as error:  # as of a path that is no ASCII
            warn(f"Invalid WebSocket request received: {error}")
            self.abort()
            return
        if self._full:  # answers to pings
            self.transport.pause_reading()
            self._hold_unread()
        self._hold_arriving()

    def handle_text(self, event: Any) -> None:
        """A message, or its first fragment."""
        self._count(event)
        super().handle_text(event)

    def handle_bytes(self, event: Any) -> None:
        """A message, or its first fragment."""
        self._count(event)
        super().handle_bytes(event)

    def handle_cont(self, event: Any) -> None:
        """Another fragment, of which there may be many that are empty."""
        self._count(event)
        if self._fragments <= FRAGMENTS:
            super().handle_cont(event)
        elif self._fragments == FRAGMENTS + 1:
            self.conn.fail(1009, f"message: expected at most {FRAGMENTS} fragments")
            self.handle_parser_exception()

    def _count(self, event: Any) -> None:
        self._fragments += 1
        self._fragment_bytes += len(event.data)

    def send_receive_event_to_app(self) -> None:
        """A message is complete."""
        self._queued += self._fragment_bytes
        self._fragments, self._fragment_bytes, self._messages = 0, 0, self._messages + 1
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        """The next message, which the application holds from now on."""
        message = await super().receive()
        if self.queue.empty():
            self._queued = 0
            self._hold_arriving()
        return message

    def _partial(self) -> int:
        """Bytes of a message that is not complete."""
        return self._fragment_bytes + len(self.conn.reader.buffer)

    def _hold_arriving(self) -> None:
        if not self.transport.is_closing() and not self._arriving.resize(self._partial() + self._queued):
            self.abort()

    def pause_writing(self) -> None:
        """Read nothing meanwhile: answers to pings would pile up."""
        Watched.pause_writing(self)
        self.transport.pause_reading()
        self.writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        Watched.resume_writing(self)
        if not self.read_paused:
            self.transport.resume_reading()
        self.writable.set()

    def waits_for_client(self) -> bool:
        """Streams have a bound of their own."""
        return False

    def stuck_at(self) -> Any:
        """Messages that do not come to their end."""
        return ("message", self._messages) if self._partial() and not self.read_paused else None
