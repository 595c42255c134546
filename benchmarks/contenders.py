"""The contenders: each runs in a process of its own, told over standard input what to time.

    python benchmarks/contenders.py NAME THREADS

A request is a line of JSON, {"shape": [...], "mode": "forward" | "training", "seconds": s};
the answer is a line with the seconds of every call within that time, after one call to warm up.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from shapes import Shape


def cylstm_call(shape: Shape, mode: str) -> Callable[[], object]:
    import cylstm

    layer = cylstm.LSTM(shape.I, shape.H, seed=0)
    x, lengths = inputs(shape), shape.lengths() if shape.ragged else None
    if mode == "forward":
        return lambda: layer(x, lengths=lengths)
    layer.train()

    def train():
        y, _ = layer(x, lengths=lengths)
        layer.zero_grad()
        layer.backward(y, need_dx=False)

    return train


def torch_call(shape: Shape, mode: str) -> Callable[[], object]:
    import torch

    layer, x = torch.nn.LSTM(shape.I, shape.H), torch.from_numpy(inputs(shape))
    rnn, lengths = torch.nn.utils.rnn, torch.from_numpy(shape.lengths())

    def forward():
        if not shape.ragged:
            return layer(x)[0]
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return rnn.pad_packed_sequence(layer(packed)[0])[0]

    if mode == "forward":

        def infer():
            with torch.inference_mode():
                forward()

        return infer

    def train():
        y = forward()
        layer.zero_grad()
        y.backward(y.detach())

    return train


def reference_call(shape: Shape, mode: str) -> Callable[[], object]:
    """The NumPy definition in its own precision, float64; padding is computed like the rest."""
    from cylstm import reference

    rng = np.random.default_rng(0)
    x, state = inputs(shape).astype(float), np.zeros((shape.B, shape.H))
    gates = 4 * shape.H
    shapes = {"w_ih": (gates, shape.I), "w_hh": (gates, shape.H), "b_ih": (gates,), "b_hh": (gates,)}
    weights = {name: rng.uniform(-0.1, 0.1, size) for name, size in shapes.items()}

    def forward():
        return reference.layer_forward(reference.CELLS["lstm"], x, (state, state), weights)

    if mode == "forward":
        return forward

    def train():
        y, _, saved = forward()
        reference.layer_backward(y, (state, state), saved)

    return train


def inputs(shape: Shape) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((shape.T, shape.B, shape.I)).astype(np.float32)


CONTENDERS = {"cylstm": cylstm_call, "torch": torch_call, "reference": reference_call}


def version(name: str) -> str:
    """Of the library that computes."""
    module = __import__({"reference": "numpy"}.get(name, name))
    return f"{module.__name__} {module.__version__}"


def serve(name: str, threads: int) -> None:
    """Answer requests until standard input ends."""
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
    print(json.dumps(version(name)), flush=True)
    call, current = None, None
    for line in sys.stdin:
        request = json.loads(line)
        wanted = (Shape(*request["shape"]), request["mode"])
        if wanted != current:
            call, current = CONTENDERS[name](*wanted), wanted
        call()
        times, end = [], time.perf_counter() + request["seconds"]
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    # Every library's own switch, before any of them is loaded.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CYLSTM_NUM_THREADS"):
        os.environ[variable] = sys.argv[2]
    serve(sys.argv[1], int(sys.argv[2]))
