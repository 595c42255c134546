"""A training that is killed, and one whose disk is full."""

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training_problems import tagged, tagger

import cylstm
from cylstm import losses, optim
from cylstm.layers.base import describe
from cylstm.training import CheckpointError, Checkpoints, checkpoints

pytestmark = pytest.mark.process

KILLS = 50
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from training_problems import tagged, tagger
import cylstm
from cylstm import losses, optim

model = tagger()
schedule = optim.CosineDecay(warmup=10)
options = {"schedule": schedule, "clip_norm": 1.0, "seed": 1}
trainer = cylstm.Trainer(model, losses.CrossEntropy(), optim.Adam(0.01), **options)
saved = None if sys.argv[2] == "none" else cylstm.Checkpoints(sys.argv[2], steps=3)
print("begins", flush=True)
fit = {"epochs": 600, "batch_size": 6, "checkpoints": saved, "resume": saved is not None, "progress": False}
trainer.fit(tagged(), tagged(12, seed=7), callbacks=[lambda *_: print("epoch", flush=True)], **fit)
cylstm.save(model, sys.argv[3])
"""


def start(folder, *arguments):
    """The training in a process of its own, when it begins."""
    helpers = Path(__file__).parents[1] / "helpers"
    command = [sys.executable, "-c", SCRIPT, *map(str, [helpers, *arguments])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder)
    assert process.stdout.readline() == b"begins\n"
    return process


def finished(process):
    process.communicate(timeout=300)
    return process.returncode == 0


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_on_the_same_bits(tmp_path):
    assert finished(start(tmp_path, "none", "whole.safetensors"))
    moments = random.Random(0)
    for _ in range(KILLS):
        process = start(tmp_path, "run.ckpt", "resumed.safetensors")
        with process:
            for _ in range(moments.randrange(10)):  # epochs, 246 in all
                process.stdout.readline()
            time.sleep(moments.uniform(0, 0.01))
            alive = process.poll() is None
            process.kill()
        assert alive, "finished before it was killed often enough"
    assert (tmp_path / "run.ckpt").exists()
    assert finished(start(tmp_path, "run.ckpt", "resumed.safetensors"))
    whole, resumed = (cylstm.load(tmp_path / f"{name}.safetensors") for name in ("whole", "resumed"))
    np.testing.assert_array_equal(describe(resumed).store.data, describe(whole).store.data)


@pytest.fixture(params=["tmpfs", "late error"])
def small_disk(request, tmp_path, monkeypatch):
    """A folder, and what fills its disk up; or what makes writing fail when all seemed to be written."""
    if request.param == "late error":
        yield tmp_path, lambda: monkeypatch.setattr(os, "fsync", no_space)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield tmp_path, lambda: fill(tmp_path / "rest")
    subprocess.run(["umount", str(tmp_path)], check=True)


def no_space(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def test_a_full_disk_costs_no_earlier_checkpoint(small_disk):
    folder, fill_up = small_disk
    model = tagger()
    trainer = cylstm.Trainer(model, losses.CrossEntropy(), optim.Adam(0.01), seed=1)
    kept = []

    def after_epoch(trainer, record):
        if record["epoch"] == 2:
            kept.append((folder / "run.ckpt").read_bytes())
            fill_up()

    with pytest.warns(RuntimeWarning, match="could not be written .*an earlier one is unchanged"):
        history = trainer.fit(
            tagged(), epochs=4, checkpoints=Checkpoints(folder / "run.ckpt", steps=1), progress=False,
            callbacks=[after_epoch],
        )  # fmt: skip
    assert len(history.epochs) == 4
    assert (folder / "run.ckpt").read_bytes() == kept[0]
    checkpoints.read(folder / "run.ckpt")
    assert {path.name for path in folder.iterdir()} <= {"run.ckpt", "rest"}


def test_unwritable_path_is_rejected_before_training(tmp_path):
    model = tagger()
    start = describe(model).store.data.copy()
    for place in (tmp_path / "missing" / "run.ckpt", tmp_path):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - what it says of the place is below
            cylstm.Trainer(model, losses.CrossEntropy()).fit(
                tagged(), checkpoints=Checkpoints(place), progress=False
            )
        assert caught.value.filename == str(place)
    np.testing.assert_array_equal(describe(model).store.data, start)


def test_a_pipe_is_no_checkpoint(pipe):
    with pytest.raises(OSError, match="not a regular file"):
        checkpoints.read(pipe)


@pytest.mark.slow
def test_a_damaged_checkpoint_or_another_trainings_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"

    def fit(model=None, **fit):
        trainer = cylstm.Trainer(model or tagger(), losses.CrossEntropy(), optim.Adam(0.01), seed=1)
        saved = {"checkpoints": str(path), "resume": True, "progress": False}
        return trainer.fit(tagged(), **saved | {"epochs": 1} | fit)

    fit()
    good = path.read_bytes()
    other = tagger()
    start = describe(other).store.data.copy()
    moments = random.Random(0)
    for damage in range(60):
        content = bytearray(good)
        if damage % 3 == 0:
            del content[moments.randrange(len(content)) :]
        else:
            content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable checkpoint"):
            fit(other)
        np.testing.assert_array_equal(describe(other).store.data, start)
    path.write_bytes(good)
    with pytest.raises(CheckpointError, match="not of this training: minibatches: expected 50, got 2"):
        fit(batch_size=1)
    with pytest.raises(CheckpointError, match="not of this training: model: expected"):
        fit(tagger(learn_state=True))
    path.write_bytes(b"")
    with pytest.raises(CheckpointError):
        fit()
