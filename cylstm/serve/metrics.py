"""What a server counts, for Prometheus."""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.registry import Collector

SEVERAL = "PROMETHEUS_MULTIPROC_DIR"  # the folder in which the processes of a server keep their numbers
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The numbers of one application.

    Where `PROMETHEUS_MULTIPROC_DIR` names a folder, as prometheus_client has it, they are the sums over all
    processes of the server.

    Attributes
    ----------
    requests : Counter
        Answers to requests for results, by `path` (that of the route, whatever the client has asked for)
        and `status`; status 0: the client went away.
    seconds : Histogram
        From the head of such a request to its answer.
    steps : Counter
        Time steps that were computed, of requests and streams.
    in_progress, streams : Gauge
        Requests that are read, wait or are computed; open streams.
    """

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.requests = Counter("cylstm_requests", "Requests answered", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "cylstm_request_seconds", "Seconds from head to answer", registry=own, buckets=SECONDS
        )
        self.steps = Counter("cylstm_steps", "Time steps computed", registry=own)
        self.in_progress = Gauge(
            "cylstm_requests_in_progress", "Requests in progress", registry=own, multiprocess_mode="livesum"
        )
        self.streams = Gauge("cylstm_streams", "Open streams", registry=own, multiprocess_mode="livesum")
        self._registry = own
        if SEVERAL in os.environ:
            self._registry = CollectorRegistry()
            self._registry.register(_SumsOfProcesses(Path(os.environ[SEVERAL])))
        else:
            ProcessCollector(registry=own)  # memory, CPU time, open files

    def text(self) -> bytes:
        """In Prometheus's text format."""
        if SEVERAL in os.environ:
            _forget_the_dead(Path(os.environ[SEVERAL]))
        return bytes(generate_latest(self._registry))


class _SumsOfProcesses(Collector):
    """Adds up the files of all processes, without those that a process has just made and not yet filled.

    `MultiProcessCollector` fails on an empty file, which is there for a moment while a worker starts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._folder.glob("*.db") if _is_filled(file)]
        merged: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _is_filled(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # of a process that has just ended
        return False


def share(folder: str) -> None:
    """Let all processes of this server, which are forked or spawned from now on, count together."""
    os.environ[SEVERAL] = folder
    # prometheus_client looks for the folder when it is imported, which has happened.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def forget(pid: int) -> None:
    """Drop the gauges of a process of this server that has ended."""
    if SEVERAL in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of processes that were killed; what they have counted stays."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except PermissionError:
            pass
