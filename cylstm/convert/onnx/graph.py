"""An ONNX graph under construction, over sequences (T, B, features) of any T and B."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._version import __version__

Array = NDArray[Any]
Shape = tuple[int | str | None, ...]  # sizes, or names of variable ones
OPSET = 17  # the first with LayerNormalization


class Graph:
    """Nodes, constants, inputs and outputs; every method that adds a value returns its name.

    Attributes
    ----------
    lengths : str
        int64 (B,), the number of valid steps of each sequence; "" if all have T.
    pooled : bool
        Whether the last value written has one row for each sequence, without steps.
    last_states : dict of str to str
        The last h (2, B, H) of each direction, by the name of a bidirectional layer's y.
    """

    def __init__(self, dtype: "np.dtype[Any]", stateful: int) -> None:
        self.dtype, self.stateful = dtype, stateful
        self.lengths, self.pooled = "", False
        self.last_states: dict[str, str] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0
        self._shared: dict[Any, str] = {}  # small constants, by value

    def node(self, kind: str, inputs: list[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node; returns the names of its outputs."""
        from onnx import helper

        self._count += 1
        made = [f"{kind}_{self._count}" + (f"_{k}" if outputs > 1 else "") for k in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, made, name=f"{kind}_{self._count}", **attributes))
        return made

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.node(kind, list(inputs), 1, **attributes)[0]

    def constant(self, name: str, value: Array) -> str:
        """Add an array."""
        from onnx import numpy_helper

        self._count += 1
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), f"{name}_{self._count}"))
        return f"{name}_{self._count}"

    def _small(self, value: Any, dtype: Any) -> str:
        key = (str(value), str(dtype))
        if key not in self._shared:
            self._shared[key] = self.constant("constant", np.array(value, dtype))
        return self._shared[key]

    def number(self, value: float | None) -> str:
        """A number of the model's dtype."""
        return self._small(value, self.dtype)

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self._small(value, np.int64)

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self._small(list(values), np.int64)

    def cast(self, x: str) -> str:
        """x in the model's dtype."""
        from onnx import helper

        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def slice(self, x: str, axis: int, start: int, stop: int) -> str:
        """A part of x along an axis."""
        return self.op("Slice", x, *(self.integers(k) for k in (start, stop, axis)))

    def _value(self, name: str, dtype: "np.dtype[Any]", shape: Shape) -> Any:
        from onnx import helper

        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    def input(self, name: str, dtype: "np.dtype[Any]", shape: Shape) -> str:
        """Add an input."""
        self._inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, value: str, shape: Shape) -> None:
        """Make a value an output of this name."""
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, self.dtype, shape))

    def set_sequences(self, x: str, lengths: bool) -> None:
        """Set the sequences, time-major, that T and B are read from; `lengths` adds an input of them."""
        self._x = x
        if lengths:
            self.lengths = self.op("Cast", self.input("lengths", np.dtype(np.int32), ("B",)), to=7)

    def size(self, axis: int) -> str:
        """T for axis 0, B for axis 1, an int64 vector of one."""
        if ("size", axis) not in self._shared:
            shape = self.op("Shape", self._x)
            self._shared["size", axis] = self.slice(shape, 0, axis, axis + 1)
        return self._shared["size", axis]

    def steps(self) -> str:
        """The indices of all steps, (T,)."""
        if "steps" not in self._shared:
            last = self.op("Squeeze", self.size(0), self.integers(0))
            self._shared["steps"] = self.op("Range", self.integer(0), last, self.integer(1))
        return self._shared["steps"]

    def valid(self) -> str:
        """Whether each step of each sequence is valid, (T, B); with lengths only."""
        if "valid" not in self._shared:
            steps = self.op("Unsqueeze", self.steps(), self.integers(1))
            self._shared["valid"] = self.op("Less", steps, self.lengths)
        return self._shared["valid"]

    def masked(self, x: str, value: float) -> str:
        """x with a value in all padded steps."""
        return self.op("Where", self.op("Unsqueeze", self.valid(), self.integers(2)), x, self.number(value))

    def last_step(self, x: str) -> str:
        """The last valid step of x (T, B, F), (B, F); zeros for an empty sequence."""
        if not self.lengths:
            return self.op("Gather", x, self.integer(-1), axis=0)
        steps = self.op("Unsqueeze", self.steps(), self.integers(1))
        last = self.op("Equal", steps, self.op("Sub", self.lengths, self.integer(1)))
        chosen = self.op("Where", self.op("Unsqueeze", last, self.integers(2)), x, self.number(0))
        return self.op("ReduceSum", chosen, self.integers(0), keepdims=0)

    def for_each_sequence(self, value: Array) -> str:
        """(D, 1, H) repeated to (D, B, H)."""
        D, _, H = value.shape
        shape = self.op("Concat", self.integers(D), self.size(1), self.integers(H), axis=0)
        return self.op("Expand", self.constant("initial", value), shape)

    def side_by_side(self, y: str, D: int, H: int) -> str:
        """(T, D, B, H) to (T, B, D·H)."""
        if D == 1:
            return self.op("Squeeze", y, self.integers(1))
        y = self.op("Transpose", y, perm=[0, 2, 1, 3])
        return self.op("Reshape", y, self.integers(0, 0, D * H))

    def state_inputs(self, where: str, names: tuple[str, ...], shape: Shape) -> dict[str, str]:
        """Inputs for a layer's initial states, if requested."""
        if not self.stateful:
            return {}
        return {name: self.input(f"{self._prefix(where)}{name}_0", self.dtype, shape) for name in names}

    def state_outputs(self, where: str, names: tuple[str, ...], finals: list[list[str]]) -> None:
        """Outputs of a stack's last states."""
        for name, values in zip(names, finals, strict=True) if self.stateful else ():
            whole = values[0] if len(values) == 1 else self.op("Concat", *values, axis=0)
            self.output(f"{self._prefix(where)}{name}_n", whole, (None, "B", None))

    def _prefix(self, where: str) -> str:
        return "" if self.stateful == 1 else where.removeprefix("layer ") + "."

    def model(self) -> Any:
        """The `onnx.ModelProto`."""
        from onnx import helper

        # y first, then the states
        outputs = sorted(self._outputs, key=lambda value: value.name != "y")
        graph = helper.make_graph(self._nodes, "cylstm", self._inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=8, producer_name="cylstm", producer_version=__version__
        )
