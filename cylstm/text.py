"""Language models of characters: text in, text out."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks, files
from cylstm._checks.options import without_option_warnings
from cylstm.data import TokenStream, Vocabulary
from cylstm.inference.stream import Stream
from cylstm.layers.activation import softmax
from cylstm.layers.base import Layer
from cylstm.layers.dropout import Dropout
from cylstm.layers.embedding import Embedding
from cylstm.layers.linear import Linear
from cylstm.layers.sequential import Sequential
from cylstm.losses import CrossEntropy
from cylstm.optim import AdamW, CosineDecay
from cylstm.recurrent.lstm import LSTM
from cylstm.training import Checkpoints, History, Trainer
from cylstm.training.checkpoints import digest_of
from cylstm.training.history import history_of

Array = NDArray[Any]
LEAST_READ = 5000  # characters at each place of an evaluation, so that where it begins does not count


class CharacterModel:
    """Learns which character comes next, and writes text.

    An embedding, an LSTM and a dense layer, trained by truncated backpropagation over several places of the
    text at once, with the state carried on (Graves 2013, arXiv:1308.0850).

    Parameters
    ----------
    hidden_size : int
        Units of each layer.
    num_layers : int
    embedding_size : int
        Numbers for a character.
    dropout : float
        Share of each layer's outputs that is left out in training.
    seed : int

    Examples
    --------
    >>> text = "the cat sat on the mat. " * 60
    >>> model = CharacterModel(hidden_size=32, seed=0)
    >>> history = model.fit(text, epochs=15, batch_size=4, length=20, lr=2e-2, progress=False)
    >>> model.sample("the c", 20, temperature=0.1, seed=0)
    'the cat sat on the mat. t'
    """

    def __init__(
        self,
        hidden_size: int = 256,
        num_layers: int = 1,
        embedding_size: int = 64,
        dropout: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.hidden_size = _checks.positive("hidden_size", hidden_size)
        self.num_layers = _checks.positive("num_layers", num_layers)
        self.embedding_size = _checks.positive("embedding_size", embedding_size)
        self.dropout, self.seed = _checks.number("dropout", dropout, 0, 1), seed
        self.model: Sequential | None = None
        self.vocabulary = Vocabulary("characters", ())

    def __repr__(self) -> str:
        """As it was constructed."""
        from cylstm._reprs import as_constructed

        return as_constructed(self)

    def fit(
        self,
        text: str,
        epochs: int = 20,
        *,
        validation: float = 0.1,
        batch_size: int = 64,
        length: int = 100,
        lr: float = 3e-3,
        patience: int | None = None,
        checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool = True,
    ) -> History:
        """Train on a text, and keep the weights of the lowest loss on its end.

        Parameters
        ----------
        text : str
        epochs : int
        validation : float
            Share of the text, its end, to measure on and not to learn from; 0 for none.
        batch_size, length : int
            Places of the text that are read at once, and steps between two updates.
        lr : float
            The largest learning rate; it rises for 100 updates and falls along a cosine.
        patience, checkpoints, resume, progress
            As for `Trainer.fit`. If the training fails in an epoch, the model has the best weights so far; if
            it cannot start, it stays as it was.

        Returns
        -------
        History
            Losses are in nats a character.

        Raises
        ------
        ValueError
            If the text is too short for these sizes.
        """
        vocabulary = Vocabulary.of_characters(text)
        ids = vocabulary.encode(text)
        share = _checks.number("validation", validation, 0, 1)
        n = len(ids) - round(share * len(ids))
        if n <= 2 * batch_size:
            raise ValueError(f"text: expected more than {2 * batch_size} characters to learn from, got {n}")
        saved = Checkpoints.of(checkpoints, resume)
        if saved is not None:
            saved.identify({"text": digest_of((), text)}, resume)
        model = self._built(len(vocabulary))
        trainer = Trainer(
            model,
            CrossEntropy(),
            AdamW(lr),
            schedule=CosineDecay(warmup=100),
            clip_norm=1.0,
            seed=self.seed,
        )
        held_out = TokenStream(ids[n:], min(batch_size, max(1, len(ids) - n - 1)), length) if share else None
        try:
            history = trainer.fit(
                TokenStream(ids[:n], batch_size, length), held_out, epochs, patience=patience,
                checkpoints=saved, resume=resume, progress=progress,
            )  # fmt: skip
        except BaseException as error:
            if history_of(error):
                self.model, self.vocabulary = model, vocabulary
            raise
        self.model, self.vocabulary = model, vocabulary
        return history

    def _built(self, V: int) -> Sequential:
        H, seed = self.hidden_size, self.seed
        with without_option_warnings():  # dropout is for the last layer, too
            lstm = LSTM(self.embedding_size, H, self.num_layers, dropout=self.dropout, seed=seed + 1)
        return Sequential(
            Embedding(V, self.embedding_size, std=1.0, seed=seed),  # few symbols
            lstm,
            Dropout(self.dropout, seed=seed + 2),
            Linear(H, V, seed=seed + 3),
        )

    def _fitted(self) -> Sequential:
        if self.model is None:
            raise ValueError("model: expected one that was trained or loaded; call fit first")
        return self.model

    def evaluate(self, text: str) -> dict[str, float]:
        """How well the characters of a text are predicted.

        Parameters
        ----------
        text : str
            The first character is not predicted.

        Returns
        -------
        dict
            `nats` and `bits` a character; `characters`, how many; `unknown`, how many of them were in no text
            that was trained on.

        Raises
        ------
        ValueError
            Without a model that was trained or loaded, or if the text is shorter than two characters.
        """
        model, ids = self._fitted(), self.vocabulary.encode(text)
        if len(ids) < 2:
            raise ValueError(f"text: expected at least two characters, got {len(ids)}")
        places = min(64, 1 + len(ids) // LEAST_READ)
        stream = TokenStream(ids, places, 100)
        nats = Trainer(model, CrossEntropy()).evaluate(stream)["loss"]
        unknown = int((stream.targets == Vocabulary.UNKNOWN).sum())
        return {
            "nats": nats,
            "bits": nats / math.log(2),
            "characters": stream.targets.size,
            "unknown": unknown,
        }

    def sample(self, prompt: str, n: int = 500, *, temperature: float = 0.8, seed: int | None = None) -> str:
        """The prompt, and n characters that may follow it.

        Parameters
        ----------
        prompt : str
        n : int
        temperature : float
            Above 0: what the outputs are divided by. Less of it keeps to what is likely.
        seed : int, optional
            Of the choices.

        Raises
        ------
        ValueError
            Without a model that was trained or loaded, or with an empty prompt.
        """
        return prompt + "".join(self.continued(prompt, n, temperature=temperature, seed=seed))

    def continued(
        self, prompt: str, n: int, *, temperature: float = 0.8, seed: int | None = None
    ) -> Iterator[str]:
        """The n characters of `sample`, one by one."""
        model = self._fitted()
        if not prompt:
            raise ValueError("prompt: expected at least one character, got none")
        rng, temperature = _checks.generator(seed), _checks.above("temperature", temperature, 0)
        stream = Stream(model)
        logits = stream.run(self.vocabulary.encode(prompt)[:, None])[-1, 0]
        for _ in range(_checks.natural("n", n)):
            logits = logits.astype(float) / temperature
            logits[: Vocabulary.UNKNOWN + 1] = -np.inf  # padding and what is no character
            choice = int(rng.choice(len(logits), p=softmax(logits)))
            yield self.vocabulary.symbols[choice]
            logits = stream.step(choice)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model and vocabulary to one file (`cylstm.files`).

        Raises
        ------
        ValueError
            Without a model that was trained or loaded.
        """
        own = {
            name: getattr(self, name) for name in ("hidden_size", "num_layers", "embedding_size", "dropout")
        }
        files.save(self._fitted(), path, extra={"text": {"vocabulary": self.vocabulary.config, **own}})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CharacterModel":
        """Read what `save` wrote.

        Raises
        ------
        ModelFileError
            If the file is damaged, or holds no model of text.
        """
        return cls.of(path, *files.load_with_extra(path))

    @classmethod
    def of(cls, path: str | os.PathLike[str], model: Layer, extra: Mapping[str, Any]) -> "CharacterModel":
        """That of a file whose content has been read (`files.load_with_extra`).

        Raises
        ------
        ModelFileError
            If the file, which it names, holds no model of text.
        """
        try:
            stored = dict(extra["text"])
            vocabulary = Vocabulary.from_config(stored.pop("vocabulary"))
            loaded = cls(**stored)
            if not isinstance(model, Sequential) or not model.reads_indices or not model.causal:
                raise ValueError("its layers are others")
            if len(vocabulary) != model.output_size:
                raise ValueError(f"{len(vocabulary)} characters for {model.output_size} outputs")
        except (KeyError, TypeError, ValueError) as error:
            raise files.ModelFileError(f"{path}: not a model of text: {error}") from error
        loaded.model, loaded.vocabulary = model, vocabulary
        return loaded
