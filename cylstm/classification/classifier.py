"""`Classifier`: sequences and names of classes in, names out."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks, files
from cylstm._checks import array_like, shown
from cylstm.classification import network
from cylstm.classification.network import Sequences
from cylstm.data import Arrays, StandardScaler, _inputs
from cylstm.layers.activation import softmax
from cylstm.layers.base import Layer
from cylstm.layers.sequential import Sequential
from cylstm.losses import CrossEntropy
from cylstm.optim import AdamW, CosineDecay
from cylstm.training import Checkpoints, History, Trainer
from cylstm.training.checkpoints import digest_of
from cylstm.training.history import history_of

Array = NDArray[Any]
Samples = tuple[Any, Sequence[str]]
CLIP_NORM = 1.0


class Classifier:
    """The class of each sequence, by an LSTM in both directions and the largest of its states over time.

    The network and training of `cylstm.sklearn.SequenceClassifier`, without scikit-learn: every channel is
    standardised by what `fit` sees, AdamW, the learning rate falls to 0 as half a cosine.

    Parameters
    ----------
    hidden_size : int
        Units of a layer, and of each direction.
    num_layers : int
    dropout : float
        Between layers, and before the last, dense one; a third of it on the inputs.
    seed : int
        Of weights, masks and order.

    Attributes
    ----------
    classes : list of str
        In the order of the outputs.
    columns : list of str
        Names of the channels, for the file; none by default.

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

    def __repr__(self) -> str:
        """As it was constructed."""
        from cylstm._reprs import as_constructed

        return as_constructed(self)

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
        """Train a new network, and keep the weights of the lowest loss on the validation data.

        Parameters
        ----------
        train, validation : tuple (sequences, labels)
            (n, T, channels), or a list of n arrays (T_i, channels); and n names of classes. Those of `train`
            are all there are.
        epochs, patience, checkpoints, resume, progress
            As for `Trainer.fit`; without validation data there is no patience. If the training fails in an
            epoch, the classifier has the best weights so far; if it cannot start, it stays as it was.
        batch_size : int
        lr : float
            At the start.

        Returns
        -------
        History
            With the `accuracy` on the validation data, if there are any.

        Raises
        ------
        ValueError, TypeError
            If sequences are no arrays of finite numbers, of the same channels; if there is only one class, or
            another one in the validation data.
        """
        x, labels = _checked(train[0]), [str(label) for label in array_like.labels("labels", train[1])]
        _inputs.warn_of_ids("sequences", x)
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise ValueError(f"labels: expected at least two classes, got {classes}")
        saved = Checkpoints.of(checkpoints, resume)
        if saved is not None:
            saved.identify({"classes": classes, "data": digest_of(x, "\0".join(labels))}, resume)
        draw = _checks.generator(self.seed)

        def seed() -> int:
            return int(draw.integers(2**31))

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
            held_out = _source(model, classes, _for(model, validation[0]), validation[1], batch_size)
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
        """The probability of each class, (n, classes), in the order of `classes`.

        Parameters
        ----------
        sequences : array or list of arrays
            As in `fit`.
        """
        model = self._fitted()
        return softmax(network.outputs(model, network.scaled(model, _for(model, sequences))))

    def predict(self, sequences: Any) -> list[str]:
        """The likeliest class of each sequence."""
        return [self.classes[i] for i in self.probabilities(sequences).argmax(axis=1)]

    def confusion(self, sequences: Any, labels: Sequence[str]) -> Array:
        """How many sequences of each class (rows) were taken for each (columns), in the order of `classes`.

        Raises
        ------
        ValueError
            If there is a label that is no class, or not one label for each sequence.
        """
        targets = _targets(self.classes, sequences, labels)
        counts = np.zeros((len(self.classes), len(self.classes)), np.intp)
        np.add.at(counts, (targets, self.probabilities(sequences).argmax(axis=1)), 1)
        return counts

    def _fitted(self) -> Sequential:
        if self.model is None:
            raise ValueError("model: expected one that was trained or loaded; call fit first")
        return self.model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network, scaling and names of the classes to one file (`cylstm.files`)."""
        own = {name: getattr(self, name) for name in ("classes", "columns")}
        files.save(self._fitted(), path, extra={"classifier": own})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Classifier":
        """Read what `save` wrote.

        Raises
        ------
        ModelFileError
            If the file is damaged, or holds no classifier.
        """
        return cls.of(path, *files.load_with_extra(path))

    @classmethod
    def of(cls, path: str | os.PathLike[str], model: Layer, extra: Mapping[str, Any]) -> "Classifier":
        """That of a file whose content has been read (`files.load_with_extra`).

        Raises
        ------
        ModelFileError
            If the file, which it names, holds no classifier.
        """
        try:
            stored = extra["classifier"]
            classes, columns = stored["classes"], stored["columns"]
            for names in (classes, columns):
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise ValueError("its names are damaged")
            if not isinstance(model, Sequential) or not model.pools or not model.batch_first:
                raise ValueError("its layers are others")
            if len(set(classes)) != len(classes) or len(classes) != model.output_size:
                raise ValueError(f"{len(classes)} classes for {model.output_size} outputs")
            if classes != sorted(classes) or len(columns) not in (0, model.input_size):
                raise ValueError("its names are damaged")
            if len(model.scalers["x"].config["offset"]) != model.input_size:
                raise ValueError("its scaling is of another size")
            recurrent = model.layers[1].config
            loaded = cls(recurrent["hidden_size"], recurrent["num_layers"], recurrent["dropout"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise files.ModelFileError(f"{path}: not a classifier: {error}") from error
        loaded.model, loaded.classes, loaded.columns = model, classes, columns
        return loaded


def _checked(sequences: Any) -> Sequences:
    """(n, T, I), or n arrays (T_i, I), of finite numbers."""
    x = _inputs.either_of("sequences", sequences)
    if len(x) == 0 or x[0].ndim != 2 or any(0 in part.shape for part in x):
        shape = x[0].shape if isinstance(x, list) else x.shape
        raise ValueError(f"sequences: expected (n, T, channels) or n arrays (T, channels), got {shape}")
    _inputs.check_samples("sequences", x, "sequence, step, channel")
    return x


def _for(model: Sequential, sequences: Any) -> Sequences:
    """The same, of the model's channels."""
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
