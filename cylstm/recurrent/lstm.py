"""The LSTM and its variants: peepholes, coupled gates, layer normalisation, projection."""

from collections.abc import Mapping
from typing import Any

from cylstm.recurrent.base import RecurrentLayer


class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000).

    For every step t, with σ the logistic function and ⊙ the product of elements::

        i = σ(W_ii x + b_ii + W_hi h + b_hi)      f = σ(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)   o = σ(W_io x + b_io + W_ho h + b_ho)
        c' = f ⊙ c + i ⊙ g                         h' = o ⊙ tanh(c')

    Parameters
    ----------
    input_size : int
        Features of a step, I.
    hidden_size : int
        Units, H.
    num_layers : int
        Layers, L, each reading the hidden states of the one below.
    bias : bool
        Whether there are `bias_ih_l*` and `bias_hh_l*`.
    batch_first : bool
        Whether x and y are (B, T, features) instead of (T, B, features). States never are.
    dropout : float
        Probability with which an output of a layer does not reach the next one, in training only.
    bidirectional : bool
        Whether each layer also reads the sequence from its end, with separate parameters
        (`..._reverse`); the outputs are concatenated, (T, B, 2H), and D = 2, else 1.
    proj_size : int
        P, below H: h' is W_hr (o ⊙ tanh(c')), P wide, with `weight_hr_l*` (P, H) (Sak et al. 2014); 0: none.
    dtype : {"float32", "float64"}
    seed : int, optional
        Of the initial parameters, drawn from U(-1/sqrt(H), 1/sqrt(H)), and of all masks.
    reverse : bool
        Whether the layer reads the sequence from its end only.
    input_dropout, recurrent_dropout : float
        Probability with which a layer, in training, does not see an input, or a unit of h in the products
        with W_hh, during a whole sequence: one mask for all its steps (Gal and Ghahramani 2016).
    zoneout, zoneout_cell : float
        Probability with which a unit of h, or of c, keeps the value of the previous step, in training;
        otherwise states are the expectation (Krueger et al. 2017). h' is made of c' before zoneout.
    clip : float, optional
        Bound of what the gates' σ and tanh are applied to, as in ONNX.
    learn_state : bool
        Whether the default initial state is a parameter (`h_0_l*`,
        `c_0_l*`), zeros at first.
    peephole : bool
        Whether i and f also depend on c, and o on c', unit by unit: `weight_ci_l*`, `weight_cf_l*`,
        `weight_co_l*` (H) (Gers and Schmidhuber 2000).
    coupled : bool
        Whether f = 1 - i instead of a separate gate: gates i, g, o (Greff et al. 2017).
    layer_norm : bool
        Whether W_ih x, W_hh h and c' are normalised over their units before the gates and before h'
        (Ba et al. 2016): gains `norm_ih_l*`, `norm_hh_l*` (4H) and `norm_c_l*` (H), biases `bias_l*` (4H)
        and `bias_c_l*` (H) in place of `bias_ih_l*` and `bias_hh_l*`. Not together with peephole or coupled.

    Notes
    -----
    Parameters have PyTorch's names, layouts and order of gates: `weight_ih_l0` is (4H, I),
    with the rows of i, f, g and o. The state is `(h, c)`, each (L·D, B, H), or (L·D, H) for one
    sequence without a batch; h is P wide if there is a projection. In the mode of `eval()`, the first one,
    a layer may be called from any number of threads; training is for one thread at a time.

    Examples
    --------
    >>> import numpy as np
    >>> layer = LSTM(3, 5, seed=0)
    >>> x = np.ones((7, 2, 3))
    >>> y, (h_n, c_n) = layer(x)
    >>> y.shape, h_n.shape, bool((y[-1] == h_n[0]).all())
    ((7, 2, 5), (1, 2, 5), True)
    >>> _ = layer.train()
    >>> y, _ = layer(x)
    >>> dx, (dh_0, dc_0) = layer.backward(np.ones_like(y))
    >>> dx.shape, layer.gradients["weight_hh_l0"].shape
    ((7, 2, 3), (20, 5))
    """

    cell_options = ("proj_size", "zoneout_cell", "peephole", "coupled", "layer_norm")

    @classmethod
    def cell_of(cls, options: Mapping[str, Any]) -> str:
        """The LSTM cell of these options."""
        if options["layer_norm"]:
            return "lstm_norm"
        return "lstm" + "_coupled" * bool(options["coupled"]) + "_peephole" * bool(options["peephole"])
