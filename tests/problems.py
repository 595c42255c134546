"""Recurrent layers of every cell and option, random problems for them, and the reference's answers."""

import numpy as np
import tolerances

import cylstm
from cylstm import reference
from cylstm.workspace import PARAMETERS, parameter_name

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
    """The masks of a layer's last training pass, by sequence; without a pass, what stands for them."""

    def __init__(self, layer, trained):
        self.layer = layer
        self.workspace = layer._kept if trained else None
        if trained:
            packing = layer._kept.packing
            self.place = np.arange(packing.B) if packing.order is None else np.argsort(packing.order)
            self.starts = packing._starts

    def of_sequence(self, name, b):
        """(1, features): the same at every step."""
        buffers = {} if self.workspace is None else self.workspace.buffers
        return buffers[name][self.place[b]][None].astype(float) if name in buffers else 1.0

    def of_steps(self, name, b, n, absent):
        """(n, 1, features) in the order in which direction 0, or the direction in the name, reads."""
        buffers = {} if self.workspace is None else self.workspace.buffers
        if name not in buffers:
            return absent
        return buffers[name][self.starts[:n] + self.place[b]][:, None].astype(float)


def weights_of(layer, l, d):
    """Parameters of one layer and direction by the reference's names, and the layer's names."""
    names = {ours: parameter_name(kind, l, d) for ours, kind in PARAMETERS.items()}
    names |= {kind: parameter_name(kind, l, d) for kind, _ in layer.spec.own}
    parameters = layer.parameters
    present = {ours: parameters[name].astype(float) for ours, name in names.items() if name in parameters}
    zero = np.zeros(len(layer.spec.gates) * layer.hidden_size)
    return {"b_ih": zero, "b_hh": zero} | present, names


def run_reference(layer, x, state, dy, dstate, lengths=None, trained=True):
    """Each sequence alone: y, last states, dx, dL/d(first states), gradients by name.

    state None: what the layer has learned. With the masks of the layer's last training pass, or in the
    way of evaluation.
    """
    T, B, _ = x.shape
    D, P = layer.num_directions, layer.state_width("h")
    lengths = np.full(B, T) if lengths is None else lengths
    masks, cell, states = Masks(layer, trained), reference.CELLS[layer.spec.name], layer.spec.states
    clip = np.inf if layer.clip is None else layer.clip
    learned = state is None
    state = layer._initial_state(B) if learned else state
    state, dstate = ([a.astype(float) for a in states] for states in (state, dstate))
    final, initial, gradients, saved = [a.copy() for a in state], [a.copy() for a in state], {}, {}

    def own_order(sequence, d):
        return sequence[::-1] if d or layer.reverse else sequence

    values = x.astype(float)
    for l in range(layer.num_layers):
        y = np.zeros((T, B, D * P))
        for d, b in np.ndindex(D, B):
            k, n = l * D + d, lengths[b]
            zoneout = [
                masks.of_steps(f"zone_{s}{l}_{d}", b, n, share)
                for s, share in zip(("h", "c"), (layer.zoneout, layer.zoneout_cell), strict=True)
            ]
            inputs = values[:n, b : b + 1] * masks.of_sequence(f"mask_x{l}", b)
            out, last, saved[l, d, b] = reference.layer_forward(
                cell, own_order(inputs, d), [s[k, b : b + 1] for s in state], weights_of(layer, l, d)[0],
                clip, masks.of_sequence(f"mask_h{l}_{d}", b), zoneout,
            )  # fmt: skip
            y[:n, b, d * P : (d + 1) * P] = own_order(out[:, 0], d)
            for s, value in enumerate(last):
                final[s][k, b] = value[0]
        if l + 1 < layer.num_layers:
            for b in range(B):
                y[: lengths[b], b] *= own_order(
                    masks.of_steps(f"mask{l}", b, lengths[b], np.ones((1, 1, 1))), 0
                )[:, 0]
        values = y
    y, dvalues = values, dy.astype(float)
    for l in reversed(range(layer.num_layers)):
        dx = np.zeros((T, B, D * P if l else x.shape[2]))
        for d, b in np.ndindex(D, B):
            k, n = l * D + d, lengths[b]
            dout = own_order(dvalues[:n, b : b + 1, d * P : (d + 1) * P], d)
            back, dfirst, own = reference.layer_backward(
                dout, [s[k, b : b + 1] for s in dstate], saved[l, d, b]
            )
            dx[:n, b] += own_order(back[:, 0], d) * masks.of_sequence(f"mask_x{l}", b)
            for s, value in enumerate(dfirst):
                initial[s][k, b] = value[0]
                name = parameter_name(f"{states[s]}_0", l, d)
                if name in layer.parameters:
                    gradients[name] = gradients.get(name, 0) + (value[0] if learned else 0 * value[0])
            for ours, name in weights_of(layer, l, d)[1].items():
                if name in layer.parameters:
                    gradients[name] = gradients.get(name, 0) + own[ours]
        if l:
            for b in range(B):
                mask = masks.of_steps(f"mask{l - 1}", b, lengths[b], np.ones((1, 1, 1)))
                dx[: lengths[b], b] *= own_order(mask, 0)[:, 0]
        dvalues = dx
    return y, final, dvalues, initial, gradients


def assert_agrees_with_reference(layer, x, state, dy, dstate, lengths=None, learned=False):
    """Values and all gradients of a training pass, and the values of evaluation."""
    given = None if learned else for_caller(state)
    y, final = layer.train()(x, given, lengths=lengths)
    layer.zero_grad()
    dx, initial = layer.backward(dy, for_caller(dstate))
    expected = run_reference(layer, x, None if learned else state, dy, dstate, lengths)
    pairs = {"y": (y, expected[0], False), "dx": (dx, expected[2], True)}
    for s, name in enumerate(layer.spec.states):
        pairs[f"{name}_n"] = (parts_of(final)[s], expected[1][s], False)
        pairs[f"d{name}_0"] = (parts_of(initial)[s], expected[3][s], True)
    pairs |= {name: (layer.gradients[name], value, True) for name, value in expected[4].items()}
    if x.shape[1]:
        assert set(expected[4]) == set(layer.gradients)
    evaluated = run_reference(layer, x, None if learned else state, dy, dstate, lengths, trained=False)
    pairs["y in evaluation"] = (layer.eval()(x, given, lengths=lengths)[0], evaluated[0], False)
    factor = tolerances.amplification(layer.spec.name, layer.hidden_size)
    sources = [value for _, value, _ in pairs.values()] + [dy, *dstate]
    for name, (ours, theirs, backward) in pairs.items():
        assert ours.dtype == layer.dtype
        relevant = sources if backward else [value for _, value, b in pairs.values() if not b]
        scale = max(np.abs(np.nan_to_num(value)).max(initial=0) for value in relevant)
        limits = tolerances.float64(scale, factor)
        if layer.dtype == np.float32:
            inner = layer.input_size + layer.hidden_size
            steps = max(1, len(x)) * layer.num_layers
            limits = tolerances.float32(inner, steps, scale * factor, backward)
        np.testing.assert_allclose(ours, theirs, **limits, err_msg=name)
