"""Worker processes of the benchmarks, one per library, which receive requests on standard input.

    python benchmarks/contenders.py NAME THREADS

A request is a JSON line {"shape": [...], "mode": "forward" | "training" | "step", "seconds": s}. The answer
is a line with the durations of all calls within that time, after a warm-up call. With "memory" instead of
"seconds", the answer is the peak growth of the process in bytes during one call.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from onnx_models import onnxruntime_call, openvino_call
from shapes import GATES, Shape

Call = Callable[[], object]


def cylstm_call(shape: Shape, mode: str) -> Call:
    import cylstm

    kind = getattr(cylstm, shape.cell.upper())
    options = {"proj_size": shape.proj} if shape.proj else {}
    layer = kind(
        shape.I, shape.H, shape.layers, bidirectional=shape.both, dtype=shape.dtype, seed=0, **options
    )
    x, lengths = shape.x(), shape.lengths() if shape.ragged else None
    if mode == "step":
        stream, x_t = cylstm.Stream(layer, shape.B), x[0].copy()
        return lambda: stream.step(x_t)
    if mode == "forward":
        return lambda: layer(x, lengths=lengths)
    if mode == "session":
        session = cylstm.Session(layer)
        return lambda: session.run(x, lengths=lengths)
    layer.train()

    def train():
        y, _ = layer(x, lengths=lengths)
        layer.zero_grad()
        layer.backward(y, need_dx=False)

    return train


def session_call(shape: Shape, mode: str) -> Call:
    """Return a call of a session."""
    return cylstm_call(shape, "session")


def torch_call(shape: Shape, mode: str) -> Call:
    import torch

    options = {"proj_size": shape.proj} if shape.proj else {}
    kind, dtype = getattr(torch.nn, shape.cell.upper()), getattr(torch, shape.dtype)
    layer = kind(shape.I, shape.H, shape.layers, bidirectional=shape.both, dtype=dtype, **options)
    x, rnn, lengths = torch.from_numpy(shape.x()), torch.nn.utils.rnn, torch.from_numpy(shape.lengths())

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
    if mode == "step":
        state: list = [None]

        def step():
            with torch.inference_mode():
                state[0] = layer(x, state[0])[1]

        return step

    def train():
        y = forward()
        layer.zero_grad()
        y.backward(y.detach())

    return train


def jax_call(shape: Shape, mode: str) -> Call:
    """One LSTM layer by `scan`, compiled; x's product over all steps at once."""
    import jax
    import jax.numpy as jnp

    rng, H = np.random.default_rng(0), shape.H
    sizes = ((shape.I, 4 * H), (H, 4 * H), (4 * H,))
    weights = tuple(rng.uniform(-0.1, 0.1, size).astype(np.float32) for size in sizes)
    x = jnp.asarray(shape.x())

    def forward(weights, x):
        w_ih, w_hh, b = weights

        def step(state, z):
            h, c = state
            i, f, g, o = jnp.split(z + h @ w_hh, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((shape.B, H))
        return jax.lax.scan(step, (zero, zero), x @ w_ih + b)[1]

    if mode == "training":

        def loss(weights, x):
            return 0.5 * (forward(weights, x) ** 2).sum()

        compiled = jax.jit(jax.value_and_grad(loss))
    else:
        compiled = jax.jit(forward)
    return lambda: jax.block_until_ready(compiled(weights, x))


def reference_call(shape: Shape, mode: str) -> Call:
    """Return a call of the NumPy reference in float64."""
    from cylstm import reference

    rng = np.random.default_rng(0)
    x, state = shape.x().astype(float), np.zeros((shape.B, shape.H))
    gates = GATES[shape.cell] * shape.H
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


CONTENDERS = {
    "cylstm": cylstm_call,
    "cylstm-blas": cylstm_call,
    "cylstm-session": session_call,
    "torch": torch_call,
    "onnxruntime": onnxruntime_call,
    "openvino": openvino_call,
    "jax": jax_call,
    "reference": reference_call,
}
NEEDED = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "torch": ("torch",),
    "jax": ("jax",),
}


def able(name: str, shape: Shape, mode: str) -> bool:
    """Whether a contender supports a measurement."""
    plain = shape.cell == "lstm" and shape.group == "main"
    if name == "cylstm-session":
        return shape.group == "serving"
    if name in ("onnxruntime", "openvino"):
        return mode != "training" and shape.dtype == "float32" and not shape.proj
    if name == "jax":  # compiled for one sequence; not compared for batches
        return plain and shape.B == 1 and shape.H <= 512
    if name == "reference":
        return plain and shape.H <= 256 and shape.B <= 16
    return name != "cylstm-blas" or mode != "step"


def version(name: str) -> str:
    """Of the library that computes."""
    module = __import__(
        {"reference": "numpy", "cylstm-blas": "scipy", "cylstm-session": "cylstm"}.get(name, name)
    )
    return f"{module.__name__} {module.__version__}"


def peak_of(call: Call) -> int:
    """Bytes that a call adds to this process at its worst moment (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back first: the call might use it again, unseen
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # reset the peak
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))


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
        if "memory" in request:
            print(json.dumps(peak_of(call)), flush=True)
            continue
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
    if sys.argv[1] == "cylstm-blas":
        os.environ["CYLSTM_PATH"] = "blas"
    if sys.argv[1] == "jax":  # whose threads have no switch
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
    serve(sys.argv[1], int(sys.argv[2]))
