"""Optimisers over the flat parameter vector, and clipping of the gradient."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm.layer import Layer

Array = NDArray[Any]


def clip_grad_norm(model: Layer, max_norm: float) -> float:
    """Scale all gradients together so that their global norm is at most `max_norm`.

    Returns the norm before (Pascanu et al. 2013). A norm that is not finite leaves the
    gradients as they are.

    >>> import cylstm
    >>> layer = cylstm.Linear(1, 1, bias=False)
    >>> layer.gradients["weight"][...] = 4.0
    >>> clip_grad_norm(layer, 1.0), float(layer.gradients["weight"][0, 0])
    (4.0, 1.0)
    """
    from cylstm._engine import _optim

    max_norm = _checks.number("max_norm", max_norm, 0)
    grad = model._store.grad
    norm = float(np.sqrt(_optim.sum_of_squares(grad)))
    if max_norm < norm < np.inf:
        grad *= max_norm / norm
    return norm


class Optimizer:
    """Base of the optimisers: `step(model)` moves the parameters along the gradients.

    An optimiser keeps its state for one model, the first it is stepped with.
    """

    def __init__(self, lr: float) -> None:
        self.lr = _checks.number("lr", lr, 0)
        self.steps = 0
        self._store: Any = None

    def step(self, model: Layer) -> None:
        """Update the parameters in place from `model.gradients`, which stay as they are."""
        store = model._store
        if self._store is None:
            self._store = store
            self._start(store.data)
        elif self._store is not store:
            raise ValueError("model: expected the model of the first step; make one optimiser for each model")
        with store.writing() as flat:
            self._update(flat, store.grad, self.steps + 1)
        self.steps += 1  # not before: a step that failed is none

    def _start(self, flat: Array) -> None:
        """Make the state for a parameter vector."""

    def _update(self, flat: Array, grad: Array, t: int) -> None:
        """Step t = 1, 2, …"""
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent, p <- p - lr g.

    Parameters
    ----------
    lr : float
        Learning rate; may be set between steps.
    """

    def _update(self, flat: Array, grad: Array, t: int) -> None:
        from cylstm._engine import _optim

        _optim.sgd(flat, grad, self.lr)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1).

    Parameters
    ----------
    lr : float
        Learning rate; may be set between steps.
    betas : tuple of float
        Decay of the running means of the gradient and of its square.
    eps : float
        Added to the root of the second mean.
    weight_decay : float
        L2 penalty: this times the parameters is added to the gradients, as in `torch.optim.Adam`.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.LSTM(1, 4, seed=0), cylstm.Linear(4, 1, seed=1)).train()
    >>> loss, adam = cylstm.losses.MSE(), cylstm.optim.Adam(lr=0.01)
    >>> x, target = np.ones((5, 1, 1)), np.full((5, 1, 1), 0.5)
    >>> values = []
    >>> for _ in range(200):
    ...     y, _ = model(x)
    ...     value, dy = loss(y, target)
    ...     model.zero_grad()
    ...     _ = model.backward(dy, need_dx=False)
    ...     adam.step(model)
    ...     values.append(value)
    >>> values[-1] < 0.01 * values[0]
    True
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr)
        self.weight_decay = _checks.number("weight_decay", weight_decay, 0)
        self.betas = (_checks.number("betas[0]", betas[0], 0, 1), _checks.number("betas[1]", betas[1], 0, 1))
        self.eps = _checks.number("eps", eps, 0)

    def _start(self, flat: Array) -> None:
        self._m, self._v = np.zeros_like(flat), np.zeros_like(flat)

    def _update(self, flat: Array, grad: Array, t: int) -> None:
        from cylstm._engine import _optim

        beta1, beta2 = self.betas
        _optim.adam(
            flat, grad, self._m, self._v,
            self.lr, beta1, beta2, self.eps, self.weight_decay, 1 - beta1**t, 1 - beta2**t,
        )  # fmt: skip
