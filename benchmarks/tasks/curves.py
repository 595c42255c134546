"""The loss of every minibatch of the same training here and in PyTorch, and the CPU's time since the first.

    python benchmarks/tasks/curves.py --data DIR > curves.jsonl       # about two minutes

One epoch of a language model of characters (Tiny Shakespeare, DIR/tinyshakespeare) without dropout: same
first weights, same minibatches, same optimiser, so that only the libraries differ. docs/pictures.py draws it.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from recipe import Recipe
from twins import Clock, clip, optimizers_of, torch_loss, twin

import cylstm
from cylstm import losses, optim
from cylstm.data import TokenStream, Vocabulary

sys.path.append(str(Path(__file__).parents[1]))
from run import machine

HIDDEN = 256


def recipe(folder: Path) -> Recipe:
    """The next character."""
    text = (folder / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    vocabulary = Vocabulary.of_characters(text)
    V = len(vocabulary)
    model = cylstm.Sequential(
        cylstm.Embedding(V, 64, seed=0), cylstm.LSTM(64, HIDDEN, seed=1), cylstm.Linear(HIDDEN, V, seed=2)
    )
    source = TokenStream(vocabulary.encode(text), 32, 100)
    return Recipe(model, losses.CrossEntropy(), source, lambda outputs: {}, 1)


def with_cylstm(recipe: Recipe) -> Iterator[float]:
    """The loss of each minibatch, before its update."""
    model, adam, state = recipe.model.train(), optim.AdamW(recipe.lr, weight_decay=recipe.weight_decay), None
    for batch in recipe.train.epoch():
        y, state = model(batch.x, state)
        value, dy = recipe.loss(y, batch.target)
        model.zero_grad()
        model.backward(dy, need_dx=False)
        optim.clip_grad_norm(model, recipe.clip_norm)
        adam.step(model)
        yield value


def with_torch(recipe: Recipe) -> Iterator[float]:
    """The same."""
    import torch

    model, loss_of, state = twin(recipe.model), torch_loss(recipe.loss), None
    optimizers = optimizers_of(model, recipe)
    for batch in recipe.train.epoch():
        y, state = model(torch.from_numpy(batch.x), state, None)
        loss, _ = loss_of(y, batch)
        model.zero_grad()
        loss.backward()
        clip(list(model.parameters()), recipe.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        yield loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print(json.dumps(machine(1, 0.0) | {"versions": [f"torch {torch.__version__}"], "hidden": HIDDEN}))
    with cylstm.num_threads(1):
        for name, training in (("cylstm", with_cylstm), ("torch", with_torch)):
            loss, seconds, clock = [], [], Clock()
            for value in training(recipe(options.data)):
                if not loss:
                    clock = Clock()  # the first minibatch loads and plans what the others use
                loss.append(round(float(value), 6))
                seconds.append(round(clock.read()["cpu_seconds"], 4))
            print(json.dumps({"library": name, "loss": loss, "cpu_seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
