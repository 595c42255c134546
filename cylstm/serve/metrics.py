"""Metrics of a server for Prometheus."""

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

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # names the folder for metrics of several processes
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The metrics of an application.

    If the environment variable `PROMETHEUS_MULTIPROC_DIR` of prometheus_client names a folder, they are
    summed over all processes of the server.

    Attributes
    ----------
    requests : Counter
        Answered requests by `path` (of the route) and `status`; status 0 means that the client disconnected.
    seconds : Histogram
        Time from the head of a request to its answer.
    steps : Counter
        Time steps computed for requests and streams.
    in_progress, streams : Gauge
        Requests in progress; open streams.
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
        if METRICS_FOLDER in os.environ:
            self._registry = CollectorRegistry()
            self._registry.register(_SumsOfProcesses(Path(os.environ[METRICS_FOLDER])))
        else:
            ProcessCollector(registry=own)  # memory, CPU time, open files

    def text(self) -> bytes:
        """Format the metrics as Prometheus text."""
        if METRICS_FOLDER in os.environ:
            _drop_killed(Path(os.environ[METRICS_FOLDER]))
        return bytes(generate_latest(self._registry))


class _SumsOfProcesses(Collector):
    """Sum the metric files of all processes, except for empty ones.

    `MultiProcessCollector` fails on empty files, which exist for a moment while a worker starts.
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
    except FileNotFoundError:  # the process has just ended
        return False


def share(folder: str) -> None:
    """Sum metrics over all processes that are forked or spawned from now on."""
    os.environ[METRICS_FOLDER] = folder
    # prometheus_client, which is already imported, reads the variable at import time only.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def forget(pid: int) -> None:
    """Remove the gauges of a process that has ended."""
    if METRICS_FOLDER in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _drop_killed(folder: Path) -> None:
    """Remove the gauges of killed processes; their counters remain."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except PermissionError:
            pass
