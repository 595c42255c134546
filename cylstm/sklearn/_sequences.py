"""What the classifier and the regressor share: sequences with one target each."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from cylstm.classification.network import Cell, Sequences
from cylstm.data import StandardScaler
from cylstm.data import _inputs as arrays
from cylstm.layers.pooling import How
from cylstm.sklearn import _inputs
from cylstm.sklearn._base import NetworkEstimator, Samples

Array = NDArray[Any]


class SequenceEstimator(NetworkEstimator):
    """A target of each sequence, from its states pooled over time.

    A subclass gives `_loss` and the abstract methods.
    """

    def __init__(
        self,
        *,
        cell: Cell = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        pooling: How = "max",
        dropout: float = 0.3,
        epochs: int = 60,
        batch_size: int = 16,
        learning_rate: float = 3e-3,
        validation_fraction: float | None = None,
        patience: int = 10,
        clip_norm: float | None = 1.0,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            cell=cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_fraction=validation_fraction,
            patience=patience,
            clip_norm=clip_norm,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.bidirectional = bidirectional
        self.pooling = pooling

    @abstractmethod
    def _checked_y(self, y: Any) -> Array:
        """(n,) or (n, V) as a caller may give it."""

    @abstractmethod
    def _target(self, y: Array) -> Array:
        """What the loss takes, from a checked y."""

    @abstractmethod
    def _learn_y(self, y: Array) -> int:
        """Note what y of the training data tells about outputs; how many there are."""

    def _strata(self, y: Array) -> Array | None:
        """What every part of the data should have in the same shares."""
        return None

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Sequences, Array]:
        if y is None:
            raise ValueError(
                f"y: {type(self).__name__} requires y to be passed, but the target y is None; pass one for "
                "each sequence"
            )
        x, y = _inputs.sequences(self, X, reset), self._checked_y(y)
        if reset:
            arrays.warn_of_ids("X", x)
        check_consistent_length(x, y)
        return x, y

    def fit(self, X: Any, y: Any) -> Any:
        """Train a new network.

        Parameters
        ----------
        X : array, data frame or list of arrays
            (n, T, channels); (n, T) of one channel; or n arrays (T_i, channels) or (T_i,). Measurements:
            ints that look like ids of symbols are read with a warning, as these need a model that begins with
            `cylstm.Embedding`.
        y : array
            (n,); for a regressor also (n, outputs).

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, something is NaN or infinite, or a parameter is not as described.
        """
        x, y = self._checked(X, y, True)
        self._reset_random()
        train, held_out = self._divided(x, y)
        outputs = self._learn_y(y)
        self._begin_with(train, outputs)
        self._train_all(self._prepared(train), None if held_out is None else self._prepared(held_out))
        return self

    def _go_on(self, X: Any, y: Any, labels: Any = None) -> Any:
        """One epoch, with a new network if there is none yet; labels tell what is to come in y."""
        first = not hasattr(self, "model_")
        samples = self._checked(X, y, first)
        if first:
            self._reset_random()
            self._begin_with(samples, self._learn_y(samples[1] if labels is None else labels))
        self._train(self._prepared(samples), None, 1)
        return self

    def _begin_with(self, train: Samples, outputs: int) -> None:
        scalers = {"x": StandardScaler().fit(train[0]), **self._scalers(train[1])}
        self._begin(scalers, outputs, self.pooling, self.bidirectional)

    def _scalers(self, y: Array) -> dict[str, StandardScaler]:
        return {}

    def _prepared(self, samples: Samples) -> Samples:
        """Scaled, as the trainer takes them."""
        return self._scaled(samples[0]), self._target(samples[1])

    def _divided(self, x: Sequences, y: Array) -> tuple[Samples, Samples | None]:
        """Samples to learn from, and those that are held out."""
        share = self._share()
        if not share:
            return (x, y), None
        try:
            parts = train_test_split(
                np.arange(len(y)), test_size=share, stratify=self._strata(y), random_state=self._random
            )
        except ValueError as error:
            raise ValueError(f"validation_fraction: {error}; pass None to hold out no samples") from error
        train, held_out = ((_chosen(x, part), y[part]) for part in parts)
        return train, held_out

    def _predicted(self, X: Any) -> Array:
        """The outputs of the network, (n, V)."""
        check_is_fitted(self)
        return self._outputs(self._scaled(_inputs.sequences(self, X, False)))

    def __sklearn_tags__(self) -> Any:
        """That sequences of several channels have three axes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _chosen(x: Sequences, index: Array) -> Sequences:
    return [x[i] for i in index] if isinstance(x, list) else x[index]
