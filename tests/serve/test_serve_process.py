"""`cylstm serve` in processes: streams, time-outs, clients and workers that die, a graceful stop."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from servers import connection, get, head, metric, post, server, stopped, until

import cylstm
from cylstm import cli

pytest.importorskip("uvicorn", reason="uvicorn is not installed; the server needs it")
pytest.importorskip("starlette", reason="starlette is not installed; the server needs it")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed; the server needs it")
pytest.importorskip("websockets", reason="websockets is not installed; streams need it")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = pytest.mark.process


def small():
    return cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 2, seed=1))


@pytest.fixture
def path(tmp_path):
    cylstm.save(small(), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def streams(process):
    return connect(f"ws://127.0.0.1:{process.port}/stream")


@pytest.mark.slow
def test_streams_carry_their_states(path, rng):
    x = rng.standard_normal((3, 12, 3)).astype("<f4")
    expected = [small()(one)[0] for one in x]
    with server(path) as process, streams(process) as a, streams(process) as b, streams(process) as c:
        until(lambda: metric(process, "cylstm_streams") == 3)
        got = [[], [], []]
        for t in range(12):
            a.send(json.dumps({"x": x[0, t].tolist()}))
            b.send(x[1, t].tobytes())
            got[0].append(json.loads(a.recv())["y"])
            got[1].append(np.frombuffer(b.recv(), "<f4"))
            if t in (4, 11):  # as a chunk
                c.send(x[2, 0 if t == 4 else 5 : t + 1].tobytes())
                got[2] += list(np.frombuffer(c.recv(), "<f4").reshape(-1, 2))
        for one, y in zip(got, expected, strict=True):
            np.testing.assert_array_equal(np.array(one, np.float32), y)
        a.send(json.dumps({"x": x[0].tolist(), "state": None}))  # starts again
        answer = json.loads(a.recv())
        np.testing.assert_array_equal(np.array(answer["y"], np.float32), expected[0])
        assert len(answer["state"]) == 2


@pytest.mark.slow
def test_a_bad_message_leaves_a_stream_as_it_was(path, rng):
    x = rng.standard_normal((2, 3)).astype("<f4")
    with server(path, "--max-steps", 5, "--max-body", 1000) as process:
        with streams(process) as stream:
            stream.send(x[0].tobytes())
            stream.recv()
            bad = "{", '{"x": [1]}', '{"x": [[NaN, 1, 2]]}', b"123", b"", bytes(12 * 6)
            for message in bad:
                stream.send(message)
                assert list(json.loads(stream.recv())) == ["error"], message
            stream.send(x[1].tobytes())
            np.testing.assert_array_equal(np.frombuffer(stream.recv(), "<f4"), small()(x)[0][1])
            stream.send(bytes(1001))
            with pytest.raises(ConnectionClosed) as closed:
                stream.recv()
            assert closed.value.rcvd.code == 1009
        assert stopped(process) == ""


@pytest.mark.slow
def test_streams_are_limited_freed_and_closed_when_idle(path):
    with server(path, "--max-streams", 2, "--idle-timeout", 5) as process:
        with streams(process) as idle:
            killed = streams(process)
            until(lambda: metric(process, "cylstm_streams") == 2)
            with streams(process) as third, pytest.raises(ConnectionClosed) as closed:
                third.recv()
            assert closed.value.rcvd.code == 1013
            killed.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            killed.socket.close()  # with a reset, as of a process that was killed
            until(lambda: metric(process, "cylstm_streams") == 1)
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv()
            assert closed.value.rcvd.code == 1001
        until(lambda: metric(process, "cylstm_streams") == 0)
        assert stopped(process) == ""


@pytest.mark.slow
def test_a_model_that_reads_backward_has_no_streams(tmp_path):
    cylstm.save(cylstm.LSTM(3, 4, bidirectional=True), tmp_path / "b.safetensors")
    with server(tmp_path / "b.safetensors") as process, streams(process) as stream:
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason[:6]) == (1008, "model:")


@pytest.mark.slow
def test_silent_connections_are_closed(path):
    with server(path, "--timeout", 3) as process:
        silent, half, slow, again = (connection(process) for _ in range(4))
        half.sendall(head(12)[:30])
        slow.sendall(head(12) + b"1234")
        again.sendall(head(12) + bytes(12))
        answer = http.client.HTTPResponse(again)
        answer.begin()
        assert (answer.status, len(answer.read())) == (200, 8)
        again.sendall(head(12)[:30])  # half of a second request
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        for link in (silent, half, again):
            with contextlib.suppress(ConnectionResetError):
                assert link.recv(1000) == b""
            link.close()
        slow.close()
        assert post(process, bytes(12))[0] == 200
        assert stopped(process) == ""


@pytest.mark.slow
def test_client_that_does_not_read_is_closed(tmp_path):
    """The answer, 25 MB, is larger than what the buffers of both sides take."""
    cylstm.save(cylstm.Linear(3, 64), tmp_path / "wide.safetensors")
    x = bytes(12 * 10**5)
    with server(tmp_path / "wide.safetensors", "--timeout", 4, "--max-steps", 10**5) as process:
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect(("127.0.0.1", process.port))
            link.sendall(head(len(x)) + x)
            answered = 'cylstm_requests_total{path="/predict",status="200"} 1.0\n'
            until(lambda: answered in get(process, "/metrics"))
            files = metric(process, "process_open_fds")
            until(lambda: metric(process, "process_open_fds") < files)
        assert "Traceback" not in stopped(process)


@pytest.mark.slow
def test_clients_that_go_away_cost_nothing(path):
    with server(path) as process:
        for sent in (
            head(12)[:30],
            head(12) + b"1234",
            head(12) + bytes(12),
            b"\x16\x03\x01",
            b"nonsense\r\n\r\n",
        ):
            for _ in range(20):
                link = connection(process)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                link.sendall(sent)
                link.close()
        assert post(process, bytes(12))[0] == 200
        until(lambda: metric(process, "cylstm_requests_in_progress") == 0)
        assert "Traceback" not in stopped(process)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)])
@pytest.mark.parametrize("workers", [1, 2])
def test_shutdown_completes_accepted_requests(tmp_path, rng, workers, number):
    model, x = cylstm.LSTM(3, 128, seed=0), rng.standard_normal((3000, 3)).astype("<f4")
    cylstm.save(model, tmp_path / "m.safetensors")
    expected, results = model(x)[0], []
    with server(tmp_path / "m.safetensors", "--workers", workers) as process:
        until(lambda: post(process, bytes(12))[0] == 200)
        links = [connection(process) for _ in range(12)]
        for link in links:  # all but a byte, so that none is answered before all have come
            link.sendall(head(x.nbytes) + x.tobytes()[:-1])
        until(lambda: metric(process, "cylstm_requests_in_progress") == 12 or workers > 1)
        if workers > 1:
            time.sleep(0.3)
        for link in links:
            link.sendall(x.tobytes()[-1:])
        stopping = threading.Thread(target=lambda: results.append(stopped(process, number)))
        stopping.start()
        for link in links:
            response = http.client.HTTPResponse(link)
            response.begin()
            assert response.status == 200
            np.testing.assert_array_equal(np.frombuffer(response.read(), "<f4").reshape(-1, 128), expected)
            link.close()
        stopping.join()
        assert (results, process.returncode) == ([""], 0)
        with pytest.raises(ConnectionRefusedError):
            connection(process)


@pytest.mark.slow
def test_shutdown_has_a_timeout(path):
    with server(path, "--timeout", 1) as process, connection(process) as slow, streams(process) as stream:
        slow.sendall(head(100) + b"12")
        until(lambda: metric(process, "cylstm_requests_in_progress") == 1)
        stopped(process, timeout=30)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
        assert closed.value.rcvd.code == 1012


@pytest.mark.slow
def test_a_request_on_its_way_when_the_server_stops_is_answered(path):
    with server(path) as process:
        link, silent = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60), connection(process)
        for late in (False, True):
            if late:
                process.send_signal(signal.SIGTERM)
                until(lambda: refused(process))
            link.request("POST", "/predict", bytes(12), {"Content-Type": "application/octet-stream"})
            response = link.getresponse()
            assert (response.status, len(response.read())) == (200, 8)
            assert response.getheader("connection") == ("close" if late else None)
        silent.sendall(head(12) + bytes(12))  # its first one
        assert silent.recv(15) == b"HTTP/1.1 200 OK"
        silent.close()
        link.close()
        assert process.communicate(timeout=30)[1] == b""


def refused(process):
    try:
        connection(process).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc, to find the workers")
def test_killed_worker_is_replaced_and_metrics_remain(path):
    with server(path, "--workers", 2) as process:
        children = f"/proc/{process.pid}/task/{process.pid}/children"

        def workers():
            pids = map(int, Path(children).read_text().split())
            return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

        def answered():
            try:
                return post(process, bytes(12))[0] == 200
            except (ConnectionError, http.client.HTTPException):
                return False

        for _ in range(10):
            until(answered)
        until(lambda: len(workers()) == 2)
        before = workers()
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(workers()) == 2 and before[0] not in workers())
        assert sum(answered() for _ in range(20)) >= 19
        assert metric(process, "cylstm_requests_total") >= 29
        assert metric(process, "cylstm_requests_in_progress") == 0


def test_faults_of_the_command_are_one_line(path, tmp_path, capsys):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    taken = socket.create_server(("127.0.0.1", 0))
    for arguments, words in [
        ([tmp_path / "none.safetensors"], "none.safetensors: No such file"),
        ([tmp_path / "bad.safetensors"], "not a readable cylstm model"),
        ([path, "--max-body", "0"], "--max-body: expected a positive int, got 0"),
        ([path, "--timeout", "-1"], "--timeout: expected a number in"),
        ([path, "--workers", "0"], "workers: expected a positive int, got 0"),
        ([path, "--port", taken.getsockname()[1]], "cannot listen on 127.0.0.1, port"),
        ([path, "--port", "70000"], "port: expected 0 to 65535, got 70000"),
        ([path, "--host", "256.1.1.1"], "256.1.1.1"),
    ]:
        assert cli.main(["serve", *map(str, arguments)]) == 1, arguments
        printed = capsys.readouterr()
        assert words in printed.err
        assert printed.err.count("\n") == 1
    taken.close()
