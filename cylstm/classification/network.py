"""The network of `Classifier` and the scikit-learn estimators: one row of outputs per sequence."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cylstm._checks import shown
from cylstm._checks.options import without_option_warnings
from cylstm.data import Arrays
from cylstm.init import initialize
from cylstm.layers.dropout import Dropout
from cylstm.layers.linear import Linear
from cylstm.layers.pooling import How, Pooling
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.layers.sequential import Sequential
from cylstm.recurrent.gru import GRU
from cylstm.recurrent.lstm import LSTM
from cylstm.recurrent.rnn import RNN
from cylstm.training import gradients

Array = NDArray[Any]
Sequences = Array | list[Array]  # (n, T, I), or n arrays (T_i, I)
Cell = Literal["lstm", "gru", "rnn"]
CELLS: dict[str, type[LSTM | GRU | RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
SMOOTHING = 0.1  # of labels: with a few hundred, some are wrong or not typical
BATCH_SIZE = 256  # sequences per batch in predictions


def build(
    features: int,
    outputs: int,
    seed: Callable[[], int],
    *,
    cell: Cell = "lstm",
    hidden_size: int = 64,
    num_layers: int = 1,
    dropout: float = 0.3,
    input_dropout: float | None = None,
    bidirectional: bool = True,
    pooling: How = "max",
) -> Sequential:
    """Build a new network, whose outputs are 0 for any sequence until it is trained.

    Parameters
    ----------
    features, outputs : int
        Channels of the sequences, outputs per sequence.
    seed : callable
        Returns the next seed, for weights and dropout masks.
    cell, hidden_size, num_layers, dropout, bidirectional, pooling
        As for `cylstm.sklearn.SequenceClassifier`.
    input_dropout : float
        Dropout probability of the inputs. None: a third of `dropout`.
    """
    if cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {shown(cell)}")
    if pooling not in get_args(How):
        raise ValueError(f"pooling: expected one of {', '.join(get_args(How))}, got {shown(pooling)}")
    with without_option_warnings():  # dropout also acts on the last layer, below
        recurrent = CELLS[cell](
            features,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout,
            bidirectional=bidirectional,
            seed=seed(),
        )
    initialize(recurrent, seed=seed())
    linear = Linear(recurrent.output_size, outputs)
    linear.load_state_dict({name: 0 * value for name, value in linear.state_dict().items()})
    return Sequential(
        Dropout(dropout / 3 if input_dropout is None else input_dropout, features=features, seed=seed()),
        recurrent,
        Pooling(pooling),
        Dropout(dropout, seed=seed()),
        linear,
    )


def scaled(model: SequenceLayer, x: Sequences) -> Sequences:
    """Transform x by the model's scaler for x, and convert it to the model's dtype."""
    transformed = model.scalers["x"].transform(x)
    if isinstance(transformed, list):
        return [part.astype(model.dtype, copy=False) for part in transformed]
    result: Array = transformed.astype(model.dtype, copy=False)
    return result


def outputs(model: Sequential, x: Sequences) -> Array:
    """The model's outputs for scaled sequences, (n, V) in float64."""
    source = Arrays(x, np.zeros(len(x)), BATCH_SIZE, target_per="sequence")
    parts = [gradients.outputs(model, batch, None)[0] for batch in source.epoch()]
    return np.concatenate(parts).astype(np.float64)
