"""Language models of text files: train --text, sample."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from cylstm.cli._common import check_outputs
from cylstm.text import CharacterModel


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """The commands of text, with what all commands have in common."""
    sample = commands.add_parser(
        "sample", parents=[common], help="write text with a model of `cylstm train --text`",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write text that goes on from a prompt, with a model of `cylstm train --text`.",
        epilog='example:\n  cylstm sample plays.safetensors --prompt "ROMEO:" --characters 300',
    )  # fmt: skip
    sample.add_argument("model", help="file that `cylstm train --text` wrote")
    sample.add_argument(
        "--prompt", default="\n", metavar="TEXT", help="what it goes on from (default: a new line)"
    )
    sample.add_argument("--characters", type=int, default=500, metavar="N", help="to write (default: 500)")
    sample.add_argument(
        "--temperature", type=float, default=0.8, metavar="X",
        help="above 0; less of it keeps to what is likely (default: 0.8)",
    )  # fmt: skip
    sample.add_argument(
        "--seed", type=int, metavar="N", help="of the choices (default: other ones each time)"
    )
    sample.set_defaults(run=_sample)


def add_train_options(train: argparse.ArgumentParser) -> None:
    """What `cylstm train` takes for a text."""
    group = train.add_argument_group("language models of characters")
    group.add_argument("--text", metavar="FILE", help="text in UTF-8 to learn from, instead of a CSV file")
    group.add_argument("--epochs", type=int, metavar="N", help="times through it (default: 20)")
    group.add_argument("--layers", type=int, default=1, metavar="N", help="of the LSTM (default: 1)")
    group.add_argument("--dropout", type=float, default=0.2, metavar="SHARE", help="default: 0.2")
    group.add_argument("--batch", type=int, default=64, metavar="N", help="places read at once (default: 64)")
    group.add_argument(
        "--length", type=int, default=100, metavar="N", help="steps of an update (default: 100)"
    )
    group.add_argument("--rate", type=float, default=3e-3, metavar="X", help="learning rate (default: 0.003)")
    group.add_argument(
        "--patience", type=int, metavar="N", help="epochs without progress until it ends early"
    )
    group.add_argument("--checkpoint", metavar="FILE", help="to go on from; written every 10 minutes")
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")


def train(options: argparse.Namespace) -> None:
    """Train on a text file, and say what came of it."""
    check_outputs([options.output, options.plot], [options.text])
    text = Path(options.text).read_text(encoding="utf-8")
    model = CharacterModel(
        256 if options.hidden is None else options.hidden,
        options.layers,
        dropout=options.dropout,
        seed=options.seed,
    )
    start = time.perf_counter()
    history = model.fit(
        text, options.epochs or 20, batch_size=options.batch, length=options.length, lr=options.rate,
        patience=options.patience, checkpoints=options.checkpoint, resume=options.resume,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    model.save(options.output)
    if options.plot:
        history.plot(options.plot)
    best = min((record["validation"] for record in history.epochs), default=float("nan"))
    if options.json:
        facts = {"nats": best, "epochs": len(history.epochs), "stopped": history.stopped, "seconds": seconds}
        print(json.dumps({**facts, "model": options.output}))
        return
    ended = {"": "", "early": ", ended early", "interrupted": ", interrupted"}[history.stopped]
    print(f"{len(history.epochs)} epochs in {seconds:.1f} s{ended}")
    print(f"on the last 10 % of the text: {best:.3f} nats a character (epoch {history.best_epoch})")
    print(f"Saved {options.output}")


def _sample(options: argparse.Namespace) -> None:
    model = CharacterModel.load(options.model)
    fixed = {"temperature": options.temperature, "seed": options.seed}
    if options.json:
        print(json.dumps({"text": model.sample(options.prompt, options.characters, **fixed)}))
        return
    sys.stdout.write(options.prompt)
    for character in model.continued(options.prompt, options.characters, **fixed):
        sys.stdout.write(character)
        sys.stdout.flush()
    print()
