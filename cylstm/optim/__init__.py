"""Optimisers, gradient clipping, and learning-rate schedules."""

from cylstm.optim.clipping import clip_grad_norm, clip_grad_value
from cylstm.optim.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from cylstm.optim.schedules import (
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "ExponentialDecay",
    "OneCycle",
    "Optimizer",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "clip_grad_norm",
    "clip_grad_value",
]
