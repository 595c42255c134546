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


def onnx_model(shape: Shape) -> tuple[bytes, dict[str, np.ndarray]]:
    """A model of one LSTM node with random weights, and its inputs."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    sizes = {"W": (1, 4 * shape.H, shape.I), "R": (1, 4 * shape.H, shape.H), "B": (1, 8 * shape.H)}
    weights = {name: rng.uniform(-0.1, 0.1, size).astype(np.float32) for name, size in sizes.items()}
    feeds = {"X": inputs(shape)}
    if shape.ragged:
        feeds["lengths"] = shape.lengths().astype(np.int32)
    names = ["X", "W", "R", "B", *(["lengths"] if shape.ragged else [])]
    node = helper.make_node("LSTM", names, ["Y", "Y_h", "Y_c"], hidden_size=shape.H)
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    graph = helper.make_graph(
        [node], "lstm",
        [helper.make_tensor_value_info(name, types[name], value.shape) for name, value in feeds.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("Y", "Y_h", "Y_c")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model.SerializeToString(), feeds


def onnxruntime_call(shape: Shape, mode: str) -> Callable[[], object]:
    import onnxruntime

    model, feeds = onnx_model(shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads_asked_for(), 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def openvino_call(shape: Shape, mode: str) -> Callable[[], object]:
    import openvino

    model, feeds = onnx_model(shape)
    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads_asked_for()}
    settings["INFERENCE_PRECISION_HINT"] = "f32"  # where the CPU has bfloat16 it would be taken
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda: request.infer(feeds)


def threads_asked_for() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


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


CONTENDERS = {
    "cylstm": cylstm_call,
    "torch": torch_call,
    "onnxruntime": onnxruntime_call,
    "openvino": openvino_call,
    "reference": reference_call,
}
FORWARD_ONLY = {"onnxruntime", "openvino"}
NEEDED = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx"), "torch": ("torch",)}


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
