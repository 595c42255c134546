"""Load test of `cylstm serve` with clients of every kind, which checks every answer.

    python benchmarks/serving_load.py > load.jsonl                  # 100,000 requests, a few minutes
    python benchmarks/serving_load.py --requests 20000 --workers 1

Most clients send sequences of mixed lengths, as raw rows or JSON, and check that answers are bit-identical to
`Session.run`. Others send malformed requests, send or read slowly, disconnect, or use stateful WebSocket
streams. One worker is killed half-way; its unanswered requests are repeated. Finally the server is stopped
under load: every request must be answered, or its connection refused. A second part sends valid requests only
to one process of cylstm and to the same server based on ONNX Runtime.
JSON lines are written to standard output, a summary to standard error.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from run import machine
from websockets.asyncio.client import connect

import cylstm
from cylstm.serve import Limits, server
from cylstm.serve.app import app_of
from cylstm.serve.service import Service

I, O = 8, 4
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200)
RAW, JSON = "application/octet-stream", "application/json"
MALFORMED = [  # body, type, status
    (b"{", JSON, 400), (b"[]", JSON, 400), (b'{"x": [[1, 2]]}', JSON, 422), (b"[" * 9999, JSON, 400),
    (b'{"x": "text"}', JSON, 422), (b"123", RAW, 422), (b"", RAW, 422), (b"x", "text/plain", 415),
    (bytes(4 * I * 10_001), RAW, 422), (bytes(5 * 2**20), RAW, 413),
]  # fmt: skip
KINDS = {"raw": 0.80, "json": 0.12, "malformed": 0.05, "killed": 0.01, "slow": 0.02}


class Unanswered(Exception):
    """The connection ended before the first byte of an answer."""


class Link:
    """A persistent connection, which is reopened after it was closed."""

    def __init__(self, port: int) -> None:
        self._port, self._streams = port, None

    async def ask(self, body: bytes, kind: str, slowly: bool = False) -> tuple[int, bytes]:
        """Send a request; return status and content."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(head(kind, len(body)))
            for part in parts(body, 5) if slowly else [body]:
                writer.write(part)
                await writer.drain()
                if slowly:
                    await asyncio.sleep(0.02)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
            content = b""
            while slowly and len(content) + 256 < length:
                content += await reader.readexactly(256)
                await asyncio.sleep(0.002)
            content += await reader.readexactly(length - len(content))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                raise
            raise Unanswered from error
        if "connection: close" in lines:
            self.close()
        return int(lines[0].split()[1]), content

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def head(kind: str, length: int) -> bytes:
    lines = "POST /predict HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}"
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parts(body: bytes, n: int) -> list[bytes]:
    size = -(-len(body) // n) or 1
    return [body[begin : begin + size] for begin in range(0, len(body), size)]


class Load:
    """Clients and the results of their requests."""

    def __init__(self, port: int, model: Any, kinds: dict[str, float], exact: bool) -> None:
        self.port, self.exact, self.counts, self.seconds = port, exact, Counter(), []
        self.kinds, self.stopping = kinds, False
        rng, session = np.random.default_rng(0), cylstm.Session(model)
        self.cases = []
        for T in [T for T in LENGTHS for _ in range(4)]:
            x = rng.standard_normal((T, I)).astype("<f4")
            self.cases.append((x.tobytes(), json.dumps({"x": x.tolist()}).encode(), session.run(x)[0]))

    async def client(self, seed: int, n: int) -> None:
        """Send n requests in sequence."""
        rng, link = random.Random(seed), Link(self.port)
        for _ in range(n):
            kind = rng.choices(list(self.kinds), list(self.kinds.values()))[0]
            try:
                await self._request(kind, rng, link)
            except ConnectionRefusedError:
                if not self.stopping:
                    raise
                break
            self.counts[kind] += 1
        link.close()

    async def _request(self, kind: str, rng: random.Random, link: Link) -> None:
        if kind == "killed":
            return await self._killed(rng)
        if kind == "malformed":
            body, type_, expected = rng.choice(MALFORMED)
            try:
                status, content = await link.ask(body, type_)
                self._note("malformed right", status == expected and "error" in json.loads(content))
            except Unanswered:  # a body that is rejected before it is read may end in a reset
                self.counts["reset" if len(body) > 2**20 else "unanswered"] += 1
            return None
        raw, text, y = rng.choice(self.cases)
        slow_link = Link(self.port) if kind == "slow" else link
        as_json = kind == "json"
        question = (text, JSON) if as_json else (raw, RAW)
        for _attempt in range(3):
            begin = time.perf_counter()
            try:
                status, content = await slow_link.ask(*question, slowly=kind == "slow")
            except Unanswered:
                self.counts["unanswered"] += 1
                continue
            if kind != "slow":
                self.seconds.append(time.perf_counter() - begin)
            if status == 503:
                self.counts["refused"] += 1
                return None
            self._note("right", status == 200 and self._is(y, content, as_json))
            break
        else:
            self.counts["given up"] += 1
        if kind == "slow":
            slow_link.close()
        return None

    def _is(self, y: np.ndarray, content: bytes, as_json: bool) -> bool:
        got = np.array(json.loads(content)["y"], np.float32) if as_json else np.frombuffer(content, "<f4")
        got = got.reshape(-1, O)
        if self.exact:
            return np.array_equal(got, y)
        return got.shape == y.shape and np.allclose(got, y, atol=1e-5)

    def _note(self, what: str, right: bool) -> None:
        self.counts[what if right else f"not {what}"] += 1

    async def _killed(self, rng: random.Random) -> None:
        """Disconnect with a reset at a random point."""
        body = rng.choice(self.cases)[0]
        message = head(RAW, len(body)) + body
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(message[: rng.randrange(len(message) + 1)])
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await asyncio.sleep(0)
        writer.close()

    async def stream(self, seed: int, end: asyncio.Event) -> None:
        """Send sequences step by step and in chunks until the end."""
        rng = random.Random(seed)
        while not end.is_set():
            raw, _, y = rng.choice(self.cases)
            x, t, got = np.frombuffer(raw, "<f4").reshape(-1, I), 0, []
            try:
                async with connect(f"ws://127.0.0.1:{self.port}/stream") as socket:
                    while t < len(x):
                        n = rng.choice((1, 1, 1, 7))
                        await socket.send(x[t : t + n].tobytes())
                        got.append(await socket.recv())
                        t += n
            except Exception as error:  # the worker was killed, or the server stops
                self.counts[f"stream ended, {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)
                continue
            self._note("streams right", self._is(y, b"".join(got), False))


def resident(pids: list[int]) -> float:
    """Return the resident memory of processes in MB."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    return round(total, 1)


def workers_of(process: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found or [process.pid]


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[tuple[subprocess.Popen, int]]:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process, int(json.loads(process.stdout.readline())["url"].rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


def latencies(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=1000)
    return {
        "p50_ms": round(cuts[499] * 1e3, 3),
        "p99_ms": round(cuts[989] * 1e3, 3),
        "p999_ms": round(cuts[998] * 1e3, 3),
    }


def tell(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)
    print(", ".join(f"{name} {value}" for name, value in record.items()), file=sys.stderr)


async def everything(model: Any, path: str, options: argparse.Namespace) -> None:
    """Run clients of every kind, kill a worker half-way, stop the server under load."""
    command = ["-m", "cylstm", "serve", path, "--port", "0", "--json", "--workers", str(options.workers)]
    command += ["--threads", "1", "--max-streams", "20"]
    with serving(command) as (process, port):
        await asyncio.sleep(5)  # until all workers are there
        load, end = Load(port, model, KINDS, exact=True), asyncio.Event()
        streams = [asyncio.create_task(load.stream(10_000 + k, end)) for k in range(4)]
        parts, memory, begin = 10, [], time.perf_counter()
        each = -(-options.requests // (parts * options.clients))
        for part in range(parts):
            if part == parts // 2 and options.workers > 1:
                victim = workers_of(process)[0]
                asyncio.get_running_loop().call_later(1, os.kill, victim, signal.SIGKILL)
            await asyncio.gather(*[load.client(part * 1000 + k, each) for k in range(options.clients)])
            memory.append([resident([pid]) for pid in workers_of(process)])
        seconds = time.perf_counter() - begin
        requests = sum(load.counts[kind] for kind in KINDS)
        tell({
            "part": "everything", "workers": options.workers, "clients": options.clients,
            "requests": requests, "requests_a_second": round(requests / seconds), **latencies(load.seconds),
            "memory_mb": memory, **load.counts,
        })  # fmt: skip
        load.counts.clear()
        load.stopping = True
        asyncio.get_running_loop().call_later(2, process.terminate)
        await asyncio.gather(*[load.client(20_000 + k, 10**9) for k in range(options.clients)])
        end.set()
        begin = time.perf_counter()
        while process.poll() is None:
            await asyncio.sleep(0.01)
        await asyncio.gather(*streams)
        tell({"part": "stop under load", "status": process.returncode, **load.counts})


async def good(engine: str, model: Any, path: str, onnx: str, options: argparse.Namespace) -> None:
    """Send valid requests only to one process, with either engine."""
    command = ["-m", "cylstm", "serve", path, "--port", "0", "--json", "--threads", "1"]
    if engine == "onnxruntime":
        command = [__file__, "--onnx", onnx, path]
    with serving(command) as (process, port):
        kinds = {"raw": 0.9, "json": 0.1}
        await asyncio.gather(*[Load(port, model, kinds, engine == "cylstm").client(k, 50) for k in range(8)])
        load, begin = Load(port, model, kinds, exact=engine == "cylstm"), time.perf_counter()
        each = options.requests // 5 // options.clients
        await asyncio.gather(*[load.client(k, each) for k in range(options.clients)])
        rate = sum(load.counts[kind] for kind in kinds) / (time.perf_counter() - begin)
        tell({
            "part": "good requests", "engine": engine, "clients": options.clients,
            "requests_a_second": round(rate),
            **latencies(load.seconds), "memory_mb": resident([process.pid]), **load.counts,
        })  # fmt: skip


class OnnxRequests:
    """Replacement of a micro-batch that runs one sequence at a time in ONNX Runtime."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name
        self._pool = ThreadPoolExecutor(1)

    def submit(self, x: np.ndarray, state: Any) -> "Future[tuple[np.ndarray, Any]]":
        """Submit a request, as in a micro-batch."""
        return self._pool.submit(self._run, x)

    def _run(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        return self._session.run(None, {self._name: x[:, None]})[0][:, 0], None

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()


def serve_onnx(onnx: str, path: str) -> None:
    """Run the server of cylstm with ONNX Runtime as the engine."""
    limits = Limits()
    service = Service(path, limits, threads=1)
    service.requests = OnnxRequests(onnx)  # type: ignore[assignment]
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
        with server.stopped_by(server.STOPS) as stop:
            server.Server(app_of(service), limits, stop.is_set).run([listener])


def main() -> None:
    parser = argparse.ArgumentParser(description="Load on cylstm serve; every answer is checked.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--onnx", nargs=2, help=argparse.SUPPRESS)  # the server of the comparison
    options = parser.parse_args()
    if options.onnx:
        return serve_onnx(*options.onnx)
    libraries = ("onnxruntime", "starlette", "uvicorn")
    about = machine(1) | {"versions": {name: version(name) for name in libraries}}
    print(json.dumps(about), flush=True)
    H = options.hidden
    model = cylstm.Sequential(cylstm.LSTM(I, H, seed=0), cylstm.Linear(H, O, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        path, onnx = os.path.join(folder, "m.safetensors"), os.path.join(folder, "m.onnx")
        cylstm.save(model, path)
        asyncio.run(everything(model, path, options))
        cylstm.convert.to_onnx(model, onnx)
        for engine in ("cylstm", "onnxruntime"):
            asyncio.run(good(engine, model, path, onnx, options))
    return None


if __name__ == "__main__":
    main()
