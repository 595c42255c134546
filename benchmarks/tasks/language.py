"""Language: characters of plays, parts of speech."""

import sys
from pathlib import Path

import numpy as np
from recipe import Figure, Outputs, Recipe, Task, mean_loss

import cylstm
from cylstm import losses
from cylstm.data import Arrays, TokenStream, Vocabulary

sys.path.append(str(Path(__file__).parents[2] / "examples"))
import tagging as example

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
        TokenStream(ids[:n], 32, 100),
        score,
        6,
        held_out,
        lr=4e-3,
        weight_decay=0.01,
        warmup=100,
    )


def tagging(folder: Path, seed: int) -> Recipe:
    """Parts of speech, from words and characters, by the model of examples/tagging.py."""
    words, tags = example.read_conllu(folder / "en_ewt-ud-train.conllu.xz")
    test, truth = example.read_conllu(folder / "en_ewt-ud-dev.conllu.xz")
    spelling, classes = example.Spellings(words), sorted({tag for sentence in tags for tag in sentence})

    def source(words: list[list[str]], tags: list[list[str]], batch_size: int) -> Arrays:
        x = [spelling.encoded(sentence) for sentence in words]
        y = [np.array([classes.index(tag) for tag in sentence]) for sentence in tags]
        return Arrays(x, y, batch_size, target_per="step")

    n = len(words) * 19 // 20  # the rest chooses the weights
    test_source = source(test, truth, 64)
    model = example.tagger(len(spelling), len(classes), seed)

    def score(outputs: Outputs) -> dict[str, float]:
        right = total = 0
        for batch in test_source.epoch():
            said = outputs(batch, None)[0].argmax(axis=2)
            real = np.arange(len(said))[:, None] < batch.lengths
            right, total = right + int((said == batch.target)[real].sum()), total + int(real.sum())
        return {"accuracy": right / total}

    return Recipe(
        model, losses.CrossEntropy(), source(words[:n], tags[:n], 32), score, 6,
        source(words[n:], tags[n:], 64),
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
