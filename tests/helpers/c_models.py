"""Models, inputs and outputs for programs that embed the engine.

`python c_models.py FOLDER` writes them: a process of its own, so that
the instruction set can be chosen (CYLSTM_ISA).
"""

import sys
from pathlib import Path

import numpy as np

import cylstm
from cylstm import GRU, LSTM, RNN, Dropout, Embedding, LayerNorm, Linear, Pooling, Residual, Sequential

T, I, V = 13, 3, 50


def models():
    """Every layer and option that C supports, by name; sizes are none that fill panels."""
    wide = {"dtype": "float64"}
    return {
        "lstm": LSTM(I, 37, 2),
        "projection": LSTM(I, 20, 2, proj_size=7),
        "both": LSTM(I, 33, 2, bidirectional=True),
        "peephole": LSTM(I, 11, peephole=True, learn_state=True, clip=2 / 3),
        "coupled": LSTM(I, 40, coupled=True),
        "coupled_peephole": LSTM(I, 40, coupled=True, peephole=True, bidirectional=True, learn_state=True),
        "norm": LSTM(I, 21, 2, layer_norm=True),
        "zoneout": LSTM(I, 21, zoneout=0.1, zoneout_cell=0.2, input_dropout=0.5, recurrent_dropout=0.3),
        "gru": GRU(I, 17, batch_first=True),
        "gru_reset_before": GRU(I, 17, reset_after=False, bias=False),
        "reverse": GRU(I, 17, 2, reverse=True, learn_state=True),
        "rnn": RNN(I, 9),
        "relu": RNN(I, 9, nonlinearity="relu", clip=0.7),
        "float64": Sequential(LSTM(I, 6, **wide), LayerNorm(6, **wide), Linear(6, 2, **wide)),
        "nested": Sequential(
            Linear(I, 8),
            Residual(LayerNorm(8), LSTM(8, 8), Dropout(0.3)),
            Residual(Residual(GRU(8, 8)), Linear(8, 8, bias=False)),
            Sequential(LayerNorm(8), Linear(8, 1)),
        ),
        "layer_norm": Sequential(Linear(I, 300), LayerNorm(300), Linear(300, 130), LayerNorm(130, eps=1e-3)),
        "embedding": Sequential(Embedding(V, 6), LSTM(6, 7), Linear(7, V)),
        "fields": Sequential(Embedding(V, 6, fields=2), LSTM(12, 7), Linear(7, 5)),
        "last": Sequential(GRU(I, 8), Pooling("last"), Linear(8, 2)),
        "mean": Sequential(GRU(I, 7), Pooling("mean"), Linear(7, 2)),
        "max": Sequential(GRU(I, 8, bidirectional=True), Pooling("max"), LSTM(16, 3), Linear(3, 2)),
        "ends": Sequential(GRU(I, 9, bidirectional=True), Pooling("ends"), Linear(18, 2)),
        "layout": Sequential(Linear(I, 5), Pooling("mean"), Linear(5, 2), batch_first=True),
        "dropout": Sequential(Dropout(0.5, features=I)),
    }


def write(folder):
    """Of every model NAME.safetensors, with parameters drawn at random, NAME.x and NAME.y, raw."""
    for name, model in models().items():
        rng = np.random.default_rng(1)
        model.load_state_dict({k: rng.standard_normal(v.shape) / 2 for k, v in model.parameters.items()})
        cylstm.save(
            model, folder / f"{name}.safetensors", extra={"µ": 'a "quoted" \\ text', "list": [1, [2.5, None]]}
        )
        if model.reads_indices:
            x = rng.integers(0, V, (T, model.input_size))
            steps = x[:, 0] if model.input_size == 1 else x
        else:
            x = steps = rng.standard_normal((T, I)).astype(model.dtype)
        y = model(steps)
        (folder / f"{name}.x").write_bytes(x.tobytes())
        (folder / f"{name}.y").write_bytes(
            np.ascontiguousarray(y[0] if isinstance(y, tuple) else y).tobytes()
        )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
