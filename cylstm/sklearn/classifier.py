"""`SequenceClassifier`: classification of sequences."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import check_classification_targets

from cylstm._checks import array_like
from cylstm.classification.network import SMOOTHING
from cylstm.losses import CrossEntropy, Loss
from cylstm.sklearn._sequences import SequenceEstimator

Array = NDArray[Any]


class SequenceClassifier(ClassifierMixin, SequenceEstimator):
    """Classifier of sequences: an LSTM, GRU or RNN whose states are pooled over time.

    Channels are standardised with statistics of the training data. Trained with AdamW and cosine decay.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
    hidden_size : int
        Units per layer and direction.
    num_layers : int
    bidirectional : bool
        Whether layers read sequences in both directions.
    pooling : {"max", "mean", "last"}
        Pooling of the states over time; "last" uses the last state.
    dropout : float
        Dropout between layers and before the output layer; a third of it is applied to the inputs.
    epochs : int
        Maximum number of epochs of `fit`.
    batch_size : int
    learning_rate : float
        Initial learning rate of `fit`; constant in `partial_fit`.
    validation_fraction : float, optional
        Fraction of the samples to hold out, stratified by class. Training stops after `patience` epochs
        without improvement of the validation loss, and the best weights are restored. By default all samples
        are used for training, for all epochs.
    patience : int
    clip_norm : float, optional
        Maximum norm of the gradient.
    random_state : int, RandomState or None
        Seed of weights, masks and shuffling. The same int gives bit-identical results for any number of
        threads.
    n_jobs : int, optional
        Number of threads; -1 for all CPUs. By default `cylstm.get_num_threads()`, or 1 in a joblib worker.
    verbose : bool
        Whether `fit` shows its progress.

    Attributes
    ----------
    classes_ : ndarray
    n_features_in_ : int
        Columns of a table X, or channels of sequences.
    feature_names_in_ : ndarray
        Column names, if X was a data frame.
    model_ : Sequential
        The network, for `cylstm.save`. Its inputs (n, T, channels) are scaled by `model_.scalers["x"]`.
    history_ : History
        History of the last `fit` or `partial_fit`. Ctrl-C raises KeyboardInterrupt after the current update,
        which also ends a search; `model_` then has the best weights so far, and `history_.stopped` is
        "interrupted".

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.sklearn import SequenceClassifier
    >>> X = np.random.default_rng(0).standard_normal((40, 9, 2)) + np.repeat([-1, 1], 20)[:, None, None]
    >>> y = np.repeat(["low", "high"], 20)
    >>> classifier = SequenceClassifier(hidden_size=8, epochs=10, random_state=0).fit(X, y)
    >>> classifier.predict([X[0], X[20, :4]])
    array(['low', 'high'], dtype='<U4')
    >>> classifier.predict_proba(X).shape
    (40, 2)
    """

    def _loss(self) -> Loss:
        return CrossEntropy(label_smoothing=SMOOTHING)

    def _checked_y(self, y: Any) -> Array:
        labels: Array = column_or_1d(array_like.labels("y", y), warn=True)
        assert_all_finite(labels, input_name="y")
        try:
            np.unique(labels)
        except TypeError:
            types = sorted({type(label).__name__ for label in labels})
            raise TypeError(f"y: expected classes of one sortable type, got {' and '.join(types)}") from None
        check_classification_targets(labels)
        return labels

    def _learn_y(self, y: Array) -> int:
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(f"y: expected at least two classes, got {len(classes)} class: {classes}")
        self.classes_ = classes
        return len(classes)

    def _target(self, y: Array) -> Array:
        known = np.isin(y, self.classes_)
        if not known.all():
            raise ValueError(f"y: expected classes among {self.classes_}, got {y[~known][0]!r}")
        return np.searchsorted(self.classes_, y)

    def _strata(self, y: Array) -> Array:
        return y

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "SequenceClassifier":
        """Train for one epoch on these samples, at a constant learning rate and with the initial scaling.

        Parameters
        ----------
        X, y
            As in `fit`.
        classes : array, optional
            All classes; required in the first call without a preceding `fit`.

        Raises
        ------
        ValueError
            If classes are missing in the first call, or y contains another class.
        """
        if classes is None and not hasattr(self, "model_"):
            raise ValueError("classes: expected all classes in the first call of partial_fit, got None")
        self._train_epoch(X, y, classes)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Predict class probabilities (n, classes), in the order of `classes_`."""
        probabilities: Array = softmax(self._predicted(X))
        return probabilities

    def predict(self, X: Any) -> Array:
        """Predict the class of each sequence, (n,)."""
        index = self._predicted(X).argmax(axis=1)
        classes: Array = self.classes_[index]
        return classes
