"""Text as numbers, and back."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm import _checks
from cylstm._checks import shown

UNKNOWN_SYMBOL = {"characters": "\N{REPLACEMENT CHARACTER}", "words": "<unk>"}


class Vocabulary:
    """The symbols of a text, numbered: id 0 is padding, 1 any symbol that is not known, the others follow.

    Padding is what `Arrays` puts after shorter sequences; as no symbol has its id, it can also be the blank
    of CTC. Made by `of_characters` or `of_words`; to keep one with a model, save its `config` in
    `cylstm.save(..., extra=...)`.

    Attributes
    ----------
    kind : {"characters", "words"}
    symbols : tuple of str
        By id; those of padding and of the unknown first.

    Examples
    --------
    >>> from cylstm.data import Vocabulary
    >>> vocabulary = Vocabulary.of_characters("abba")
    >>> len(vocabulary), vocabulary.encode("bad")
    (4, array([3, 2, 1], dtype=int32))
    >>> vocabulary.decode([3, 2, 1, 0, 0])
    'ba\N{REPLACEMENT CHARACTER}'
    >>> words = Vocabulary.of_words(["to be or", "not to be"], least=2)
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
        """All characters of a text, in alphabetical order.

        Raises
        ------
        TypeError
            If it is no str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a str, got {type(text).__name__}")
        return cls("characters", sorted(set(text) - {UNKNOWN_SYMBOL["characters"]}))

    @classmethod
    def of_words(
        cls, sentences: Iterable[str | Iterable[str]], least: int = 1, most: int | None = None
    ) -> "Vocabulary":
        """The words of sentences, the most frequent first.

        Parameters
        ----------
        sentences : iterable of str or of lists of str
            A str is cut where there is white space; upper and lower case differ.
        least : int
            Words that occur less often are left out. With 2, say, a model gets to see unknown words in
            training, and can learn what to do with them.
        most : int, optional
            Only so many words, the most frequent ones.

        Raises
        ------
        TypeError, ValueError
            If sentences is a single str, or something in it is neither a str nor a list of them.
        """
        if isinstance(sentences, str):
            raise TypeError("sentences: expected several, got a str; pass [sentence]")
        least = _checks.positive("least", least)
        most = None if most is None else _checks.positive("most", most)
        counts: Counter[str] = Counter()
        for i, sentence in enumerate(sentences):
            counts.update(_symbols(f"sentences[{i}]", "words", sentence))
        for own in ("", UNKNOWN_SYMBOL["words"]):
            counts.pop(own, None)
        frequent = sorted((word for word in counts if counts[word] >= least), key=lambda w: (-counts[w], w))
        return cls("words", frequent[:most])

    def __repr__(self) -> str:
        """How many symbols are known."""
        return f"<{type(self).__name__} of {len(self.symbols) - self.UNKNOWN - 1} {self.kind}>"

    def __len__(self) -> int:
        """Ids there are, padding and unknown included: what an embedding or an output layer has to have."""
        return len(self.symbols)

    def encode(self, text: str | Iterable[str]) -> NDArray[np.int32]:
        """The ids of a text.

        Parameters
        ----------
        text : str or iterable of str
            A text of words is cut where there is white space; or symbols one by one.

        Returns
        -------
        ndarray
            (n,).

        Raises
        ------
        TypeError
            If it is no text.
        """
        symbols = _symbols("text", self.kind, text)
        return np.array([self._ids.get(symbol, self.UNKNOWN) for symbol in symbols], np.int32)

    def decode(self, ids: Any) -> str:
        """The text of ids: characters as they follow each other, words with spaces between, padding left out.

        Parameters
        ----------
        ids : array of int
            (n,).

        Raises
        ------
        ValueError
            If it is no vector of ints, or one is no id.
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
        """Kind and known symbols, as JSON values."""
        return {"kind": self.kind, "known": list(self.symbols[self.UNKNOWN + 1 :])}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Vocabulary":
        """The vocabulary that `config` describes.

        Raises
        ------
        ValueError
            If it describes none.
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
    """A text, or symbols one by one, as a list of symbols."""
    if isinstance(text, str):
        return list(text) if kind == "characters" else text.split()
    symbols = list(text) if isinstance(text, Iterable) else [text]
    for symbol in symbols:
        if not isinstance(symbol, str):
            raise TypeError(f"{name}: expected a str or several of them, got {type(symbol).__name__}")
    return symbols
