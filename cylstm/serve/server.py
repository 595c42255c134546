"""The server of `cylstm serve`: uvicorn, in one process or several."""

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
from cylstm.serve.connections import HEAD, KEEP_ALIVE, Connections, Http, Stream
from cylstm.serve.limits import Limits
from cylstm.serve.logs import tidy
from cylstm.serve.metrics import share
from cylstm.serve.supervisor import Supervisor

BACKLOG = 2048  # connections that the kernel accepts before the server does
AT_ONCE = 100  # that the server accepts before it looks at others
# SIGHUP: the terminal was closed. Those that a platform lacks are not there.
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
    """Serve a model file until SIGTERM, SIGINT or SIGHUP; requests that were sent before are answered.

    Parameters
    ----------
    path : str
    host, port
        Where to listen; port 0 takes one that is free.
    limits : Limits
        Of each process.
    workers : int
        Processes. One that dies is replaced.
    threads : int, optional
        CPUs of each. By default they share those of the machine.
    started : callable
        Told, when it listens, the URL and whether the model has scalers, which /predict does not apply.

    Raises
    ------
    OSError
        If it cannot listen there.
    ValueError
        If the file holds no model, or another argument is not as above.
    """
    workers = _checks.positive("workers", workers)
    build = functools.partial(application, path, threads=threads, **dataclasses.asdict(limits))
    app = build()  # of several processes, each reads the file again; what is wrong with it is known here
    with _listening(host, port) as listener:
        # Or an answer's body waits up to 40 ms for the client to acknowledge its head. Asyncio does so only
        # for sockets that name their protocol; connections inherit it.
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
    """What a worker does, until `ended` says that its supervisor has gone or wants it to stop."""
    with stopped_by(STOPS) as stop:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the process that has started this one has shown them
            app = build()
        _answer(app, limits, listener, stop, ended)


def _answer(
    app: Any, limits: Limits, listener: socket.socket, stop: "Stop", ended: Callable[[], bool]
) -> None:
    """Answer requests until a signal, or `ended`; a second Ctrl-C waits for none of them."""
    server = Server(app, limits, lambda: stop.is_set() or ended())
    stop.again = functools.partial(setattr, server, "force_exit", True)
    server.run([listener])


class Stop(threading.Event):
    """Set by a signal; `again` is called by another Ctrl-C."""

    again: Callable[[], Any] = staticmethod(lambda: None)


@contextlib.contextmanager
def stopped_by(signals: list[Any]) -> Iterator[Stop]:
    """An event that is set by signals, but by those that the process was told to ignore, as by nohup."""
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
    """Take signals that a supervisor held back while this process started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn with the bounds of `Limits`, which answers every request that has reached the machine.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    stops : callable
        Asked ten times a second whether to stop. Signals are its caller's.
    **options
        As for `uvicorn.Config`.
    """

    def __init__(self, app: Any, limits: Limits, stops: Callable[[], bool], **options: Any) -> None:
        given = {
            "http": Http, "ws": Stream, "loop": "asyncio", "proxy_headers": False, "server_header": False,
            "ws_max_size": limits.max_body, "ws_per_message_deflate": False, "backlog": AT_ONCE,
            "h11_max_incomplete_event_size": HEAD, "timeout_keep_alive": KEEP_ALIVE, "log_level": "warning",
            "timeout_graceful_shutdown": int(limits.timeout) + 1, "access_log": False, **options,
        }  # fmt: skip
        super().__init__(uvicorn.Config(app, **given))
        tidy()
        self.server_state = self._connections = Connections(limits)
        self._stops = stops

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Those of the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with a long queue, of which few are taken at a time."""
        await super().startup(sockets=sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop."""
        self.should_exit = self.should_exit or self._stops()
        return bool(await super().on_tick(counter))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, when every connection that clients have made has become one of the server."""
        self._connections.stopping = True
        for listener in sockets or []:
            await self._drain(listener)
        await super().shutdown(sockets=sockets)

    async def _drain(self, listener: socket.socket) -> None:
        """Accept what the kernel has accepted, for it would reset that.

        The length of its queue stays: workers of gunicorn that have been started share it.
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
            except OSError:  # the client has gone, or there are too many files
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
        raise OSError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
