"""The server of `cylstm serve`: uvicorn, in one process or several."""

import asyncio
import dataclasses
import functools
import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.supervisors import Multiprocess

from cylstm import _checks
from cylstm.serve.app import application
from cylstm.serve.limits import Limits
from cylstm.serve.metrics import SEVERAL
from cylstm.threads import usable_cpus

KEEP_ALIVE = 75  # seconds that an idle connection is kept: longer than proxies keep theirs
LINGER = 1  # seconds that it is kept when the server stops: a request may be on its way
IDLE_CONNECTIONS = 1000  # beside those of requests and streams


def run(
    path: str,
    host: str,
    port: int,
    limits: Limits,
    *,
    workers: int = 1,
    threads: int | None = None,
    started: Callable[[str], Any] = lambda url: None,
) -> None:
    """Serve a model file until SIGTERM or SIGINT; requests that came are answered, within the time-out.

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
        Told the URL when it listens.

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
        started(_url(listener))
        if workers == 1:
            uvicorn.Server(_config(app, limits)).run([listener])
            return
        if threads is None:
            build.keywords["threads"] = max(1, usable_cpus() // workers)
        with tempfile.TemporaryDirectory(prefix="cylstm-") as folder:
            os.environ[SEVERAL] = folder
            _Supervisor(_config(build, limits, factory=True, workers=workers), [listener]).run()


def _config(app: Any, limits: Limits, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=functools.partial(Protocol, patience=limits.timeout),  # type: ignore[arg-type]
        ws_max_size=limits.max_body,
        limit_concurrency=limits.max_queue + limits.max_streams + IDLE_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(limits.timeout) + 1,
        log_level="warning",
        access_log=False,
        server_header=False,
        **options,
    )


class _Supervisor(Multiprocess):  # type: ignore[misc]
    def terminate_all(self) -> None:
        """Stop listening here too, or clients would wait for an answer in a queue that nobody reads."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's, without the connections that would stay for ever: nothing comes, or nothing is read.

    A connection that neither answers a request, for which the application has its time-outs, nor waits for
    one, for which uvicorn has, is ended if after `patience` seconds it is still the same. When the server
    stops, an idle connection stays for a moment, and its next request is answered: it may be on its way.
    """

    def __init__(self, *arguments: Any, patience: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience, self._stopping = patience, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Watch it."""
        super().connection_made(transport)
        self._look(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Watch it no longer."""
        self._watch.cancel()
        super().connection_lost(error)

    def shutdown(self) -> None:
        """Answer what is there or on its way, as the last request of the connection."""
        if self._answers():
            self._answer_as_last()
        else:
            self._stopping = True
            self.loop.call_later(LINGER, super().shutdown)

    def data_received(self, data: bytes) -> None:
        """As it is, but of a connection that lingers."""
        super().data_received(data)
        if self._stopping and self._answers():
            self._answer_as_last()

    def _answer_as_last(self) -> None:
        self.cycle.keep_alive = False
        self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self, stuck_at: Any) -> None:
        if self.transport.get_protocol() is not self:  # it has become a WebSocket
            return
        closing = self.transport.is_closing()
        answers = self._answers() and not closing
        waits = self.timeout_keep_alive_task is not None and not closing
        at = None if answers or waits else (self.cycle, closing)
        if at is not None and at == stuck_at:
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self._patience, self._look, at)


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ValueError(f"port: expected 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
