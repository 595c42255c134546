"""A server of `cylstm serve` in a process of its own, for its tests."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time


@contextlib.contextmanager
def server(path, *options):
    """The process, its port and standard error; ended at the end."""
    command = [
        sys.executable,
        "-m",
        "cylstm",
        "serve",
        str(path),
        "--port",
        "0",
        "--json",
        *map(str, options),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, env={**os.environ, "CYLSTM_NUM_THREADS": "1"})
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read().decode()
        process.port = int(json.loads(line)["url"].rsplit(":", 1)[1])
        yield process
    finally:
        process.terminate()  # not kill: its workers would stay
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def stopped(process, number=signal.SIGTERM, timeout=60):
    """Its standard error after a signal that ends it."""
    process.send_signal(number)
    return process.communicate(timeout=timeout)[1].decode()


def connection(process):
    """A connection that has nothing of HTTP yet."""
    return socket.create_connection(("127.0.0.1", process.port), timeout=60)


def head(length, kind="application/octet-stream"):
    """The head of a request whose body is to come."""
    lines = "POST /predict HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}"
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def sample(text, name):
    """The sum over the samples of Prometheus's text that begin so; one with labels has none at first."""
    values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)]
    assert values, f"no {name} in\n{text}"
    return sum(values)


def until(true, seconds=60):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def post(process, body, kind="application/octet-stream", path="/predict", timeout=60):
    """Status and content of one request on a connection of its own."""
    link = http.client.HTTPConnection("127.0.0.1", process.port, timeout=timeout)
    try:
        link.request("POST", path, body, {"Content-Type": kind})
        response = link.getresponse()
        return response.status, response.read()
    finally:
        link.close()


def get(process, path):
    link = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
    try:
        link.request("GET", path)
        return link.getresponse().read().decode()
    finally:
        link.close()


def metric(process, name):
    return sample(get(process, "/metrics"), name)
