"""Values of an ONNX graph's inputs: first x, then states and lengths."""

from typing import Any

from cylstm.convert._common import ConversionError
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.values import ROW, Atom, Groups, Rows, Source, Steps, without_ones

PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049)  # stand for sizes that a file leaves open
INTS = (6, 7)  # int32 and int64 of onnx.TensorProto.DataType
REALS = (1, 10, 11, 16)  # float32, float16, float64, bfloat16
MAX_ROWS = 4096  # of states in an input


def add_inputs(context: Context, graph: Any) -> None:
    """Add a value for each input of a graph that is not constant."""
    inputs = [value for value in graph.input if value.name not in context.values]
    if not inputs:
        raise ConversionError("graph: expected an input, got none")
    has_layout = any(a.name == "layout" and a.i for node in graph.node for a in node.attribute)
    shared: dict[str, Atom] = {}  # atoms of named sizes
    for position, value in enumerate(inputs):
        kind = value.type.tensor_type
        if kind.elem_type not in (*INTS, *REALS):
            raise ConversionError(f"{value.name}: expected an input of real numbers, int32 or int64")
        if not kind.HasField("shape"):
            raise ConversionError(f"{value.name}: expected an input of known rank")
        atoms = [_atom(context, value.name, k, dim, shared) for k, dim in enumerate(kind.shape.dim)]
        if position == 0:
            context.values[value.name] = _sequences(context, value.name, kind, atoms)
        else:
            context.values[value.name] = _rows(context, value.name, kind, atoms, 1 if has_layout else 0)


def _atom(context: Context, name: str, k: int, dim: Any, shared: dict[str, Atom]) -> Atom:
    """The atom of an input's axis; a size that the file leaves open becomes a prime."""
    atom = Atom(f"{name}[{k}]")
    if dim.dim_param:
        atom = shared.setdefault(dim.dim_param, atom)
    if atom in context.sizes:
        return atom
    free = [prime for prime in PRIMES if prime not in context.sizes.values()]
    if dim.HasField("dim_value") and dim.dim_value < 1:
        raise ConversionError(f"{name}: expected axes of at least 1, got {dim.dim_value}")
    if not dim.dim_value and not free:
        raise ConversionError(f"{name}: expected fewer axes of open size")
    context.sizes[atom] = dim.dim_value or free[0]
    if not dim.dim_value:
        context.open_axes.add((atom,))
    return atom


def _sequences(context: Context, name: str, kind: Any, atoms: list[Atom]) -> Steps:
    """x, and what its axes tell the context."""
    indices = kind.elem_type in INTS
    if len(atoms) not in ((1, 2) if indices else (2, 3)):
        wanted = "indices (T, B) or (T,)" if indices else "(T, B, features) or (T, features)"
        axes = "1 axis" if len(atoms) == 1 else f"{len(atoms)} axes"
        raise ConversionError(f"{name}: expected {wanted}, got {axes}")
    context.reads_indices = indices
    x = without_ones(tuple((atom,) for atom in atoms), context.sizes)
    context.outer = x if indices else x[:-1]
    context.features = () if indices else x[-1]
    if not indices and not kind.shape.dim[-1].dim_value:
        context.open_features = atoms[-1]
    return Steps(x, 0)


def _rows(context: Context, name: str, kind: Any, atoms: list[Atom], rows_at: int) -> Rows:
    """States (rows, B, units), with rows at this axis, or lengths."""
    groups: Groups = tuple((atom,) for atom in atoms)
    count = 1
    if len(atoms) == 3:
        count = kind.shape.dim[rows_at].dim_value
        if not 0 < count <= MAX_ROWS:
            raise ConversionError(f"{name}: expected a known number of rows of states")
        groups = tuple((ROW,) if k == rows_at else group for k, group in enumerate(groups))
    source = Source(name, is_input=True)
    rows = tuple((source, k) for k in range(count))
    return Rows(rows, without_ones(groups, {**context.sizes, ROW: count}))
