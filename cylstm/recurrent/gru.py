"""The GRU, with the reset gate after or before the product."""

from collections.abc import Mapping
from typing import Any

from cylstm.recurrent.base import RecurrentLayer


class GRU(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014).

    For every step t::

        r = σ(W_ir x + b_ir + W_hr h + b_hr)      z = σ(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))     with reset_after, as in PyTorch
        n = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn)     without, as in the paper
        h' = (1 - z) ⊙ n + z ⊙ h

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        As in `LSTM`.
    reverse, input_dropout, recurrent_dropout, zoneout, clip, learn_state
        As in `LSTM`. Its other options raise an error.
    reset_after : bool
        Whether the reset gate acts after the product with W_hn; ONNX calls it linear_before_reset.

    Notes
    -----
    `weight_ih_l0` is (3H, I), with the rows of r, z and n. The state is h, (L·D, B, H).

    Examples
    --------
    >>> import numpy as np
    >>> y, h_n = GRU(3, 5, bidirectional=True, seed=0)(np.ones((7, 2, 3)), lengths=[7, 4])
    >>> y.shape, h_n.shape, float(abs(y[4:, 1]).max())
    ((7, 2, 10), (2, 2, 5), 0.0)
    """

    cell_options = ("reset_after",)

    @classmethod
    def cell_of(cls, options: Mapping[str, Any]) -> str:
        """The cell of either variant."""
        return "gru" if options["reset_after"] else "gru_reset_before"
