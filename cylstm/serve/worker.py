"""A worker of gunicorn that runs cylstm's server: `gunicorn -k cylstm.serve.Worker app:app`."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from typing import Any

from gunicorn.workers import base

from cylstm.serve.connections import KEEP_ALIVE
from cylstm.serve.limits import Limits
from cylstm.serve.logs import WRITTEN_BY_SERVER
from cylstm.serve.metrics import SEVERAL, forget, share
from cylstm.serve.server import Server, stopped_by

PREFIX = "cylstm-"
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


class Worker(base.Worker):  # type: ignore[misc]
    """A process of gunicorn with the bounds of `cylstm.serve.Limits` on connections, as `cylstm serve` has.

    They are those of the application, or the defaults if it is another one, into which that of `application`
    is mounted. The workers of a server count together for /metrics. Idle connections are kept for at least
    75 s. A worker that is to stop, or whose gunicorn was killed, first answers what has come.

    Examples
    --------
    ``gunicorn --preload -w 4 -k cylstm.serve.Worker app:app``
    """

    @classmethod
    def setup(cls) -> None:
        """In gunicorn, before it loads the application: a folder in which the workers keep their numbers."""
        folder = os.environ.get(SEVERAL, "")
        # After SIGUSR2 the old gunicorn's folder is still there, and goes with it.
        inherited = "GUNICORN_PID" in os.environ and os.path.basename(folder).startswith(PREFIX)
        if not folder or (inherited and not _mine):
            folder = tempfile.mkdtemp(prefix=PREFIX)
            _mine.append(folder)
            atexit.register(_remove, folder, os.getpid())
        share(folder)

    def init_signals(self) -> None:
        """Take none but what reopens the logs: `run` takes those that stop."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.siginterrupt(signal.SIGUSR1, False)

    def run(self) -> None:
        """Serve until gunicorn wants it to stop, or is there no longer."""
        state = getattr(self.wsgi, "state", None)
        limits = getattr(state, "limits", None)
        if not isinstance(limits, Limits):
            limits = Limits()
        try:
            with stopped_by(STOPS) as stop:
                server = Server(
                    self.wsgi,
                    limits,
                    lambda: stop.is_set() or os.getppid() != self.ppid,
                    **self._options(limits),
                )
                for logger in WRITTEN_BY_SERVER:
                    logger.handlers, logger.propagate = list(self.log.error_log.handlers), False
                server.run(self.sockets)
        finally:
            forget(os.getpid())
        if not server.started:
            from gunicorn.arbiter import Arbiter

            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _options(self, limits: Limits) -> dict[str, Any]:
        """What gunicorn was told, for uvicorn."""
        options: dict[str, Any] = {
            "log_config": None,
            "timeout_keep_alive": max(self.cfg.keepalive, KEEP_ALIVE),
            "timeout_graceful_shutdown": max(1, min(int(limits.timeout) + 1, self.cfg.graceful_timeout - 1)),
            "callback_notify": self._notify,
            "timeout_notify": 1,
            "limit_max_requests": self.max_requests,
        }
        if self.cfg.is_ssl:
            names = "keyfile", "certfile", "ca_certs", "ciphers", "cert_reqs"
            options |= {f"ssl_{name}": self.cfg.ssl_options[name] for name in names}
        return options

    async def _notify(self) -> None:
        self.notify()


_mine: list[str] = []  # the folder that this process has made


def _remove(folder: str, pid: int) -> None:
    """At the end of gunicorn, but not of the workers that it has forked."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
