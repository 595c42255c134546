"""The RNN with tanh or ReLU."""

from collections.abc import Mapping
from typing import Any

from cylstm._checks import shown
from cylstm.recurrent.base import RecurrentLayer


class RNN(RecurrentLayer):
    """Vanilla recurrent network (Elman 1990): h' = φ(W_ih x + b_ih + W_hh h + b_hh).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        As in `LSTM`.
    reverse, input_dropout, recurrent_dropout, zoneout, clip, learn_state
        As in `LSTM`. Its other options raise an error.
    nonlinearity : {"tanh", "relu"}
        φ.

    Notes
    -----
    `weight_ih_l0` is (H, I). The state is h, (L·D, B, H).

    Examples
    --------
    >>> import numpy as np
    >>> y, h_n = RNN(3, 5, nonlinearity="relu", seed=0)(np.ones((7, 2, 3)))
    >>> y.shape, h_n.shape, bool((y >= 0).all())
    ((7, 2, 5), (1, 2, 5), True)
    """

    cell_options = ("nonlinearity",)

    @classmethod
    def cell_of(cls, options: Mapping[str, Any]) -> str:
        """The cell of either nonlinearity."""
        if options["nonlinearity"] not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {shown(options['nonlinearity'])}")
        return f"rnn_{options['nonlinearity']}"
