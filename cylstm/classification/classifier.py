"""`Classifier`: classification of sequences."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import array_like, shown
from cylstm.classification import network
from cylstm.classification.network import Sequences
from cylstm.data import Arrays, StandardScaler, _inputs
from cylstm.files import SavedModel
from cylstm.layers.activation import softmax
from cylstm.layers.base import Layer
from cylstm.layers.sequential import Sequential
from cylstm.losses import CrossEntropy
from cylstm.optim import AdamW, CosineDecay
from cylstm.recurrent.base import RecurrentLayer
from cylstm.training import Checkpoints, History, Trainer
from cylstm.training.checkpoints import digest_of
from cylstm.training.history import history_of

Array = NDArray[Any]
Samples = tuple[Any, Sequence[str]]
CLIP_NORM = 1.0


class Classifier(SavedModel):
    """Classify sequences with a bidirectional LSTM and max pooling over time.

    The network and training of `cylstm.sklearn.SequenceClassifier`, without scikit-learn: every channel is
    standardised with the mean and deviation of the training data; AdamW with cosine decay to 0.

    Parameters
    ----------
    hidden_size : int
        Units per layer and direction.
    num_layers : int
    dropout : float
        Between layers and before the dense layer; a third of it on the inputs.
    seed : int
        For weights, dropout masks and the order of the samples.

    Attributes
    ----------
    classes : list of str
        Names of the classes, in the order of the outputs.
    columns : list of str
        Names of the channels, which are saved with the model; empty by default.

    Examples
    --------
    >>> import numpy as np
    >>> from cylstm.classification import Classifier
    >>> x = np.random.default_rng(0).standard_normal((40, 9, 2)) + np.repeat([-1, 1], 20)[:, None, None]
    >>> classifier = Classifier(hidden_size=8)
    >>> history = classifier.fit((x, ["low"] * 20 + ["high"] * 20), epochs=10, progress=False)
    >>> classifier.predict([x[0], x[20, :4]])
    ['low', 'high']
    """

    entry = "classifier"

    def __init__(
        self, hidden_size: int = 64, num_layers: int = 1, dropout: float = 0.3, seed: int = 0
    ) -> None:
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.num_layers = _checks.positive("num_layers", num_layers)
        self.dropout = _checks.number("dropout", dropout, 0, 1)
        _checks.generator(seed)
        self.seed = seed
        self.model: Sequential | None = None
        self.classes: list[str] = []
        self.columns: list[str] = []

    def fit(
        self,
        train: Samples,
        validation: Samples | None = None,
        epochs: int = 60,
        *,
        batch_size: int = 16,
        lr: float = 3e-3,
        patience: int | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> History:
        """Train a new network, and keep the weights with the lowest loss on the validation data.

        Parameters
        ----------
        train, validation : tuple (sequences, labels)
            (n, T, channels), or a list of n arrays (T_i, channels); and n names of classes. The validation
            data can contain only classes of `train`.
        epochs, patience, checkpoints, resume, progress
            As for `Trainer.fit`; without validation data, `patience` has no effect. If the training fails in
            an epoch, the classifier keeps the best weights so far; if it cannot start, it is unchanged.
        batch_size : int
        lr : float
            Initial learning rate.

        Returns
        -------
        History
            With the `accuracy` on the validation data, if given.

        Raises
        ------
        ValueError, TypeError
            If the sequences are not arrays of finite numbers with the same channels; if there is only one
            class, or an unknown one in the validation data.
        """
        x, labels = _checked(train[0]), [str(label) for label in array_like.labels("labels", train[1])]
        _inputs.warn_of_ids("sequences", x)
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise ValueError(f"labels: expected at least two classes, got {classes}")
        saved = Checkpoints.of(checkpoints, resume)
        if saved is not None:
            saved.identify({"classes": classes, "data": digest_of(x, "\0".join(labels))}, resume)
        rng = _checks.generator(self.seed)

        def seed() -> int:
            return int(rng.integers(2**31))

        model = network.build(
            x[0].shape[1],
            len(classes),
            seed,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
        )
        model.scalers["x"] = StandardScaler().fit(x)
        trainer = Trainer(
            model,
            CrossEntropy(label_smoothing=network.SMOOTHING),
            AdamW(lr),
            schedule=CosineDecay(),
            clip_norm=CLIP_NORM,
            seed=seed(),
        )
        source = _source(model, classes, x, labels, batch_size)
        held_out = None
        if validation is not None:
            held_out = _source(model, classes, _checked_for(model, validation[0]), validation[1], batch_size)
        try:
            history = trainer.fit(
                source, held_out, epochs,
                metrics=["accuracy"] if held_out else [], patience=patience if held_out else None,
                checkpoints=saved, resume=resume, progress=progress,
            )  # fmt: skip
        except BaseException as error:
            if history_of(error):
                self.model, self.classes = model, classes
            raise
        self.model, self.classes = model, classes
        return history

    def probabilities(self, sequences: Any) -> Array:
        """Predict the probability of each class, (n, classes), in the order of `classes`.

        Parameters
        ----------
        sequences : array or list of arrays
            As in `fit`.
        """
        model = self._fitted()
        return softmax(network.outputs(model, network.scaled(model, _checked_for(model, sequences))))

    def predict(self, sequences: Any) -> list[str]:
        """Predict the most probable class of each sequence."""
        return [self.classes[i] for i in self.probabilities(sequences).argmax(axis=1)]

    def confusion(self, sequences: Any, labels: Sequence[str]) -> Array:
        """Confusion matrix: how many sequences of each class (rows) are predicted as each class (columns).

        Raises
        ------
        ValueError
            If a label is not one of `classes`, or if their number is not that of the sequences.
        """
        targets = _targets(self.classes, sequences, labels)
        counts = np.zeros((len(self.classes), len(self.classes)), np.intp)
        np.add.at(counts, (targets, self.probabilities(sequences).argmax(axis=1)), 1)
        return counts

    def _fitted(self) -> Sequential:
        if self.model is None:
            raise ValueError("model: expected a fitted model; call fit first, or load a model file")
        return self.model

    def _to_saved(self) -> tuple[Layer, dict[str, Any]]:
        return self._fitted(), {"classes": self.classes, "columns": self.columns}

    @classmethod
    def _from_saved(cls, network: Layer, values: dict[str, Any]) -> "Classifier":
        classes, columns = values["classes"], values["columns"]
        for key, names in (("classes", classes), ("columns", columns)):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{key}: expected a list of names, got {shown(names)}")
        if classes != sorted(set(classes)):
            raise ValueError(f"classes: expected different names in order, got {shown(classes)}")
        if not isinstance(network, Sequential) or not network.pools or not network.batch_first:
            raise ValueError(f"network: expected a batch-first Sequential with pooling, got {shown(network)}")
        if len(classes) != network.output_size:
            raise ValueError(f"classes: expected {network.output_size}, one per output, got {len(classes)}")
        if len(columns) not in (0, network.input_size):
            raise ValueError(f"columns: expected {network.input_size} names or none, got {len(columns)}")
        if "x" not in network.scalers:
            raise ValueError("scalers: expected one for x, got none")
        scaled = len(network.scalers["x"].config["offset"])
        if scaled != network.input_size:
            raise ValueError(f"scalers: expected {network.input_size} channels for x, got {scaled}")
        recurrent = network.layers[1] if len(network.layers) > 1 else network
        if not isinstance(recurrent, RecurrentLayer):
            raise ValueError(f"network: expected a recurrent second layer, got {shown(recurrent)}")
        loaded = cls(recurrent.hidden_size, recurrent.num_layers, recurrent.config["dropout"])
        loaded.model, loaded.classes, loaded.columns = network, classes, columns
        return loaded


def _checked(sequences: Any) -> Sequences:
    """Check sequences: (n, T, I), or n arrays (T_i, I), of finite numbers."""
    x = _inputs.either_of("sequences", sequences)
    if len(x) == 0 or x[0].ndim != 2 or any(0 in part.shape for part in x):
        shape = x[0].shape if isinstance(x, list) else x.shape
        raise ValueError(f"sequences: expected (n, T, channels) or n arrays (T, channels), got {shape}")
    _inputs.check_samples("sequences", x, "sequence, step, channel")
    return x


def _checked_for(model: Sequential, sequences: Any) -> Sequences:
    """Check sequences, and that their channels are those of the model."""
    x = _checked(sequences)
    if x[0].shape[1] != model.input_size:
        raise ValueError(f"sequences: expected {model.input_size} channels, got {x[0].shape[1]}")
    return x


def _targets(classes: list[str], sequences: Any, labels: Sequence[str]) -> Array:
    labels = array_like.labels("labels", labels)
    if len(labels) != len(sequences):
        raise ValueError(f"labels: expected {len(sequences)}, one per sequence, got {len(labels)}")
    unknown = sorted({str(label) for label in labels} - set(classes))
    if unknown:
        raise ValueError(f"labels: expected classes among {shown(classes)}, got {shown(unknown[0])}")
    return np.array([classes.index(str(label)) for label in labels], np.intp)


def _source(
    model: Sequential, classes: list[str], x: Sequences, labels: Sequence[str], batch_size: int
) -> Arrays:
    scaled = network.scaled(model, x)
    return Arrays(scaled, _targets(classes, x, labels), batch_size, target_per="sequence")
