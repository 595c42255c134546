"""The dense layer."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._engine import _packed, _packed_dense, isa
from cylstm._engine.planning import Shape, padded
from cylstm._system.threads import blas_libraries, get_num_threads
from cylstm.layers.parameters import ParameterStore, fill_random
from cylstm.layers.row_layer import RowLayer, RowWorkspace
from cylstm.sequences.packing import Packing

Array = NDArray[Any]


class Linear(RowLayer):
    """The affine map y = x W^T + b over the last axis.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add the bias b.
    dtype : {"float32", "float64"}
    seed : int, optional
        Seed of the initial parameters, drawn from U(-1/sqrt(I), 1/sqrt(I)) with I = in_features.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Linear(3, 2, seed=0)
    >>> layer(np.ones((4, 5, 3))).shape
    (4, 5, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = _checks.positive("in_features", in_features)
        self.output_size = _checks.positive("out_features", out_features)
        self.bias = _checks.flag("bias", bias)
        self._packed: tuple[Any, Array] | None = None
        self._store = ParameterStore(dict(self.parameter_shapes(self._sizes())), _checks.real_dtype(dtype))
        bound = self.input_size**-0.5
        rng = _checks.generator(seed)
        self._store.initialize(lambda flat: fill_random(flat, lambda n: rng.uniform(-bound, bound, n)))

    def _sizes(self) -> dict[str, Any]:
        return {"in_features": self.input_size, "out_features": self.output_size, "bias": self.bias}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        return {**self._sizes(), "dtype": self.dtype.name}

    @classmethod
    def parameter_shapes(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
        """`weight` (out_features, in_features) and `bias` (out_features)."""
        yield "weight", (config["out_features"], config["in_features"])
        if config["bias"]:
            yield "bias", (config["out_features"],)

    def new_workspace(self, training: bool, in_place: bool = False) -> "_Workspace":
        """Buffers of one forward pass, and of its backward pass in training."""
        return _Workspace(training, self.dtype)

    def _rows_forward(self, workspace: "_Workspace") -> None:
        if isa.path() == "packed":
            workspace.packed_pass(self).forward(get_num_threads())
            return
        from cylstm._engine import _dense

        blas_libraries()
        parameters = self.parameters
        _dense.forward(workspace.y, workspace.x, parameters["weight"], parameters.get("bias", workspace.none))

    def step_stages(self, workspace: "_Workspace", state: None, packing: Packing) -> list[tuple[Any, ...]]:
        """Stages of a single step for `_engine._steps.Steps`; None: only `forward_batch` computes it."""
        workspace.prepare(packing.N, self)
        return [(workspace.packed_pass(self),)]

    def packed_weight(self) -> Array:
        """Return the current weight packed in panels, shared by all workspaces for inference."""
        version = self._store.revision
        packed = self._packed
        if packed is None or packed[0] != version:
            packed = self._packed = (version, self.pack(None))
        return packed[1]

    def pack(self, out: Array | None) -> Array:
        """Pack the weight in panels of outputs, in `out` or a new array."""
        unit = isa.unit(self.dtype.itemsize)
        if out is None:
            out = np.empty(padded(self.output_size, unit) * self.input_size, self.dtype)
        _packed.pack_rows(out, unit, self.parameters["weight"], 1)
        return out

    def pack_transposed(self, out: Array | None) -> Array:
        """Pack the weight in panels of inputs, for the backward pass."""
        unit = isa.unit(self.dtype.itemsize)
        if out is None:
            out = np.empty(padded(self.input_size, unit) * self.output_size, self.dtype)
        _packed.pack_columns(out, unit, self.parameters["weight"], 1, self.output_size)
        return out

    def _rows_backward(self, workspace: "_Workspace", need_dx: bool) -> Array | None:
        if isa.path() == "packed":
            workspace.packed_pass(self).backward(need_dx, get_num_threads())
            return workspace.x if need_dx else None
        from cylstm._engine import _dense

        blas_libraries()
        gradients = self.gradients
        dx = workspace.x if need_dx else workspace.x[:0]
        _dense.backward(
            gradients["weight"],
            gradients.get("bias", workspace.none),
            dx, workspace.y, workspace.x, self.parameters["weight"],
        )  # fmt: skip
        return dx if need_dx else None


class _Workspace(RowWorkspace):
    """A workspace with the pass over its rows on packed weights."""

    def __init__(self, training: bool, dtype: "np.dtype[Any]") -> None:
        super().__init__(training)
        self.none: Array = np.empty(0, dtype)  # no bias
        # Packed weights for training, repacked in place.
        self._weight: Array | None = None
        self._transposed: Array | None = None
        self._pass: _packed_dense.PackedDense | None = None
        self._version: tuple[Any, int] = (None, 0)  # parameter version of the pass

    def _allocate_more(self, N: int, layer: RowLayer) -> None:
        self._pass = None

    def packed_pass(self, layer: Linear) -> _packed_dense.PackedDense:
        """Return the pass over these rows with the current weights."""
        version = layer._store.revision
        if self._pass is not None and self._version == version:
            return self._pass
        if not self.training:
            self._pass = self._new_pass(layer, layer.packed_weight(), None)
        else:
            weight = self._weight = layer.pack(self._weight)
            self._transposed = layer.pack_transposed(self._transposed)
            if self._pass is None or self._version[0] is not version[0]:
                names = {"weight": "dw", "bias": "db"}
                gradients = {names[name]: gradient for name, gradient in layer.gradients.items()}
                self._pass = self._new_pass(layer, weight, {"w_t": self._transposed, **gradients})
        self._version = version  # last, because Ctrl-C may interrupt any line
        return self._pass

    def _new_pass(self, layer: Linear, weight: Array, gradients: Any) -> _packed_dense.PackedDense:
        bias = layer.parameters.get("bias", self.none)
        return _packed_dense.PackedDense(self.y, self.x, weight, bias, isa.selected(), gradients)
