"""Optimisers over the flat parameter vector."""

import fnmatch
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._engine import _optim, isa
from cylstm._reprs import as_constructed
from cylstm.layers.base import Layer
from cylstm.layers.parameters import ParameterStore
from cylstm.optim.clipping import store_of

Array = NDArray[Any]
Groups = Mapping[str, Mapping[str, float]]


class Optimizer:
    """Base class of optimisers: `step(model)` updates the parameters from the gradients.

    An optimiser is bound to the model of its first step. A copy has the same state, but is not bound to a
    model. Of an `Embedding`, only the rows read since `zero_grad` are updated.

    A subclass sets `kernel` and `state_vectors`, and implements `_coefficients(t)`, the coefficients of its
    kernel for step t = 1, 2, … (include/cylstm/optimizers.h).
    """

    kernel: ClassVar[str]
    state_vectors: tuple[str, ...] = ()  # a subset of m and v

    def __init__(self, lr: float, weight_decay: float, groups: Groups | None) -> None:
        try:
            self.lr = _checks.number("lr", lr, 0)
        except TypeError as error:
            raise TypeError(
                f"{error}: the learning rate is the first argument; pass the model, not its parameters, to "
                "Trainer or to step(model)"
            ) from None
        self.weight_decay = _checks.number("weight_decay", weight_decay, 0)
        self.groups = _checked_groups(groups or {})
        self.steps = 0
        self._store: ParameterStore | None = None
        self._state: dict[str, Array] = {}

    def __repr__(self) -> str:
        """Show the constructor call."""
        return as_constructed(self)

    def step(self, model: Layer) -> None:
        """Update the parameters in place from `model.gradients`, which are not modified."""
        store = self._bound(model)
        none = store.data[:0]
        spans, lr, decay = self._by_group(store.active_ranges())
        coefficients = np.empty((len(spans), _optim.COEFFICIENTS))
        columns = (*self._common(lr, decay, self.steps + 1), *self._coefficients(self.steps + 1))
        for k, column in enumerate(columns):
            coefficients[:, k] = column
        with store.writing() as flat:
            _optim.update(
                self.kernel, flat, store.grad, self._state.get("m", none), self._state.get("v", none),
                spans, coefficients, isa.selected(),
            )  # fmt: skip
        self.steps += 1  # at the end: a failed step does not count

    def _coefficients(self, t: int) -> tuple[float, ...]:
        """Return the coefficients that are specific to this optimiser."""
        raise NotImplementedError

    def _common(self, lr: Any, decay: Any, t: int) -> tuple[Any, Any, Any]:
        """Return learning rate, L2 factor and decay factor, each for all spans or for each span."""
        return lr, decay, 1

    def _bound(self, model: Layer) -> ParameterStore:
        store = store_of(model)
        if self._store is store:
            return store
        if self._store is not None:
            raise ValueError("model: expected the model of the first step; use one optimiser per model")
        for name, vector in self._state.items():
            if vector.shape != store.data.shape or vector.dtype != store.dtype:
                raise ValueError(
                    f"model: expected {vector.size} parameters in {vector.dtype}, as the optimiser's state "
                    f"{name} has, got {store.size} in {store.dtype}"
                )
        self._boundaries = _boundaries(store, self.groups)
        self._state = {name: self._state.get(name, np.zeros_like(store.data)) for name in self.state_vectors}
        self._store = store
        return store

    def _by_group(self, spans: Array) -> tuple[Array, Any, Any]:
        """Split spans at group boundaries; return them with learning rate and decay, common or per span."""
        if not self.groups:
            return spans, self.lr, self.weight_decay
        starts, scales, decays = self._boundaries
        decays = np.where(np.isnan(decays), self.weight_decay, decays)
        begin = np.union1d(spans[:, 0], starts)
        span = np.searchsorted(spans[:, 0], begin, side="right") - 1
        inside = (span >= 0) & (begin < spans[span, 1])
        begin, span = begin[inside], span[inside]
        group = np.searchsorted(starts, begin, side="right") - 1
        following = np.append(starts[1:], np.iinfo(np.intp).max)[group]
        pieces = np.stack([begin, np.minimum(spans[span, 1], following)], axis=1)
        return pieces, self.lr * scales[group], decays[group]

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume: step count, learning rate, and copies of the state vectors."""
        vectors = {name: vector.copy() for name, vector in self._state.items()}
        return {"steps": self.steps, "lr": self.lr, **vectors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state from `state_dict`.

        Raises
        ------
        ValueError
            If the state belongs to another kind of optimiser or another model. Nothing is changed then.
        """
        vectors = {name: _writable_copy(state[name]) for name in state if name not in ("steps", "lr")}
        if (vectors or state["steps"]) and set(vectors) != set(self.state_vectors):
            raise ValueError(f"state: expected the vectors {self.state_vectors}, got {tuple(vectors)}")
        if self._store is not None:
            for name, vector in vectors.items():
                if vector.shape != self._store.data.shape:
                    raise ValueError(
                        f"state {name}: expected {self._store.size} numbers, got shape {vector.shape}"
                    )
            vectors = {
                name: vectors.get(name, np.zeros(self._store.size)).astype(self._store.dtype)
                for name in self.state_vectors
            }
        lr, steps = _checks.number("state lr", state["lr"], 0), _checks.natural("state steps", state["steps"])
        self.lr, self.steps, self._state = lr, steps, vectors

    def __getstate__(self) -> dict[str, Any]:
        """Omit the model: a copy binds to the next model it is stepped with."""
        return self.__dict__ | {"_store": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the state vectors, which may be shared with another copy, or read-only in a memory map."""
        self.__dict__.update(state)
        self._state = {name: _writable_copy(vector) for name, vector in self._state.items()}


class SGD(Optimizer):
    """Stochastic gradient descent, m <- momentum m + g, p <- p - lr m.

    Parameters
    ----------
    lr : float
        Learning rate; can be set between steps.
    momentum : float
        In [0, 1).
    nesterov : bool
        Nesterov momentum: p <- p - lr (g + momentum m) (Sutskever et al. 2013, as in `torch.optim.SGD`).
    weight_decay : float
        L2 penalty: `weight_decay` times the parameters is added to the gradients.
    groups : mapping, optional
        Settings for parameters whose names match a pattern: `{"*bias*": {"weight_decay": 0},
        "0.*": {"lr_scale": 0.1}}`. The first matching pattern applies.

    Examples
    --------
    >>> import cylstm
    >>> layer = cylstm.Linear(1, 1, bias=False)
    >>> layer.load_state_dict({"weight": [[1.0]]})
    >>> layer.gradients["weight"][...] = 2.0
    >>> SGD(0.25).step(layer)
    >>> float(layer.parameters["weight"][0, 0])
    0.5
    """

    kernel = "sgd"

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        self.momentum, self.nesterov = (
            _checks.number("momentum", momentum, 0, 1),
            _checks.flag("nesterov", nesterov),
        )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected False without momentum, got True")
        self.state_vectors = ("m",) if self.momentum else ()

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.momentum, float(self.nesterov)


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by the root of a running mean of its square (Hinton 2012, lecture 6e).

    Parameters
    ----------
    lr : float
        Learning rate; can be set between steps.
    alpha : float
        Decay of the running mean.
    eps : float
        Added to the denominator.
    weight_decay, groups
        As for `SGD`.
    """

    kernel = "rmsprop"
    state_vectors = ("v",)

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        self.alpha, self.eps = _checks.number("alpha", alpha, 0, 1), _checks.number("eps", eps, 0)

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return self.alpha, self.eps


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1).

    Parameters
    ----------
    lr : float
        Learning rate; can be set between steps.
    betas : tuple of float
        Decay of the running means of the gradient and of its square.
    eps : float
        Added to the denominator.
    weight_decay : float
        L2 penalty: `weight_decay` times the parameters is added to the gradients, as in `torch.optim.Adam`.
    groups : mapping, optional
        As for `SGD`.

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

    kernel = "adam"
    state_vectors = ("m", "v")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        self.betas = (_checks.number("betas[0]", betas[0], 0, 1), _checks.number("betas[1]", betas[1], 0, 1))
        self.eps = _checks.number("eps", eps, 0)

    def _common(self, lr: Any, decay: Any, t: int) -> tuple[Any, Any, Any]:
        return lr / (1 - self.betas[0] ** t), decay, 1

    def _coefficients(self, t: int) -> tuple[float, ...]:
        return *self.betas, self.eps, (1 - self.betas[1] ** t) ** -0.5


class AdamW(Adam):
    """Adam with decoupled weight decay, p <- (1 - lr weight_decay) p (Loshchilov and Hutter 2019).

    Parameters
    ----------
    lr, betas, eps, groups
        As for `Adam`.
    weight_decay : float
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, groups)

    def _common(self, lr: Any, decay: Any, t: int) -> tuple[Any, Any, Any]:
        return lr / (1 - self.betas[0] ** t), 0, 1 - lr * decay


def _writable_copy(vector: Any) -> Array:
    """Copy a vector to writable memory in native byte order."""
    array = np.array(_checks.real_array("state", vector))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _checked_groups(groups: Groups) -> dict[str, dict[str, float]]:
    checked: dict[str, dict[str, float]] = {}
    for pattern, settings in groups.items():
        unknown = set(settings) - {"lr_scale", "weight_decay"}
        if unknown:
            raise ValueError(
                f"groups {pattern!r}: expected lr_scale and weight_decay, got {', '.join(sorted(unknown))}"
            )
        checked[pattern] = {
            key: _checks.number(f"groups {pattern!r} {key}", value, 0) for key, value in settings.items()
        }
    return checked


def _boundaries(store: ParameterStore, groups: dict[str, dict[str, float]]) -> tuple[Array, Array, Array]:
    """Return start, learning-rate scale and weight decay (NaN for the default) of each parameter group."""
    rows: list[tuple[float, float, float]] = []
    start, unused = 0, set(groups)
    for name, shape in store.shapes.items():
        pattern = next((pattern for pattern in groups if fnmatch.fnmatchcase(name, pattern)), "")
        unused.discard(pattern)
        settings = groups.get(pattern, {})
        values = (settings.get("lr_scale", 1.0), settings.get("weight_decay", np.nan))
        if not rows or not np.array_equal(rows[-1][1:], values, equal_nan=True):
            rows.append((start, *values))
        start += int(np.prod(shape))
    if unused:
        raise ValueError(
            f"groups: expected patterns of {_checks.shown(list(store.shapes))}, got {sorted(unused)}"
        )
    table = np.array(rows or [(0, 1.0, np.nan)])
    return table[:, 0].astype(np.intp), table[:, 1], table[:, 2]
