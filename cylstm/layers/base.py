"""The base class of layers: named parameters, mode, configuration, forward and backward passes."""

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cylstm._checks.options import without_option_warnings
from cylstm._engine.planning import Shape
from cylstm.layers.parameters import ParameterStore, without_initial_values
from cylstm.sequences.packing import Batch, Packing

if TYPE_CHECKING:
    from cylstm.data.scalers import Scaler  # which is built on layers

Array = NDArray[Any]
Self = TypeVar("Self", bound="Layer")
LAYER_TYPES: dict[str, type["Layer"]] = {}  # by name, for files: cylstm.load builds from it
# What layers of the package call on each other; a user's layer implements `CustomLayer` instead.
INTERNAL = {
    "backward_batch", "check_out", "checked_call", "checked_scalers", "fit_input", "forward_batch",
    "initial_state", "new_workspace", "state_for_caller", "step_stages", "steps_of", "to_time_major",
    "y_for_caller",
}  # fmt: skip
NOT_CALLED = [  # by a model around a layer, so that a user's subclass cannot change them
    "__call__", "backward", "train", "eval", "zero_grad", "parameters", "gradients", "state_dict",
    "load_state_dict",
]  # fmt: skip


class Layer:
    """Base of all layers: parameters, gradients, mode.

    A subclass gives `config` (its constructor's arguments, JSON values), the shapes
    of its parameters from such a configuration, and the two passes:

    `new_workspace(training, in_place)`
        Buffers for one pass at a time; a training one lives from forward to backward. In place: the
        last state is written over the first one, whose arrays are then returned.
    `forward_batch(workspace, batch, state)` -> (y, state)
        The rows of y, (N, output_size), in packed order (packing.py); they may be a view of the workspace.
    `backward_batch(workspace, dy, dstate, need_dx)` -> (dx or None, dstate_0)
        From a batch dy to the rows of dx, (N, input_size), likewise. Adds to the gradients.
    `_is_output_donated(workspace)`
        Whether the backward pass does not read y, so that a layer above may overwrite its rows; False, unless
        a subclass says otherwise.

    Attributes
    ----------
    scalers : dict of str to Scaler
        How inputs and targets were scaled, by names of the caller's choice, such as "x" and "target". Files,
        copies and pickles of the model include them; the model itself does not use them
        (`docs/reference/file-format.md` says what does). Those of a model of layers belong to the model, not
        to a layer in it.
    """

    input_size: int
    output_size: int
    batch_first: bool | None = None  # None: the layer does not care
    reads_indices = False  # whether x holds indices of vectors
    pools = False  # whether y is one row for each sequence, whatever its length
    is_recurrent = False  # whether it carries a state from step to step, which masked steps leave unchanged
    nests = True  # whether it can be a layer of another one
    pads = False  # whether it computes on padded batches, so that bits depend on the longest sequence
    _store: ParameterStore

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        """Register a class that can be built, under its name, unless a layer of cylstm has that name."""
        super().__init_subclass__(**kwargs)
        if not _is_ours(cls):
            _check_overrides(cls)
        named = LAYER_TYPES.get(cls.__name__)
        if not abstract and (named is None or not _is_ours(named)):
            LAYER_TYPES[cls.__name__] = cls

    def __init__(self) -> None:
        self.training = False
        self.scalers: dict[str, Scaler] = {}
        self._spare: list[Any] = []  # inference workspaces not in use; list operations are atomic
        self._training_workspace: Any = None  # None while a forward pass uses it
        self._training_revision: Any = None  # that of the parameters in the last training forward

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "Layer":
        with without_option_warnings():
            return cls(**config)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values."""
        raise NotImplementedError

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """Names and shapes of the parameters of a layer with this configuration."""
        raise NotImplementedError

    def new_workspace(self, training: bool, in_place: bool = False) -> Any:
        """Buffers of one forward pass, and of its backward pass in training."""
        raise NotImplementedError

    def forward_batch(self, workspace: Any, batch: Batch, state: Any) -> tuple[Array, Any]:
        """y of a batch, as rows of the workspace, and the final state."""
        raise NotImplementedError

    def _is_output_donated(self, workspace: Any) -> bool:
        """Whether the backward pass of the last pass does not read the rows of y that it returned."""
        return False

    def backward_batch(
        self, workspace: Any, dy: Batch, dstate: Any, need_dx: bool
    ) -> tuple[Array | None, Any]:
        """dx of the last forward pass and the gradient of its initial state; adds to the gradients."""
        raise NotImplementedError

    def fit_input(self, features: int, dtype: "np.dtype[Any]") -> None:
        """Adopt the size and dtype of the previous layer, where they were not specified."""

    def _check_indices(self, x: Array) -> None:
        """Reject indices that are out of range, if x holds indices."""

    def _packing_after(self, packing: Packing) -> Packing:
        """That of the rows of y."""
        return packing

    def step_stages(self, workspace: Any, state: Any, packing: Packing) -> list[tuple[Any, ...]] | None:
        """The stages of `_engine._steps.Steps`, over a state; None: it has to go through `forward_batch`."""
        return None

    def initial_state(self, B: int) -> Any:
        """The internal form of the state to start from; None for a layer without one."""
        return None

    def _random_state(self) -> Any:
        """The state of the random generator of masks, as JSON values; None for a layer without masks."""
        return None

    def _set_random_state(self, state: Any) -> None:
        """Restore a state of `_random_state`."""

    @property
    def reads_single_indices(self) -> bool:
        """Whether x holds ints, one a step, and so has no last axis."""
        return self.reads_indices and self.input_size == 1

    @property
    def causal(self) -> bool:
        """Whether the output at a step depends on the steps up to it only."""
        return True

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, of parameters and results."""
        return self._store.dtype

    @property
    def parameters(self) -> dict[str, Array]:
        """Read-only views by name; write with `load_state_dict` or an optimiser."""
        return self._store.parameters()

    @property
    def gradients(self) -> dict[str, Array]:
        """Gradients by name; every backward pass adds to them."""
        return self._store.gradients()

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self._store.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name."""
        return {name: view.copy() for name, view in self.parameters.items()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Set all parameters, by name.

        Raises
        ------
        ValueError, TypeError
            If a name is missing or unknown, a shape differs, or a value is no real number; nothing is
            changed then.
        """
        self._store.load(values)

    def train(self: Self) -> Self:
        """Save what the backward pass needs from now on."""
        self.training = True
        return self

    def eval(self: Self) -> Self:
        """Only compute results from now on: the mode of a new layer."""
        self.training = False
        self._training_revision = None
        return self

    def _run(self, batch: Batch, state: Any, result: Any) -> Any:
        """result(workspace, y, state) of a forward pass, computed while only this caller uses the workspace.

        An exception, such as Ctrl-C, may leave a workspace half planned: it is then discarded.
        """
        if self.training:
            kept, self._training_workspace, self._training_revision = self._training_workspace, None, None
            workspace = self.new_workspace(True) if kept is None else kept
            value = result(workspace, *self.forward_batch(workspace, batch, state))
            self._training_workspace, self._training_revision = workspace, self._store.revision
            return value
        try:
            workspace = self._spare.pop()
        except IndexError:
            workspace = self.new_workspace(False)
        value = result(workspace, *self.forward_batch(workspace, batch, state))
        self._spare.append(workspace)
        return value

    def _workspace_for_backward(self) -> Any:
        """The workspace of the last training forward pass."""
        if self._training_revision is None:
            raise RuntimeError(
                "backward: no training forward pass left: its gradients can be taken once; call train(), "
                "then the layer again, before each backward"
            )
        if self._training_revision != self._store.revision:
            raise RuntimeError("backward: the parameters were changed since the forward pass; run it again")
        return self._training_workspace

    def _run_backward(
        self, workspace: Any, dy: Batch, dstate: Any, need_dx: bool
    ) -> tuple[Array | None, Any]:
        """The backward pass, after every check of its arguments; consumes the workspace."""
        self._training_revision = None
        return self.backward_batch(workspace, dy, dstate, need_dx)

    def __reduce__(self) -> Any:
        """Copy and pickle as configuration, parameters, mode, random state and scalers."""
        described(self)  # which checks that a copy can be built
        scalers = {name: copy.copy(scaler) for name, scaler in self.checked_scalers().items()}
        state = self.parameters, self.training, self._random_state(), scalers
        return _rebuild, (type(self), self.config, *state)

    def checked_scalers(self) -> dict[str, "Scaler"]:
        """The scalers to save."""
        return self.scalers

    def __repr__(self) -> str:
        """As it was constructed."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.config.items())
        return f"{type(self).__name__}({arguments})"

    def __str__(self) -> str:
        """A table of the layers, the shapes of their outputs and their parameters."""
        from cylstm._reprs import table

        return table(self)


class Internals(NamedTuple):
    """What tests and verification examine of a layer; it may change in any version."""

    store: ParameterStore
    training_workspace: Any
    spare_workspaces: list[Any]


def describe(layer: Layer) -> Internals:
    """The parameter store of a layer, its workspace for training, and unused ones for inference."""
    return Internals(layer._store, layer._training_workspace, layer._spare)


def store_of(layer: Layer) -> ParameterStore:
    """The parameters and gradients of a layer and of all layers in it."""
    return layer._store


def random_state(layer: Layer) -> Any:
    """The state of the random masks, as JSON values; None for a layer without masks."""
    return layer._random_state()


def set_random_state(layer: Layer, state: Any) -> None:
    """Restore a state returned by `random_state`."""
    layer._set_random_state(state)


def check_indices(layer: Layer, x: Array) -> None:
    """Raise ValueError if x, where it holds indices, has one out of range."""
    layer._check_indices(x)


def _rebuild(
    cls: type[Layer],
    config: dict[str, Any],
    values: dict[str, Array],
    training: bool,
    random_state: Any,
    scalers: dict[str, "Scaler"],
) -> Layer:
    with without_initial_values():
        layer = cls._from_config(config)
    layer.load_state_dict(values)
    layer._set_random_state(random_state)
    layer.training, layer.scalers = training, scalers
    return layer


def from_config(config: Mapping[str, Any]) -> Layer:
    """A new layer from what `described` gave."""
    arguments = dict(config)
    arguments.pop("module", None)
    return LAYER_TYPES[arguments.pop("type")]._from_config(arguments)


def described(layer: Layer) -> dict[str, Any]:
    """Type and configuration of a layer, and the module of a user's: `from_config` builds a layer of them.

    Raises
    ------
    TypeError
        If a user's class cannot be built from them.
    """
    kind = type(layer)
    if _is_ours(kind):
        return {"type": kind.__name__, **layer.config}
    registered = LAYER_TYPES.get(kind.__name__)
    same = (getattr(registered, "__module__", None), getattr(registered, "__qualname__", None))
    if same != (kind.__module__, kind.__qualname__):
        other = "an abstract class" if registered is None else f"the class of {registered.__module__}"
        raise TypeError(f"{kind.__name__}: this name is that of {other} in files; rename the class")
    config = layer.config
    if {"type", "module"} & set(config):
        raise TypeError(f"{kind.__name__}: config: expected no argument named type or module")
    try:
        with without_initial_values():
            built = kind._from_config(dict(config))
        if built.config != config or built._store.shapes != layer._store.shapes or built.dtype != layer.dtype:
            raise ValueError("that is another layer")
    except Exception as error:  # of a user's code
        raise TypeError(
            f"{kind.__name__}: cannot be built from its config, {kind.__name__}(**{repr(config)[:300]}): "
            f"{error}; override the property config, so that it gives the arguments of the constructor"
        ) from error
    return {"type": kind.__name__, "module": kind.__module__, **config}


def shapes_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of the parameters of what is described; a user's layer is built for them."""
    if not is_of_user(config):
        return LAYER_TYPES[config["type"]].parameter_shapes(config)
    with without_initial_values():
        return iter(from_config(config)._store.shapes.items())


def is_of_user(config: Mapping[str, Any]) -> bool:
    """Whether a description is of a layer that a user has defined."""
    return config.get("type") in LAYER_TYPES and not _is_ours(LAYER_TYPES[config["type"]])


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "cylstm"


def _check_overrides(cls: type[Layer]) -> None:
    """Reject a class with methods that models, trainers, sessions and streams would not call."""
    base = next(parent for parent in cls.__mro__ if issubclass(parent, Layer) and _is_ours(parent))
    inner = [
        name for name in dir(base) if name in INTERNAL or (name.startswith("_") and not name.startswith("__"))
    ]
    names = NOT_CALLED + (inner if base in LAYER_TYPES.values() else [])
    for name in names:
        if _found(cls, name) is not _found(base, name):
            raise TypeError(
                f"{cls.__name__}: expected no {name} of its own: Sequential, Session, Stream and Trainer do "
                "not call it; write the layer as a subclass of cylstm.CustomLayer or CustomSequenceLayer"
            )


def _found(cls: type, name: str) -> Any:
    """The raw attribute of a class or one of its bases."""
    return next((vars(parent)[name] for parent in cls.__mro__ if name in vars(parent)), None)
