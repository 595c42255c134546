"""Runs of the command, for its tests."""

import os
import signal
import subprocess
import sys

from cylstm import cli
from cylstm.training.loop import Loop


def train(table, *options):
    return cli.main(["train", str(table), "--horizon", "3", "--epochs", "1", "--hidden", "8", *options])


def command(*arguments, **options):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([sys.executable, "-m", "cylstm", *map(str, arguments)], **{**pipes, **options})


def press_ctrl_c(monkeypatch, after_epochs):
    """Have Ctrl-C pressed in the first minibatch after so many epochs of a training in this process."""
    learn = Loop._train_on

    def pressed(loop, batch):
        if loop.run.epoch == after_epochs and loop.run.batch == 0:
            signal.raise_signal(signal.SIGINT)
        learn(loop, batch)

    monkeypatch.setattr(Loop, "_train_on", pressed)


def default_sigint():
    """For `command`: Ctrl-C as at a terminal.

    A job in the background of a shell would ignore it, and so would its children.
    """
    return {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
