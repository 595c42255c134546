"""Base class of the classifier and the regressor: sequences with one target each."""

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
    """Base class of estimators that predict a target per sequence, from states pooled over time.

    A subclass implements `_loss` and the abstract methods.
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
        """Check the target (n,) or (n, V)."""

    @abstractmethod
    def _target(self, y: Array) -> Array:
        """Convert a checked y to the target of the loss."""

    @abstractmethod
    def _learn_y(self, y: Array) -> int:
        """Store properties of y in the training data, and return the number of outputs."""

    def _strata(self, y: Array) -> Array | None:
        """Return the labels for a stratified split, or None."""
        return None

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Sequences, Array]:
        if y is None:
            raise ValueError(
                f"y: {type(self).__name__} requires y to be passed, but the target y is None; pass one "
                "target per sequence"
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
            (n, T, channels); (n, T) for one channel; or n arrays (T_i, channels) or (T_i,). Values are
            measurements: integers that look like symbol ids cause a warning, because ids need a model that
            starts with `cylstm.Embedding`.
        y : array
            (n,); for a regressor also (n, outputs).

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If shapes do not match, a value is NaN or infinite, or a parameter is invalid.
        """
        x, y = self._checked(X, y, True)
        self._reset_random()
        train, held_out = self._split(x, y)
        outputs = self._learn_y(y)
        self._initialize(train, outputs)
        self._train_all(self._prepared(train), None if held_out is None else self._prepared(held_out))
        return self

    def _train_epoch(self, X: Any, y: Any, labels: Any = None) -> Any:
        """Train for one epoch, creating the network if necessary; `labels` are all labels to expect."""
        first = not hasattr(self, "model_")
        samples = self._checked(X, y, first)
        if first:
            self._reset_random()
            self._initialize(samples, self._learn_y(samples[1] if labels is None else labels))
        self._train(self._prepared(samples), None, 1)
        return self

    def _initialize(self, train: Samples, outputs: int) -> None:
        """Create a network with scalers fitted to the training data."""
        scalers = {"x": StandardScaler().fit(train[0]), **self._scalers(train[1])}
        self._create_model(scalers, outputs, self.pooling, self.bidirectional)

    def _scalers(self, y: Array) -> dict[str, StandardScaler]:
        return {}

    def _prepared(self, samples: Samples) -> Samples:
        """Scale samples and convert targets for the trainer."""
        return self._scaled(samples[0]), self._target(samples[1])

    def _split(self, x: Sequences, y: Array) -> tuple[Samples, Samples | None]:
        """Split into training samples and held-out samples."""
        fraction = self._held_out_fraction()
        if not fraction:
            return (x, y), None
        try:
            parts = train_test_split(
                np.arange(len(y)), test_size=fraction, stratify=self._strata(y), random_state=self._random
            )
        except ValueError as error:
            raise ValueError(f"validation_fraction: {error}; pass None to hold out no samples") from error
        train, held_out = ((_chosen(x, part), y[part]) for part in parts)
        return train, held_out

    def _predicted(self, X: Any) -> Array:
        """Compute the outputs of the network, (n, V)."""
        check_is_fitted(self)
        return self._outputs(self._scaled(_inputs.sequences(self, X, False)))

    def __sklearn_tags__(self) -> Any:
        """Declare support for three-dimensional X."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _chosen(x: Sequences, index: Array) -> Sequences:
    return [x[i] for i in index] if isinstance(x, list) else x[index]
