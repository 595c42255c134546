"""A sequence of layers with one flat parameter vector."""

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from cylstm._checks import shown
from cylstm._engine.planning import Shape
from cylstm.layers.base import Layer, from_config, shapes_of, to_config
from cylstm.layers.parameters import ParameterStore
from cylstm.layers.sequence_layer import SequenceLayer
from cylstm.sequences.packing import Batch, Packing

Array = NDArray[Any]


class ChainWorkspace:
    """The workspaces of the layers, and the packings of all inputs and of the output."""

    def __init__(self, workspaces: list[Any]) -> None:
        self.workspaces = workspaces
        self.packings: list[Packing] = []


class Sequential(SequenceLayer):
    """A chain of layers, each of which reads the output of the preceding one.

    It is called like a recurrent layer: `y, state = model(x, state)`. The state is a tuple with one entry per
    layer, None for layers without a state. Parameters are named `<position>.<name>`, as in PyTorch.

    Parameters
    ----------
    *layers : Layer
        At least one layer, with matching sizes, dtypes and `batch_first`. A layer can be part of one model.
    batch_first : bool, optional
        Whether x and y are (B, T, features). By default, as in the recurrent layers; False if there are none.

    Examples
    --------
    >>> import numpy as np
    >>> import cylstm
    >>> model = cylstm.Sequential(cylstm.LSTM(3, 8, seed=0), cylstm.Linear(8, 2, seed=1))
    >>> y, state = model(np.zeros((10, 4, 3)))
    >>> y.shape, list(model.parameters)[-2:]
    ((10, 4, 2), ['1.weight', '1.bias'])
    """

    def __init__(self, *layers: Layer, batch_first: bool | None = None) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers: expected at least one layer, got none")
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {position}: expected a cylstm layer, got {type(layer).__name__}")
            if not layer.nests:
                raise TypeError(
                    f"layer {position}: expected a layer that can be nested, got {type(layer).__name__}; use "
                    f"one {type(layer).__name__} of all layers"
                )
            if position:
                layer.fit_input(layers[position - 1].output_size, layers[position - 1].dtype)
            if not layer.input_size:
                raise ValueError(
                    f"layer {position}: expected a first layer with an input size; pass features="
                )
            if position and layer.reads_indices:
                raise ValueError(f"layer {position}: expected an Embedding to be the first layer")
            if position and layer.input_size != layers[position - 1].output_size:
                raise ValueError(
                    f"layer {position}: expected to read the {layers[position - 1].output_size} outputs "
                    f"of layer {position - 1}, got input size {layer.input_size}"
                )
        layouts = {layer.batch_first for layer in layers} - {None}
        if len(layouts) > 1:
            raise ValueError("layers: expected the same batch_first in all of them")
        if batch_first is not None and not isinstance(batch_first, bool):
            raise TypeError(f"batch_first: expected True, False or None, got {shown(batch_first)}")
        if layouts and batch_first not in (None, *layouts):
            raise ValueError(f"batch_first: expected {layouts.pop()}, as in the layers, got {batch_first}")
        self._explicit_layout = None if layouts else batch_first  # None if the layers determine it
        self.batch_first = layouts.pop() if layouts else batch_first
        self.layers = layers
        self.input_size, self.output_size = layers[0].input_size, layers[-1].output_size
        self.reads_indices = layers[0].reads_indices
        self.pools = any(layer.pools for layer in layers)
        self.pads = any(layer.pads for layer in layers)
        self._store = ParameterStore.join({str(i): layer._store for i, layer in enumerate(layers)})

    @property
    def config(self) -> dict[str, Any]:
        """The configurations of the layers, as JSON values."""
        layers = [to_config(layer) for layer in self.layers]
        layout = self._explicit_layout
        return {"layers": layers, **({} if layout is None else {"batch_first": layout})}

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> "Sequential":
        if "layers" not in config:
            return cls(**config)
        options = {name: value for name, value in config.items() if name != "layers"}
        return cls(*map(from_config, config["layers"]), **options)

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """Parameters of the layers, named `<position>.<name>`."""
        for position, layer in enumerate(config["layers"]):
            for name, shape in shapes_of(layer):
                yield f"{position}.{name}", shape

    def __repr__(self) -> str:
        """Return the constructor call."""
        options = [] if self._explicit_layout is None else [f"batch_first={self._explicit_layout}"]
        return f"Sequential({', '.join([*map(repr, self.layers), *options])})"

    def _checked_state(self, name: str, state: Any, B: int | None) -> Any:
        if state is None:
            return tuple(
                layer._checked_state(name, None, B) if isinstance(layer, SequenceLayer) else None
                for layer in self.layers
            )
        if not isinstance(state, (tuple, list)) or len(state) != len(self.layers):
            raise TypeError(
                f"{name}: expected a tuple of {len(self.layers)} states, one per layer, "
                f"got {type(state).__name__}"
            )
        for i, (layer, part) in enumerate(zip(self.layers, state, strict=True)):
            if part is not None and not isinstance(layer, SequenceLayer):
                kind, got = type(layer).__name__, type(part).__name__
                raise TypeError(f"{name}[{i}]: expected None, {kind} has no state, got {got}")
        return tuple(
            layer._checked_state(f"{name}[{i}]", part, B) if isinstance(layer, SequenceLayer) else None
            for i, (layer, part) in enumerate(zip(self.layers, state, strict=True))
        )

    def state_for_caller(self, state: Any, unbatched: bool) -> Any:
        """Convert a state from internal form to the caller's."""
        return tuple(
            layer.state_for_caller(part, unbatched) if isinstance(layer, SequenceLayer) else None
            for layer, part in zip(self.layers, state, strict=True)
        )

    def _random_state(self) -> list[Any]:
        return [layer._random_state() for layer in self.layers]

    def _set_random_state(self, state: list[Any]) -> None:
        for layer, part in zip(self.layers, state, strict=True):
            layer._set_random_state(part)

    def checked_scalers(self) -> dict[str, Any]:
        """Return the scalers to save."""
        for position, layer in enumerate(self.layers):
            if layer.checked_scalers():
                raise ValueError(
                    f"layer {position}: expected no scalers in a layer of a model, got "
                    f"{sorted(layer.scalers)}; set the scalers of the model instead"
                )
        return self.scalers

    @property
    def causal(self) -> bool:
        """Whether all layers are causal."""
        return all(layer.causal for layer in self.layers)

    def initial_state(self, B: int) -> Any:
        """Return the initial state in internal form: zeros or learned."""
        return tuple(layer.initial_state(B) for layer in self.layers)

    def _check_indices(self, x: Array) -> None:
        self.layers[0]._check_indices(x)

    def _packing_after(self, packing: Packing) -> Packing:
        for layer in self.layers:
            packing = layer._packing_after(packing)
        return packing

    def new_workspace(self, training: bool, in_place: bool = False) -> ChainWorkspace:
        """Create the buffers of a forward pass and, in training, of its backward pass."""
        return ChainWorkspace([layer.new_workspace(training, in_place) for layer in self.layers])

    def forward_batch(self, workspace: ChainWorkspace, batch: Batch, state: Any) -> tuple[Array, Any]:
        """Return y of a batch, as rows of the workspace, and the final state."""
        final = []
        workspace.packings = [batch.packing]
        for layer, part, layer_state in zip(self.layers, workspace.workspaces, state, strict=True):
            rows, layer_final = layer.forward_batch(part, batch, layer_state)
            batch = Batch(rows, layer._packing_after(batch.packing), layer._is_output_donated(part))
            workspace.packings.append(batch.packing)
            final.append(layer_final)
        return batch.values, tuple(final)

    def step_stages(
        self, workspace: ChainWorkspace, state: Any, packing: Packing
    ) -> list[tuple[Any, ...]] | None:
        """Return the stages of one step for `_engine._steps.Steps`; None if a layer does not support it."""
        stages: list[tuple[Any, ...]] = []
        for layer, part, layer_state in zip(self.layers, workspace.workspaces, state, strict=True):
            layer_stages = layer.step_stages(part, layer_state, packing)
            if layer_stages is None:
                return None
            stages += layer_stages
        return stages

    def backward_batch(
        self, workspace: ChainWorkspace, dy: Batch, dstate: Any, need_dx: bool
    ) -> tuple[Array | None, Any]:
        """Return dx and the gradient of the initial state; add to the gradients of the parameters."""
        initial = []
        need_dx = need_dx and not self.reads_indices
        for position in reversed(range(len(self.layers))):
            gradient, layer_initial = self.layers[position].backward_batch(
                workspace.workspaces[position],
                dy,
                dstate[position],
                need_dx or position > 0,
            )
            initial.append(layer_initial)
            if gradient is not None:
                dy = Batch(gradient, workspace.packings[position])
        return (dy.values if need_dx else None), tuple(reversed(initial))


def layers_of(model: Layer) -> list[Layer]:
    """Return the layers of a model in order, flattening nested models."""
    if isinstance(model, Sequential):
        return [layer for part in model.layers for layer in layers_of(part)]
    return [model]
