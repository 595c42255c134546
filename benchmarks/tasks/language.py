"""Language: characters of plays, parts of speech."""

import itertools
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
from recipe import Figure, Outputs, Recipe, Task, mean_loss

import cylstm
from cylstm import losses
from cylstm.data import Arrays, TokenStream, Vocabulary

VALIDATION = 0.1  # of the text, its end


def shakespeare(folder: Path, seed: int) -> Recipe:
    """The next character, by a model of less than a million weights (`cylstm train --text`)."""
    text = (folder / "input.txt").read_text(encoding="utf-8")
    ids = Vocabulary.of_characters(text).encode(text)
    n = len(ids) - round(VALIDATION * len(ids))
    V, hidden = int(ids.max()) + 1, 352
    model = cylstm.Sequential(
        cylstm.Embedding(V, 64, seed=seed),
        cylstm.LSTM(64, hidden, seed=seed + 1),
        cylstm.Dropout(0.2, seed=seed + 2),
        cylstm.Linear(hidden, V, seed=seed + 3),
    )
    held_out = TokenStream(ids[n:], 64, 100)

    def score(outputs: Outputs) -> dict[str, float]:
        return {"nats": mean_loss(losses.CrossEntropy(), held_out, outputs)}

    return Recipe(
        model,
        losses.CrossEntropy(),
        TokenStream(ids[:n], 64, 100),
        score,
        9,
        held_out,
        lr=5e-3,
        weight_decay=0.01,
        warmup=100,
    )


def spellings(word: str) -> list[str]:
    """What is read of a word: itself, its ends and beginning, and which kinds of characters it has."""
    low = word.lower()
    kinds = "".join(
        kind for kind, _ in itertools.groupby(
            "A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c for c in word
        )
    )  # fmt: skip
    return [low, *(f"-{low[-n:]}" for n in (1, 2, 3, 4)), *(f"{low[:n]}-" for n in (1, 2, 3)), f"={kinds}"]


def sentences(path: Path) -> tuple[list[list[list[str]]], list[list[str]]]:
    """Spellings and tags of every word of a CoNLL-U file."""
    words, tags = [], []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for block in file.read().strip().split("\n\n"):
            rows = [line.split("\t") for line in block.split("\n") if line[0] != "#"]
            rows = [row for row in rows if row[0].isdigit()]
            words.append([spellings(row[1]) for row in rows])
            tags.append([row[3] for row in rows])
    return words, tags


def tagging(folder: Path, seed: int) -> Recipe:
    """Parts of speech, from words and characters: the n-grams a word begins and ends with."""
    words, tags = sentences(folder / "en_ewt-ud-train.conllu.xz")
    test, truth = sentences(folder / "en_ewt-ud-dev.conllu.xz")
    fields = len(words[0][0])
    count = Counter((k, s) for sentence in words for word in sentence for k, s in enumerate(word))
    known = {entry: fields + i for i, entry in enumerate(sorted(e for e, n in count.items() if n > 1))}
    classes = sorted({tag for sentence in tags for tag in sentence})

    def encoded(data: list[list[list[str]]]) -> list[np.ndarray]:  # k itself: not known
        return [
            np.array([[known.get((k, s), k) for k, s in enumerate(word)] for word in part]) for part in data
        ]

    def numbered(data: list[list[str]]) -> list[np.ndarray]:
        return [np.array([classes.index(tag) for tag in part]) for part in data]

    n = len(words) - len(words) // 20  # the last ones choose the weights
    x, y = encoded(words), numbered(tags)
    test_source = Arrays(encoded(test), numbered(truth), 64, target_per="step")
    hidden, size = 128, 32
    model = cylstm.Sequential(
        cylstm.Embedding(fields + len(known), size, fields=fields, seed=seed),
        cylstm.Dropout(0.4, seed=seed + 1),
        cylstm.LSTM(fields * size, hidden, bidirectional=True, seed=seed + 2),
        cylstm.Dropout(0.4, seed=seed + 3),
        cylstm.Linear(2 * hidden, len(classes), seed=seed + 4),
    )

    def score(outputs: Outputs) -> dict[str, float]:
        right = total = 0
        for batch in test_source.epoch():
            said = outputs(batch, None)[0].argmax(axis=2)
            real = np.arange(len(said))[:, None] < batch.lengths
            right, total = right + int((said == batch.target)[real].sum()), total + int(real.sum())
        return {"accuracy": right / total}

    return Recipe(
        model, losses.CrossEntropy(), Arrays(x[:n], y[:n], 32, target_per="step"), score, 6,
        Arrays(x[n:], y[n:], 64, target_per="step"), lr=3e-3,
    )  # fmt: skip


TASKS = {
    "shakespeare": Task(
        "tinyshakespeare", shakespeare,
        {"nats": Figure("Tiny Shakespeare, nats a character", 1.50, "trigram 2.066, GPT of 10.7 M 1.470")},
    ),
    "tagging": Task(
        "ud_ewt", tagging,
        {
            "accuracy": Figure(
                "English parts of speech, accuracy", 0.93, "most frequent tag .869, UDPipe 1.2 .944", True
            )
        },
    ),
}  # fmt: skip
