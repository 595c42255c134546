"""Character-level language models."""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown
from cylstm._checks.options import without_option_warnings
from cylstm.data import TokenStream, Vocabulary
from cylstm.files import SavedModel
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
MIN_CHUNK = 5000  # characters in each stream of an evaluation, so that the initial state matters little
SIZES = ("hidden_size", "num_layers", "embedding_size", "dropout")  # which are saved


class CharacterModel(SavedModel):
    """Predict the next character of a text, and generate text.

    An embedding, an LSTM and a dense layer, trained by truncated backpropagation through time on several
    parts of the text in parallel, with the state carried over (Graves 2013, arXiv:1308.0850).

    Parameters
    ----------
    hidden_size : int
        Units per layer.
    num_layers : int
    embedding_size : int
        Size of a character's embedding vector.
    dropout : float
        Dropout probability of each layer's outputs.
    seed : int

    Examples
    --------
    >>> text = "the cat sat on the mat. " * 60
    >>> model = CharacterModel(hidden_size=32, seed=0)
    >>> history = model.fit(text, epochs=15, batch_size=4, length=20, lr=2e-2, progress=False)
    >>> model.sample("the c", 20, temperature=0.1, seed=0)
    'the cat sat on the mat. t'
    """

    entry = "text"

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
        """Train on a text, and keep the weights with the lowest loss on its end.

        Parameters
        ----------
        text : str
        epochs : int
        validation : float
            Fraction of the text, at its end, that is held out for validation; 0 for none.
        batch_size, length : int
            Parts of the text that are read in parallel, and steps between two updates.
        lr : float
            Maximum learning rate; linear warmup for 100 updates, then cosine decay.
        patience, checkpoints, resume, progress
            As for `Trainer.fit`. If the training fails in an epoch, the model keeps the best weights so far;
            if it cannot start, it is unchanged.

        Returns
        -------
        History
            Losses are in nats per character.

        Raises
        ------
        ValueError
            If the text is too short for these sizes.
        """
        vocabulary = Vocabulary.of_characters(text)
        ids = vocabulary.encode(text)
        fraction = _checks.number("validation", validation, 0, 1)
        n = len(ids) - round(fraction * len(ids))
        if n <= 2 * batch_size:
            raise ValueError(f"text: expected more than {2 * batch_size} training characters, got {n}")
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
        held_out = (
            TokenStream(ids[n:], min(batch_size, max(1, len(ids) - n - 1)), length) if fraction else None
        )
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
        with without_option_warnings():  # dropout also acts on the last layer, below
            lstm = LSTM(self.embedding_size, H, self.num_layers, dropout=self.dropout, seed=seed + 1)
        return Sequential(
            Embedding(V, self.embedding_size, std=1.0, seed=seed),  # a small vocabulary
            lstm,
            Dropout(self.dropout, seed=seed + 2),
            Linear(H, V, seed=seed + 3),
        )

    def _fitted(self) -> Sequential:
        if self.model is None:
            raise ValueError("model: expected a fitted model; call fit first, or load a model file")
        return self.model

    def evaluate(self, text: str) -> dict[str, float]:
        """Measure how well the characters of a text are predicted.

        Parameters
        ----------
        text : str
            The first character is not predicted.

        Returns
        -------
        dict
            `nats` and `bits` per character; `characters`, the number of predicted characters; `unknown`, how
            many of them are not in the vocabulary.

        Raises
        ------
        ValueError
            If the model is not fitted, or if the text is shorter than two characters.
        """
        model, ids = self._fitted(), self.vocabulary.encode(text)
        if len(ids) < 2:
            raise ValueError(f"text: expected at least two characters, got {len(ids)}")
        streams = min(64, 1 + len(ids) // MIN_CHUNK)
        stream = TokenStream(ids, streams, 100)
        nats = Trainer(model, CrossEntropy()).evaluate(stream)["loss"]
        unknown = int((stream.targets == Vocabulary.UNKNOWN).sum())
        return {
            "nats": nats,
            "bits": nats / math.log(2),
            "characters": stream.targets.size,
            "unknown": unknown,
        }

    def sample(self, prompt: str, n: int = 500, *, temperature: float = 0.8, seed: int | None = None) -> str:
        """Generate n characters that follow a prompt; returns the prompt and these.

        Parameters
        ----------
        prompt : str
        n : int
        temperature : float
            Above 0: divisor of the logits. Lower values favour probable characters.
        seed : int, optional
            For the random choices.

        Raises
        ------
        ValueError
            If the model is not fitted, or if the prompt is empty.
        """
        return prompt + "".join(self.continued(prompt, n, temperature=temperature, seed=seed))

    def continued(
        self, prompt: str, n: int, *, temperature: float = 0.8, seed: int | None = None
    ) -> Iterator[str]:
        """Generate the n characters of `sample` one by one."""
        model = self._fitted()
        if not prompt:
            raise ValueError("prompt: expected at least one character, got none")
        rng, temperature = _checks.generator(seed), _checks.above("temperature", temperature, 0)
        stream = Stream(model)
        logits = stream.run(self.vocabulary.encode(prompt)[:, None])[-1, 0]
        for _ in range(_checks.natural("n", n)):
            logits = logits.astype(float) / temperature
            logits[: Vocabulary.UNKNOWN + 1] = -np.inf  # padding and unknown
            choice = int(rng.choice(len(logits), p=softmax(logits)))
            yield self.vocabulary.symbols[choice]
            logits = stream.step(choice)

    def _to_saved(self) -> tuple[Layer, dict[str, Any]]:
        sizes = {name: getattr(self, name) for name in SIZES}
        return self._fitted(), {"vocabulary": self.vocabulary.config, **sizes}

    @classmethod
    def _from_saved(cls, network: Layer, values: dict[str, Any]) -> "CharacterModel":
        vocabulary = Vocabulary.from_config(values["vocabulary"])
        loaded = cls(**{name: values[name] for name in SIZES})
        if not isinstance(network, Sequential) or not network.reads_indices or not network.causal:
            raise ValueError(f"network: expected a causal Sequential that reads ids, got {shown(network)}")
        if len(vocabulary) != network.output_size:
            expected = f"{network.output_size} characters, one per output"
            raise ValueError(f"vocabulary: expected {expected}, got {len(vocabulary)}")
        loaded.model, loaded.vocabulary = network, vocabulary
        return loaded
