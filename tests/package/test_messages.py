"""Error messages stay short, whatever the value was, and say what to do."""

import numpy as np
import pytest

import cylstm
from cylstm import _checks, data, losses, optim

LAYER = cylstm.LSTM(8, 64, seed=0)
HUGE = [
    LAYER.parameters,
    list(LAYER.parameters.values()),
    LAYER.parameters["weight_ih_l0"],
    np.zeros((40, 50)).tolist(),
    "x" * 10**6,
    LAYER,
    [LAYER],
    range(10**9),
    set(range(10**5)),
]


@pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "call",
    [
        optim.Adam,
        optim.AdamW,
        optim.SGD,
        optim.RMSprop,
        lambda value: optim.Adam(betas=(value, 0.9)),
        lambda value: optim.SGD(0.1, momentum=value),
        lambda value: optim.SGD(0.1, weight_decay=value),
        lambda value: optim.Adam(groups={"*": {"lr_scale": value}}),
        optim.CosineDecay,
        optim.OneCycle,
        optim.StepDecay,
        optim.ExponentialDecay,
        optim.ReduceOnPlateau,
        losses.MSE,
        losses.Huber,
        lambda value: optim.clip_grad_norm(value, 1.0),
        lambda value: optim.clip_grad_value(value, 1.0),
        lambda value: optim.clip_grad_norm(LAYER, value),
        lambda value: optim.SGD(0.1).step(value),
        lambda value: cylstm.LSTM(value, 3),
        lambda value: cylstm.LSTM(3, 4, dropout=value),
        lambda value: cylstm.Linear(3, 4, seed=value),
        lambda value: cylstm.Pooling(value),
        lambda value: cylstm.Trainer(LAYER, losses.MSE(), clip_norm=value),
        lambda value: cylstm.Trainer(LAYER, losses.MSE(), max_seconds=value),
        lambda value: data.TokenStream(np.arange(9), value, 3),
    ],
)
def test_a_huge_value_is_not_printed(call, value):
    try:
        call(value)
    except (TypeError, ValueError) as error:
        message = str(error)
        assert len(message) < 400
        assert "\n" not in message
    else:
        assert value is LAYER  # which has gradients to clip, and parameters for a step


def test_parameters_in_place_of_a_learning_rate_are_explained():
    for make in (optim.Adam, optim.AdamW, optim.SGD, optim.RMSprop):
        with pytest.raises(
            TypeError, match=r"lr: expected a number, got dict of 4: .* pass the model, not its"
        ):
            make(LAYER.parameters)
        with pytest.raises(TypeError, match="lr: expected a number, got LSTM"):
            make(LAYER)


def test_parameters_in_place_of_a_model_are_explained():
    for call in (optim.SGD(0.1).step, lambda model: optim.clip_grad_norm(model, 1.0)):
        with pytest.raises(
            TypeError, match="model: expected a layer or a model, got dict of 4; pass the model"
        ):
            call(LAYER.parameters)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        ("adam", "'adam'"),
        (None, "None"),
        ([1, 2], "[1, 2]"),
        (np.float32(3), repr(np.float32(3))),
        (np.zeros((2, 3), np.int8), "array (2, 3) int8"),
        ({i: np.zeros(99) for i in range(7)}, "dict of 7"),
        (list(range(50)), "[0, 1, 2, 3, 4, 5, ...]"),
        ("y" * 200, f"{'y' * 40!r}… of length 200"),
    ],
)
def test_values_are_shown_whole_if_they_are_short(value, text):
    assert _checks.shown(value) == text


def test_second_backward_error():
    layer = cylstm.GRU(2, 3, seed=0).train()
    y, _ = layer(np.zeros((4, 1, 2)))
    layer.backward(y)
    with pytest.raises(
        RuntimeError,
        match=r"expected a training forward pass before each backward pass; call train\(\), then the layer",
    ):
        layer.backward(y)


def test_intervals_without_quantiles_error():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from cylstm.sklearn import Forecaster

    forecaster = Forecaster(2, quantiles=None, hidden_size=2, epochs=1).fit(np.sin(np.arange(60)))
    for name in ("predict_interval", "predict_quantiles"):
        assert not hasattr(forecaster, name)
        with pytest.raises(AttributeError, match=rf"{name}: expected .* quantiles=\(0.1, 0.5, 0.9\)"):
            getattr(forecaster, name)(np.sin(np.arange(60)))
    assert Forecaster.predict_interval.__doc__.startswith("Forecast the lowest")
