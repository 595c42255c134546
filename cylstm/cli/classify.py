"""Classification of sequences: train --classify, predict, evaluate."""

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cylstm.classification.classifier import Classifier
from cylstm.cli._common import (
    best_epoch_of,
    check_outputs,
    check_training,
    facts_of,
    how_it_ended,
    names,
    print_json,
    saved_on_failure,
    write_table,
)
from cylstm.cli._screen import printable, show
from cylstm.data import stratified_split
from cylstm.data.sequence_files import SequenceSet, is_ts, read_sequences

WIDEST = 12  # characters of a class name in a table


def train(options: argparse.Namespace) -> None:
    """Train on sequences, and report the result."""
    check_training(options, [*options.classify, *filter(None, [options.labels])])
    read, labels = _read_labelled(options, options.classify, names(options.columns), "to learn")
    training, held_out = (read.values, labels), None
    if options.validation:
        try:
            parts = stratified_split(labels, options.validation, options.seed)
        except ValueError as error:
            raise ValueError(f"{error}; or pass --validation 0, which uses all for training") from None
        training, held_out = (_chosen(read.values, labels, part) for part in parts)
    model = Classifier(options.hidden, options.layers, options.dropout, options.seed)
    model.columns = read.columns
    start = time.perf_counter()
    with saved_on_failure(options.output, model.save, best_epoch_of):
        history = model.fit(
            training, held_out, options.epochs, batch_size=options.batch, lr=options.rate,
            patience=options.patience, checkpoints=options.checkpoint, resume=options.resume,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    ended = how_it_ended(history, seconds)
    model.save(options.output)
    if options.plot:
        history.plot(options.plot)
    measured = None if held_out is None else _measured(model, *held_out)
    if options.json:
        print_json({
            "classes": model.classes, "sequences": len(training[0]), "validation": measured,
            **facts_of(history, seconds), "model": options.output,
        })  # fmt: skip
        return
    channels = "1 channel" if read.values[0].shape[1] == 1 else f"{read.values[0].shape[1]} channels"
    show(f"LSTM of {options.hidden} units in both directions, {len(model.classes)} classes, {channels}")
    show(f"trained on {len(training[0])} sequences, {ended}")
    if measured:
        show(f"epoch {history.best_epoch} was best on {_sentence(measured)}")
        show("These selected the epoch; use `cylstm evaluate` for an independent measurement.")
    show(f"Saved {options.output}")


def predict(model: Classifier, options: argparse.Namespace) -> None:
    """Predict the most probable class of each sequence, and its probability."""
    check_outputs([options.output], [*options.files, options.model])
    read = _read(options, options.files, None, model.columns)
    probabilities = model.probabilities(read.values)
    best = probabilities.argmax(axis=1)
    rows = [
        (name, model.classes[k], round(float(p[k]), 6))
        for name, k, p in zip(read.names, best, probabilities, strict=True)
    ]
    header = ("sequence", "label", "probability")
    as_json = {"predictions": [dict(zip(header, row, strict=True)) for row in rows]}
    write_table(options, [header, *rows], as_json)


def evaluate(model: Classifier, options: argparse.Namespace) -> None:
    """Report the accuracy, compared with the most common class, and the confusion matrix."""
    read, labels = _read_labelled(options, options.files, model.columns, "to compare with")
    measured = _measured(model, read.values, labels)
    if options.json:
        print_json({"kind": "classifier", **measured})
        return
    show(_sentence(measured))
    _print_confusion(model.classes, np.array(measured["confusion"]))


def _read(
    options: argparse.Namespace, paths: Sequence[str], labels: str | None, columns: Sequence[str] | None
) -> SequenceSet:
    for path in filter(None, [*paths, labels]):
        os.stat(path)  # a missing file is an OSError that names it
    unread = [flag for flag in ("--columns", "--no-header", "--delimiter") if flag in options.given]
    if unread and any(map(is_ts, paths)):
        raise ValueError(f"{unread[0]}: only for CSV files; leave it out for .ts files")
    return read_sequences(
        paths, labels, columns or None,
        header=not options.no_header, delimiter=options.delimiter, missing=options.missing,
    )  # fmt: skip


def _read_labelled(
    options: argparse.Namespace, paths: Sequence[str], columns: Sequence[str] | None, purpose: str
) -> tuple[SequenceSet, list[str]]:
    """Read sequences with labels."""
    if options.labels is None and os.path.exists(paths[0]) and not any(map(is_ts, paths)):
        raise ValueError(f"{paths[0]}: expected labels {purpose}; pass --labels FILE for CSV files")
    read = _read(options, paths, options.labels, columns)
    if read.labels is None:
        raise ValueError(f"{paths[0]}: expected labels {purpose}, got @classLabel false")
    return read, read.labels


def _chosen(values: list[Any], labels: list[str], index: NDArray[np.intp]) -> tuple[list[Any], list[str]]:
    return [values[i] for i in index], [labels[i] for i in index]


def _measured(model: Classifier, values: list[Any], labels: list[str]) -> dict[str, Any]:
    counts = model.confusion(values, labels)
    return {
        "sequences": len(labels),
        "accuracy": float(counts.trace() / counts.sum()),
        "majority": float(counts.sum(axis=1).max() / counts.sum()),
        "classes": model.classes,
        "confusion": counts.tolist(),
    }


def _sentence(measured: dict[str, Any]) -> str:
    counts = np.array(measured["confusion"])
    most_common = measured["classes"][int(counts.sum(axis=1).argmax())]
    return (
        f"{measured['sequences']} sequences: accuracy {measured['accuracy']:.3f} "
        f"(always {most_common!r}: {measured['majority']:.3f})"
    )


def _print_confusion(classes: list[str], counts: NDArray[np.intp]) -> None:
    """Print the confusion matrix: a row for each class, a column for each predicted class."""
    names = map(printable, classes)
    short = [name if len(name) <= WIDEST else name[: WIDEST - 1] + "…" for name in names]
    width = max(len(str(counts.max())), *map(len, short)) + 2
    first = max(len("class"), *map(len, short))
    show(f"  {'class':<{first}}" + "".join(f"{name:>{width}}" for name in short) + "   recall")
    for k, (name, row) in enumerate(zip(short, counts, strict=True)):
        recall = f"{row[k] / row.sum():9.3f}" if row.sum() else "        -"
        show(f"  {name:<{first}}" + "".join(f"{n or '.':>{width}}" for n in row) + recall)
    show("Rows are classes, columns predicted classes.")
