"""LSTM, GRU and RNN nodes of ONNX as layers of a chain."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm._checks.options import warn_caller
from cylstm.convert._common import (
    ACTIVATIONS,
    GATES,
    PEEPHOLES,
    USUAL,
    ConversionError,
    activation_options,
    reordered,
)
from cylstm.convert.onnx import values
from cylstm.convert.onnx.context import Context
from cylstm.convert.onnx.fold import Attributes
from cylstm.convert.onnx.lengths import add_lengths
from cylstm.convert.onnx.values import ROW, Atom, Constant, Groups, Rows, Source, Steps, Value
from cylstm.layers.activation import FUNCTIONS
from cylstm.recurrent.parameter_names import parameter_name

Array = NDArray[Any]
OURS = {theirs.casefold(): ours for ours, theirs in ACTIVATIONS.items()}
ATTRIBUTES = {
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget",
    "layout", "linear_before_reset", "output_sequence",
}  # fmt: skip


def recurrent(kind: str) -> Callable[..., list[Value | None]]:
    """The operator of this kind."""

    def run(context: Context, where: str, a: Attributes, *inputs: Value | None) -> list[Value | None]:
        return _node(context, where, kind, a, [*inputs, *[None] * 8][:8])

    return run


def _node(
    context: Context, where: str, kind: str, a: Attributes, inputs: list[Value | None]
) -> list[Value | None]:
    x, w, r, b, lengths, h, c, p = inputs
    if unknown := sorted(set(a) - ATTRIBUTES):
        raise ConversionError(f"expected no attributes {unknown}")
    W, R = _weights("W", w), _weights("R", r)
    if W is None or R is None or W.ndim != 3 or R.ndim != 3:
        raise ConversionError("W, R: expected weights with axes of directions, gates and inputs")
    D, H, G = W.shape[0], R.shape[2], len(GATES["onnx"][kind])
    shapes: dict[str, tuple[int, ...]] = {"W": (D, G * H, W.shape[2]), "R": (D, G * H, H)}
    arrays = {"W": W, "R": R, "B": _weights("B", b), "P": _weights("P", p)}
    shapes |= {"B": (D, 2 * G * H), "P": (D, 3 * H)}
    for name, array in arrays.items():
        if array is not None and array.shape != shapes[name]:
            raise ConversionError(f"{name}: expected {shapes[name]}, got {array.shape}")
    direction = str(a.get("direction", "forward")).casefold()
    if direction not in ("forward", "reverse", "bidirectional") or 1 + (direction == "bidirectional") != D:
        raise ConversionError(f"direction: expected one for {D} rows of weights, got {direction}")
    if a.get("hidden_size", H) != H:
        raise ConversionError(f"hidden_size: expected {H}, as in R, got {a['hidden_size']}")
    steps = context.layer_input(x, 3, W.shape[2])
    time, batch = steps.groups[:2] if not a.get("layout") else (steps.groups[1], steps.groups[0])
    if context.time is not None and (time, batch) != (context.time, context.batch):
        raise ConversionError("expected steps and batch in the same axes as in the layers before")
    if context.time is None and any(
        ROW in group or group not in (*context.outer, ()) for group in (time, batch)
    ):
        raise ConversionError("expected steps and batch as they came")
    context.time, context.batch = time, batch
    add_lengths(context, lengths, time)
    if kind == "GRU" and context.graph.exported_by_torch and not a.get("linear_before_reset", 0):
        warn_caller(
            f"{where}: PyTorch's exporter wrote linear_before_reset=0, which is not the equation of "
            "torch.nn.GRU (pytorch issue 189225); the model computes what the file says, not what the module "
            "does; export with dynamo=False, or read the module itself with from_torch"
        )
    options = _options(kind, a, D, direction, arrays["P"] is not None)
    named = _parameters(kind, arrays, bool(options.get("coupled")))
    named |= _initial(context, kind, D, H, {"h": h, "c": c}, bool(a.get("layout")))
    if any(name.startswith("h_0") for name in named):
        options["learn_state"] = True
    context.chain.append(where, kind, named, input_size=W.shape[2], hidden_size=H, options=options, states=D)
    return _outputs(context, where, kind, D, H, bool(a.get("layout")), a.outputs)


def _weights(name: str, value: Value | None) -> Array | None:
    if value is None:
        return None
    if not isinstance(value, Constant) or value.shaped:
        raise ConversionError(f"{name}: expected constant weights; give those of inputs as constants=")
    return value.array


def _options(kind: str, a: Attributes, D: int, direction: str, peephole: bool) -> dict[str, Any]:
    """The layer's arguments other than its sizes, without those with default values."""
    options: dict[str, Any] = {"bidirectional": D == 2, "reverse": direction == "reverse"}
    if a.get("clip") is not None and np.isfinite(a["clip"]):
        options["clip"] = float(a["clip"])
    if kind == "LSTM":
        options |= {"peephole": peephole, "coupled": bool(a.get("input_forget", 0))}
    if kind == "GRU" and not a.get("linear_before_reset", 0):
        options["reset_after"] = False
    options |= activation_options(kind, _activations(kind, a, D))
    return {name: value for name, value in options.items() if value is not False or name == "reset_after"}


def _activations(kind: str, a: Attributes, D: int) -> list[str]:
    """Names with alpha and beta, as `cylstm.recurrent.activated` reads them."""
    each = len(USUAL[kind])
    given = a.get("activations") or list(USUAL[kind]) * D
    if len(given) != each * D:
        raise ConversionError(f"activations: expected {each * D}, got {given}")
    alphas, betas = (iter(a.get(f"activation_{name}") or []) for name in ("alpha", "beta"))
    texts = []
    for theirs in given:
        name = OURS.get(str(theirs).casefold().replace("_", ""))
        if name is None:
            raise ConversionError(
                f"activations: expected one of {', '.join(ACTIVATIONS.values())}, got {theirs}"
            )
        function = FUNCTIONS[name]
        chosen = [
            float(next(source, default))
            for source, default in ((alphas, function.alpha), (betas, function.beta))
            if default is not None
        ]
        texts.append(f"{name}({', '.join(map(repr, chosen))})" if chosen else name)
    return texts


def _parameters(kind: str, arrays: dict[str, Array | None], coupled: bool) -> dict[str, Array]:
    have = GATES["onnx"][kind]
    want = "igo" if coupled else GATES["torch"][kind]
    found: dict[str, Array] = {}
    W, R, B, P = (arrays[name] for name in "WRBP")
    assert W is not None
    assert R is not None
    for d in range(len(W)):
        parts = {"weight_ih": W[d], "weight_hh": R[d]}
        if B is not None:
            parts["bias_ih"], parts["bias_hh"] = np.split(B[d], 2)
        for name, value in parts.items():
            found[parameter_name(name, 0, d)] = reordered(value, have, want)
        for name, value in zip(PEEPHOLES, np.split(P[d], 3) if P is not None else (), strict=False):
            if not (coupled and name == "weight_cf"):
                found[parameter_name(name, 0, d)] = value
    return found


def _initial(
    context: Context, kind: str, D: int, H: int, given: dict[str, Value | None], layout: bool
) -> dict[str, Array]:
    """Initial states that are constant and not zero, as parameters; those of inputs are noted."""
    found: dict[str, Array] = {}
    states = ("h", "c") if kind == "LSTM" else ("h",)
    for state in states:
        value = given[state]
        if isinstance(value, Rows):
            if len(value.rows) != D:
                raise ConversionError(f"initial_{state}: expected a row for each direction")
            if not all(source.is_input for source, _ in value.rows):
                raise ConversionError(
                    f"initial_{state}: expected an input or a constant, got the state of another node"
                )
            context.initial_states[state] += value.rows
        elif isinstance(value, Constant):
            array = value.array.swapaxes(0, 1) if layout and value.array.ndim == 3 else value.array
            if array.ndim != 3 or array.shape[0] != D or array.shape[2] != H or array.shape[1] < 1:
                raise ConversionError(f"initial_{state}: expected ({D}, B, {H}), got {array.shape}")
            if (array != array[:, :1]).any():
                raise ConversionError(f"initial_{state}: expected the same state for every sequence")
            if array[:, 0].any():
                found |= {parameter_name(f"{state}_0", 0, d): array[d, 0] for d in range(D)}
        elif value is not None:
            raise ConversionError(f"initial_{state}: expected an input or a constant")
    if found:
        for state in states:
            for d in range(D):
                found.setdefault(parameter_name(f"{state}_0", 0, d), np.zeros(H, np.float32))
    return found


def _outputs(
    context: Context, where: str, kind: str, D: int, H: int, layout: bool, count: int
) -> list[Value | None]:
    """Y, Y_h and Y_c."""
    directions, units = Atom(f"{where} D"), Atom(f"{where} H")
    assert context.time is not None
    assert context.batch is not None
    time, batch = context.time, context.batch
    y: Groups = (batch, time, (directions,), (units,)) if layout else (time, (directions,), batch, (units,))
    width = context.units_of(H)  # of any layer's states, which may stand in rows with others'
    last: Groups = (batch, (ROW,), (width,)) if layout else ((ROW,), batch, (width,))
    context.set_features((directions, D), (units, H))
    last = values.without_ones(last, {**context.sizes, ROW: D})
    outputs: list[Value | None] = [Steps(values.without_ones(y, context.sizes), context.chain.version)]
    record = context.chain.records[-1]
    record.directions, record.units = directions, units
    names = ("h", "c") if kind == "LSTM" else ("h",)
    record.states = tuple(Source(f"{where} {name}", is_input=False) for name in names)
    for source in record.states:
        outputs.append(Rows(tuple((source, d) for d in range(D)), last))
    return outputs[:count]
