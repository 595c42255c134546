"""A recipe trained by cylstm's Trainer, and the same in PyTorch, as people write it."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from recipe import Outputs, Recipe

import cylstm
from cylstm.data import Minibatch
from cylstm.training import gradients

SPARSE = 1000  # rows of an embedding, above which most are not read in a minibatch


class Clock:
    """Time since it was made: on the wall, and of the CPU, which other processes lengthen little."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds of both."""
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def with_cylstm(recipe: Recipe, seed: int) -> tuple[Outputs, dict[str, Any]]:
    """Outputs of the trained model, and how the training went."""
    kind = cylstm.optim.AdamW if recipe.decoupled else cylstm.optim.Adam
    trainer = cylstm.Trainer(
        recipe.model, recipe.loss, kind(recipe.lr, weight_decay=recipe.weight_decay),
        schedule=cylstm.optim.CosineDecay(warmup=recipe.warmup), clip_norm=recipe.clip_norm, seed=seed,
    )  # fmt: skip
    clock = Clock()
    history = trainer.fit(
        recipe.train, recipe.validation, recipe.epochs, patience=recipe.patience, progress=False
    )
    facts = {**clock.read(), "epochs": len(history.epochs)}
    return lambda batch, state: gradients.outputs(recipe.model, batch, state), facts


def with_torch(recipe: Recipe, seed: int) -> tuple[Outputs, dict[str, Any]]:
    """The same in PyTorch: weights, minibatches and schedule are cylstm's, dropout has its own masks."""
    import torch

    torch.manual_seed(seed)
    model = twin(recipe.model)
    optimizers = optimizers_of(model, recipe)
    schedule = cylstm.optim.CosineDecay(warmup=recipe.warmup)
    schedule.begin(recipe.epochs * len(recipe.train))
    rng, loss_of = np.random.default_rng(seed), torch_loss(recipe.loss)
    best, best_loss, waited, update = None, np.inf, 0, 0
    clock = Clock()
    for _ in range(recipe.epochs):
        model.train()
        state = None
        for batch in recipe.train.epoch(rng):
            y, state = model(torch.from_numpy(batch.x), state if batch.continues else None, batch.lengths)
            loss, _ = loss_of(y, batch)
            model.zero_grad()
            loss.backward()
            clip(list(model.parameters()), recipe.clip_norm)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = recipe.lr * schedule.factor(update)
                optimizer.step()
            update += 1
        if recipe.validation is None:
            continue
        value, waited = validation_loss(model, recipe, loss_of), waited + 1
        if value < best_loss:
            best, best_loss, waited = {k: v.clone() for k, v in model.state_dict().items()}, value, 0
        if recipe.patience is not None and waited >= recipe.patience:
            break
    if best is not None:
        model.load_state_dict(best)
    facts = {**clock.read(), "epochs": update // len(recipe.train)}
    model.eval()

    def outputs(batch: Minibatch, state: Any) -> tuple[np.ndarray, Any]:
        with torch.no_grad():
            y, state = model(torch.from_numpy(batch.x), state, batch.lengths)
        return y.numpy(), state

    return outputs, facts


def optimizers_of(model: Any, recipe: Recipe) -> list[Any]:
    """One for the dense parameters, and for large embeddings the one that touches the rows read only."""
    import torch

    sparse = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding) and m.sparse]
    dense = [p for p in model.parameters() if not any(p is other for other in sparse)]
    kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
    own = [torch.optim.SparseAdam(sparse, recipe.lr)] if sparse else []
    return [kind(dense, recipe.lr, weight_decay=recipe.weight_decay), *own]


def clip(parameters: list[Any], largest: float) -> None:
    """The global norm; `torch.nn.utils.clip_grad_norm_` takes no sparse gradients."""
    import torch

    gradients = []
    for parameter in parameters:
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad._values())
        else:
            gradients.append(parameter.grad)
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    if norm > largest:
        for gradient in gradients:
            gradient.mul_(largest / norm)


def validation_loss(model: Any, recipe: Recipe, loss_of: Any) -> float:
    """The mean over what counts."""
    import torch

    model.eval()
    state, total, counted = None, 0.0, 0
    with torch.no_grad():
        for batch in recipe.validation.epoch():
            y, state = model(torch.from_numpy(batch.x), state if batch.continues else None, batch.lengths)
            value, n = loss_of(y, batch)
            total, counted = total + value.item() * n, counted + n
    return total / counted


def torch_loss(loss: cylstm.losses.Loss) -> Callable[[Any, Minibatch], tuple[Any, int]]:
    """Value of the steps that count, and how many they are."""
    import torch

    functional = torch.nn.functional

    def of(y: Any, batch: Minibatch) -> tuple[Any, int]:
        target = torch.from_numpy(np.asarray(batch.target))
        if batch.lengths is not None and y.ndim == 3:
            real = torch.arange(len(y))[:, None] < torch.from_numpy(batch.lengths)
            y, target = y[real], target[real]
        if isinstance(loss, cylstm.losses.CrossEntropy):
            y, target = y.reshape(-1, y.shape[-1]), target.reshape(-1)
            value = functional.cross_entropy(y, target.long(), label_smoothing=loss.label_smoothing)
            return value, len(target)
        if isinstance(loss, cylstm.losses.BinaryCrossEntropy):
            return functional.binary_cross_entropy_with_logits(y, target.to(y.dtype)), target.numel()
        return functional.mse_loss(y, target.to(y.dtype)), target.numel()

    return of


def twin(model: cylstm.Sequential) -> Any:
    """A torch module of the same layers, with copies of their weights."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    def made(layer: Any) -> Any:
        if isinstance(layer, cylstm.Embedding):
            sparse = layer.num_embeddings > SPARSE
            return torch.nn.Embedding(layer.num_embeddings, layer.embedding_dim, sparse=sparse)
        if isinstance(layer, cylstm.Linear):
            return torch.nn.Linear(layer.input_size, layer.output_size)
        if isinstance(layer, cylstm.Dropout):
            return torch.nn.Dropout(layer.p)
        if isinstance(layer, cylstm.LSTM | cylstm.GRU):
            return getattr(torch.nn, type(layer).__name__)(
                layer.input_size, layer.hidden_size, layer.num_layers, dropout=layer.dropout,
                bidirectional=layer.num_directions == 2,
            )  # fmt: skip
        if isinstance(layer, cylstm.Pooling):
            return torch.nn.Identity()  # it has no weights
        raise TypeError(f"no twin of {layer!r}")

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(map(made, model.layers))
            for ours, theirs in zip(model.layers, self.layers, strict=True):
                theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in ours.state_dict().items()})

        def forward(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
            after = None
            T = len(x)
            n = None if lengths is None else torch.from_numpy(lengths)
            for ours, layer in zip(model.layers, self.layers, strict=True):
                if isinstance(ours, cylstm.Embedding):
                    x = layer(x)
                    x = x.flatten(-2) if ours.input_size > 1 else x
                elif isinstance(layer, torch.nn.RNNBase):
                    if n is None:
                        x, after = layer(x, state)
                    else:
                        packed = pack_padded_sequence(x, n, enforce_sorted=False)
                        x, _ = pad_packed_sequence(layer(packed)[0], total_length=T)
                elif isinstance(ours, cylstm.Pooling):
                    x = pooled(x, n, ours.how)
                else:
                    x = layer(x)
            return x, after if after is None else detached(after)

    def pooled(x: Any, n: Any, how: str) -> Any:
        if how == "last" and n is None:
            return x[-1]
        if how == "max" and n is not None:
            real = torch.arange(len(x))[:, None] < n
            return x.masked_fill(~real[..., None], -torch.inf).max(0).values
        raise ValueError(f"no twin of Pooling({how!r}) {'with' if n is not None else 'without'} lengths")

    def detached(state: Any) -> Any:
        return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()

    return Twin()
