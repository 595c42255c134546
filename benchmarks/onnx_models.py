"""Recurrent layers as ONNX models, for ONNX Runtime and OpenVINO."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from shapes import GATES, Shape


def onnx_model(shape: Shape, step: bool = False) -> tuple[bytes, dict[str, np.ndarray]]:
    """Build a model with one node per layer and random weights; return it with its inputs."""
    from onnx import TensorProto, helper, numpy_helper

    rng, D, G = np.random.default_rng(0), shape.directions, GATES[shape.cell]
    feeds = {"X": shape.x()}
    if shape.ragged:
        feeds["lengths"] = shape.lengths().astype(np.int32)
    states = ["h", "c"][: 2 if shape.cell == "lstm" else 1]
    for name in states if step else ():
        feeds[f"{name}_0"] = np.zeros((D, shape.B, shape.H), np.float32)
    weights = {"y_shape": np.array([0, 0, D * shape.H])} if shape.layers > 1 else {}
    nodes, x = [], "X"
    for l in range(shape.layers):
        units = G * shape.H
        sizes = {"W": (D, units, shape.inputs(l)), "R": (D, units, shape.H), "B": (D, 2 * units)}
        for name, size in sizes.items():
            weights[f"{name}{l}"] = rng.uniform(-0.1, 0.1, size).astype(np.float32)
        inputs = [x, f"W{l}", f"R{l}", f"B{l}", "lengths" if shape.ragged else ""]
        inputs += [f"{name}_0" for name in states] if step else []
        outputs = [f"Y{l}", *(f"{name}_n{l}" for name in states)]
        direction = "bidirectional" if D == 2 else "forward"
        options: dict[str, Any] = {"hidden_size": shape.H, "direction": direction}
        if shape.cell == "gru":
            options["linear_before_reset"] = 1
        nodes.append(helper.make_node(shape.cell.upper(), inputs, outputs, **options))
        if l + 1 < shape.layers:  # (T, D, B, H) to (T, B, D H)
            nodes.append(helper.make_node("Transpose", [f"Y{l}"], [f"T{l}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"T{l}", "y_shape"], [f"X{l}"]))
            x = f"X{l}"
    last = shape.layers - 1
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    graph = helper.make_graph(
        nodes, "layers",
        [helper.make_tensor_value_info(name, types[name], value.shape) for name, value in feeds.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (f"Y{last}", *(f"{name}_n{last}" for name in states))
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model.SerializeToString(), feeds


def onnxruntime_call(shape: Shape, mode: str) -> Callable[[], object]:
    import onnxruntime

    model, feeds = onnx_model(shape, mode == "step")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads_asked_for(), 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if mode == "forward":
        return lambda: session.run(None, feeds)

    def step():
        _, *state = session.run(None, feeds)
        feeds.update(zip(("h_0", "c_0"), state, strict=False))

    return step


def openvino_call(shape: Shape, mode: str) -> Callable[[], object]:
    import openvino

    model, feeds = onnx_model(shape, mode == "step")
    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads_asked_for()}
    settings["INFERENCE_PRECISION_HINT"] = "f32"  # where the CPU has bfloat16 it would be taken
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    if mode == "forward":
        return lambda: request.infer(feeds)

    def step():
        _, *state = request.infer(feeds).values()
        feeds.update({name: value.copy() for name, value in zip(("h_0", "c_0"), state, strict=False)})

    return step


def threads_asked_for() -> int:
    return int(os.environ["OMP_NUM_THREADS"])
