"""Recurrent layers of every cell and option, random problems for them, and the reference's answers."""

import itertools

import numpy as np
import tolerances

import cylstm
from cylstm import reference
from cylstm.layers.base import describe
from cylstm.recurrent.parameter_names import PYTORCH_KINDS, parameter_name

# How to make a layer of each cell: the class and its options.
LAYERS = {
    "lstm": (cylstm.LSTM, {}),
    "rnn_tanh": (cylstm.RNN, {}),
    "rnn_relu": (cylstm.RNN, {"nonlinearity": "relu"}),
    "gru": (cylstm.GRU, {}),
    "gru_reset_before": (cylstm.GRU, {"reset_after": False}),
    "lstm_peephole": (cylstm.LSTM, {"peephole": True}),
    "lstm_coupled": (cylstm.LSTM, {"coupled": True}),
    "lstm_coupled_peephole": (cylstm.LSTM, {"coupled": True, "peephole": True}),
    "lstm_norm": (cylstm.LSTM, {"layer_norm": True}),
}
DIRECTIONS = {"forward": {}, "reverse": {"reverse": True}, "both": {"bidirectional": True}}

# What any cell may have besides, and what only an LSTM may.
OPTIONS = {
    "none": {},
    "dropout": {"dropout": 0.3},
    "input_dropout": {"input_dropout": 0.4},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "zoneout": {"zoneout": 0.3},
    "clip": {"clip": 0.6},
    "learn_state": {"learn_state": True},
}
LSTM_OPTIONS = {"projection": {"proj_size": 2}, "zoneout_cell": {"zoneout_cell": 0.4}}
LSTM_OPTIONS["all"] = {
    "proj_size": 2, "zoneout": 0.2, "zoneout_cell": 0.3, "clip": 2.0, "learn_state": True,
    "dropout": 0.2, "input_dropout": 0.2, "recurrent_dropout": 0.3,
}  # fmt: skip
GRID = [
    (cell, option)
    for cell in LAYERS
    for option in (OPTIONS | LSTM_OPTIONS if cell.startswith("lstm") else OPTIONS)
]


def options_of(option):
    return (OPTIONS | LSTM_OPTIONS)[option]


def make(cell, *sizes, **options):
    """A layer with parameters that are all random, those that begin as 0 or 1 too."""
    layer_type, own = LAYERS[cell]
    if cell == "lstm_norm":
        options.pop("bias", None)  # it has biases of its own
    layer = layer_type(*sizes, **{**own, **options})
    rng = np.random.default_rng(3)
    state = layer.state_dict()
    for name, value in state.items():
        if name.startswith(("norm", "bias_c", "h_0", "c_0")) or name.startswith("bias_l"):
            value += rng.uniform(-0.5, 0.5, value.shape)
    layer.load_state_dict(state)
    return layer


def problem(rng, layer, T, B):
    """In a layer's dtype: x, first states, dy, gradients of the last states."""

    def draw(*shape):
        return rng.standard_normal(shape).astype(layer.dtype)

    LD = layer.num_layers * layer.num_directions
    first, last = ([draw(LD, B, layer.state_width(s)) for s in layer.spec.states] for _ in range(2))
    return draw(T, B, layer.input_size), first, draw(T, B, layer.output_size), last


def for_caller(states):
    """The form in which a layer takes and gives states."""
    return tuple(states) if len(states) > 1 else states[0]


def parts_of(states):
    return states if isinstance(states, tuple) else (states,)


class Masks:
    """The masks of a layer's last training pass, of rows b; without a pass, what stands for them."""

    def __init__(self, layer, trained):
        self.layer = layer
        self.workspace = describe(layer).training_workspace if trained else None
        if trained:
            packing = describe(layer).training_workspace.packing
            self.place = np.arange(packing.B) if packing.order is None else np.argsort(packing.order)
            self.starts = packing._starts

    def of_sequence(self, name, b):
        """(rows, features): the same at every step."""
        buffers = {} if self.workspace is None else self.workspace.buffers.arrays
        return buffers[name][self.place[b]].astype(float) if name in buffers else 1.0

    def of_steps(self, name, b, n, absent):
        """(n, rows, features) in the order in which direction 0, or the direction in the name, reads."""
        buffers = {} if self.workspace is None else self.workspace.buffers.arrays
        if name not in buffers:
            return absent
        return buffers[name][self.starts[:n, None] + self.place[b]].astype(float)

    def between(self, l, b, n):
        """(n, rows, features) of the dropout after a layer, in the order of the sequence; 1 for none."""
        return own_order(self.layer, self.of_steps(f"mask{l}", b, n, np.ones((1, 1, 1))), 0)


def own_order(layer, sequence, d):
    """A sequence as a direction reads it, or back."""
    return sequence[::-1] if d or layer.reverse else sequence


def rows_by_length(lengths):
    """Each length, and the rows of the sequences that have it."""
    return [(n, np.flatnonzero(lengths == n)) for n in np.unique(lengths)]


def weights_of(layer, l, d):
    """Parameters of one layer and direction by the reference's names, and the layer's names."""
    names = {ours: parameter_name(kind, l, d) for ours, kind in PYTORCH_KINDS.items()}
    names |= {kind: parameter_name(kind, l, d) for kind, _ in layer.spec.cell_parameters}
    parameters = layer.parameters
    present = {ours: parameters[name].astype(float) for ours, name in names.items() if name in parameters}
    zero = np.zeros(len(layer.spec.gates) * layer.hidden_size)
    return {"b_ih": zero, "b_hh": zero} | present, names


def run_reference(layer, x, state, lengths=None, trained=True):
    """Sequences of one length at a time: y, the last states, and what `run_reference_back` reads.

    state None: what the layer has learned. With the masks of the layer's last training pass, or in the
    way of evaluation.
    """
    T, B, _ = x.shape
    D, P = layer.num_directions, layer.state_width("h")
    groups = rows_by_length(np.full(B, T) if lengths is None else np.asarray(lengths))
    masks, cell = Masks(layer, trained), reference.CELLS[layer.spec.name]
    clip = np.inf if layer.clip is None else layer.clip
    first = [a.astype(float) for a in (layer.initial_state(B) if state is None else state)]
    final, saved = [a.copy() for a in first], {}
    values = x.astype(float)
    for l in range(layer.num_layers):
        y = np.zeros((T, B, D * P))
        for d, (n, b) in itertools.product(range(D), groups):
            k = l * D + d
            zoneout = [
                masks.of_steps(f"zone_{s}{l}_{d}", b, n, share)
                for s, share in zip(("h", "c"), (layer.zoneout, layer.zoneout_cell), strict=True)
            ]
            inputs = values[:n, b] * masks.of_sequence(f"mask_x{l}", b)
            out, last, saved[l, d, n] = reference.layer_forward(
                cell, own_order(layer, inputs, d), [s[k, b] for s in first],
                weights_of(layer, l, d)[0], clip, masks.of_sequence(f"mask_h{l}_{d}", b), zoneout,
            )  # fmt: skip
            y[:n, b, d * P : (d + 1) * P] = own_order(layer, out, d)
            for s, value in enumerate(last):
                final[s][k, b] = value
        for n, b in groups:
            y[:n, b] *= masks.between(l, b, n)
        values = y
    return values, final, (masks, groups, saved, state is None)


def run_reference_back(layer, x, dy, dstate, saved):
    """dx, dL/d(first states), gradients by name."""
    T, B, _ = x.shape
    D, P, states = layer.num_directions, layer.state_width("h"), layer.spec.states
    masks, groups, steps, learned = saved
    dstate, gradients = [a.astype(float) for a in dstate], {}
    initial, dvalues = [a.copy() for a in dstate], dy.astype(float)

    def add(name, value):
        if name in layer.parameters:
            gradients[name] = gradients.get(name, 0) + value

    for l in reversed(range(layer.num_layers)):
        dx = np.zeros((T, B, D * P if l else x.shape[2]))
        for d, (n, b) in itertools.product(range(D), groups):
            k = l * D + d
            dout = own_order(layer, dvalues[:n, b, d * P : (d + 1) * P], d)
            upstream = [s[k, b] for s in dstate]
            back, dfirst, own = reference.layer_backward(dout, upstream, steps[l, d, n])
            dx[:n, b] += own_order(layer, back, d) * masks.of_sequence(f"mask_x{l}", b)
            for s, value in enumerate(dfirst):
                initial[s][k, b] = value
                add(parameter_name(f"{states[s]}_0", l, d), value.sum(axis=0) * learned)
            for ours, name in weights_of(layer, l, d)[1].items():
                add(name, own.get(ours))
        for n, b in groups if l else ():
            dx[:n, b] *= masks.between(l - 1, b, n)
        dvalues = dx
    return dvalues, initial, gradients


def _largest(values):
    return np.fmax.reduce(np.abs(values), axis=None, initial=0)  # fmax passes NaN over


def expected(layer, x, state, dy, dstate, lengths):
    """The reference's answers by name, of training and y in evaluation, and whether each is a gradient."""
    y, final, saved = run_reference(layer, x, state, lengths)
    dx, initial, gradients = run_reference_back(layer, x, dy, dstate, saved)
    answers = {"y": (y, False), "dx": (dx, True)}
    for s, name in enumerate(layer.spec.states):
        answers |= {f"{name}_n": (final[s], False), f"d{name}_0": (initial[s], True)}
    answers |= {name: (value, True) for name, value in gradients.items()}
    evaluated, _, _ = run_reference(layer, x, state, lengths, trained=False)
    return answers | {"y in evaluation": (evaluated, False)}


def moves(layer, x, state, dy, dstate, lengths, answers):
    """How far values, and gradients, move at most when each number that goes in moves to a neighbour.

    The largest of three draws, for in one it may happen that hardly anything moves.
    """
    rng, store = np.random.default_rng(0), describe(layer).store

    def neighbour(a):
        return np.nextafter(a, np.where(rng.random(a.shape) < 0.5, -np.inf, np.inf).astype(a.dtype))

    kept, largest = store.data.copy(), [0.0, 0.0]
    for _ in range(3):
        with store.writing():
            store.data[:] = neighbour(kept)
        first = None if state is None else [neighbour(a) for a in state]
        moved = expected(layer, neighbour(x), first, neighbour(dy), [neighbour(a) for a in dstate], lengths)
        for name, (value, back) in moved.items():
            largest[back] = max(largest[back], _largest(value - answers[name][0]))
    with store.writing():
        store.data[:] = kept
    return largest


def assert_agrees_with_reference(layer, x, state, dy, dstate, lengths=None, learned=False):
    """Values and all gradients of a training pass, and the values of evaluation."""
    given, first = (None, None) if learned else (for_caller(state), state)
    y, final = layer.train()(x, given, lengths=lengths)
    layer.zero_grad()
    dx, initial = layer.backward(dy, for_caller(dstate))
    answers = expected(layer, x, first, dy, dstate, lengths)
    ours = {"y": y, "dx": dx, **layer.gradients}
    for s, name in enumerate(layer.spec.states):
        ours |= {f"{name}_n": parts_of(final)[s], f"d{name}_0": parts_of(initial)[s]}
    moved = (0, 0)
    if layer.spec.name == "lstm_norm":
        moved = moves(layer, x, first, dy, dstate, lengths, answers)
    ours["y in evaluation"] = layer.eval()(x, given, lengths=lengths)[0]
    if x.shape[1]:
        assert set(ours) == set(answers)
    factor = tolerances.amplification(layer.spec.name)
    # What is added up; with one or two units it may cancel to results that are much smaller.
    weights = [value for name, value in layer.parameters.items() if name.startswith("weight_")]
    starts = [v for name, v in layer.parameters.items() if name[:3] in ("h_0", "c_0")] if learned else state
    forward = [value for value, backward in answers.values() if not backward]
    reach = max(map(_largest, [x, starts[0], *forward]))
    of_values = max(reach * max(map(_largest, weights)), *map(_largest, [*starts[1:], *forward]))
    of_gradients = max(of_values, *map(_largest, [*(value for value, _ in answers.values()), dy, *dstate]))
    for name, (theirs, backward) in answers.items():
        assert ours[name].dtype == layer.dtype
        scale = of_gradients if backward else of_values
        limits = tolerances.float64(scale, factor)
        if layer.dtype == np.float32:
            inner = layer.input_size + layer.hidden_size
            steps = max(1, len(x)) * layer.num_layers
            limits = tolerances.float32(inner, steps, scale * factor, backward)
        limits["atol"] += tolerances.MOVES * moved[backward]
        np.testing.assert_allclose(ours[name], theirs, **limits, err_msg=name)
