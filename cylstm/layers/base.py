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
LAYER_TYPES: dict[str, type["Layer"]] = {}  # by name; `cylstm.load` builds layers from it
# Methods that built-in layers call on each other; user-defined layers subclass `CustomLayer` instead.
INTERNAL_METHODS = {
    "backward_batch", "check_out", "checked_call", "checked_scalers", "fit_input", "forward_batch",
    "initial_state", "new_workspace", "state_for_caller", "step_stages", "steps_of", "to_time_major",
    "y_for_caller",
}  # fmt: skip
FINAL_METHODS = [  # models do not call these on their layers, so that overrides would have no effect
    "__call__", "backward", "train", "eval", "zero_grad", "parameters", "gradients", "state_dict",
    "load_state_dict",
]  # fmt: skip


class Layer:
    """Base class of layers: parameters, gradients, mode.

    A subclass defines `config` (its constructor's arguments, as JSON values), `parameter_shapes` (from such a
    configuration), and both passes:

    `new_workspace(training, in_place)`
        Buffers for one pass at a time; in training they are in use from the forward to the backward pass. If
        `in_place`, the final state overwrites the initial one, whose arrays are returned.
    `forward_batch(workspace, batch, state)` -> (y, state)
        The rows of y, (N, output_size), in packed order (packing.py); may be a view of the workspace.
    `backward_batch(workspace, dy, dstate, need_dx)` -> (dx or None, dstate_0)
        The rows of dx, (N, input_size), likewise. Adds to the gradients.
    `_is_output_donated(workspace)`
        Whether the backward pass does not read y, so that the next layer may overwrite its rows. False by
        default.

    Attributes
    ----------
    scalers : dict of str to Scaler
        The scalers of inputs and targets, by names such as "x" and "target" that the user chooses. Files,
        copies and pickles of the model include them; the model itself does not apply them (see
        `docs/reference/file-format.md`). Scalers belong to the outermost model, not to a layer in it.
    """

    input_size: int
    output_size: int
    batch_first: bool | None = None  # None: either layout
    reads_indices = False  # whether x contains indices of vectors
    pools = False  # whether y has one row per sequence, of any length
    is_recurrent = False  # whether it has a state, which masked steps do not change
    nests = True  # whether another layer can contain it
    pads = False  # whether it pads batches, so that rounding depends on the longest sequence
    _store: ParameterStore

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        """Register a class by name, unless it is abstract or a built-in layer has that name."""
        super().__init_subclass__(**kwargs)
        if not _is_built_in(cls):
            _check_overrides(cls)
        registered = LAYER_TYPES.get(cls.__name__)
        if not abstract and (registered is None or not _is_built_in(registered)):
            LAYER_TYPES[cls.__name__] = cls

    def __init__(self) -> None:
        self.training = False
        self.scalers: dict[str, Scaler] = {}
        self._spare: list[Any] = []  # unused inference workspaces; list operations are atomic
        self._training_workspace: Any = None  # None during a forward pass
        self._training_revision: Any = None  # of the parameters, at the last training forward pass

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
        """Create the buffers of a forward pass and, in training, of its backward pass."""
        raise NotImplementedError

    def forward_batch(self, workspace: Any, batch: Batch, state: Any) -> tuple[Array, Any]:
        """Return y of a batch, as rows of the workspace, and the final state."""
        raise NotImplementedError

    def _is_output_donated(self, workspace: Any) -> bool:
        """Whether the backward pass does not read the rows of y that the forward pass returned."""
        return False

    def backward_batch(
        self, workspace: Any, dy: Batch, dstate: Any, need_dx: bool
    ) -> tuple[Array | None, Any]:
        """Return dx and the gradient of the initial state; add to the gradients of the parameters."""
        raise NotImplementedError

    def fit_input(self, features: int, dtype: "np.dtype[Any]") -> None:
        """Adopt the size and dtype of the previous layer, where they were not specified."""

    def _check_indices(self, x: Array) -> None:
        """Raise an error for indices that are out of range, if x contains indices."""

    def _packing_after(self, packing: Packing) -> Packing:
        """Return the packing of the rows of y."""
        return packing

    def step_stages(self, workspace: Any, state: Any, packing: Packing) -> list[tuple[Any, ...]] | None:
        """Return the stages of one step for `_engine._steps.Steps`; None if the layer does not support it."""
        return None

    def initial_state(self, B: int) -> Any:
        """Return the initial state in internal form; None for a layer without a state."""
        return None

    def _random_state(self) -> Any:
        """Return the state of the generator of masks, as JSON values; None for a layer without masks."""
        return None

    def _set_random_state(self, state: Any) -> None:
        """Restore a state returned by `_random_state`."""

    @property
    def reads_single_indices(self) -> bool:
        """Whether x contains one index per step, without a feature axis."""
        return self.reads_indices and self.input_size == 1

    @property
    def causal(self) -> bool:
        """Whether the output at a step depends on no later step."""
        return True

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64, the type of parameters and results."""
        return self._store.dtype

    @property
    def parameters(self) -> dict[str, Array]:
        """Read-only views by name; change parameters with `load_state_dict` or an optimiser."""
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
            If a name is missing or unknown, a shape differs, or a value is not a real number; no parameter is
            changed.
        """
        self._store.load(values)

    def train(self: Self) -> Self:
        """Switch to training mode, which saves what the backward pass needs."""
        self.training = True
        return self

    def eval(self: Self) -> Self:
        """Switch to inference mode, the mode of a new layer."""
        self.training = False
        self._training_revision = None
        return self

    def _run(self, batch: Batch, state: Any, result: Any) -> Any:
        """Return result(workspace, y, state) of a forward pass, in a workspace that only this call uses.

        After an exception, such as KeyboardInterrupt, the workspace may be inconsistent and is discarded.
        """
        if self.training:
            workspace, self._training_workspace, self._training_revision = (
                self._training_workspace,
                None,
                None,
            )
            if workspace is None:
                workspace = self.new_workspace(True)
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
        """Return the workspace of the last training forward pass; raise an error if it cannot be used."""
        if self._training_revision is None:
            raise RuntimeError(
                "backward: expected a training forward pass before each backward pass; call train(), "
                "then the layer"
            )
        if self._training_revision != self._store.revision:
            raise RuntimeError("backward: the parameters were changed since the forward pass; run it again")
        return self._training_workspace

    def _run_backward(
        self, workspace: Any, dy: Batch, dstate: Any, need_dx: bool
    ) -> tuple[Array | None, Any]:
        """Run the backward pass with checked arguments; another one needs another forward pass."""
        self._training_revision = None
        return self.backward_batch(workspace, dy, dstate, need_dx)

    def __reduce__(self) -> Any:
        """Copy and pickle as configuration, parameters, mode, random state and scalers."""
        to_config(self)  # checks that a copy can be built
        scalers = {name: copy.copy(scaler) for name, scaler in self.checked_scalers().items()}
        state = self.parameters, self.training, self._random_state(), scalers
        return _rebuild, (type(self), self.config, *state)

    def checked_scalers(self) -> dict[str, "Scaler"]:
        """Return the scalers to save."""
        return self.scalers

    def __repr__(self) -> str:
        """Return the constructor call."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.config.items())
        return f"{type(self).__name__}({arguments})"

    def __str__(self) -> str:
        """Return a table of layers, output shapes and numbers of parameters."""
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
    """Return the parameters and gradients of a layer, including nested layers."""
    return layer._store


def random_state(layer: Layer) -> Any:
    """Return the state of the generator of masks, as JSON values; None for a layer without masks."""
    return layer._random_state()


def set_random_state(layer: Layer, state: Any) -> None:
    """Restore a state returned by `random_state`."""
    layer._set_random_state(state)


def check_indices(layer: Layer, x: Array) -> None:
    """Raise ValueError for indices that are out of range, if x contains indices."""
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
    """Build a layer from a description returned by `to_config`."""
    arguments = dict(config)
    arguments.pop("module", None)
    return LAYER_TYPES[arguments.pop("type")]._from_config(arguments)


def to_config(layer: Layer) -> dict[str, Any]:
    """Return type, configuration and, for user-defined layers, module of a layer, for `from_config`.

    Raises
    ------
    TypeError
        If a user-defined layer cannot be built from them.
    """
    kind = type(layer)
    if _is_built_in(kind):
        return {"type": kind.__name__, **layer.config}
    registered = LAYER_TYPES.get(kind.__name__)
    same = (getattr(registered, "__module__", None), getattr(registered, "__qualname__", None))
    if same != (kind.__module__, kind.__qualname__):
        other = "an abstract class" if registered is None else f"the class of {registered.__module__}"
        raise TypeError(f"{kind.__name__}: in files this name stands for {other}; rename the class")
    config = layer.config
    if {"type", "module"} & set(config):
        raise TypeError(f"{kind.__name__}: config: expected no argument named type or module")
    try:
        with without_initial_values():
            built = kind._from_config(dict(config))
        if built.config != config or built._store.shapes != layer._store.shapes or built.dtype != layer.dtype:
            raise ValueError("the result is a different layer")
    except Exception as error:  # from user code
        raise TypeError(
            f"{kind.__name__}: cannot be built from its config, {kind.__name__}(**{repr(config)[:300]}): "
            f"{error}; override the property config to return the arguments of the constructor"
        ) from error
    return {"type": kind.__name__, "module": kind.__module__, **config}


def shapes_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of the parameters of a described layer; user-defined layers are built for this."""
    if not is_user_defined(config):
        return LAYER_TYPES[config["type"]].parameter_shapes(config)
    with without_initial_values():
        return iter(from_config(config)._store.shapes.items())


def is_user_defined(config: Mapping[str, Any]) -> bool:
    """Whether a description is of a user-defined layer."""
    return config.get("type") in LAYER_TYPES and not _is_built_in(LAYER_TYPES[config["type"]])


def _is_built_in(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "cylstm"


def _check_overrides(cls: type[Layer]) -> None:
    """Raise TypeError if a class overrides methods that models and trainers do not call on layers."""
    base = next(parent for parent in cls.__mro__ if issubclass(parent, Layer) and _is_built_in(parent))
    internal = [
        name
        for name in dir(base)
        if name in INTERNAL_METHODS or (name.startswith("_") and not name.startswith("__"))
    ]
    names = FINAL_METHODS + (internal if base in LAYER_TYPES.values() else [])
    for name in names:
        if _raw_attribute(cls, name) is not _raw_attribute(base, name):
            raise TypeError(
                f"{cls.__name__}: expected no override of {name}: Sequential, Session, Stream and Trainer do "
                "not call it; write the layer as a subclass of cylstm.CustomLayer or CustomSequenceLayer"
            )


def _raw_attribute(cls: type, name: str) -> Any:
    """Return an attribute of a class or its bases without calling descriptors."""
    return next((vars(parent)[name] for parent in cls.__mro__ if name in vars(parent)), None)
