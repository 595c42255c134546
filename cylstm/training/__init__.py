"""Training: `Trainer` and its parts."""

from cylstm.training.checkpoints import CheckpointError, Checkpoints
from cylstm.training.gradients import NonFiniteError
from cylstm.training.history import History
from cylstm.training.metrics import RowSum
from cylstm.training.trainer import Trainer

__all__ = ["CheckpointError", "Checkpoints", "History", "NonFiniteError", "RowSum", "Trainer"]
