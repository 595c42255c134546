"""Models of every layer type, for sequences that are all shorter than the padding."""

from problems import DIRECTIONS, GRID, make, options_of

import cylstm
from cylstm.recurrent.activated import ActivatedGRU, ActivatedLSTM, ActivatedRNN

SHORT, T, F, V = 4, 9, 6, 5  # the longest sequence, the padded steps, features, ids


MODELS = {
    "Linear": lambda: cylstm.Linear(F, 3, seed=0),
    "Embedding": lambda: cylstm.Embedding(V, F, seed=0),
    "Embedding fields": lambda: cylstm.Embedding(V, F, fields=2, seed=0),
    "LayerNorm": lambda: cylstm.LayerNorm(F),
    "Residual": lambda: cylstm.Residual(cylstm.GRU(F, F, seed=0)),
    "Activation": lambda: cylstm.Activation("softmax", features=F),
    "Dropout": lambda: cylstm.Dropout(0.4, features=F, seed=0),
    "MultiHeadAttention": lambda: cylstm.MultiHeadAttention(F, 2, seed=0),
    "MultiHeadAttention last": lambda: cylstm.MultiHeadAttention(F, 2, query="last", seed=0),
    "MultiHeadAttention causal": lambda: cylstm.MultiHeadAttention(F, 2, causal=True, seed=0),
    "MultiplicativeAttention": lambda: cylstm.MultiplicativeAttention(F, seed=0),
    "MultiplicativeAttention last": lambda: cylstm.MultiplicativeAttention(F, query="last", seed=0),
    "AdditiveAttention": lambda: cylstm.AdditiveAttention(F, 3, seed=0),
    "AdditiveAttention last": lambda: cylstm.AdditiveAttention(F, 3, query="last", seed=0),
    "ActivatedLSTM": lambda: ActivatedLSTM(F, 4, "hard_sigmoid;tanh;tanh", seed=0),
    "ActivatedGRU": lambda: ActivatedGRU(F, 4, "hard_sigmoid;tanh", seed=0),
    "ActivatedRNN": lambda: ActivatedRNN(F, 4, "elu(0.5)", seed=0, reverse=True),
    "Masked": lambda: cylstm.Masked(cylstm.LSTM(F, 4, seed=0), cylstm.Linear(4, 3, seed=1)),
    "Masked ids": lambda: cylstm.Masked(
        cylstm.Embedding(V, F, seed=0), cylstm.GRU(F, 4, seed=1), cylstm.Pooling("mean")
    ),
    "Sequential": lambda: cylstm.Sequential(
        cylstm.Embedding(V, F, seed=0),
        cylstm.LSTM(F, 4, 2, dropout=0.3, bidirectional=True, seed=1),
        cylstm.Pooling("ends"),
        cylstm.Linear(8, 3, seed=2),
    ),
}
MODELS |= {
    f"Pooling {how}": lambda how=how: cylstm.Pooling(how, features=F)
    for how in ("last", "mean", "max", "ends")
}
MODELS |= {
    f"{cell} {option} {direction}": lambda cell=cell, option=option, direction=direction: make(
        cell, F, 4, 2, seed=0, **options_of(option), **DIRECTIONS[direction]
    )
    for cell, option in GRID
    for direction in DIRECTIONS
    if option in ("none", "all", "learn_state", "dropout", "zoneout")
}
