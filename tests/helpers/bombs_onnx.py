"""Small ONNX files that ask a reader for much; each function writes one."""

import itertools
import os

import numpy as np
from onnx import TensorProto, helper, numpy_helper

VALUE = helper.make_tensor_value_info
X = VALUE("x", TensorProto.FLOAT, ["T", "B", 3])
Y = VALUE("y", TensorProto.FLOAT, None)


def written(path, nodes, initial=(), inputs=(X,), functions=(), domains=()):
    """A model of these nodes; returns it."""
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(initial).items()]
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    graph = helper.make_graph(nodes, "g", list(inputs), [Y], initial)
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    model.ir_version = 9
    with open(path, "wb") as file:
        file.write(model.SerializeToString())
    return model


def doubling_calls(path, levels=40):
    """Functions, each of which calls the one below twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    node = helper.make_node
    functions = [helper.make_function("f", "f0", ["a"], ["b"], [node("Tanh", ["a"], ["b"])], opsets)]
    for k in range(1, levels):
        calls = [node(f"f{k - 1}", ["a"], ["m"], domain="f"), node(f"f{k - 1}", ["m"], ["b"], domain="f")]
        functions.append(helper.make_function("f", f"f{k}", ["a"], ["b"], calls, opsets))
    nodes = [node(f"f{levels - 1}", ["x"], ["y"], domain="f")]
    written(path, nodes, functions=functions, domains=["f"])


def calls_of_a_large_function(path):
    """A function that holds an array, called often: its nodes are copied for each call."""
    opsets = [helper.make_opsetid("", 17)]
    array = numpy_helper.from_array(np.zeros(2**18, np.float32))
    body = [helper.make_node("Constant", [], ["c"], value=array), helper.make_node("Tanh", ["a"], ["b"])]
    function = helper.make_function("f", "f0", ["a"], ["b"], body, opsets)
    names = ["x", *(f"v{k}" for k in range(3000)), "y"]
    nodes = [helper.make_node("f0", [a], [b], domain="f") for a, b in itertools.pairwise(names)]
    written(path, nodes, functions=[function], domains=["f"])


def a_function_that_calls_itself(path):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    call = helper.make_node("f0", ["a"], ["b"], domain="f")
    function = helper.make_function("f", "f0", ["a"], ["b"], [call], opsets)
    node = helper.make_node("f0", ["x"], ["y"], domain="f")
    written(path, [node], functions=[function], domains=["f"])


def constants(path, nodes, initial):
    """Nodes computed ahead of x, whose last output is `c`."""
    written(path, [*nodes, helper.make_node("Add", ["x", "c"], ["y"])], initial)


def expanded_sums(path):
    """Views of a large shape, whose sums are no views."""
    node = helper.make_node
    nodes = [node("Expand", ["one", "shape"], ["v0"])]
    nodes += [node("Add", [f"v{k}", "v0"], [f"v{k + 1}"]) for k in range(20)]
    nodes.append(node("Identity", ["v20"], ["c"]))
    constants(path, nodes, {"one": np.ones(1, "f4"), "shape": np.array([2**23])})


def unary(path, kind, **attributes):
    """One number as a large shape, and a node that computes all of it."""
    node = helper.make_node
    nodes = [node("ConstantOfShape", ["shape"], ["v0"])]
    nodes += [node(kind, [f"v{k}"], [f"v{k + 1}"], **attributes) for k in range(30)]
    nodes.append(node("Identity", ["v30"], ["c"]))
    constants(path, nodes, {"shape": np.array([2**23])})


def casts(path):
    unary(path, "Cast", to=TensorProto.DOUBLE)


def negatives(path):
    unary(path, "Neg")


def copies_by_reshape(path):
    """Views that cannot be reshaped without a copy."""
    node = helper.make_node
    nodes = [node("Expand", ["two", "shape"], ["v"])]
    nodes += [node("Reshape", ["v", "flat"], [f"r{k}"]) for k in range(30)]
    nodes.append(node("Identity", ["r29"], ["c"]))
    initial = {"two": np.ones((1, 2), "f4"), "shape": np.array([2**22, 2]), "flat": np.array([-1])}
    constants(path, nodes, initial)


def doubling_concat(path):
    node = helper.make_node
    nodes = [node("Concat", [f"v{k}"] * 2, [f"v{k + 1}"], axis=0) for k in range(40)]
    nodes.append(node("Identity", ["v40"], ["c"]))
    constants(path, nodes, {"v0": np.ones(1, "f4")})


def large_range(path):
    nodes = [helper.make_node("Range", ["a", "b", "s"], ["c"])]
    constants(path, nodes, {"a": np.array(0.0), "b": np.array(1e300), "s": np.array(1e-300)})


def ranges(path):
    nodes = [helper.make_node("Range", ["a", "b", "s"], [f"c{k}"]) for k in range(40)]
    nodes.append(helper.make_node("Identity", ["c39"], ["c"]))
    constants(path, nodes, {"a": np.array(0), "b": np.array(2**25), "s": np.array(1)})


def gathers(path):
    """Every index takes a row of a large view."""
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["v"]),
        helper.make_node("Gather", ["v", "index"], ["c"], axis=0),
    ]
    initial = {"one": np.ones(1, "f4"), "shape": np.array([2, 2**22]), "index": np.zeros(500, np.int64)}
    constants(path, nodes, initial)


def large_product(path):
    """Of views: little memory, much work."""
    node = helper.make_node
    nodes = [
        node("Expand", ["one", "left"], ["a"]),
        node("Expand", ["one", "right"], ["b"]),
        node("MatMul", ["a", "b"], ["c"]),
    ]
    shapes = {"left": np.array([2**12, 2**11]), "right": np.array([2**11, 2**12])}
    constants(path, nodes, {"one": np.ones((1, 1), "f4"), **shapes})


def large_product_of_stacks(path):
    """Of views of stacks of matrices, whose outer product is larger than both."""
    node = helper.make_node
    nodes = [
        node("Expand", ["one", "left"], ["a"]),
        node("Expand", ["one", "right"], ["b"]),
        node("MatMul", ["a", "b"], ["c"]),
    ]
    shapes = {"left": np.array([2**20, 1, 1, 4]), "right": np.array([1, 2**20, 4, 1])}
    constants(path, nodes, {"one": np.ones((1, 1, 1, 1), "f4"), **shapes})


def weights_of_a_view(path):
    """A dense layer of which one number is in the file."""
    node = helper.make_node
    nodes = [node("Expand", ["one", "shape"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    written(path, nodes, {"one": np.ones((1, 1), "f4"), "shape": np.array([3, 2**22])})


def views(path, node, **initial):
    """A node that reads a view of one number as a very large array."""
    nodes = [helper.make_node("Expand", ["one", "shape"], ["w"]), node]
    inputs = [VALUE("x", TensorProto.FLOAT, ["T", "B", 2**20])]
    initial = {"one": np.ones((1, 1), "f4"), "shape": np.array([2**20, 2**20]), **initial}
    written(path, nodes, initial, inputs)


def view_as_gemm(path):
    views(path, helper.make_node("Gemm", ["x", "w"], ["y"], alpha=2.0))


def view_as_recurrent(path):
    views(path, helper.make_node("RNN", ["x", "w", "w"], ["y"]), shape=np.array([1, 2**20, 2**20]))


def view_as_state(path):
    node = helper.make_node("RNN", ["x", "W", "R", "", "", "w"], ["y"])
    weights = {"W": np.ones((1, 1, 2**10), "f4"), "R": np.ones((1, 1, 1), "f4")}
    views(path, node, shape=np.array([1, 2**40, 1]), **weights)


def view_as_lengths(path):
    node = helper.make_node("RNN", ["x", "W", "R", "", "w"], ["y"])
    weights = {"W": np.ones((1, 1, 2**10), "f4"), "R": np.ones((1, 1, 1), "f4")}
    views(path, node, one=np.ones(1, np.int32), shape=np.array([2**40]), **weights)


def shared_weights(path):
    """Many layers that read one array."""
    names = ["x", *(f"v{k}" for k in range(900)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)]
    inputs = [VALUE("x", TensorProto.FLOAT, ["T", "B", 512])]
    written(path, nodes, {"w": np.ones((512, 512), "f4")}, inputs)


def scales_of_features(path):
    """A number for each feature becomes a matrix."""
    nodes, names = [], ["x", *(f"v{k}" for k in range(800)), "y"]
    for k, (a, b) in enumerate(itertools.pairwise(names)):
        other = helper.make_node("Tanh", [a], [b])
        nodes.append(helper.make_node("Mul", [a, "scale"], [b]) if k % 2 else other)
    inputs = [VALUE("x", TensorProto.FLOAT, ["T", "B", 1024])]
    written(path, nodes, {"scale": np.full(1024, 2, "f4")}, inputs)


def many_layers(path):
    names = ["x", *(f"v{k}" for k in range(20_000)), "y"]
    nodes = [helper.make_node("Tanh", [a], [b]) for a, b in itertools.pairwise(names)]
    written(path, nodes)


def doubling_states(path):
    """Rows of states beside themselves."""
    node = helper.make_node
    nodes = [node("Concat", [f"h{k}"] * 2, [f"h{k + 1}"], axis=0) for k in range(40)]
    inputs = [X, VALUE("h0", TensorProto.FLOAT, [1, "B", 5])]
    written(path, [*nodes, node("Add", ["x", "h40"], ["y"])], inputs=inputs)


def many_axes(path):
    nodes = [helper.make_node("Unsqueeze", [f"v{k}", "axes"], [f"v{k + 1}"]) for k in range(2000)]
    nodes[0].input[0] = "x"
    nodes.append(helper.make_node("Identity", ["v2000"], ["y"]))
    written(path, nodes, {"axes": np.arange(60)})


def negative_size(path):
    model = written(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((3, 4), "f4")})
    model.graph.initializer[0].dims[:] = [3, -1]
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def external(path, location, repeats=1, length=None):
    """Weights that are in another file."""
    names = ["x", *(f"v{k}" for k in range(repeats - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [a, f"w{k}"], [b]) for k, (a, b) in enumerate(itertools.pairwise(names))
    ]
    model = written(path, nodes)
    for k in range(repeats):
        tensor = model.graph.initializer.add(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[3, 3])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "length": length}.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def external_outside(path):
    with open(os.path.join(os.path.dirname(path), "..", "weights"), "wb") as file:
        file.write(bytes(36))
    external(path, "../weights")


def external_device(path):
    os.symlink("/dev/zero", os.path.join(os.path.dirname(path), "weights"))
    external(path, "weights")


def external_pipe(path):
    os.mkfifo(os.path.join(os.path.dirname(path), "weights"))
    external(path, "weights")


def external_often(path):
    """The same bytes for many arrays."""
    with open(os.path.join(os.path.dirname(path), "weights"), "wb") as file:
        file.write(bytes(2**24))
    external(path, "weights", repeats=400)


BOMBS = {
    function.__name__: (function, message)
    for function, message in [
        (doubling_calls, "nodes"),
        (calls_of_a_large_function, "bytes"),
        (a_function_that_calls_itself, "expected calls of other functions"),
        (expanded_sums, "numbers"),
        (casts, "numbers"),
        (negatives, "numbers"),
        (copies_by_reshape, "numbers"),
        (doubling_concat, "numbers"),
        (large_range, "numbers"),
        (ranges, "numbers"),
        (gathers, "numbers"),
        (large_product, "numbers"),
        (large_product_of_stacks, "numbers"),
        (weights_of_a_view, "parameters"),
        (view_as_gemm, "numbers"),
        (view_as_recurrent, "numbers"),
        (view_as_state, "numbers"),
        (view_as_lengths, "numbers"),
        (shared_weights, "parameters"),
        (scales_of_features, "parameters"),
        (many_layers, "layers"),
        (doubling_states, "rows of states"),
        (many_axes, "expected at most 64"),
        (negative_size, "expected sizes of at least 0"),
        (external_outside, "in the folder of the model"),
        (external_device, "weights"),
        (external_pipe, "expected a regular file"),
        (external_often, "bytes"),
    ]
}
