"""Tagging: the part of speech of every word of a sentence, from words and their characters.

    python examples/tagging.py --train en_ewt-ud-train.conllu.xz --test en_ewt-ud-dev.conllu.xz   # minutes

The features of a word are the word itself, prefixes, suffixes, and its pattern of character classes, so that
unknown words are represented by their spelling. They are read by an `Embedding` with several fields, followed
by a bidirectional LSTM.
"""

import argparse
import itertools
import lzma
from collections import Counter

import numpy as np

import cylstm
from cylstm import data, losses, optim

FIELDS = 9


def spellings(word: str) -> list[str]:
    """Return the features of a word, one per field."""
    low = word.lower()
    kinds = ["A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c for c in word]
    shape = "".join(kind for kind, _ in itertools.groupby(kinds))
    return [low, *(low[-n:] for n in (1, 2, 3, 4)), *(low[:n] for n in (1, 2, 3)), shape]


class Spellings:
    """Ids of the features that occur at least twice in the training sentences."""

    def __init__(self, sentences: list[list[str]]) -> None:
        counted = Counter(
            entry for words in sentences for word in words for entry in enumerate(spellings(word))
        )
        known = sorted(entry for entry, n in counted.items() if n > 1)
        self.numbers = {entry: FIELDS + i for i, entry in enumerate(known)}

    def __len__(self) -> int:
        return FIELDS + len(self.numbers)

    def encode(self, words: list[str]) -> np.ndarray:
        """Convert words to ids (T, FIELDS); unknown features have the id of their field."""
        return np.array(
            [[self.numbers.get(entry, entry[0]) for entry in enumerate(spellings(word))] for word in words]
        )


def read_conllu(path: str, sentences: int | None = None) -> tuple[list[list[str]], list[list[str]]]:
    """Read words and tags of the first or of all sentences of a CoNLL-U file, optionally xz-compressed."""
    words, tags = [], []
    with (lzma.open if str(path).endswith(".xz") else open)(path, "rt", encoding="utf-8") as file:
        for block in file.read().strip().split("\n\n")[:sentences]:
            rows = [line.split("\t") for line in block.split("\n") if not line.startswith("#")]
            rows = [row for row in rows if row[0].isdigit()]  # not the parts of contractions
            words.append([row[1] for row in rows])
            tags.append([row[3] for row in rows])
    return words, tags


def tagger(symbols: int, classes: int, seed: int, size: int = 32, hidden: int = 128) -> cylstm.Sequential:
    """Build a model that outputs logits of the tags at every word."""
    return cylstm.Sequential(
        cylstm.Embedding(symbols, size, fields=FIELDS, std=1.0, seed=seed),  # as in PyTorch
        cylstm.Dropout(0.4, seed=seed + 1),
        cylstm.LSTM(FIELDS * size, hidden, bidirectional=True, seed=seed + 2),
        cylstm.Dropout(0.4, seed=seed + 3),
        cylstm.Linear(2 * hidden, classes, seed=seed + 4),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, help="CoNLL-U file with training data")
    parser.add_argument("--test", required=True, help="CoNLL-U file with test data")
    parser.add_argument("--sentences", type=int, help="use only the first sentences of both")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()

    words, tags = read_conllu(options.train, options.sentences)
    test_words, test_tags = read_conllu(options.test, options.sentences)
    spelling = Spellings(words)
    classes = sorted({tag for sentence in tags + test_tags for tag in sentence})

    def source(words: list[list[str]], tags: list[list[str]]) -> data.Arrays:
        x = [spelling.encode(sentence) for sentence in words]
        y = [np.array([classes.index(tag) for tag in sentence]) for sentence in tags]
        return data.Arrays(x, y, 32, target_per="step")

    n = len(words) * 19 // 20  # the rest is validation data
    model = tagger(len(spelling), len(classes), seed=0)
    trainer = cylstm.Trainer(
        model, losses.CrossEntropy(), optim.AdamW(3e-3), schedule=optim.CosineDecay(), clip_norm=1.0, seed=0
    )
    trainer.fit(
        source(words[:n], tags[:n]), source(words[n:], tags[n:]), options.epochs, metrics=["accuracy"]
    )
    found = trainer.evaluate(source(test_words, test_tags), metrics=["accuracy"])
    print(f"tagging accuracy: {found['accuracy']:.1%}")

    for sentence in ("The old man the boats .", "She will google it on her phone ."):
        logits, _ = model(spelling.encode(sentence.split()))
        predicted = [classes[k] for k in logits.argmax(axis=1)]
        print(" ".join(f"{word}/{tag}" for word, tag in zip(sentence.split(), predicted, strict=True)))


if __name__ == "__main__":
    main()
