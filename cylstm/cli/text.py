"""Language models of text files: train --text, evaluate, sample."""

import argparse
import math
import time
from typing import Any

from cylstm import _checks
from cylstm.cli._common import (
    best_epoch_of,
    check_training,
    facts_of,
    how_it_ended,
    print_json,
    saved_on_failure,
)
from cylstm.cli._screen import flush, show, show_data, warn
from cylstm.cli.kinds import OF, TEXT, kind_of
from cylstm.data.text_files import read_text
from cylstm.text import CharacterModel


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command `sample`, with the common options."""
    sample = commands.add_parser(
        "sample", parents=[common], help="generate text with a model of `cylstm train --text`",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Generate text that follows a prompt, with a model of `cylstm train --text`.",
        epilog='examples:\n  cylstm sample plays.safetensors --prompt "ROMEO:" --characters 300\n'
        "  cylstm sample plays.safetensors --temperature 0.5 --seed 1",
    )  # fmt: skip
    sample.add_argument("model", help="file that `cylstm train --text` wrote")
    sample.add_argument(
        "--prompt", default="\n", metavar="TEXT", help="start of the text (default: a new line)"
    )
    sample.add_argument("--characters", type=int, default=500, metavar="N", help="to generate (default: 500)")
    sample.add_argument(
        "--temperature", type=float, default=0.8, metavar="X",
        help="above 0; lower values favour probable characters (default: 0.8)",
    )  # fmt: skip
    sample.add_argument(
        "--seed", type=int, metavar="N", help="of the random choices (default: a new one each time)"
    )
    sample.set_defaults(run=_sample)


def train(options: argparse.Namespace) -> None:
    """Train on a text file, and report the result."""
    check_training(options, [options.text])
    model = CharacterModel(options.hidden, options.layers, dropout=options.dropout, seed=options.seed)
    start = time.perf_counter()
    with saved_on_failure(options.output, model.save, best_epoch_of):
        history = model.fit(
            read_text(options.text), options.epochs, validation=options.validation,
            batch_size=options.batch, length=options.length, lr=options.rate, patience=options.patience,
            checkpoints=options.checkpoint, resume=options.resume,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    ended = how_it_ended(history, seconds)
    model.save(options.output)
    if options.plot:
        history.plot(options.plot)
    nats = history.epochs[history.best_epoch - 1]["validation"] if history.best_epoch else None
    if options.json:
        print_json({"nats": nats, **facts_of(history, seconds), "model": options.output})
        return
    show(f"LSTM of {options.hidden} units, {len(model.vocabulary) - 2} characters, {ended}")
    if nats is not None:
        measured = f"{nats:.3f} nats per character ({nats / math.log(2):.3f} bits)"
        show(f"on the last {options.validation:.0%} of the text: {measured} (epoch {history.best_epoch})")
    show(f"Saved {options.output}")


def evaluate(model: CharacterModel, options: argparse.Namespace) -> None:
    """Measure how well a text is predicted."""
    if len(options.files) != 1:
        raise ValueError(f"evaluate: expected one text, got {len(options.files)} files")
    measured = model.evaluate(read_text(options.files[0]))
    if options.json:
        print_json({"kind": "text", **measured})
        return
    show(
        f"{measured['characters']} characters: "
        f"{measured['nats']:.3f} nats per character ({measured['bits']:.3f} bits)"
    )
    if measured["unknown"]:
        show(f"{measured['unknown']} of them do not occur in the training text")


def _sample(options: argparse.Namespace) -> None:
    _checks.natural("--characters", options.characters)
    _checks.above("--temperature", options.temperature, 0)
    if options.seed is not None:
        _checks.natural("--seed", options.seed)
    if not options.prompt:
        raise ValueError("--prompt: expected at least one character, got none")
    kind, model = kind_of(options.model)
    if kind != TEXT:
        raise ValueError(f"{options.model}: not a model of text, but of {OF[kind]}; use `cylstm predict`")
    unknown = sorted(set(options.prompt).difference(model.vocabulary.symbols))
    if unknown:
        warn(f"--prompt: {', '.join(map(repr, unknown))} not in the training text")
    fixed = {"temperature": options.temperature, "seed": options.seed}
    if options.json:
        print_json({"text": model.sample(options.prompt, options.characters, **fixed)})
        return
    show_data(options.prompt)
    for character in model.continued(options.prompt, options.characters, **fixed):
        show_data(character)
        flush()
    show()
