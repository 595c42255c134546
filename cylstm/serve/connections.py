"""Connections of a server: their maximum number, and timeouts for unresponsive clients."""

import asyncio
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from cylstm.serve.limits import Limits
from cylstm.serve.logs import warn
from cylstm.serve.quotas import Quota, client_of

try:
    import resource
except ImportError:  # on Windows, where limits are high enough
    resource = None  # type: ignore[assignment]

KEEP_ALIVE = 75  # seconds to keep an idle connection, longer than proxies do
LINGER = 1  # seconds to keep an idle connection at shutdown, as a request may be in transit
IDLE_CONNECTIONS = 1000  # in addition to connections with requests or streams
OTHER_FILES = 200  # other open files of a process, and connections accepted in one batch
HTTP_READ, STREAM_READ = 2**14, 2**12  # bytes to read and parse at a time
MAX_HEAD = 2**15  # bytes of a request head
MAX_FRAGMENTS = 1024  # of a stream message


class Connections(ServerState):  # type: ignore[misc]
    """The connections of a server in one process.

    Attributes
    ----------
    limits : Limits
    max_connections : int
    bytes : Quota
        Bytes buffered between the sockets and the application: unread responses and incomplete messages.
    stopping : bool
        Whether the server is shutting down; new connections then serve only one request.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.stopping = False
        self.max_connections = _available_files(limits.max_queue + limits.max_streams + IDLE_CONNECTIONS)
        self.bytes = Quota(limits.max_bytes, "server: too many bytes")
        self._clients: dict[str, dict[asyncio.BaseTransport, Watched]] = {}
        self._count = 0

    def add(self, client: str, transport: asyncio.BaseTransport, protocol: "Watched") -> None:
        """Add a connection, or update one that became a stream; above the limit, close another one."""
        connections = self._clients.setdefault(client, {})
        is_new = transport not in connections
        connections[transport] = protocol
        if is_new:
            self._count += 1
            if self._count > self.max_connections:
                self._close_one()

    def remove(self, client: str, transport: asyncio.BaseTransport) -> None:
        """Remove a closed connection."""
        connections = self._clients.get(client, {})
        if connections.pop(transport, None) is not None:
            self._count -= 1
            if not connections:
                del self._clients[client]

    def _close_one(self) -> None:
        """Close the longest-waiting connection of the client with the most connections."""
        for connections in sorted(self._clients.values(), key=len, reverse=True):
            waiting = [protocol for protocol in connections.values() if protocol.waits_for_client()]
            if waiting:
                min(waiting, key=lambda protocol: protocol.since).abort()
                return


def _available_files(wanted: int) -> int:
    """Return how many of `wanted` connections the open-file limit allows, raising the limit if necessary."""
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # macOS has another limit
        limit = soft
    return max(limit - OTHER_FILES, limit // 2)


class Watched(asyncio.Protocol):
    """Base class of connections, which are counted, and closed after `timeout` without progress.

    Unread responses buffered by a transport are limited; while there are any, nothing is read.
    """

    transport: Any
    loop: Any
    _all: Connections
    since = 0.0  # start of the current wait for the client

    def watch(self, connections: Connections, read: int) -> None:
        """Start watching a new connection."""
        transport = self.transport
        self._all, self.since = connections, self.loop.time()
        name = transport.get_extra_info("peername")
        self._client = client_of(name[0] if isinstance(name, tuple) else None)
        if hasattr(transport, "max_size"):  # of asyncio: the bytes of one recv
            transport.max_size = read
        transport.set_write_buffer_limits(high=0)
        self._unread = connections.bytes.reservation(self._client, self.abort)
        self._full = False
        self._timer = self.loop.call_later(connections.limits.timeout, self._check_progress, None)
        connections.add(self._client, transport, self)

    def unwatch(self) -> None:
        """Stop watching a connection that is lost or taken over by another protocol."""
        self._timer.cancel()
        self._unread.release()

    def abort(self) -> None:
        """Close the connection immediately."""
        self.transport.abort()

    def waits_for_client(self) -> bool:
        """Whether the connection waits for its client and may therefore be closed."""
        raise NotImplementedError

    def progress(self) -> Any:
        """Return a value that must change within `timeout`; None if there is no time limit."""
        raise NotImplementedError

    def _check_progress(self, before: Any) -> None:
        if self._full or self.transport.is_closing():
            current: Any = ("unread", self.transport.get_write_buffer_size())
        else:
            current = self.progress()
        if current is not None and current == before:
            self.abort()
            return
        self._timer = self.loop.call_later(self._all.limits.timeout, self._check_progress, current)

    def pause_writing(self) -> None:
        """Handle a client that does not read as fast as the server writes."""
        self._full = True
        self._reserve_unread()

    def _reserve_unread(self) -> None:
        if not self._unread.resize(self.transport.get_write_buffer_size()):
            self.abort()

    def resume_writing(self) -> None:
        """Handle a client that has read its responses."""
        self._full = False
        self._unread.release()


class Http(Watched, H11Protocol):  # type: ignore[misc]
    """uvicorn's HTTP protocol with timeouts for unresponsive clients.

    The application has timeouts for requests in progress, and uvicorn for idle connections. In any other
    state, a connection is closed if there is no progress for `timeout` seconds. At shutdown, an idle
    connection stays open for a moment, as a request may be in transit.
    """

    _stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start watching the connection."""
        H11Protocol.connection_made(self, cast(asyncio.Transport, transport))
        self.watch(cast(Connections, self.server_state), HTTP_READ)
        if self._all.stopping:  # accepted before the shutdown, but scheduled later
            self.shutdown()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop watching the connection."""
        self.unwatch()
        self._all.remove(self._client, self.transport)
        H11Protocol.connection_lost(self, error)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand the connection over to the WebSocket protocol."""
        self.unwatch()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Call both base classes."""
        Watched.pause_writing(self)
        H11Protocol.pause_writing(self)

    def resume_writing(self) -> None:
        """Call both base classes."""
        Watched.resume_writing(self)
        H11Protocol.resume_writing(self)

    def shutdown(self) -> None:
        """Close the connection after the current request, or one in transit."""
        if self._is_answering():
            self._close_after_response()
        else:
            self._stopping = True
            self.loop.call_later(LINGER, self._shutdown)

    def _shutdown(self) -> None:
        if not self.transport.is_closing():
            H11Protocol.shutdown(self)

    def data_received(self, data: bytes) -> None:
        """Parse data; invalid HTTP closes the connection, and at shutdown a request is the last one."""
        try:
            H11Protocol.data_received(self, data)
        except (h11.ProtocolError, UnicodeError) as error:  # during a response or a handshake
            warn(f"Invalid HTTP request received: {error}")
            self.abort()
            return
        if self._stopping and self._is_answering():
            self._close_after_response()

    def on_response_complete(self) -> None:
        """Start waiting for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def _close_after_response(self) -> None:
        self.cycle.keep_alive = False
        self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def waits_for_client(self) -> bool:
        """Whether it waits for a request, for the rest of one, or for a response to be read."""
        return self._full or not self._is_answering() or self.cycle.more_body

    def progress(self) -> Any:
        """Limit the time for a request head; other states have separate timeouts."""
        is_idle = self.timeout_keep_alive_task is not None
        return None if self._is_answering() or is_idle else ("head", self.cycle)


class Stream(Watched, WebSocketsSansIOProtocol):  # type: ignore[misc]
    """uvicorn's WebSocket protocol with limits on data that the application has not received."""

    def __init__(self, *, server_state: Any, **options: Any) -> None:
        super().__init__(server_state=server_state, **options)
        self._state = server_state
        self._fragments, self._fragment_bytes = 0, 0  # of the current, incomplete message
        self._messages, self._queued = 0, 0  # number of complete messages; bytes of unreceived ones

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start watching the connection."""
        WebSocketsSansIOProtocol.connection_made(self, transport)
        self.watch(self._state, STREAM_READ)
        self._incoming = self._state.bytes.reservation(self._client, self.abort)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop watching the connection."""
        self.unwatch()
        self._incoming.release()
        self._all.remove(self._client, self.transport)
        WebSocketsSansIOProtocol.connection_lost(self, error)

    def data_received(self, data: bytes) -> None:
        """Parse data and count what is incomplete or queued; an invalid WebSocket closes the connection."""
        try:
            super().data_received(data)
        except (ValueError, LookupError, AssertionError) as error:  # such as a non-ASCII path
            warn(f"Invalid WebSocket request received: {error}")
            self.abort()
            return
        if self._full:  # of responses to pings
            self.transport.pause_reading()
            self._reserve_unread()
        self._reserve_incoming()

    def handle_text(self, event: Any) -> None:
        """Handle a message or its first fragment."""
        self._count(event)
        super().handle_text(event)

    def handle_bytes(self, event: Any) -> None:
        """Handle a message or its first fragment."""
        self._count(event)
        super().handle_bytes(event)

    def handle_cont(self, event: Any) -> None:
        """Handle a further fragment; the number is limited because fragments may be empty."""
        self._count(event)
        if self._fragments <= MAX_FRAGMENTS:
            super().handle_cont(event)
        elif self._fragments == MAX_FRAGMENTS + 1:
            self.conn.fail(1009, f"message: expected at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def _count(self, event: Any) -> None:
        self._fragments += 1
        self._fragment_bytes += len(event.data)

    def send_receive_event_to_app(self) -> None:
        """Queue a complete message."""
        self._queued += self._fragment_bytes
        self._fragments, self._fragment_bytes, self._messages = 0, 0, self._messages + 1
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        """Receive the next message, whose bytes are then counted by the application."""
        message = await super().receive()
        if self.queue.empty():
            self._queued = 0
            self._reserve_incoming()
        return message

    def _partial(self) -> int:
        """Return the bytes of the incomplete message."""
        return self._fragment_bytes + len(self.conn.reader.buffer)

    def _reserve_incoming(self) -> None:
        if not self.transport.is_closing() and not self._incoming.resize(self._partial() + self._queued):
            self.abort()

    def pause_writing(self) -> None:
        """Also stop reading, because responses to pings would accumulate."""
        Watched.pause_writing(self)
        self.transport.pause_reading()
        self.writable.clear()

    def resume_writing(self) -> None:
        """Resume reading as well."""
        Watched.resume_writing(self)
        if not self.read_paused:
            self.transport.resume_reading()
        self.writable.set()

    def waits_for_client(self) -> bool:
        """Return False: streams have a separate limit."""
        return False

    def progress(self) -> Any:
        """Limit the time for an incomplete message."""
        return ("message", self._messages) if self._partial() and not self.read_paused else None
