"""The application of `cylstm serve`: right bits, every kind of bad request, limits, metrics."""

import asyncio
import gc
import json
import logging
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from servers import sample

import cylstm
from cylstm import cli
from cylstm.classification import Classifier
from cylstm.forecasting import Forecaster

pytest.importorskip("starlette", reason="starlette is not installed; the server or its tests need it")
pytest.importorskip("uvicorn", reason="uvicorn is not installed; the server or its tests need it")
pytest.importorskip("websockets", reason="websockets is not installed; the server or its tests need it")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed; the server needs it")
pytest.importorskip("httpx", reason="httpx is not installed; the server or its tests need it")

import httpx

from cylstm.inference import micro_batch
from cylstm.serve import Limits, app, application, logs, quotas, service
from cylstm.serve.service import Service

JSON, RAW = {"Content-Type": "application/json"}, {"Content-Type": "application/octet-stream"}


def network(**options):
    return cylstm.Sequential(cylstm.LSTM(3, 8, seed=0, **options), cylstm.Linear(8, 2, seed=1))


def client(application):
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def asked(application, *requests):
    """The responses to requests, (method, path, options of httpx) each, sent at once."""

    async def ask():
        async with client(application) as http:
            return await asyncio.gather(*[http.request(m, p, **options) for m, p, options in requests])

    return asyncio.run(ask())


def predicted(application, **options):
    return asked(application, ("POST", "/predict", options))[0]


def number(application, line):
    """What /metrics says."""
    return sample(asked(application, ("GET", "/metrics", {}))[0].text, line)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_json_has_the_bits_of_a_session(rng, dtype):
    model = network(dtype=dtype) if dtype == "float32" else cylstm.GRU(3, 5, 2, dtype=dtype, seed=0)
    x = rng.standard_normal((7, 3)).astype(dtype)
    response = predicted(application(model), json={"x": x.tolist()})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert list(response.json()) == ["y"]
    np.testing.assert_array_equal(np.array(response.json()["y"], dtype), model(x)[0])


def test_raw_rows_have_the_bits_of_a_session(rng):
    model, x = network(), rng.standard_normal((7, 3)).astype("<f4")
    x[3, 1] = np.nan  # passes through, as IEEE says
    response = predicted(application(model), content=x.tobytes(), headers=RAW)
    assert (response.status_code, response.headers["content-type"]) == (200, RAW["Content-Type"])
    np.testing.assert_array_equal(np.frombuffer(response.content, "<f4").reshape(7, 2), model(x)[0])
    assert np.isnan(model(x)[0]).any()


@pytest.mark.parametrize("layer", [cylstm.LSTM, cylstm.GRU])
def test_a_state_is_carried_by_the_client(rng, layer):
    x = rng.standard_normal((7, 3)).astype(np.float32)
    model = cylstm.Sequential(layer(3, 8, 2, seed=0), cylstm.Linear(8, 2, seed=1))
    app, y, state = application(model), [], None
    for part in (x[:4], x[4:6], x[6]):
        answer = predicted(app, json={"x": part.tolist(), "state": state}).json()
        y, state = [*y, np.atleast_2d(np.array(answer["y"], np.float32))], answer["state"]
    np.testing.assert_array_equal(np.concatenate(y), model(x)[0])


def test_indices(rng):
    model = cylstm.Sequential(cylstm.Embedding(9, 4, seed=0), cylstm.GRU(4, 5, seed=1))
    ids, app = rng.integers(0, 9, 6), application(model)
    expected = model(ids)[0]
    answer = predicted(app, json={"x": ids.tolist()})
    np.testing.assert_array_equal(np.array(answer.json()["y"], np.float32), expected)
    answer = predicted(app, content=ids.astype("<i4").tobytes(), headers=RAW)
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<f4").reshape(6, 5), expected)
    for bad in ([1, 9], [-1], [0.5], [[1]], []):
        assert predicted(app, json={"x": bad}).status_code == 422


def test_files_of_a_layer_that_pools_and_of_one_without_a_state(tmp_path, rng):
    x = rng.standard_normal((4, 3)).astype(np.float32)
    pooled = cylstm.Sequential(cylstm.LSTM(3, 5, bidirectional=True, seed=0), cylstm.Pooling("max"))
    for model in (pooled, cylstm.Linear(3, 2, seed=0)):
        cylstm.save(model, tmp_path / "m.safetensors")
        app = application(tmp_path / "m.safetensors")
        y = np.array(predicted(app, json={"x": x.tolist()}).json()["y"], np.float32)
        expected = model(x)[0] if isinstance(model, cylstm.Sequential) else model(x)
        np.testing.assert_array_equal(y, expected)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A classifier, its file, and sequences."""
    x = np.random.default_rng(0).standard_normal((40, 9, 2)) * 100
    x += np.repeat([-50, 50], 20)[:, None, None]
    classifier = Classifier(hidden_size=8)
    classifier.fit((x, ["low"] * 20 + ["high"] * 20), epochs=5, progress=False)
    path = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    classifier.save(path)
    return classifier, path, x


def test_a_file_is_loaded_once(tmp_path, trained, monkeypatch):
    cylstm.save(network(), tmp_path / "m.safetensors")
    loaded, load = [], service.load_with_extra
    monkeypatch.setattr(service, "load_with_extra", lambda path: loaded.append(path) or load(path))
    for path in (trained[1], tmp_path / "m.safetensors"):
        application(path)
        assert loaded.pop() == path
        assert not loaded


def test_a_forecaster_is_refused(tmp_path, capsys):
    path = tmp_path / "f.safetensors"
    values = np.sin(np.arange(60.0) / 3)[:, None]
    Forecaster(horizon=2, hidden_size=4, epochs=1).fit(values).save(path)
    with pytest.raises(cylstm.files.ModelFileError, match="holds a forecaster, which cannot be served"):
        application(path)
    assert cli.main(["serve", str(path), "--port", "0"]) == 1
    expected = "holds a forecaster, which cannot be served; `cylstm predict` forecasts\n"
    assert capsys.readouterr() == ("", f"cylstm: {path}: {expected}")


def test_a_classifier_says_labels(trained):
    classifier, path, x = trained
    app = application(path)
    (answer,) = asked(app, ("POST", "/classify", {"json": {"x": x[0].tolist()}}))
    assert answer.json()["label"] == classifier.predict(x[:1])[0]
    expected = dict(zip(classifier.classes, classifier.probabilities(x[:1])[0], strict=True))
    assert answer.json()["probabilities"] == pytest.approx(expected, rel=1e-5)
    refused, missing = asked(
        app,
        ("POST", "/classify", {"content": b"", "headers": RAW}),
        ("POST", "/predict", {"json": {"x": x[0].tolist()}}),
    )
    assert (refused.status_code, missing.status_code) == (415, 200)
    for other in ("state", "lengths"):
        (response,) = asked(app, ("POST", "/classify", {"json": {"x": x[0].tolist(), other: None}}))
        assert response.status_code == 400
        assert response.json() == {"error": f"body: expected \"x\" alone, got '{other}' too"}
    assert asked(application(network()), ("POST", "/classify", {"json": {}}))[0].status_code == 404


BAD = [
    ({"content": b"{", "headers": JSON}, 400, "body: expected JSON; "),
    ({"content": b"\xff\xfe\xfa", "headers": JSON}, 400, "body: expected JSON; "),
    ({"content": b"", "headers": JSON}, 400, "body: expected JSON; "),
    ({"content": b"[" * 100_000, "headers": JSON}, 400, "body: expected JSON; "),
    ({"content": b'{"x": [[1, 2, ' + b"9" * 5000 + b"]]}", "headers": JSON}, 400, "body: expected JSON; "),
    (
        {"content": b'{"x": [[NaN, 1, 2]]}', "headers": JSON},
        400,
        "NaN is not JSON; raw bodies may",
    ),
    ({"json": [[1, 2, 3]]}, 400, 'body: expected a JSON object {"x": ...}, got none with "x"'),
    ({"json": {"y": 1}}, 400, 'got none with "x"'),
    ({"json": {"x": [[1, 2, 3]], "lengths": 1}}, 400, "got 'lengths' too"),
    ({"json": {"x": None}}, 422, "x: expected real numbers"),
    ({"json": {"x": {"a": 1}}}, 422, "x: expected real numbers"),
    ({"json": {"x": "text"}}, 422, "x: expected real numbers"),
    ({"json": {"x": 3}}, 422, "x: expected (T, 3), got ()"),
    ({"json": {"x": []}}, 422, "x: expected (T, 3), got (0,)"),
    ({"json": {"x": [[1, 2], [3]]}}, 422, "x: expected a rectangular array"),
    ({"json": {"x": [[1, 2]]}}, 422, "x: expected (T, 3), got (1, 2)"),
    ({"json": {"x": [[[1, 2, 3]]]}}, 422, "x: expected (T, 3), got (1, 1, 3)"),
    ({"json": {"x": [[1, 2, 10**400]]}}, 422, "x: expected numbers in the range of a float"),
    ({"content": b'{"x": [[1, 2, 1e999]]}', "headers": JSON}, 422, "x: expected finite float32 numbers"),
    ({"json": {"x": [[1, 2, 1e39]]}}, 422, "x: expected finite float32 numbers"),
    ({"json": {"x": [[1, 2, 3]] * 21}}, 422, "x: expected 1 to 20 steps, got 21"),
    ({"json": {"x": [[1, 2, 3]], "state": 3}}, 422, "state: expected a list of 2 parts, got int"),
    (
        {"json": {"x": [[1, 2, 3]], "state": [[[1]], None]}},
        422,
        "state[0]: expected a list of 2 parts, got 1",
    ),
    ({"json": {"x": [[1, 2, 3]], "state": [[[[1]], [[1]]], None]}}, 422, "expected (1, 8), got (1, 1)"),
    ({"json": {"x": [[1, 2, 3]], "state": [[[[1e99] * 8]] * 2, None]}}, 422, "state[0][0]: expected finite"),
    ({"json": {"x": [[1, 2, 3]], "state": [None, 1]}}, 422, "state[0]: expected a list of 2"),
    ({"content": b"", "headers": RAW}, 422, "x: expected 1 to 20 steps, got 0"),
    ({"content": b"12345678", "headers": RAW}, 422, "rows of float32 of 12 bytes per step, got 8 bytes"),
    ({"content": bytes(12 * 21), "headers": RAW}, 422, "x: expected 1 to 20 steps, got 21"),
    ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "got 'text/plain'"),
    ({"content": b"x"}, 415, "content-type: expected application/json or application/octet-stream, got ''"),
    ({"content": b"x", "headers": {**RAW, "Content-Encoding": "gzip"}}, 415, "got 'gzip'"),
    ({"content": bytes(200_001), "headers": RAW}, 413, "body: expected at most 200000 bytes"),
    ({"content": b"", "headers": {**RAW, "Content-Length": "9" * 30}}, 413, "body: expected at most 200000"),
]


def test_bad_requests_get_a_reason_and_are_counted():
    app = application(network(), max_steps=20, max_body=200_000)
    for options, status, words in BAD:
        response = predicted(app, **options)
        assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), (
            options
        )
        assert words in response.json()["error"], (options, response.json())
    for status in {status for _, status, _ in BAD}:
        expected = [one for _, one, _ in BAD if one == status]
        assert number(app, f'cylstm_requests_total{{path="/predict",status="{status}"}}') == len(expected)
    assert number(app, "cylstm_requests_in_progress ") == 0


def test_other_paths_and_methods_are_refused_in_json():
    missing, method = asked(application(network()), ("GET", "/x", {}), ("GET", "/predict", {}))
    assert (missing.status_code, missing.json()) == (404, {"error": "GET /x: Not Found"})
    assert (method.status_code, method.headers["allow"]) == (405, "POST")


def test_a_result_that_json_cannot_hold_is_no_result():
    model = cylstm.Sequential(cylstm.Linear(3, 2, seed=0))
    model.load_state_dict({name: 0 * value + 3e38 for name, value in model.state_dict().items()})
    app = application(model)
    assert predicted(app, json={"x": [[9, 9, 9]]}).status_code == 422
    answer = predicted(app, content=np.full((1, 3), 9, "<f4").tobytes(), headers=RAW)
    assert np.isposinf(np.frombuffer(answer.content, "<f4")).all()


def test_a_body_without_a_length_is_bounded_too():
    async def parts():
        for _ in range(30):
            yield bytes(12)

    app = application(network(), max_body=12 * 29)
    assert predicted(app, content=parts(), headers=RAW).status_code == 413
    assert predicted(application(network()), content=parts(), headers=RAW).status_code == 200


class Held:
    """In the place of a queue: computes nothing until it is let."""

    def __init__(self, requests):
        self.requests, self.gate, self.begun = requests, threading.Event(), 0
        results = requests._results

        def after_the_gate(batch):
            self.begun += len(batch)
            assert self.gate.wait(20)
            return results(batch)

        requests._results = after_the_gate


def test_a_full_queue_refuses_and_recovers(rng):
    service = Service(network(), Limits(max_queue=3))
    held, application = Held(service.requests), app.app_of(service)
    x = rng.standard_normal((5, 3)).astype(np.float32)

    async def ask():
        async with client(application) as http:
            calls = [asyncio.create_task(http.post("/predict", json={"x": x.tolist()})) for _ in range(8)]
            while sum(call.done() for call in calls) < 5:
                await asyncio.sleep(0.01)
            assert (await http.get("/healthz")).status_code == 200
            held.gate.set()
            return await asyncio.gather(*calls)

    responses = asyncio.run(ask())
    assert sorted(response.status_code for response in responses) == [200] * 3 + [503] * 5
    for response in responses:
        if response.status_code == 503:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"].startswith("server: 3 requests are in progress")
        else:
            np.testing.assert_array_equal(np.array(response.json()["y"], np.float32), network()(x)[0])
    assert predicted(application, json={"x": x.tolist()}).status_code == 200


def test_paths_share_the_bound_on_requests(trained):
    _, path, x = trained
    service = Service(path, Limits(max_queue=2))
    held, application = Held(service.requests), app.app_of(service)
    body = {"json": {"x": x[0].tolist()}}

    async def ask():
        async with client(application) as http:
            paths = "/predict", "/classify"
            slow = [asyncio.create_task(http.post(name, **body)) for name in paths]
            while service.slots.used < 2:
                await asyncio.sleep(0.01)
            more = [await http.post(name, **body) for name in paths]
            held.gate.set()
            return more, await asyncio.gather(*slow)

    for responses, status in zip(asyncio.run(ask()), (503, 200), strict=True):
        assert [response.status_code for response in responses] == [status] * 2


def test_bodies_that_do_not_come_take_no_turns():
    service = Service(network(), Limits(max_queue=2))
    application = app.app_of(service)

    async def ask():
        let = asyncio.Event()

        async def held():
            await let.wait()
            yield bytes(12)

        async with client(application) as http:
            slow = [
                asyncio.create_task(http.post("/predict", content=held(), headers=RAW)) for _ in range(20)
            ]
            await asyncio.sleep(0.1)
            answers = [await http.post("/predict", content=bytes(12), headers=RAW) for _ in range(3)]
            let.set()
            await asyncio.gather(*slow)
            return answers

    assert [answer.status_code for answer in asyncio.run(ask())] == [200] * 3
    assert (service.slots.used, service.memory.used) == (0, 0)


def test_timed_out_request_is_not_computed():
    service = Service(network(), Limits(timeout=0.2))
    held, application = Held(service.requests), app.app_of(service)

    async def ask():
        async with client(application) as http:
            calls = []
            while len(calls) < 4:
                calls.append(asyncio.create_task(http.post("/predict", json={"x": [[1, 2, 3]]})))
                while not held.begun:
                    await asyncio.sleep(0.01)
            return await asyncio.gather(*calls)

    responses = asyncio.run(ask())
    assert [response.status_code for response in responses] == [504] * 4
    assert responses[0].json() == {"error": "server: no result within 0.2 s"}
    held.gate.set()
    service.requests.close()
    assert held.begun == 1


def test_a_body_that_does_not_come_is_given_up():
    async def slow():
        yield bytes(12)
        await asyncio.sleep(10)

    response = predicted(application(network(), timeout=0.2), content=slow(), headers=RAW)
    assert (response.status_code, response.json()) == (
        408,
        {"error": "body: expected to be complete within 0.2 s"},
    )


def test_a_defect_is_no_result_and_no_words(rng):
    service = Service(network(), Limits())

    def broken(batch):
        raise MemoryError("secret")

    service.requests._results = broken
    response = predicted(app.app_of(service), json={"x": [[1, 2, 3]]})
    assert (response.status_code, response.json()) == (500, {"error": "server: internal error"})


def test_after_its_end_an_application_refuses():
    service = Service(network(), Limits())
    application = app.app_of(service)
    asyncio.run(service.close())
    assert predicted(application, json={"x": [[1, 2, 3]]}).status_code == 503
    assert asked(application, ("GET", "/healthz", {}))[0].status_code == 503


def test_metrics_count_requests_and_steps(rng):
    app = application(network())
    for T in (2, 5):
        predicted(app, content=bytes(12 * T), headers=RAW)
    response = asked(app, ("GET", "/metrics", {}))[0]
    assert response.headers["content-type"].startswith("text/plain")
    assert number(app, "cylstm_steps_total") == 7
    assert number(app, "cylstm_request_seconds_count") == 2
    assert number(app, 'cylstm_requests_total{path="/predict",status="200"}') == 2


@pytest.mark.parametrize(
    "options", [{"max_body": 0}, {"max_steps": 1.5}, {"timeout": 0}, {"timeout": "x"}, {"nonsense": 1}]
)
def test_limits_are_checked(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        application(network(), **options)


@pytest.mark.process
def test_the_library_alone_loads_none_of_it():
    others = ("starlette", "uvicorn", "prometheus_client", "anyio")
    code = f"import sys, cylstm, cylstm.cli; print([m for m in {others} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_session_serves(rng):
    session = cylstm.Session(network(), threads=1)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    answer = predicted(application(session), json={"x": x.tolist()})
    np.testing.assert_array_equal(np.array(json.loads(answer.content)["y"], np.float32), session.run(x)[0])


class Asgi:
    """One request to an application, whose answer is read as fast as `read` says."""

    def __init__(self, app, body, host, read=None, path="/predict", headers=()):
        names = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]
        self.scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": names}
        self.scope |= {"client": (host, 1), "query_string": b"", "root_path": "", "scheme": "http"}
        self.body, self.read, self.status, self.size, self.app = body, read, None, 0, app

    async def run(self):
        async def receive():
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                self.status = message["status"]
                return
            if self.read is not None:
                await self.read()
            self.size += len(message["body"])

        await self.app(self.scope, receive, send)
        return self


def test_a_client_that_fills_the_queue_leaves_room_for_another():
    service = Service(network(), Limits(max_queue=4))
    held, application = Held(service.requests), app.app_of(service)

    async def ask():
        def asked(host):
            return asyncio.create_task(Asgi(application, bytes(12), host).run())

        many = [asked("10.0.0.1") for _ in range(6)]
        while sum(one.done() for one in many) < 2:
            await asyncio.sleep(0.01)
        other = [asked(host) for host in ("10.0.0.2", "2001:db8::1", "2001:db8::2")]
        while sum(one.done() for one in [*many, *other]) < 5:
            await asyncio.sleep(0.01)
        held.gate.set()
        return [sorted(one.status for one in await asyncio.gather(*group)) for group in (many, other)]

    many, other = asyncio.run(ask())
    assert many == [200] * 2 + [503] * 4
    assert other == [200] * 2 + [503]  # the two addresses of one IPv6 network are one client


def test_a_client_is_an_address_or_a_network():
    assert quotas.client_of("2001:db8::1") == quotas.client_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert quotas.client_of("::ffff:10.0.0.1") == quotas.client_of("10.0.0.1") == "10.0.0.1"
    assert quotas.client_of("2001:db8:0:1::1") != quotas.client_of("2001:db8::1")
    assert quotas.client_of(None) == quotas.client_of("") == ""


@pytest.mark.slow
def test_answers_that_nobody_reads_are_bounded_and_time_out():
    model = cylstm.Sequential(cylstm.Linear(3, 256))
    service = Service(model, Limits(max_body=2**16, timeout=1))
    bound, application = service.limits.max_bytes, app.app_of(service)
    body = bytes(12 * 1000)  # whose answer has 1 MB

    async def ask():
        calls = [Asgi(application, body, "a", read=asyncio.Event().wait) for _ in range(20)]
        tasks = [asyncio.create_task(call.run()) for call in calls]
        largest = 0
        while not all(task.done() for task in tasks):
            largest = max(largest, service.memory.used)
            await asyncio.sleep(0.01)
        return [call.status for call in calls], largest

    begin = time.monotonic()
    statuses, largest = asyncio.run(ask())
    assert sorted(set(statuses)) == [200, 503]
    assert 1e6 < largest <= bound
    assert time.monotonic() - begin < 15
    assert service.memory.used == 0


@pytest.mark.slow
def test_an_answer_that_is_read_by_the_drop_times_out():
    service = Service(cylstm.Sequential(cylstm.Linear(3, 64)), Limits(max_body=2**20, timeout=0.5))
    call = Asgi(app.app_of(service), bytes(12 * 10_000), "a", read=lambda: asyncio.sleep(0.2))
    asyncio.run(asyncio.wait_for(call.run(), 30))
    assert call.status == 200
    assert 0 < call.size < 4 * 64 * 10_000


def test_paths_of_metrics_are_those_of_routes():
    application = app.app_of(Service(network(), Limits()))
    asyncio.run(Asgi(application, bytes(12), "a", headers=[(b"host", b"evil.example/x?y")]).run())
    assert number(application, 'cylstm_requests_total{path="/predict",status="200"}') == 1
    assert "evil" not in asked(application, ("GET", "/metrics", {}))[0].text


def test_logs_omit_control_characters_and_client_tracebacks(caplog):
    logger = logging.getLogger("cylstm.test")
    logger.addFilter(logs.OneLine())
    logger.warning("GET %s", "/\x1b[2J\r\nroot: \x9b31m")
    for error in (ConnectionResetError("by\x07peer"), asyncio.CancelledError(), RuntimeError("a defect")):
        logger.error("failed", exc_info=error)
    assert [record.getMessage() for record in caplog.records] == [
        "GET /\\x1b[2J\\r\\nroot: \\x9b31m",
        "failed: ConnectionResetError: by\\x07peer",
        "failed",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [False, False, True]


def test_buffers_of_the_largest_batch_are_released(monkeypatch):
    session = cylstm.Session(cylstm.LSTM(3, 64, seed=0), threads=1)
    monkeypatch.setattr(micro_batch, "CHECK_SECONDS", 0)
    tracemalloc.start()
    try:
        with session.micro_batch() as requests:
            requests.run(np.zeros((20, 3)))
            small = tracemalloc.get_traced_memory()[0]
            requests.run(np.zeros((20_000, 3)))
            for _ in range(3):
                requests.run(np.zeros((20, 3)))
            assert tracemalloc.get_traced_memory()[0] < small + 2e6
    finally:
        tracemalloc.stop()


def test_an_origin_is_checked_when_it_is_given():
    for origins, error in [(("example.com",), ValueError), ("https://example.com", TypeError)]:
        with pytest.raises(error, match="origins: expected"):
            application(network(), origins=origins)
    Limits(origins=["https://example.com:8443", "*"])


def test_worker_names_missing_dependency(monkeypatch):
    import cylstm.serve

    monkeypatch.delitem(sys.modules, "cylstm.serve.worker", raising=False)
    for name in ("gunicorn", "gunicorn.workers", "gunicorn.workers.base"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install gunicorn"):
        cylstm.serve.Worker  # noqa: B018
    with pytest.raises(AttributeError):
        cylstm.serve.nothing  # noqa: B018


@pytest.mark.slow
def test_refused_answers_leave_memory_at_once():
    """Not when the collector next runs, which may be after a gigabyte."""
    service = Service(cylstm.Sequential(cylstm.Linear(3, 256)), Limits(max_body=2**16, timeout=0.5))
    application = app.app_of(service)

    async def ask():
        calls = [Asgi(application, bytes(12 * 1000), "a", read=asyncio.Event().wait) for _ in range(20)]
        return [one.status for one in await asyncio.gather(*[call.run() for call in calls])]

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        assert 503 in asyncio.run(ask())
        service.session.release()
        assert tracemalloc.get_traced_memory()[0] < 5e6  # each answer has 1 MB
    finally:
        tracemalloc.stop()
        gc.enable()
