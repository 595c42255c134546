"""Models from ONNX: a chain of layers found in a graph, as exporters of PyTorch and Keras write it."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._formats.budget import Budget
from cylstm._formats.file_kinds import ONNX
from cylstm.convert._common import Conversion, ConversionError, check_kind, needing, reading, refusing
from cylstm.convert.onnx import file as _onnx_file
from cylstm.convert.onnx import lengths as _onnx_lengths
from cylstm.convert.onnx import ops as _onnx_ops
from cylstm.convert.onnx import unrolled as _onnx_unrolled
from cylstm.convert.onnx import values as _onnx_values
from cylstm.convert.onnx.chain import Chain
from cylstm.convert.onnx.file import array_of, constant, plain
from cylstm.convert.onnx.fold import Attributes, fold
from cylstm.convert.onnx.values import (
    ROW,
    Atom,
    Constant,
    Group,
    Groups,
    Row,
    Rows,
    Source,
    Steps,
    Value,
    without_ones,
)
from cylstm.layers.parameters import without_initial_values
from cylstm.layers.sequential import Sequential

Array = NDArray[Any]
PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049)  # stand for sizes that a file leaves open
INTS = (6, 7)  # int32 and int64 of onnx.TensorProto.DataType
QUANTISED = re.compile("Quantize|QLinear|MatMulInteger|QGemm|QAttention|ConvInteger|QuantizeLSTM|MatMulNBits")
REALS = (1, 10, 11, 16)  # float32, float16, float64, bfloat16


def from_onnx(path: str | os.PathLike[str], *, constants: Mapping[str, Any] | None = None) -> Sequential:
    """A model of cylstm that computes what an ONNX file does.

    The graph has to be a chain of layers: LSTM, GRU and RNN with every attribute of the specification, and
    around them embeddings (Gather), dense layers (Gemm, MatMul and Add), LayerNormalization, activations,
    sums around layers, the last step, means and maxima over time, at the end zeros after the last step of
    each sequence, in any layout (Transpose, Reshape, Squeeze, Slice, Concat and the like), as
    `torch.onnx.export` and Keras' exports write them.

    Parameters
    ----------
    path : path
        An ONNX file; weights beside it are found where it says.
    constants : mapping of str to array, optional
        Values of inputs that are weights of the model.

    Returns
    -------
    Sequential
        In the mode of `eval()`. Its x has the layout of the file's first input, its y that of cylstm,
        (T, B, features), or (B, T, features) if x has the batch first, or (B, features). Inputs and outputs
        that are states or lengths are `state` and `lengths` of a call. Recurrent layers with activations
        that the cells do not have run in NumPy and cannot be trained
        (`cylstm.recurrent.activated.ActivatedLayer`).

    Raises
    ------
    ConversionError
        If something in the graph has no form in cylstm; by the node's name.
    ModelFileError
        If the file is damaged.
    ImportError
        If onnx is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.GRU(3, 4, bidirectional=True, seed=0), cylstm.Linear(8, 2, seed=1))
    >>> path = os.path.join(tempfile.mkdtemp(), "m.onnx")
    >>> cylstm.convert.to_onnx(model, path)
    >>> x = np.ones((5, 2, 3))
    >>> bool((from_onnx(path)(x)[0] == model(x)[0]).all())
    True
    """
    return read(path, constants=constants).model


@without_initial_values()
def read(path: str | os.PathLike[str], *, constants: Mapping[str, Any] | None = None) -> Conversion:
    """As `from_onnx`, with the nodes that each layer was."""
    with needing("onnx"):
        import onnx  # noqa: F401 - to say what is missing before a file is opened
    with reading(path, ONNX) as file:
        check_kind(file, ONNX)
        model, budget = _onnx_file.load(file)
        reader = Reader(model, dict(constants or {}), budget)
        found = reader.read()
        if reader.unrolled:
            _onnx_unrolled.verify(model, reader, found)
        return found


class Reader:
    """Walks the nodes of a graph, in order, and finds out what every value is.

    Attributes
    ----------
    sizes : dict of Atom to int
        Of every atom (_onnx_values.py).
    features : tuple of Atom
        Atoms of the features at the chain's end.
    time, batch : tuple of Atom, or None
        Groups of these axes, once a recurrent node has told them.
    """

    def __init__(self, model: Any, constants: dict[str, Any], budget: Budget) -> None:
        self.graph, self.constants, self.budget = model.graph, constants, budget
        self.by_torch = model.producer_name == "pytorch"
        self.opset = max([1, *(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))])
        self.chain = Chain(budget)
        self.values: dict[str, Any] = {}
        self.open_axes: set[Group] = set()  # of the batch, whose size the file leaves open
        self.sizes: dict[Atom, int] = {}
        self.open: set[Atom] = set()  # atoms of features whose size the file leaves open
        self.features: Group = ()
        self.time: Group | None = None
        self.batch: Group | None = None
        self._units: dict[int, Atom] = {}  # of the states of layers, by their number
        self.region: _onnx_unrolled.Region | None = None  # the steps of an unrolled layer, in the midst of it
        self.unrolled = False  # whether there was one
        self.lengths: list[tuple[Row, ...] | None] = []  # inputs that recurrent nodes read
        self.alias: dict[str, str] = {}
        for node in self.graph.node:
            if node.op_type == "Identity" and len(node.input) == 1:
                self.alias |= {name: self.named(node.input[0]) for name in node.output}
        nodes = [node for node in self.graph.node if node.op_type != "Identity"]
        self.uses = Counter(self.named(name) for node in nodes for name in node.input)
        self.indices = False  # whether x holds ints
        self.states: dict[str, list[Row]] = {"h": [], "c": []}  # rows of inputs, in the nodes' order

    def read(self) -> Conversion:
        """The model."""
        if self.graph.sparse_initializer:
            raise ConversionError("sparse_initializer: expected none")
        for tensor in self.graph.initializer:
            self.values[tensor.name] = Constant(array_of(f"initializer {tensor.name}", tensor))
        self.weights = {tensor.name for tensor in self.graph.initializer} | set(self.constants)
        for name, value in self.constants.items():
            self.values[name] = Constant(np.asarray(value))
        self._begin([value for value in self.graph.input if value.name not in self.values])
        for node in self.graph.node:
            where = f"{node.op_type} {node.name or next(iter(node.output), '')}".strip()
            with refusing(where):
                for name, result in zip(node.output, self._results(node, where), strict=False):
                    if name and name in self.values:
                        raise ConversionError(f"expected outputs of new names, got {name!r} again")
                    self.values[name] = result
        self._end()
        return self.chain.finish(self._batch_first())

    def _begin(self, inputs: list[Any]) -> None:
        """Values of the graph's inputs: first x, then states and lengths."""
        if not inputs:
            raise ConversionError("graph: expected an input, got none")
        rows_at = (
            1 if any(a.name == "layout" and a.i for node in self.graph.node for a in node.attribute) else 0
        )
        shared: dict[str, Atom] = {}  # atoms of named sizes
        for position, value in enumerate(inputs):
            kind = value.type.tensor_type
            if kind.elem_type not in (*INTS, *REALS):
                raise ConversionError(f"{value.name}: expected an input of real numbers, int32 or int64")
            if not kind.HasField("shape"):
                raise ConversionError(f"{value.name}: expected an input of known rank")
            atoms = [self._atom(value.name, k, dim, shared) for k, dim in enumerate(kind.shape.dim)]
            whole = kind.elem_type in INTS
            if position == 0:
                ranks = (1, 2) if whole else (2, 3)
                if len(atoms) not in ranks:
                    wanted = "indices (T, B) or (T,)" if whole else "(T, B, features) or (T, features)"
                    raise ConversionError(f"{value.name}: expected {wanted}, got {_axes(len(atoms))}")
                self.indices = whole
                self.features = () if whole else (atoms[-1],)
                x = without_ones(tuple((atom,) for atom in atoms), self.sizes)
                self.features = without_ones((self.features,), self.sizes)[0]
                self.outer = [x[k] for k in range(len(atoms) - (not whole))]
                if not whole and not kind.shape.dim[-1].dim_value:
                    self.open.add(atoms[-1])
                self.values[value.name] = Steps(x, 0)
                continue
            groups: Groups = tuple((atom,) for atom in atoms)
            count = 1
            if len(atoms) == 3:
                count = kind.shape.dim[rows_at].dim_value
                if not 0 < count <= 4096:
                    raise ConversionError(f"{value.name}: expected a known number of rows of states")
                groups = tuple((ROW,) if k == rows_at else group for k, group in enumerate(groups))
            source = Source(value.name, is_input=True)
            rows = tuple((source, k) for k in range(count))
            self.values[value.name] = Rows(rows, without_ones(groups, {**self.sizes, ROW: count}))

    def _atom(self, name: str, k: int, dim: Any, shared: dict[str, Atom]) -> Atom:
        """The atom of an input's axis; a size that the file leaves open becomes a prime."""
        atom = Atom(f"{name}[{k}]")
        if dim.dim_param:
            atom = shared.setdefault(dim.dim_param, atom)
        if atom in self.sizes:
            return atom
        free = [prime for prime in PRIMES if prime not in self.sizes.values()]
        if dim.HasField("dim_value") and dim.dim_value < 1:
            raise ConversionError(f"{name}: expected axes of at least 1, got {dim.dim_value}")
        if not dim.dim_value and not free:
            raise ConversionError(f"{name}: expected fewer axes of open size")
        self.sizes[atom] = dim.dim_value or free[0]
        if not dim.dim_value:
            self.open_axes.add((atom,))
        return atom

    def _results(self, node: Any, where: str) -> list[Value | None]:
        from onnx import helper

        found = {a.name: plain(a.name, helper.get_attribute_value(a)) for a in node.attribute}
        attributes = Attributes(found, len(node.output), self.budget)
        if QUANTISED.search(node.op_type):
            raise ConversionError(
                "a node of a quantised model; convert the model as it was before quantisation"
            )
        if node.domain not in ("", "ai.onnx"):
            raise ConversionError(f"cylstm has no such layer, of the domain {node.domain}")
        if node.op_type == "Constant":
            return [Constant(constant(attributes))]
        unknown = [name for name in node.input if name and name not in self.values]
        if unknown:
            raise ConversionError(f"expected inputs that there are, got {unknown}")
        inputs = [self.values[name] if name else None for name in node.input]
        if any(name and value is None for name, value in zip(node.input, inputs, strict=True)):
            raise ConversionError("reads an output that cylstm does not compute")
        if any(map(_onnx_unrolled.is_step, inputs)):
            return _onnx_unrolled.follow(self, where, node, attributes, inputs)
        if all(value is None or isinstance(value, Constant) for value in inputs):
            arrays = [value.array if isinstance(value, Constant) else None for value in inputs]
            shaped = any(isinstance(value, Constant) and value.shaped for value in inputs)
            return [Constant(array, shaped) for array in fold(node.op_type, arrays, attributes)]
        if node.op_type not in _onnx_ops.OPS:
            raise ConversionError("cylstm has no such layer")
        return _onnx_ops.OPS[node.op_type](self, where, attributes, *inputs)

    def ready(self, value: Value | None, rank: int | None = None, size: int | None = None) -> Steps:
        """A value as x of the next layer: the chain's end, with features last and whole.

        `size` is the number of features that the layer reads.
        """
        if isinstance(value, Rows):
            value = self.pooled(value)
        if not isinstance(value, Steps):
            raise ConversionError("expected to read x")
        if value.version != self.chain.version:
            raise ConversionError("reads what another layer has read already; cylstm's layers are a chain")
        if size is not None and (named := self.open & set(self.features)):
            self.sizes[named.pop()] = size
            self.open.clear()
            self.features = without_ones((self.features,), self.sizes)[0]
            value = Steps(without_ones(value.groups, self.sizes), value.version)
        groups = value.groups
        if not groups or groups[-1] != self.features or (rank is not None and len(groups) != rank):
            raise ConversionError(f"expected features in the last of {rank or 'the'} axes")
        if size is not None and (have := _onnx_values.shape(groups[-1:], self.sizes)[0]) != size:
            raise ConversionError(f"expected {size} features, got {have}")
        if any(len(group) > 1 for group in groups[:-1]) and rank is not None:
            raise ConversionError("expected steps and batch in axes of their own")
        return value

    def pooled(self, value: Rows) -> Steps:
        """Last states of the chain's last layer, as its pooled output."""
        last = self.chain.records[-1] if self.chain.records else None
        if last is None or last.after != self.chain.version or "states" not in last.arguments:
            raise ConversionError("reads states of a layer that is not the last one before it")
        D = last.arguments["states"]
        assert last.directions is not None
        assert last.units is not None
        wanted = tuple((last.states[0], d) for d in range(D))
        if value.rows != wanted or last.arguments["options"].get("reverse"):
            raise ConversionError("expected h of all directions at the end, of a layer that is not reversed")
        H = last.arguments["hidden_size"]
        names = {ROW: last.directions, self.units_of(H): last.units}
        groups = tuple(tuple(names.get(atom, atom) for atom in group) for group in value.groups)
        if groups not in ((self.batch or (), self.features), (self.features,)):
            raise ConversionError("expected the directions of h side by side")
        self.chain.append(last.name, "Pooling", how="ends" if D == 2 else "last")
        return Steps(groups, self.chain.version)

    def _end(self) -> None:
        """Check the graph's outputs: the chain's end, and states."""
        if self.region is not None:
            (name,) = [value.name for value in self.graph.output]
            self.values[name] = _onnx_unrolled.close(self, name, self.region, pooled=True)
        outputs = [(value.name, self.values.get(value.name)) for value in self.graph.output]
        if any(isinstance(value, Steps) for _, value in outputs):  # else these are all there is
            outputs = [(name, value) for name, value in outputs if not _onnx_unrolled.is_step(value)]
        ends = [(name, value) for name, value in outputs if isinstance(value, Steps)]
        states = [
            value for _, value in outputs if isinstance(value, Rows) and value.rows != _onnx_lengths.REAL
        ]
        if len(ends) + len(states) != len(outputs) or not outputs:
            raise ConversionError(f"outputs: expected those of layers, got {[name for name, _ in outputs]}")
        if not ends:
            if self._can_pool(states[0]):
                return
            last = self.chain.records[-1].states if self.chain.records else ()
            if any(source not in last for state in states for source, _ in state.rows):
                names = [name for name, _ in outputs]
                raise ConversionError(
                    f"outputs: expected one of the last layer, got states of others, {names}"
                )
        for name, value in ends:
            whole = Counter(atom for group in value.groups for atom in group)
            outer = [] if self.indices and not self.chain.records else list(self.features)
            expected = [Counter([*outer, *axes]) for axes in self._outer_atoms()]
            if value.version != self.chain.version or whole not in expected:
                raise ConversionError(f"{name}: expected the last layer's output as a whole")
        for state, used in self.states.items():
            names = list(dict.fromkeys(name for name, _ in used))
            counts = {name: sum(other == name for other, _ in used) for name in names}
            if used != [(name, k) for name in names for k in range(counts[name])]:
                raise ConversionError(
                    f"initial_{state}: expected the rows of its inputs in order, got {used}"
                )

    def _can_pool(self, value: Rows) -> bool:
        groups = tuple(group for group in value.groups if group)
        if len(groups) == 3 and groups[0] == (ROW,):  # (D, B, H)
            groups = (groups[1], (ROW, *groups[2]))
        elif len(groups) == 3 and groups[1] == (ROW,):  # (B, D, H)
            groups = (groups[0], (ROW, *groups[2]))
        elif len(groups) == 2 and groups[0] == (ROW,):
            groups = ((ROW, *groups[1]),)
        try:
            self.pooled(Rows(value.rows, groups))
        except ConversionError:
            return False
        return True

    def named(self, name: str) -> str:
        """The name of a value, of which others may be copies."""
        return self.alias.get(name, name)

    def batch_size(self, region: _onnx_unrolled.Region) -> int:
        """The size of the batch that shapes in the graph are computed with."""
        return _onnx_values.shape((region.batch,), self.sizes)[0]

    def units_of(self, size: int) -> Atom:
        """The atom of the units of states, the same for all layers of this size."""
        atom = self._units.setdefault(size, Atom(f"{size} units"))
        self.sizes[atom] = size
        return atom

    def _outer_atoms(self) -> list[list[Atom]]:
        """Atoms of the batch, with those of time and without."""
        atoms = [atom for group in self.outer for atom in group]
        return [atoms, [atom for atom in atoms if atom not in (self.time or ())]]

    def _batch_first(self) -> bool:
        if len(self.outer) < 2:
            return False
        return bool(
            (self.time and self.time == self.outer[1]) or (self.batch and self.batch == self.outer[0])
        )


def _axes(count: int) -> str:
    return f"{count} axis" if count == 1 else f"{count} axes"
