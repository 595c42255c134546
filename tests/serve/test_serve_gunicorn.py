"""`cylstm.serve.Worker` in gunicorn: metrics of all workers, bounds on connections, reload, the end."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from servers import connection, head, metric, post, until

import cylstm

pytestmark = pytest.mark.process

for module in ("gunicorn", "uvicorn", "starlette", "prometheus_client", "websockets"):
    pytest.importorskip(module, reason=f"{module} is not installed; the worker of gunicorn needs it")
if os.name != "posix":
    pytest.skip("gunicorn needs POSIX", allow_module_level=True)


@pytest.fixture
def folder(tmp_path):
    """The file of a model, and an application of it."""
    model = cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 2, seed=1))
    cylstm.save(model, tmp_path / "m.safetensors")
    (tmp_path / "served.py").write_text(
        "import cylstm\n"
        f"app = cylstm.serve.application({str(tmp_path / 'm.safetensors')!r}, threads=1, timeout=2)\n"
    )
    return tmp_path


@contextlib.contextmanager
def gunicorn(folder, *options):
    """The process, once it answers; ended at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-k", "cylstm.serve.Worker", "-b", f"127.0.0.1:{port}"]
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    environment["TMPDIR"] = str(folder)
    log = open(folder / "log", "wb")  # noqa: SIM115 - closed below
    process = subprocess.Popen(
        [*command, "--pythonpath", str(folder), *options, "served:app"], stderr=log, env=environment
    )
    process.port = port

    def answers():
        try:
            return post(process, bytes(12))[0] == 200
        except OSError:
            return False

    try:
        until(answers)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            log.close()


def children(process):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in listed.stdout.split()]


def runs(pid):
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.slow
@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_gunicorn_metrics_are_those_of_all_workers(folder, preload):
    x = np.arange(12, dtype="<f4").reshape(4, 3)
    expected = cylstm.load(folder / "m.safetensors")(x)[0]
    with gunicorn(folder, "-w", "3", *preload) as process:
        until(lambda: len(children(process)) == 3)
        (numbers,) = folder.glob("cylstm-*")
        (numbers / "counter_0.db").touch()  # as a worker that starts makes it, before it fills it
        before = metric(process, "cylstm_requests_total")
        for _ in range(30):
            status, content = post(process, x.tobytes())
            assert status == 200
            np.testing.assert_array_equal(np.frombuffer(content, "<f4").reshape(4, 2), expected)
        assert [metric(process, "cylstm_requests_total") - before for _ in range(6)] == [30] * 6
        killed = children(process)[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: not runs(killed) and len(children(process)) == 3)
        until(lambda: metric(process, "cylstm_requests_total") - before == 30)
        assert metric(process, "cylstm_requests_in_progress") == 0
    assert process.returncode == 0
    assert not list(folder.glob("cylstm-*"))
    assert "Traceback" not in (folder / "log").read_text()


@pytest.mark.slow
def test_gunicorn_ends_connections_that_bring_nothing(folder):
    with gunicorn(folder) as process, contextlib.ExitStack() as links:
        silent = [links.enter_context(connection(process)) for _ in range(10)]
        for link in silent[5:]:
            link.sendall(head(12)[:20])
        for link in silent:
            link.settimeout(20)
            with contextlib.suppress(ConnectionError):
                assert link.recv(100) == b""


@pytest.mark.slow
def test_gunicorn_reloads_without_losing_requests(folder):
    with gunicorn(folder, "-w", "2", "--graceful-timeout", "20") as process:
        before, end, failed, done = set(children(process)), threading.Event(), [], []

        def ask():
            link = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
            headers = {"Content-Type": "application/octet-stream"}
            while not end.is_set():
                try:
                    link.request("POST", "/predict", bytes(12 * 500), headers)
                    response = link.getresponse()
                    response.read()
                    done.append(response.status)
                    if response.getheader("connection") == "close":
                        link.close()
                except (OSError, http.client.HTTPException) as error:
                    failed.append(repr(error))
                    link.close()
            link.close()

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        until(lambda: len(children(process)) == 2 and not before & set(children(process)))
        time.sleep(0.5)
        end.set()
        for thread in threads:
            thread.join()
        assert failed == []
        assert set(done) == {200}


@pytest.mark.slow
def test_workers_end_when_gunicorn_is_killed(folder):
    with gunicorn(folder, "-w", "2") as process:
        until(lambda: len(children(process)) == 2)
        workers = children(process)
        process.kill()
        process.wait(10)
        until(lambda: not any(map(runs, workers)), 30)
