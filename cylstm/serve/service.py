"""The model behind a server: its session, the queue that all requests and streams go through, its limits."""

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
from cylstm.serve.bodies import Codec, Refusal, json_of
from cylstm.serve.limits import Limits
from cylstm.serve.metrics import Metrics
from cylstm.serve.shares import Shares

Array = NDArray[Any]
MAX_BATCH = 32  # beyond it batches gain little, and requests wait for each other
LARGE = 2**15  # bytes or numbers whose conversion would hold up all other clients
CONVERSIONS = 2  # of large bodies at a time: each takes many times its size, and the interpreter runs one


class NotServed(ModelFileError):
    """A model file whose network's outputs mean nothing without the code that belongs to it."""


class Service:
    """What handlers of requests and of streams share.

    Parameters
    ----------
    model : path, SequenceLayer or Session
    limits : Limits
    threads : int, optional
        As for `Session`.

    Attributes
    ----------
    requests : MicroBatch
        Where results come from.
    classes : list of str
        Of a classifier's file, in the order of the outputs; else none.
    turns, streams, memory : Shares
        Requests and messages that wait or are computed; streams that are open; bytes of bodies and answers.
    scaled : bool
        The model has scalers, which only /classify applies.
    stopping : bool
        Nothing new is begun.
    """

    def __init__(self, model: Any, limits: Limits, threads: int | None = None) -> None:
        self.limits, self.metrics = limits, Metrics()
        self.stopping = False
        busy = "are in progress; try again later"
        self.turns = Shares(limits.max_queue, f"server: {limits.max_queue} requests {busy}")
        self.streams = Shares(limits.max_streams, "server: too many streams; try again later")
        self.memory = Shares(limits.max_bytes, "server: requests of too many bytes " + busy)
        self._converter = ThreadPoolExecutor(CONVERSIONS, "cylstm-bodies")  # which starts threads when needed
        self.classes: list[str] = []
        if isinstance(model, (str, os.PathLike)):
            model = self._loaded(model)
        self.scaled = bool(getattr(model, "scalers", None))
        self.session = model if isinstance(model, Session) else self._session(model, threads)
        self.codec = Codec(self.session._model, limits.max_steps)
        # No delay: what comes while a batch is computed makes the next one.
        # Its queue has room for requests that were evicted and not yet removed; `turns` is the bound.
        size = 2 * limits.max_queue
        self.requests = self.session.micro_batch(max_batch=MAX_BATCH, max_delay=0, max_queue=size)

    def _session(self, model: SequenceLayer, threads: int | None) -> Session:
        if not self.classes:  # else /classify applies them
            warn_not_applied("serve", model.scalers)
        with without_option_warnings():
            return Session(model, threads=threads)

    def _loaded(self, path: str | os.PathLike[str]) -> Any:
        model, extra = load_with_extra(path)
        if "forecaster" in extra:
            raise NotServed(
                f"{path}: holds a forecaster, which is not served: its network outputs scaled changes, not "
                "forecasts; cylstm.forecasting.Forecaster.load(path).forecast(values) makes forecasts"
            )
        if "classifier" in extra:
            self.classes = Classifier.of(path, model, extra).classes
        return model if isinstance(model, SequenceLayer) else Sequential(model)

    @property
    def causal(self) -> bool:
        """Whether the model can go on from a state, step by step."""
        return self.session._model.causal

    async def run(self, x: Array, state: Any = None) -> tuple[Array, Any]:
        """The result for one sequence, within the time that there is for it.

        Raises
        ------
        Refusal
            If the arguments are not the model's (422), the queue is full or the server stops (503), or
            it takes too long (504).
        """
        if self.stopping:
            raise Refusal(503, "server: is stopping")
        try:
            future = self.requests.submit(x, state)
        except QueueFull as error:
            raise Refusal(503, f"server: {error}") from None
        except (ValueError, TypeError, IndexError) as error:
            raise Refusal(422, str(error)) from None
        try:
            with anyio.fail_after(self.limits.timeout):
                y, last = await asyncio.wrap_future(future)
        except TimeoutError:
            raise Refusal(504, f"server: no result within {self.limits.timeout:g} s") from None
        self.metrics.steps.inc(len(x))
        return y, last

    async def answer_json(self, text: str | bytes, state: Any = None) -> tuple[bytes, Any]:
        """The answer to `{"x": ..., "state": ...}`, from the state unless that names one; the last state."""
        given = await self.converted(len(text), self.codec.of_json, text)
        x, alone = given["x"], self.codec.is_step(given["x"])
        y, last = await self.run(x[None] if alone else x, given.get("state", state))
        if alone and not self.session._model.pools:
            y = y[0]
        kept = {"state": last} if "state" in given else {}
        return await self.converted(y.size, lambda: json_of(y=y, **kept)), last

    async def answer_raw(self, body: bytes, state: Any = None) -> tuple[bytes, Any]:
        """The answer to raw rows, from the state; the last state."""
        y, last = await self.run(await self.converted(len(body), self.codec.steps_of_raw, body), state)
        return self.codec.raw_of(y), last

    def scaled_of_json(self, text: str | bytes) -> Array:
        """The sequence in a body for a classifier, by its own scaler."""
        x = self.codec.of_json(text, stateful=False)["x"]
        return network.scaled(self.session._model, [x])[0]

    async def converted(self, size: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments), which reads or writes a body of that size; elsewhere if it takes long.

        Raises
        ------
        Refusal
            With status 422, instead of the function's ValueError or TypeError.
        """
        try:
            if size > LARGE:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._converter, functools.partial(function, *arguments))
            return function(*arguments)
        except (ValueError, TypeError) as error:
            raise Refusal(422, str(error)) from None

    async def close(self) -> None:
        """Begin nothing new, and wait until everything that was begun is done."""
        self.stopping = True
        await asyncio.to_thread(self.requests.close)
