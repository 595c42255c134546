"""`SequenceClassifier`: the class of each sequence."""

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
    """The class of each sequence, by an LSTM, GRU or RNN whose states are pooled over time.

    Every channel is standardised by what `fit` sees. AdamW; the learning rate falls to 0 as half a cosine.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
    hidden_size : int
        Units of a layer, and of each direction.
    num_layers : int
    bidirectional : bool
        Whether each layer also reads from the end, with weights of its own.
    pooling : {"max", "mean", "last"}
        Of the states of all steps, or the last one.
    dropout : float
        Between layers, and before the last, dense one; a third of it on the inputs.
    epochs : int
        Of `fit`, at most.
    batch_size : int
    learning_rate : float
        At the start of `fit`; in every `partial_fit`.
    validation_fraction : float, optional
        Share of the samples that are held out, with the same shares of classes, to end the training after
        `patience` epochs without a lower loss, and to choose the weights. None: all samples are learnt from,
        in all epochs.
    patience : int
    clip_norm : float, optional
        Bound on the norm of the gradient.
    random_state : int, RandomState or None
        Of weights, masks and order. The same int gives the same bits, on any number of threads.
    n_jobs : int, optional
        Threads; -1 for all CPUs. None: `cylstm.get_num_threads()`, in a worker of joblib 1.
    verbose : bool
        Whether `fit` shows its progress.

    Attributes
    ----------
    classes_ : ndarray
    n_features_in_ : int
        Columns of a table X, channels of sequences.
    feature_names_in_ : ndarray
        Names of the columns, if X was a data frame.
    model_ : Sequential
        The network, for `cylstm.save`; it reads (n, T, channels) scaled by `model_.scalers["x"]`.
    history_ : History
        Of the last `fit` or `partial_fit`. Ctrl-C raises KeyboardInterrupt after the current update, so that
        a search ends; `model_` then has the best weights so far, and `history_.stopped` is "interrupted".

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
            raise TypeError(
                f"y: expected classes of one type, which have an order, got {' and '.join(types)}"
            ) from None
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
        """One epoch on these samples, with the scaling of the first ones, at a constant learning rate.

        Parameters
        ----------
        X, y
            As in `fit`.
        classes : array, optional
            All that there will be; needed if there was no `fit` or `partial_fit` before.

        Raises
        ------
        ValueError
            Without classes in the first call, or for another one in y.
        """
        if classes is None and not hasattr(self, "model_"):
            raise ValueError("classes: expected all classes in the first call of partial_fit, got None")
        self._go_on(X, y, classes)
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (n, classes), in the order of `classes_`."""
        probabilities: Array = softmax(self._predicted(X))
        return probabilities

    def predict(self, X: Any) -> Array:
        """The likeliest class of each sequence, (n,)."""
        likeliest = self._predicted(X).argmax(axis=1)
        classes: Array = self.classes_[likeliest]
        return classes
