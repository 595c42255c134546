"""Base class of all estimators: the network, its training and its outputs."""

import threading
from typing import Any

from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from cylstm import _checks
from cylstm._system.threads import call_threads, from_environment, get_num_threads, usable_cpus
from cylstm.classification import network
from cylstm.classification.network import Cell, Sequences
from cylstm.data import Arrays, StandardScaler
from cylstm.layers.pooling import How
from cylstm.losses import Loss
from cylstm.optim import AdamW, CosineDecay, Schedule
from cylstm.training import Trainer
from cylstm.training.history import attach

Array = NDArray[Any]
Samples = tuple[Sequences, Array]  # with their targets (n, ...)


class NetworkEstimator(BaseEstimator):
    """Base class of estimators: a recurrent network with one row of outputs per sequence.

    A subclass lists all parameters in its constructor, as scikit-learn requires, and implements `_loss()`.
    """

    def __init__(
        self,
        *,
        cell: Cell,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        validation_fraction: float | None,
        patience: int,
        clip_norm: float | None,
        random_state: Any,
        n_jobs: int | None,
        verbose: bool,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.clip_norm = clip_norm
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _create_model(
        self,
        scalers: dict[str, StandardScaler],
        outputs: int,
        pooling: How,
        bidirectional: bool,
        input_dropout: float | None = None,
    ) -> None:
        """Create a network and its optimiser."""
        self.model_ = network.build(
            len(scalers["x"].config["offset"]),
            outputs,
            self._seed,
            cell=self.cell,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            dropout=self.dropout,
            input_dropout=input_dropout,
            bidirectional=bidirectional,
            pooling=pooling,
        )
        self.model_.scalers.update(scalers)
        self._optimizer = AdamW(self._rate())

    def _seed(self) -> int:
        """Draw a seed from `random_state`."""
        return int(self._random.randint(2**31 - 1))

    def _reset_random(self) -> None:
        self._random = check_random_state(self.random_state)

    def _rate(self) -> float:
        return _checks.number("learning_rate", self.learning_rate, 0)

    def _held_out_fraction(self) -> float:
        """Return the fraction of the data to hold out; 0 for none."""
        fraction = self.validation_fraction
        return 0.0 if fraction is None else _checks.number("validation_fraction", fraction, 0, 1)

    def _train_all(self, train: Samples, held_out: Samples | None) -> None:
        """Train for all epochs with a cosine decay of the learning rate to 0."""
        self._train(train, held_out, _checks.positive("epochs", self.epochs), CosineDecay())

    def _train(
        self, train: Samples, held_out: Samples | None, epochs: int, schedule: Schedule | None = None
    ) -> None:
        self._optimizer.lr = self._rate()
        trainer = Trainer(
            self.model_,
            self._loss(),
            self._optimizer,
            schedule=schedule,
            clip_norm=self.clip_norm,
            seed=self._seed(),
            threads=self._threads(),
        )
        self.history_ = trainer.fit(
            self._source(train),
            None if held_out is None else self._source(held_out),
            epochs,
            patience=None if held_out is None else self.patience,
            progress=bool(self.verbose),
        )
        if self.history_.stopped == "interrupted":  # otherwise a search would continue with the next fit
            interrupt = KeyboardInterrupt()
            attach(interrupt, self.history_)
            raise interrupt

    def _source(self, samples: Samples) -> Arrays:
        return Arrays(*samples, self.batch_size, target_per="sequence")

    def _outputs(self, x: Sequences) -> Array:
        """Compute the outputs (n, V) in float64 for scaled sequences."""
        with call_threads(self._threads()):
            return network.outputs(self.model_, x)

    def _scaled(self, x: Sequences) -> Sequences:
        return network.scaled(self.model_, x)

    def _threads(self) -> int:
        """Return the number of threads for `n_jobs`; negative values count down from all CPUs."""
        if self.n_jobs is None:
            if not getattr(get_active_backend()[0], "nesting_level", 0):
                return get_num_threads()
            # A joblib process (loky) has its limit in the environment; joblib threads share a process.
            in_thread = threading.current_thread() is not threading.main_thread()
            return 1 if in_thread else from_environment() or 1
        if self.n_jobs < 0:
            return max(1, usable_cpus() + 1 + self.n_jobs)
        return _checks.positive("n_jobs", self.n_jobs)
