"""The dropout layer."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cylstm import _checks
from cylstm._engine.planning import Shape
from cylstm.layers.masks import Masks
from cylstm.layers.row_layer import RowLayer, RowWorkspace
from cylstm.layers.stateless import Sizeless
from cylstm.sequences.packing import Packing

Array = NDArray[Any]


class Dropout(Sizeless, RowLayer):
    """In training, set features to 0 with probability p and scale the others by 1 / (1 - p).

    See Srivastava et al. 2014. In evaluation mode it is the identity.

    Parameters
    ----------
    p : float
        Dropout probability, in [0, 1).
    features : int, optional
        Number of features. In a `Sequential`, inferred from the preceding layer.
    dtype : {"float32", "float64"}
        In a `Sequential`, that of the other layers.
    seed : int, optional
        Seed of the masks.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Dropout(0.5, features=3, seed=0)
    >>> layer(np.ones((2, 3))).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    >>> layer.train()(np.ones((2, 3))).tolist()
    [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        features: int | None = None,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.p = _checks.number("p", p, 0, 1)
        self.masks = Masks(_checks.generator(seed))
        self._set_size(features, dtype)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments as JSON-compatible values."""
        return {"p": self.p, **self._sizes()}

    def _random_state(self) -> Any:
        return self.masks.state

    def _set_random_state(self, state: Any) -> None:
        self.masks.state = state

    def step_stages(self, workspace: RowWorkspace, state: None, packing: Packing) -> list[tuple[Any, ...]]:
        """Stages of a single step for `_engine._steps.Steps`; None: only `forward_batch` computes it."""
        return []

    def _planes(self, N: int, training: bool) -> dict[str, Shape]:
        return {"mask": (N, self.input_size)} if training else {}

    def _rows_forward(self, workspace: RowWorkspace) -> None:
        if not workspace.training or self.p == 0:
            workspace.y[...] = workspace.x
            return
        mask = workspace.planes["mask"]
        self.masks.draw_dropout(mask, self.p)
        with np.errstate(invalid="ignore", over="ignore"):  # IEEE 754 results without warnings
            np.multiply(workspace.x, mask, out=workspace.y)

    def _rows_backward(self, workspace: RowWorkspace, need_dx: bool) -> Array:
        if self.p > 0:
            with np.errstate(invalid="ignore", over="ignore"):
                workspace.y[...] *= workspace.planes["mask"]
        return workspace.y
