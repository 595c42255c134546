"""The server of `cylstm serve`: uvicorn in one or more processes."""

import asyncio
import contextlib
import dataclasses
import functools
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from cylstm import _checks
from cylstm._system.threads import usable_cpus
from cylstm.serve.app import application
from cylstm.serve.connections import KEEP_ALIVE, MAX_HEAD, Connections, Http, Stream
from cylstm.serve.limits import Limits
from cylstm.serve.logs import tidy
from cylstm.serve.metrics import share
from cylstm.serve.supervisor import Supervisor

BACKLOG = 2048  # connections in the kernel's queue
ACCEPT_BATCH = 100  # connections that the server accepts in one iteration of the event loop
# SIGHUP: the terminal was closed. Some signals exist on some platforms only.
STOPS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]


def run(
    path: str,
    host: str,
    port: int,
    limits: Limits,
    *,
    workers: int = 1,
    threads: int | None = None,
    started: Callable[[str, bool], Any] = lambda url, scaled: None,
) -> None:
    """Serve a model file until SIGTERM, SIGINT or SIGHUP; shutdown completes accepted requests.

    Parameters
    ----------
    path : str
    host, port
        Address to listen on; port 0 selects a free port.
    limits : Limits
        Limits of each process.
    workers : int
        Number of processes. A process that dies is replaced.
    threads : int, optional
        CPUs per process. By default the CPUs of the machine are divided between processes.
    started : callable
        Called once the server listens, with the URL and whether the model has scalers, which /predict does
        not apply.

    Raises
    ------
    OSError
        If it cannot listen on the address.
    ValueError
        If the file does not contain a model, or another argument is invalid.
    """
    workers = _checks.positive("workers", workers)
    build = functools.partial(application, path, threads=threads, **dataclasses.asdict(limits))
    app = build()  # reports errors early; with several workers, each reads the file again
    with _listening(host, port) as listener:
        # Without TCP_NODELAY, the body of an answer may wait 40 ms for the acknowledgement of its head.
        # asyncio sets it only for sockets with an explicit protocol; connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if workers == 1:
            with stopped_by(STOPS) as stop:
                started(_url(listener), app.state.scaled)
                _answer(app, limits, listener, stop, lambda: False)
            return
        if threads is None:
            build.keywords["threads"] = max(1, usable_cpus() // workers)
        with tempfile.TemporaryDirectory(prefix="cylstm-") as folder:
            share(folder)
            with stopped_by(STOPS) as stop:
                started(_url(listener), app.state.scaled)
                serve = functools.partial(_serve, build, limits, listener)
                Supervisor(serve, workers, limits.timeout + 10).run(stop, listener.close)


def _serve(
    build: Callable[[], Any], limits: Limits, listener: socket.socket, ended: Callable[[], bool]
) -> None:
    """Run a worker until `ended` returns that the supervisor has exited or stops the worker."""
    with stopped_by(STOPS) as stop:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parent process has shown them
            app = build()
        _answer(app, limits, listener, stop, ended)


def _answer(
    app: Any, limits: Limits, listener: socket.socket, stop: "Stop", ended: Callable[[], bool]
) -> None:
    """Answer requests until a signal or `ended`; a second Ctrl-C exits without completing requests."""
    server = Server(app, limits, lambda: stop.is_set() or ended())
    stop.again = functools.partial(setattr, server, "force_exit", True)
    server.run([listener])


class Stop(threading.Event):
    """An event that is set by a signal; a second Ctrl-C calls `again`."""

    again: Callable[[], Any] = staticmethod(lambda: None)


@contextlib.contextmanager
def stopped_by(signals: list[Any]) -> Iterator[Stop]:
    """Return an event that is set by signals, except for ignored ones, as with nohup."""
    stop = Stop()

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGINT and stop.is_set():
            stop.again()
        stop.set()

    before = {number: signal.getsignal(number) for number in signals}
    taken = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handle)
    unblock(signals)
    try:
        yield stop
    finally:
        for number, old in taken.items():
            signal.signal(number, old)


def unblock(signals: list[Any]) -> None:
    """Unblock signals that the supervisor blocked during the start of this process."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn with `Limits`, which at shutdown answers every request that has reached the machine.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    should_stop : callable
        Called ten times per second. The caller handles signals.
    **options
        As for `uvicorn.Config`.
    """

    def __init__(self, app: Any, limits: Limits, should_stop: Callable[[], bool], **options: Any) -> None:
        given = {
            "http": Http, "ws": Stream, "loop": "asyncio", "proxy_headers": False, "server_header": False,
            "ws_max_size": limits.max_body, "ws_per_message_deflate": False, "backlog": ACCEPT_BATCH,
            "h11_max_incomplete_event_size": MAX_HEAD, "timeout_keep_alive": KEEP_ALIVE,
            "timeout_graceful_shutdown": int(limits.timeout) + 1, "log_level": "warning", "access_log": False,
            **options,
        }  # fmt: skip
        super().__init__(uvicorn.Config(app, **given))
        tidy()
        self.server_state = self._connections = Connections(limits)
        self._should_stop = should_stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with a long queue; uvicorn's `backlog` also limits the connections accepted at a time."""
        await super().startup(sockets=sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop."""
        self.should_exit = self.should_exit or self._should_stop()
        return bool(await super().on_tick(counter))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept all connections in the kernel's queue, then stop."""
        self._connections.stopping = True
        for listener in sockets or []:
            await self._drain(listener)
        await super().shutdown(sockets=sockets)

    async def _drain(self, listener: socket.socket) -> None:
        """Accept the connections in the kernel's queue, which would be reset otherwise.

        The length of the queue is not changed, because other gunicorn workers share it.
        """
        loop = asyncio.get_running_loop()
        try:
            loop.remove_reader(listener)
        except NotImplementedError:  # Windows: the loop itself accepts
            return
        for _ in range(BACKLOG):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the client has disconnected, or there are too many open files
                continue
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)

    def _protocol(self) -> asyncio.Protocol:
        return Http(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ValueError(f"port: expected 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
