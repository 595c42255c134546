"""`cylstm serve` and clients that send too much, too slowly, nothing, or neither HTTP nor WebSocket."""

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import numpy as np
import pytest
from servers import connection, get, head, metric, post, server, stopped, until

import cylstm

pytest.importorskip("uvicorn", reason="uvicorn is not installed; the server needs it")
pytest.importorskip("starlette", reason="starlette is not installed; the server needs it")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed; the server needs it")
pytest.importorskip("websockets", reason="websockets is not installed; streams need it")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cylstm.serve import connections

pytestmark = pytest.mark.process

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")
HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "m.safetensors"
    cylstm.save(cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 2, seed=1)), path)
    return path


@pytest.fixture(scope="module")
def shared(path):
    """A server for all tests that leave it running."""
    with server(path, "--timeout", 5, "--origin", "https://good.example") as process:
        yield process


def status_of(link):
    """Status and headers of the answer on a connection."""
    response = http.client.HTTPResponse(link)
    response.begin()
    response.read()
    return response.status, dict(response.headers)


def frame(opcode, payload=b"", final=True):
    """A WebSocket frame of a client, masked with zeros."""
    size = (
        bytes([128 | len(payload)]) if len(payload) < 126 else bytes([254]) + struct.pack(">H", len(payload))
    )
    return bytes([128 * final | opcode]) + size + bytes(4) + payload


def opened(process):
    """A connection that has become a stream."""
    link = connection(process)
    link.sendall(HANDSHAKE)
    assert b" 101 " in link.recv(1000)
    return link


def test_bodies_that_do_not_come_shut_nobody_out(path):
    with server(path, "--max-queue", 4) as process, contextlib.ExitStack() as links:
        for _ in range(20):
            link = links.enter_context(connection(process))
            link.sendall(head(12) + b"1")
        until(lambda: metric(process, "cylstm_requests_in_progress") == 20)
        assert post(process, bytes(12))[0] == 200


@pytest.mark.slow
def test_silent_connections_shut_nobody_out(path):
    resource = pytest.importorskip("resource", reason="needs a bound on open files to raise")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections.IDLE_CONNECTIONS + 500
    if before[1] not in (resource.RLIM_INFINITY,) and before[1] < wanted:
        pytest.skip("this process may not open as many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    try:
        with server(path, "--max-queue", 1, "--max-streams", 1) as process, contextlib.ExitStack() as links:
            for _ in range(connections.IDLE_CONNECTIONS + 50):
                links.enter_context(connection(process))
            for _ in range(3):
                assert json.loads(get(process, "/healthz")) == {"status": "ok"}
            assert post(process, bytes(12))[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (head(10**10), 413),
        (head(10**10, "text/plain"), 415),
        (head(10**10).replace(b"/predict", b"/nowhere"), 404),
        (head(10**10).replace(b"POST", b"PUT"), 405),
        (head(10**10).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), 413),
    ],
)
def test_a_refused_request_ends_its_connection(shared, start, status):
    with connection(shared) as link:
        link.sendall(start)
        got, headers = status_of(link)
        assert (got, headers["connection"]) == (status, "close")
        with pytest.raises(ConnectionError):
            link.sendall(bytes(10**8))


def test_a_refused_client_that_still_sends_sees_why(shared):
    link = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)
    link.request("POST", "/predict", bytes(5 * 2**20), {"Content-Type": "application/octet-stream"})
    assert link.getresponse().status == 413
    link.close()


@pytest.mark.slow
def test_a_late_body_ends_its_connection(path):
    with server(path, "--timeout", 1) as process, connection(process) as link:
        link.sendall(head(100) + b"1")
        got, headers = status_of(link)
        assert (got, headers["connection"]) == (408, "close")
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert link.recv(1) == b""
        assert time.monotonic() - begin < 10


def test_two_lengths_of_a_body_are_refused(shared):
    both = head(30).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with connection(shared) as link:
        link.sendall(both + smuggled)
        answers = b""
        with contextlib.suppress(ConnectionError):
            while part := link.recv(10_000):
                answers += part
    assert answers.startswith(b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1") == 1


def test_tiny_chunks_leave_time_for_others(shared):
    start = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with contextlib.ExitStack() as links:
        for _ in range(4):
            link = links.enter_context(connection(shared))
            link.setblocking(False)
            link.send(start)
            with contextlib.suppress(BlockingIOError):
                for _ in range(10):
                    link.send(b"1\r\nx\r\n" * 50_000)
        begin = time.monotonic()
        get(shared, "/healthz")
        assert time.monotonic() - begin < 3


@pytest.mark.slow
def test_a_head_that_is_long_or_slow_is_refused(shared):
    with connection(shared) as link, contextlib.suppress(ConnectionError):
        link.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 2**20)
        assert link.recv(12) in (b"HTTP/1.1 400", b"")
    with connection(shared) as slow:
        end = time.monotonic() + 30
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                slow.sendall(b"G")
                time.sleep(0.2)
        assert time.monotonic() < end


def test_labels_of_metrics_do_not_come_from_clients(shared):
    for host in ("evil.example", "a" * 200, "x/y?z"):
        with connection(shared) as link:
            link.sendall(head(12).replace(b"Host: x", b"Host: " + host.encode()) + bytes(12))
            assert status_of(link)[0] == 200
    text = get(shared, "/metrics")
    assert {line.split('"')[1] for line in text.splitlines() if "path=" in line} == {"/predict"}


@pytest.mark.parametrize(
    ("origin", "opens"),
    [
        (None, True),
        ("https://good.example", True),
        ("same", True),
        ("https://evil.example", False),
        ("null", False),
        ("https://good.example.evil", False),
    ],
)
def test_streams_are_for_pages_of_known_origins(shared, origin, opens):
    origin = f"http://127.0.0.1:{shared.port}" if origin == "same" else origin
    url = f"ws://127.0.0.1:{shared.port}/stream"
    if opens:
        with connect(url, origin=origin) as stream:
            stream.send(bytes(12))
            assert len(stream.recv()) == 8
    else:
        with pytest.raises(InvalidStatus) as refused:
            connect(url, origin=origin)
        assert refused.value.response.status_code == 403


def test_browsers_of_other_origins_cannot_ask(shared):
    """They ask before they send JSON or raw rows to another origin, and are not answered."""
    link = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    link.request("OPTIONS", "/predict", headers=headers)
    response = link.getresponse()
    assert response.status == 405
    assert not [name for name in dict(response.headers) if name.lower().startswith("access-control")]
    link.close()
    assert post(shared, b'{"x": [[1, 2, 3]]}', "text/plain")[0] == 415


def test_messages_are_not_compressed(shared):
    with connect(f"ws://127.0.0.1:{shared.port}/stream", compression="deflate") as stream:
        assert stream.protocol.extensions == []


def test_fragments_of_a_message_are_bounded(shared):
    with opened(shared) as link:
        link.sendall(
            frame(2, b"", final=False) + frame(0, b"", final=False) * (connections.MAX_FRAGMENTS + 10)
        )
        answer = link.recv(1000)
        assert answer[0] == 0x88
        assert struct.unpack(">H", answer[2:4]) == (1009,)


@pytest.mark.slow
def test_answers_to_pings_do_not_pile_up(shared):
    with opened(shared) as link:
        link.settimeout(2)
        sent, pings = 0, frame(9, b"p" * 120) * 1000
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < 60e6:
                sent += link.send(pings)
        assert sent < 40e6  # what the sockets of both sides hold


@pytest.mark.slow
def test_requests_whose_answers_nobody_reads_end(path):
    with server(path, "--timeout", 1) as process, socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", process.port))
        link.settimeout(15)
        begin = time.monotonic()
        with pytest.raises(ConnectionError):  # a stalled server would let the connection stay
            link.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10**6)
        assert time.monotonic() - begin < 15


@pytest.mark.slow
def test_a_message_that_does_not_end_ends_its_stream(path):
    with server(path, "--timeout", 1) as process, opened(process) as link, opened(process) as idle:
        link.sendall(frame(2, bytes(12))[:9])
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert link.recv(100) == b""
        assert time.monotonic() - begin < 20
        idle.sendall(frame(2, bytes(12)))
        assert len(idle.recv(100)) == 2 + 8


@pytest.mark.slow
def test_invalid_protocol_is_logged_on_one_line(path):
    with server(path) as process:
        with opened(process) as link:
            link.sendall(b"\xff" * 20)
            while link.recv(1000):
                pass
        with opened(process) as link:  # text that is no UTF-8
            link.sendall(frame(1, b"\xff\xfe"))
            while link.recv(1000):
                pass
        with connection(process) as link:  # in the middle of a request's answer
            link.sendall(head(12) + bytes(12) + b"\x1b[2Jnonsense\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while link.recv(1000):
                    pass
        with connection(process) as link:
            link.sendall(HANDSHAKE.replace(b"/stream", b"/stream\xc3\xa9?\x7f"))
            with contextlib.suppress(ConnectionError):
                while link.recv(1000):
                    pass
        with connection(process) as link:
            link.sendall(HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"\x9b31m"))
            with contextlib.suppress(ConnectionError):
                while link.recv(1000):
                    pass
        assert post(process, bytes(12))[0] == 200
        log = stopped(process)
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert len(log.splitlines()) <= 5, log


@pytest.mark.slow
@posix
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_under_load_is_quiet(path, workers):
    with server(path, "--workers", workers, "--timeout", 3) as process:
        until(lambda: post(process, bytes(12))[0] == 200)
        end = threading.Event()

        def load():
            while not end.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    post(process, bytes(12 * 2000), timeout=10)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        stream = opened(process)
        time.sleep(0.5)
        log = stopped(process, signal.SIGINT)
        end.set()
        stream.close()
        for thread in threads:
            thread.join()
        assert (log, process.returncode) == ("", 0)


@pytest.mark.slow
@posix
def test_a_second_ctrl_c_waits_for_nobody(path):
    with server(path, "--timeout", 60) as process, connection(process) as link:
        link.sendall(head(100) + b"1")
        until(lambda: metric(process, "cylstm_requests_in_progress") == 1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        begin = time.monotonic()
        assert stopped(process, signal.SIGINT) == ""
        assert time.monotonic() - begin < 20


@pytest.mark.slow
@posix
def test_shutdown_answers_queued_connections(path):
    with server(path) as process:
        assert post(process, bytes(12))[0] == 200
        process.send_signal(signal.SIGSTOP)  # it accepts nothing, and the kernel does
        links = [connection(process) for _ in range(30)]
        for link in links:
            link.sendall(head(12) + bytes(12))
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert [status_of(link)[0] for link in links] == [200] * 30
        for link in links:
            link.close()
        assert process.communicate(timeout=30)[1] == b""
        assert process.returncode == 0


@pytest.mark.slow
@posix
def test_under_nohup_it_stays(path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with server(path) as process:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            assert post(process, bytes(12))[0] == 200
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@posix
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc, to find the workers")
def test_workers_end_with_their_supervisor(path):
    with server(path, "--workers", 2) as process:
        until(lambda: post(process, bytes(12))[0] == 200)
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        )
        children = [int(pid) for pid in listed.stdout.split()]
        assert len(children) >= 2
        process.kill()
        process.wait(10)

        def runs(pid):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    return file.read().rsplit(")", 1)[1].split()[0] != "Z"
            except FileNotFoundError:
                return False

        until(lambda: not any(map(runs, children)), 30)


@pytest.mark.slow
def test_streams_of_one_client_leave_room_for_another(path):
    if os.name != "posix" or os.uname().sysname != "Linux":
        pytest.skip("needs a second address of the loopback interface")
    with server(path, "--max-streams", 3) as process:
        url = f"ws://127.0.0.1:{process.port}/stream"
        with contextlib.ExitStack() as links:
            mine = [links.enter_context(connect(url)) for _ in range(3)]
            until(lambda: metric(process, "cylstm_streams") == 3)
            other = socket.create_connection(("127.0.0.1", process.port), source_address=("127.0.0.2", 0))
            with connect(url, sock=other) as theirs:
                theirs.send(bytes(12))
                assert len(theirs.recv()) == 8
                with pytest.raises(ConnectionClosed) as closed:
                    mine[-1].recv()
                assert closed.value.rcvd.code == 1013
                mine[0].send(bytes(12))
                assert np.frombuffer(mine[0].recv(), "<f4").shape == (2,)
