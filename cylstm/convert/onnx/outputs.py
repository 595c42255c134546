"""Outputs of an ONNX graph: the chain's end as a whole, and states."""

from collections import Counter
from typing import Any

from cylstm.convert._common import ConversionError
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.lengths import VALID
from cylstm.convert.onnx.values import ROW, Atom, Rows, Steps, UnrolledStep

Named = tuple[str, Any]  # an output's name and value


def check_outputs(context: Context, graph: Any) -> None:
    """Reject a graph whose outputs are not those of a model; pool the last layer if only its states are."""
    outputs: list[Named] = [(value.name, context.values.get(value.name)) for value in graph.output]
    if any(isinstance(value, Steps) for _, value in outputs):  # else these are all there is
        outputs = [(name, value) for name, value in outputs if not isinstance(value, UnrolledStep)]
    ends = [(name, value) for name, value in outputs if isinstance(value, Steps)]
    states = [value for _, value in outputs if isinstance(value, Rows) and value.rows != VALID]
    if len(ends) + len(states) != len(outputs) or not outputs:
        raise ConversionError(f"outputs: expected those of layers, got {[name for name, _ in outputs]}")
    if not ends:
        if _can_pool(context, states[0]):
            return
        _check_last_states(context, states, [name for name, _ in outputs])
    for name, value in ends:
        _check_end(context, name, value)
    _check_initial_states(context)


def _can_pool(context: Context, value: Rows) -> bool:
    """Whether states are those of the chain's end, which is pooled then."""
    groups = tuple(group for group in value.groups if group)
    if len(groups) == 3 and groups[0] == (ROW,):  # (D, B, H)
        groups = (groups[1], (ROW, *groups[2]))
    elif len(groups) == 3 and groups[1] == (ROW,):  # (B, D, H)
        groups = (groups[0], (ROW, *groups[2]))
    elif len(groups) == 2 and groups[0] == (ROW,):
        groups = ((ROW, *groups[1]),)
    try:
        context.pool_states(Rows(value.rows, groups))
    except ConversionError:
        return False
    return True


def _check_last_states(context: Context, states: list[Rows], names: list[str]) -> None:
    last = context.chain.records[-1].states if context.chain.records else ()
    if any(source not in last for state in states for source, _ in state.rows):
        raise ConversionError(f"outputs: expected one of the last layer, got states of others, {names}")


def _check_end(context: Context, name: str, value: Steps) -> None:
    whole = Counter(atom for group in value.groups for atom in group)
    features = [] if context.reads_indices and not context.chain.records else list(context.features)
    expected = [Counter([*features, *axes]) for axes in _outer_atoms(context)]
    if value.version != context.chain.version or whole not in expected:
        raise ConversionError(f"{name}: expected the last layer's output as a whole")


def _outer_atoms(context: Context) -> list[list[Atom]]:
    """Atoms of the batch, with those of time and without."""
    atoms = [atom for group in context.outer for atom in group]
    return [atoms, [atom for atom in atoms if atom not in (context.time or ())]]


def _check_initial_states(context: Context) -> None:
    for state, used in context.initial_states.items():
        names = list(dict.fromkeys(name for name, _ in used))
        counts = {name: sum(other == name for other, _ in used) for name in names}
        if used != [(name, k) for name in names for k in range(counts[name])]:
            raise ConversionError(f"initial_{state}: expected the rows of its inputs in order, got {used}")


def is_batch_first(context: Context) -> bool:
    """Whether x has the batch in front of the steps."""
    if len(context.outer) < 2:
        return False
    return bool(
        (context.time and context.time == context.outer[1])
        or (context.batch and context.batch == context.outer[0])
    )
