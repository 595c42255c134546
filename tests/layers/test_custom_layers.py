"""Layers that users write in NumPy, and subclasses of cylstm's: as any other layer, or refused at once."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tolerances
from differences import gradient

import cylstm
from cylstm import files
from cylstm.layers.base import LAYER_TYPES


class Mix(cylstm.CustomLayer):
    """y = tanh(x W) with one more output than inputs."""

    def __init__(self, features, dtype="float32", seed=None):
        rng = np.random.default_rng(seed)
        parameters = {"weight": rng.uniform(-1, 1, (features, features + 1)), "shift": np.zeros(features + 1)}
        super().__init__(features, features + 1, parameters, dtype)
        self.features = features

    @property
    def config(self):
        return {"features": self.features, "dtype": self.dtype.name}

    def forward_pass(self, x, context):
        assert x.ndim == 2
        y = np.tanh(x @ self.parameters["weight"] + self.parameters["shift"])
        context.x, context.y = x, y
        return y

    def backward_pass(self, dy, context):
        dz = dy * (1 - context.y**2)
        self.gradients["weight"] += context.x.T @ dz
        self.gradients["shift"] += dz.sum(axis=0)
        return dz @ self.parameters["weight"].T


class Running(cylstm.CustomSequenceLayer):
    """The gain times the sum of all steps up to each, over the number of valid steps of its sequence."""

    def __init__(self, features, dtype="float32", batch_first=None):
        super().__init__(features, features, {"gain": np.ones(features)}, dtype, batch_first=batch_first)
        self.features = features

    def forward_pass(self, x, context):
        context.steps = np.maximum(context.lengths, 1)[:, None]
        context.sums = np.cumsum(x, axis=0) / context.steps
        return context.sums * self.parameters["gain"]

    def backward_pass(self, dy, context):
        self.gradients["gain"] += (dy * context.sums).sum(axis=(0, 1))
        return np.cumsum((dy * self.parameters["gain"] / context.steps)[::-1], axis=0)[::-1]


class Plain(cylstm.CustomLayer):
    """Without parameters; its configuration is what attributes say."""

    def __init__(self, features, slopes=(1, 2), dtype="float32"):
        super().__init__(features, features, dtype=dtype)
        self.features, self.slopes = features, list(slopes)

    def forward_pass(self, x, context):
        return x * sum(self.slopes)

    def backward_pass(self, dy, context):
        return dy * sum(self.slopes)


def model(dtype="float32", custom=None):
    layers = [cylstm.LSTM(3, 4, dtype=dtype, seed=0), custom or Mix(4, dtype, 1)]
    return cylstm.Sequential(*layers, cylstm.Linear(layers[1].output_size, 2, dtype=dtype, seed=2))


def custom_models(dtype="float32"):
    yield model(dtype)
    yield model(dtype, Running(4, dtype))
    yield model(dtype, Plain(4, (0.5, -2), dtype))
    yield cylstm.Sequential(Running(3, dtype), cylstm.Residual(Plain(3, (1, -3), dtype)))


@pytest.mark.parametrize("lengths", [None, [5, 2, 4], [3, 0, 1]], ids=["full", "ragged", "short"])
@pytest.mark.parametrize("number", range(4))
def test_custom_layer_gradients_match_finite_differences(number, lengths, rng):
    ours = list(custom_models("float64"))[number].train()
    for name, value in ours.state_dict().items():
        ours.load_state_dict({**ours.state_dict(), name: value + 0.1 * rng.standard_normal(value.shape)})
    x, weights = rng.standard_normal((5, 3, 3)), rng.standard_normal((5, 3, ours.output_size))
    if lengths is not None:
        weights *= (np.arange(5)[:, None] < np.array(lengths))[..., None]

    def value():
        return float((ours(x, lengths=lengths)[0] * weights).sum())

    value()
    dx, _ = ours.backward(weights)
    got = {name: array.copy() for name, array in ours.gradients.items()}
    np.testing.assert_allclose(dx, gradient(value, x), **tolerances.DIFFERENCES)
    state = ours.state_dict()

    def of_parameters():
        ours.load_state_dict(state)
        return value()

    for name in got:
        np.testing.assert_allclose(got[name], gradient(of_parameters, state[name]), **tolerances.DIFFERENCES)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_custom_layers_run_in_sessions_copies_and_files(number, dtype, tmp_path, rng):
    ours = list(custom_models(dtype))[number]
    x, lengths = rng.standard_normal((6, 5, 3)), [6, 1, 3, 0, 2]
    expected, ragged = ours(x)[0], ours(x, lengths=lengths)[0]
    assert expected.dtype == dtype
    cylstm.save(ours, tmp_path / "m")
    session = cylstm.Session(ours)
    for other in (
        session.run, pickle.loads(pickle.dumps(session)).run, copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)), cylstm.load(tmp_path / "m"),
    ):  # fmt: skip
        np.testing.assert_array_equal(other(x)[0], expected)
        np.testing.assert_array_equal(other(x, lengths=lengths)[0], ragged)
    with ThreadPoolExecutor(4) as pool:
        for y, _ in pool.map(session.run, [x] * 20):
            np.testing.assert_array_equal(y, expected)


def test_padding_does_not_reach_custom_layers(rng):
    ours, x, lengths = model("float64"), rng.standard_normal((6, 3, 3)), np.array([2, 6, 3])
    ours.train()
    y, _ = ours(x, lengths=lengths)
    ours.backward(np.ones_like(y))
    gradients = {name: array.copy() for name, array in ours.gradients.items()}
    ours.zero_grad()
    for b, n in enumerate(lengths):
        alone, _ = ours(x[:n, b : b + 1])
        np.testing.assert_allclose(y[:n, b : b + 1], alone, **tolerances.TORCH)
        ours.backward(np.ones_like(alone))
    for name, array in ours.gradients.items():
        np.testing.assert_allclose(array, gradients[name], rtol=1e-10, atol=1e-12)


def test_custom_layers_stream_if_every_step_is_by_itself(rng):
    ours, x = model(), rng.standard_normal((6, 3))
    stream = cylstm.Stream(ours)
    np.testing.assert_allclose(np.array([stream.step(row) for row in x]), ours(x)[0], rtol=1e-6)
    with pytest.raises(ValueError, match="expected layers that read forward only"):
        cylstm.Stream(model(custom=Running(4)))


def test_custom_layers_called_by_themselves(rng):
    x = rng.standard_normal((2, 4, 3)).astype("f4")
    assert Mix(3)(x).shape == (2, 4, 4)
    first, second = Running(3, batch_first=True), Running(3)
    np.testing.assert_array_equal(first(x)[0], second(x.swapaxes(0, 1))[0].swapaxes(0, 1))
    assert first.config == {"features": 3, "dtype": "float32", "batch_first": True}


def test_custom_layers_learn(rng):
    ours = model()
    x = rng.standard_normal((40, 8, 3))
    trainer = cylstm.Trainer(ours, cylstm.losses.MSE(), cylstm.optim.Adam(0.02))
    before = ours.state_dict()
    history = trainer.fit(cylstm.data.Arrays(x, x[..., :2]), epochs=25, progress=False)
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]
    assert all((before[name] != value).any() for name, value in ours.parameters.items() if name[:1] == "1")


def test_wrong_results_of_custom_layers_are_named():
    class Short(cylstm.CustomLayer):
        def __init__(self):
            super().__init__(3, 3)

        def forward_pass(self, x, context):
            return x[:, :2] if self.input_size == 3 else x

        def backward_pass(self, dy, context):
            return context.missing

    with pytest.raises(ValueError, match=r"Short\.forward_pass: result: expected \(2, 3\), got \(2, 2\)"):
        Short()(np.ones((2, 3)))
    Short.forward_pass = lambda self, x, context: x
    layer = Short().train()
    layer(np.ones((2, 3)))
    with pytest.raises(AttributeError, match="context: forward_pass has not set 'missing'"):
        layer.backward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"parameters: expected names without a dot, got 'a\.b'"):
        cylstm.CustomLayer.__init__(Short.__new__(Short), 3, 3, {"a.b": [1.0]})


def test_custom_layers_cannot_write_to_their_inputs():
    class InPlace(Plain):
        def forward_pass(self, x, context):
            x *= 2
            return x

    with pytest.raises(ValueError, match="read-only"):
        InPlace(3)(np.ones((2, 3), "f4"))


def test_custom_layers_have_no_form_in_other_libraries(tmp_path):
    with pytest.raises(cylstm.convert.ConversionError, match="Mix"):
        cylstm.convert.to_safetensors(model(), tmp_path / "w")
    pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(cylstm.convert.ConversionError, match="Mix"):
        cylstm.convert.to_onnx(model(), tmp_path / "m.onnx")


DEFINITION = """
import numpy as np
import cylstm
class Shifted(cylstm.CustomLayer):
    def __init__(self, features):
        super().__init__(features, features, {"shift": np.ones(features)})
        self.features = features
    def forward_pass(self, x, context):
        return x + self.parameters["shift"]
    def backward_pass(self, dy, context):
        self.gradients["shift"] += dy.sum(axis=0)
        return dy
"""


@pytest.mark.slow
@pytest.mark.process
def test_loading_says_which_module_to_import(tmp_path):
    (tmp_path / "my_layers.py").write_text(DEFINITION)

    def run(code):
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    save = "import my_layers; cylstm.save(cylstm.Sequential(my_layers.Shifted(3)), path)"
    load = "print(repr(cylstm.load(path)), 'my_layers' in sys.modules)"
    path = f"import cylstm; path = {str(tmp_path / 'm.safetensors')!r}; "
    run(path + save)
    assert run(f"{path}import my_layers; {load}") == "Sequential(Shifted(features=3)) True\n"
    caught = f"\ntry: {load}\nexcept cylstm.ModelFileError as error: print(error, 'my_layers' in sys.modules)"
    assert run(path + caught).endswith(
        "not a readable cylstm model: unknown layer Shifted, defined in the module 'my_layers'; "
        "import that module before loading the model False\n"
    )


class Flavoured(cylstm.LSTM):
    def __init__(self, size, flavour="plain"):
        super().__init__(size, 8, seed=0)
        self.flavour = flavour


class Configured(Flavoured):
    @property
    def config(self):
        return {"size": self.input_size, "flavour": self.flavour}


class Net(cylstm.Sequential):
    def __init__(self, hidden):
        super().__init__(cylstm.GRU(3, hidden), cylstm.Linear(hidden, 1))
        self.hidden = hidden

    @property
    def config(self):
        return {"hidden": self.hidden}


class Named(cylstm.GRU):
    """With the constructor of its base, and another method."""

    def outputs(self):
        return self.output_size


@pytest.mark.parametrize("ours", [Configured(3, "sweet"), Net(5), Named(3, 4, seed=1)], ids=repr)
def test_subclasses_with_a_configuration_are_layers_as_any(ours, tmp_path, rng):
    x = rng.standard_normal((5, 2, 3))
    inside = cylstm.Sequential(copy.copy(ours), cylstm.Dropout(0.5))
    for made in (ours, inside):
        cylstm.save(made, tmp_path / "m")
        for other in (cylstm.load(tmp_path / "m"), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert type(other) is type(made)
            np.testing.assert_array_equal(other(x)[0], made(x)[0])
        np.testing.assert_array_equal(cylstm.Session(made).run(x)[0], made(x)[0])
    part = cylstm.load(tmp_path / "m").layers[0]
    assert type(part) is type(ours)
    assert part.config == ours.config


USES = {
    "save": lambda layer, path: cylstm.save(layer, path),
    "save in a model": lambda layer, path: cylstm.save(cylstm.Sequential(layer), path),
    "copy": lambda layer, path: copy.copy(layer),
    "pickle": lambda layer, path: pickle.dumps(layer),
    "session": lambda layer, path: cylstm.Session(layer),
}


@pytest.mark.parametrize("use", USES)
def test_unloadable_subclasses_are_rejected_before_writing(use, tmp_path):
    class Bare(cylstm.Sequential):
        def __init__(self):
            super().__init__(cylstm.Linear(3, 1))

    for layer in (Flavoured(3, "sweet"), Bare()):
        with pytest.raises(TypeError, match=f"{type(layer).__name__}: cannot be built .* override the"):
            USES[use](layer, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_names_of_layers_of_the_package_stay_its_own(tmp_path):
    class LSTM(cylstm.LSTM):
        pass

    assert LAYER_TYPES["LSTM"] is cylstm.LSTM
    with pytest.raises(
        TypeError, match=r"LSTM: in files this name stands for the class of cylstm\.recurrent\.lstm"
    ):
        cylstm.save(LSTM(2, 3), tmp_path / "m")


def test_class_that_was_defined_again_is_the_one_that_is_loaded(tmp_path):
    """As a notebook's cell that was run twice."""
    space = {"__name__": "notebook"}
    exec(DEFINITION, space)
    first = space["Shifted"](3)
    exec(DEFINITION, space)
    for layer in (first, space["Shifted"](3)):
        cylstm.save(layer, tmp_path / "m")
        assert type(cylstm.load(tmp_path / "m")) is space["Shifted"]
    exec(DEFINITION, {"__name__": "elsewhere"})
    with pytest.raises(TypeError, match="in files this name stands for the class of elsewhere"):
        cylstm.save(first, tmp_path / "m")


class Hooked:
    def __call__(self, x, state=None):
        return super().__call__(x, state)


@pytest.mark.parametrize(
    "method",
    [
        "__call__",
        "backward",
        "train",
        "eval",
        "state_dict",
        "load_state_dict",
        "forward_batch",
        "step_stages",
    ],
)
@pytest.mark.parametrize("base", [cylstm.LSTM, cylstm.Linear, cylstm.Sequential])
def test_ignored_overrides_are_rejected_at_class_definition(base, method):
    with pytest.raises(TypeError, match=f"Mine: expected no override of {method}: Sequential, Session"):
        type("Mine", (base,), {method: lambda self, *_: None})


def test_overrides_by_a_mixin_are_refused():
    with pytest.raises(TypeError, match="Mixed: expected no override of __call__"):
        type("Mixed", (Hooked, cylstm.GRU), {})
    with pytest.raises(TypeError, match="Called: expected no override of backward"):
        type("Called", (cylstm.CustomLayer,), {"backward": lambda self, dy: dy})


def test_invalid_user_layer_configurations_are_file_errors(tmp_path):
    from model_files import description_of, with_metadata

    path = tmp_path / "m"
    for change in ({"features": "x"}, {"features": 10**9}, {"more": 1}, {"features": None}, {"type": "Mix"}):
        cylstm.save(Plain(3), path)
        description = description_of(path)
        description["model"].update(change)
        with_metadata(path, description)
        with pytest.raises(cylstm.ModelFileError):
            files.load(path)
