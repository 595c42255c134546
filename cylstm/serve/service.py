"""The model of a server: its session, request queue and limits, shared by all requests and streams."""

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
from numpy.typing import NDArray

from cylstm._checks.options import without_option_warnings
from cylstm.classification import network
from cylstm.classification.classifier import Classifier
from cylstm.data.scalers import warn_not_applied
from cylstm.files import ModelFileError, load_with_extra
from cylstm.inference.micro_batch import QueueFull
from cylstm.inference.session import Session
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.layers.sequential import Sequential
from cylstm.serve.bodies import Codec, RequestError, json_of
from cylstm.serve.limits import Limits
from cylstm.serve.metrics import Metrics
from cylstm.serve.quotas import Quota

Array = NDArray[Any]
MAX_BATCH = 32  # larger batches are hardly faster and increase latency
LARGE = 2**15  # bytes or numbers; converting more would block the event loop for too long
CONVERSIONS = 2  # concurrent conversions of large bodies: each needs a multiple of its size, and the GIL


class NotServed(ModelFileError):
    """The outputs of the network in a model file cannot be interpreted by a server."""


class Service:
    """The state shared by the handlers of requests and streams.

    Parameters
    ----------
    model : path, SequenceLayer or Session
    limits : Limits
    threads : int, optional
        As for `Session`.

    Attributes
    ----------
    requests : MicroBatch
        The queue that computes results.
    classes : list of str
        Classes of a classifier in the order of the outputs, else empty.
    slots, streams, memory : Quota
        Requests and messages in progress; open streams; bytes of bodies and answers.
    scaled : bool
        Whether the model has scalers, which only /classify applies.
    stopping : bool
        Whether the server is shutting down and rejects new requests.
    """

    def __init__(self, model: Any, limits: Limits, threads: int | None = None) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.stopping = False
        busy = "are in progress; try again later"
        self.slots = Quota(limits.max_queue, f"server: {limits.max_queue} requests {busy}")
        self.streams = Quota(limits.max_streams, "server: too many streams; try again later")
        self.memory = Quota(limits.max_bytes, "server: requests of too many bytes " + busy)
        self._converter = ThreadPoolExecutor(CONVERSIONS, "cylstm-bodies")  # starts threads on demand
        self.classes: list[str] = []
        if isinstance(model, (str, os.PathLike)):
            model = self._loaded(model)
        self.scaled = bool(getattr(model, "scalers", None))
        self.session = model if isinstance(model, Session) else self._session(model, threads)
        self.codec = Codec(self.session._model, limits.max_steps)
        # No delay: requests that arrive during a batch form the next one.
        # The queue has room for evicted requests that are not removed yet; `slots` enforces the limit.
        size = 2 * limits.max_queue
        self.requests = self.session.micro_batch(max_batch=MAX_BATCH, max_delay=0, max_queue=size)

    def _session(self, model: SequenceLayer, threads: int | None) -> Session:
        if not self.classes:  # /classify applies the scalers
            warn_not_applied("serve", model.scalers)
        with without_option_warnings():
            return Session(model, threads=threads)

    def _loaded(self, path: str | os.PathLike[str]) -> Any:
        model, extra = load_with_extra(path)
        if "forecaster" in extra:
            raise NotServed(
                f"{path}: holds a forecaster, which cannot be served: the network outputs scaled "
                "differences; use cylstm.forecasting.Forecaster.load(path).forecast(values)"
            )
        if "classifier" in extra:
            self.classes = Classifier.of(path, model, extra).classes
        return model if isinstance(model, SequenceLayer) else Sequential(model)

    @property
    def causal(self) -> bool:
        """Whether the model is causal, so that it can run step by step."""
        return self.session._model.causal

    async def run(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Compute the result for one sequence.

        Raises
        ------
        RequestError
            If the arguments do not fit the model (422), the queue is full or the server is stopping (503),
            or the computation times out (504).
        """
        if self.stopping:
            raise RequestError(503, "server: is stopping")
        try:
            future = self.requests.submit(x, state)
        except QueueFull as error:
            raise RequestError(503, f"server: {error}") from None
        except (ValueError, TypeError, IndexError) as error:
            raise RequestError(422, str(error)) from None
        try:
            with anyio.fail_after(self.limits.timeout):
                y, last = await asyncio.wrap_future(future)
        except TimeoutError:
            raise RequestError(504, f"server: no result within {self.limits.timeout:g} s") from None
        self.metrics.steps.inc(len(x))
        return y, last

    async def answer_json(self, text: str | bytes, state: Any = None) -> tuple[bytes, Any]:
        """Answer `{"x": ..., "state": ...}`; return the response and the last state.

        `state` is the initial state if the request has none.
        """
        given = await self.converted(len(text), self.codec.of_json, text)
        x, is_step = given["x"], self.codec.is_step(given["x"])
        y, last = await self.run(x[None] if is_step else x, given.get("state", state))
        if is_step and not self.session._model.pools:
            y = y[0]
        extra = {"state": last} if "state" in given else {}
        return await self.converted(y.size, lambda: json_of(y=y, **extra)), last

    async def answer_raw(self, body: bytes, state: Any = None) -> tuple[bytes, Any]:
        """Answer raw rows, starting from the state; return the response and the last state."""
        y, last = await self.run(await self.converted(len(body), self.codec.steps_of_raw, body), state)
        return self.codec.raw_of(y), last

    def scaled_of_json(self, text: str | bytes) -> Array:
        """Parse the sequence in a request to a classifier and scale it."""
        x = self.codec.of_json(text, stateful=False)["x"]
        return network.scaled(self.session._model, [x])[0]

    async def converted(self, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that reads or writes a body of this size, in another thread if it is large.

        Raises
        ------
        RequestError
            With status 422, if the function raises ValueError or TypeError.
        """
        try:
            if size > LARGE:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._converter, functools.partial(function, *arguments))
            return function(*arguments)
        except (ValueError, TypeError) as error:
            raise RequestError(422, str(error)) from None

    async def close(self) -> None:
        """Reject new requests, and wait for those in progress."""
        self.stopping = True
        await asyncio.to_thread(self.requests.close)
