"""Conversion between text and integer ids."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown

UNKNOWN_SYMBOL = {"characters": "\N{REPLACEMENT CHARACTER}", "words": "<unk>"}


class Vocabulary:
    """A mapping between symbols and ids: 0 is padding, 1 the unknown symbol, known symbols follow.

    `Arrays` pads shorter sequences with 0; this id can also serve as the blank of CTC. Create a vocabulary
    with `of_characters` or `of_words`. To save it with a model, pass its `config` to
    `cylstm.save(..., extra=...)`.

    Attributes
    ----------
    kind : {"characters", "words"}
    symbols : tuple of str
        Symbols by id, starting with padding and unknown.

    Examples
    --------
    >>> from cylstm.data import Vocabulary
    >>> vocabulary = Vocabulary.of_characters("abba")
    >>> len(vocabulary), vocabulary.encode("bad")
    (4, array([3, 2, 1], dtype=int32))
    >>> vocabulary.decode([3, 2, 1, 0, 0])
    'ba\N{REPLACEMENT CHARACTER}'
    >>> words = Vocabulary.of_words(["to be or", "not to be"], min_frequency=2)
    >>> words.encode("to live"), words.decode([3, 2])
    (array([3, 1], dtype=int32), 'to be')
    """

    PADDING, UNKNOWN = 0, 1

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        if kind not in UNKNOWN_SYMBOL:
            raise ValueError(f"kind: expected 'characters' or 'words', got {shown(kind)}")
        self.kind = kind
        self.symbols = ("", UNKNOWN_SYMBOL[kind], *known)
        self._ids = {symbol: number for number, symbol in enumerate(self.symbols)}
        if len(self._ids) < len(self.symbols):
            twice = next(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
            raise ValueError(f"known: expected each symbol once, got {shown(twice)} again")

    @classmethod
    def of_characters(cls, text: str) -> "Vocabulary":
        """Build a vocabulary of all characters of a text, in alphabetical order.

        Raises
        ------
        TypeError
            If text is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a str, got {type(text).__name__}")
        return cls("characters", sorted(set(text) - {UNKNOWN_SYMBOL["characters"]}))

    @classmethod
    def of_words(
        cls, sentences: Iterable[str | Iterable[str]], min_frequency: int = 1, max_size: int | None = None
    ) -> "Vocabulary":
        """Build a vocabulary of the words of sentences, the most frequent first.

        Parameters
        ----------
        sentences : iterable of str or of lists of str
            A str is split at white space. Words are case-sensitive.
        min_frequency : int
            Minimum number of occurrences. With 2 or more, training data contain unknown words, and a model
            learns to handle them.
        max_size : int, optional
            Maximum number of words, not counting padding and unknown; the most frequent ones are taken.

        Raises
        ------
        TypeError, ValueError
            If sentences is a single str, or an element is neither a str nor a list of them.
        """
        if isinstance(sentences, str):
            raise TypeError("sentences: expected several, got a str; pass [sentence]")
        min_frequency = _checks.positive("min_frequency", min_frequency)
        max_size = None if max_size is None else _checks.positive("max_size", max_size)
        counts: Counter[str] = Counter()
        for i, sentence in enumerate(sentences):
            counts.update(_symbols(f"sentences[{i}]", "words", sentence))
        for reserved in ("", UNKNOWN_SYMBOL["words"]):
            counts.pop(reserved, None)
        frequent = [word for word, count in counts.items() if count >= min_frequency]
        return cls("words", sorted(frequent, key=lambda word: (-counts[word], word))[:max_size])

    def __repr__(self) -> str:
        """Show the number of known symbols."""
        return f"<{type(self).__name__} of {len(self.symbols) - self.UNKNOWN - 1} {self.kind}>"

    def __len__(self) -> int:
        """Number of ids, including padding and unknown: the size of an embedding or an output layer."""
        return len(self.symbols)

    def encode(self, text: str | Iterable[str]) -> NDArray[np.int32]:
        """Convert a text to ids.

        Parameters
        ----------
        text : str or iterable of str
            A str, which a vocabulary of words splits at white space; or an iterable of symbols.

        Returns
        -------
        ndarray
            (n,).

        Raises
        ------
        TypeError
            If text is neither a str nor an iterable of str.
        """
        symbols = _symbols("text", self.kind, text)
        return np.array([self._ids.get(symbol, self.UNKNOWN) for symbol in symbols], np.int32)

    def decode(self, ids: Any) -> str:
        """Convert ids to text: words are joined with spaces, padding is dropped.

        Parameters
        ----------
        ids : array of int
            (n,).

        Raises
        ------
        ValueError
            If ids is not a vector of integers, or one is out of range.
        """
        array = _checks.real_array("ids", ids)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(f"ids: expected a vector of ints, got {array.shape} {array.dtype}")
        if array.size and not (array.min() >= 0 and array.max() < len(self)):
            raise ValueError(f"ids: expected 0 to {len(self) - 1}, got {array.min()} to {array.max()}")
        symbols = [self.symbols[number] for number in array.tolist() if number != self.PADDING]
        return ("" if self.kind == "characters" else " ").join(symbols)

    @property
    def config(self) -> dict[str, Any]:
        """Kind and known symbols as JSON-compatible values."""
        return {"kind": self.kind, "known": list(self.symbols[self.UNKNOWN + 1 :])}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Vocabulary":
        """The vocabulary that `config` describes.

        Raises
        ------
        ValueError
            If `config` does not describe a vocabulary.
        """
        if not isinstance(config, Mapping) or set(config) != {"kind", "known"}:
            raise ValueError("vocabulary: expected kind and known")
        kind, known = config["kind"], config["known"]
        if not isinstance(kind, str) or not isinstance(known, list):
            raise ValueError("vocabulary: expected a str as kind and a list as known")
        if not all(isinstance(symbol, str) for symbol in known):
            raise ValueError("vocabulary: expected only str among the known symbols")
        return cls(kind, known)


def _symbols(name: str, kind: str, text: Any) -> list[str]:
    """Split a text into symbols, or list the symbols of an iterable."""
    if isinstance(text, str):
        return list(text) if kind == "characters" else text.split()
    symbols = list(text) if isinstance(text, Iterable) else [text]
    for symbol in symbols:
        if not isinstance(symbol, str):
            raise TypeError(f"{name}: expected a str or several of them, got {type(symbol).__name__}")
    return symbols
