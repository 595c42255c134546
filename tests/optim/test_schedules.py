import math
import warnings

import numpy as np
import pytest

import cylstm
from cylstm import optim

N = 30
# For each: ours, and PyTorch's that does the same.
SCHEDULES = {
    "StepDecay": (lambda: optim.StepDecay(4, 0.5), lambda s, o: s.StepLR(o, 4, 0.5)),
    "ExponentialDecay": (lambda: optim.ExponentialDecay(0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
    "CosineDecay": (
        lambda: optim.CosineDecay(floor=0.1, total=N),
        lambda s, o: s.CosineAnnealingLR(o, N, eta_min=0.1),
    ),
    "CosineDecay warmup": (
        lambda: optim.CosineDecay(warmup=4),
        lambda s, o: s.SequentialLR(
            o, [s.LinearLR(o, 1 / 5, 1, 4), s.CosineAnnealingLR(o, N - 4)], milestones=[4]
        ),
    ),
    "OneCycle": (
        lambda: optim.OneCycle(),
        lambda s, o: s.OneCycleLR(o, 1.0, total_steps=N),
    ),
    "OneCycle others": (
        lambda: optim.OneCycle(0.5, 0.2, 0.01, total=N),
        lambda s, o: s.OneCycleLR(o, 1.0, total_steps=N, pct_start=0.5, div_factor=5, final_div_factor=100),
    ),
    "ReduceOnPlateau": (
        lambda: optim.ReduceOnPlateau(0.5, 2, 0.1),
        lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=2, threshold=0.1, eps=0),
    ),
}


def test_every_schedule_has_a_case():
    ours = {
        name
        for name in optim.__all__
        if isinstance(kind := getattr(optim, name), type) and issubclass(kind, optim.Schedule)
    }
    assert {name.split()[0] for name in SCHEDULES} == ours - {"Schedule"}


@pytest.mark.parametrize("name", SCHEDULES)
def test_agrees_with_torch(rng, torch, name):
    schedule, optimizer = SCHEDULES[name][0](), torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule.begin(N)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about the order of calls, as no gradient is there
        theirs = SCHEDULES[name][1](torch.optim.lr_scheduler, optimizer)
        ours, expected, plateau = [], [], name == "ReduceOnPlateau"
        for n in range(N):
            ours.append(schedule.factor(n))
            expected.append(optimizer.param_groups[0]["lr"])
            loss = float(rng.choice([0.5, 0.6, 1.0]) * 0.98**n)
            schedule.observe(loss)
            optimizer.step()
            theirs.step(*([loss] if plateau else []))
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
    assert len(set(ours)) > 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_restored_one_goes_on_alike(rng, name):
    first, second = SCHEDULES[name][0](), SCHEDULES[name][0]()
    for schedule in (first, second):
        schedule.begin(N)
    losses = rng.uniform(0.5, 1, N)
    for n in range(N):
        first.observe(losses[n])
        if n == N // 2:
            second.load_state_dict(first.state_dict())
        elif n > N // 2:
            second.observe(losses[n])
            assert second.factor(n) == first.factor(n)


def test_a_training_longer_than_planned_ends_at_the_last_factor():
    schedule = optim.CosineDecay(floor=0.25, total=5)
    assert schedule.factor(100) == 0.25
    assert math.isclose(optim.OneCycle(total=5).factor(100), 1 / 25 * 1e-4)
    assert optim.OneCycle(total=1).factor(0) > 0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: optim.StepDecay(0), "every: expected a positive int, got 0"),
        (lambda: optim.StepDecay(1, per="batch"), "per: expected 'epoch' or 'step', got 'batch'"),
        (lambda: optim.ReduceOnPlateau(patience=-1), "patience: expected an int, 0 or more"),
        (lambda: optim.OneCycle(rise=2), r"rise: expected a number in \[0, 1\)"),
        (lambda: cylstm.optim.SGD(0.1, nesterov=True), "nesterov: expected False without momentum"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
