"""A gunicorn worker that runs cylstm's server: `gunicorn -k cylstm.serve.Worker app:app`."""

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
from cylstm.serve.metrics import METRICS_FOLDER, forget, share
from cylstm.serve.server import Server, stopped_by

PREFIX = "cylstm-"
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


class Worker(base.Worker):  # type: ignore[misc]
    """A gunicorn worker process that enforces `cylstm.serve.Limits` on connections, as `cylstm serve` does.

    The limits are those of the application, or the defaults if it is another application that mounts the one
    of `application`. /metrics sums over the workers of a server. Idle connections are kept open for at least
    75 s. A worker that is stopped, or whose gunicorn was killed, completes accepted requests first.

    Examples
    --------
    ``gunicorn --preload -w 4 -k cylstm.serve.Worker app:app``
    """

    @classmethod
    def setup(cls) -> None:
        """Create a folder for the metrics of the workers, before gunicorn loads the application."""
        folder = os.environ.get(METRICS_FOLDER, "")
        # After SIGUSR2 the environment names the folder of the old gunicorn, which will delete it.
        inherited = "GUNICORN_PID" in os.environ and os.path.basename(folder).startswith(PREFIX)
        if not folder or (inherited and not _created):
            folder = tempfile.mkdtemp(prefix=PREFIX)
            _created.append(folder)
            atexit.register(_remove, folder, os.getpid())
        share(folder)

    def init_signals(self) -> None:
        """Handle only the signal that reopens logs; `run` handles those that stop the worker."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.siginterrupt(signal.SIGUSR1, False)

    def run(self) -> None:
        """Serve until gunicorn stops the worker or has exited."""
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
        """Convert gunicorn settings to uvicorn options."""
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


_created: list[str] = []  # the folder created by this process


def _remove(folder: str, pid: int) -> None:
    """Remove the folder when gunicorn exits, but not when a forked worker exits."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
