"""What a run was like, step by step, in bounded memory."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import integer, suggestion

__all__ = ["EpochMeans", "History"]

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

Floats: TypeAlias = NDArray[np.float64]

LAYER_BYTES = 64 * 2**20  # the most that the records take, unless so few would be left
FEWEST_RECORDS = 16
FIRST_CAPACITY = 256  # records; doubled as needed
EARLY_STEPS = 32  # that are all recorded, and kept
# Norms cost about as much per parameter as a step of SGD: models that are not small are measured at
# one step in so many. An odd number, so that a loss that goes up and down in turn shows.
STRIDE, RECORD_ALL_BELOW = 31, 8192


class Table:
    """Rows of numbers at increasing steps: those before `early`, then the multiples of `stride`.

    When `limit` rows are there the stride doubles, and the rows that are not due with it go.
    """

    def __init__(self, width: int, limit: int, stride: int = 1, early: int = 0) -> None:
        self._limit = limit
        self._count = 0
        self._steps = np.empty(min(FIRST_CAPACITY, limit), np.int64)
        self._values = np.empty((self._steps.size, width))
        self._stride = stride
        self._early = early

    def __len__(self) -> int:
        return self._count

    def due(self, step: int) -> bool:
        """Whether the row of this step is to be recorded; makes room for it."""
        if self._count == self._steps.size:
            self._make_room()
        return step % self._stride == 0 or step < self._early

    def new_row(self, step: int) -> Floats:
        """Add a row, to be filled in."""
        if self._count == self._steps.size:
            self._make_room()
        row = self._count
        self._steps[row] = step
        self._count = row + 1
        values: Floats = self._values[row]
        return values

    @property
    def steps(self) -> NDArray[np.int64]:
        return self._steps[: self._count].copy()

    def columns(self, start: int, stop: int) -> Floats:
        """A view."""
        return self._values[: self._count, start:stop]

    def _make_room(self) -> None:
        capacity = self._steps.size
        if capacity < self._limit:
            more = min(capacity, self._limit - capacity)
            self._steps = np.concatenate([self._steps, np.empty(more, np.int64)])
            self._values = np.concatenate([self._values, np.empty((more, self._values.shape[1]))])
            return
        while self._count == capacity:
            self._stride *= 2
            kept = np.flatnonzero((self._steps % self._stride == 0) | (self._steps < self._early))
            self._count = kept.size
            self._steps[: kept.size] = self._steps[kept]
            self._values[: kept.size] = self._values[kept]


class EpochMeans(NamedTuple):
    """Of the steps of each epoch.

    Attributes:
        epoch: int64, epochs completed before: 0 for the first.
        steps: int64, how many were taken.
        loss: the mean over them.
    """

    epoch: NDArray[np.int64]
    steps: NDArray[np.int64]
    loss: Floats


class History:
    """The record of a run: made by `fastgd.minimize`, read by `diagnose` and `plot.history`.

    The loss of every step is recorded, and, where norms would cost too much for that, norms of every
    step at first and then of one in `record_every`. Memory is bounded: with `max_records` entries
    every second one is dropped, apart from the first 32, and from then on half as many are made. All
    properties are new arrays; `history["loss"]` is the same as `history.loss`.

    Of steps, one element for each:

        step: int64, steps taken before it: 0 for the first.
        loss: of the step's batch, at the parameters before the step.
        lr: learning rate of the first parameter group.

    Of steps whose norms were taken:

        norm_step, norm_loss, norm_lr: as step, loss and lr.
        grad_norm, update_norm, param_norm: Euclidean norms over all parameters of the gradient
            (before clipping), of the change that the step made, and of the parameters after it.
        grad_dot_update: gradient · update, the change of the loss to first order.
        layer_grad_norm, layer_update_norm, layer_param_norm: the same norms for every parameter,
            shape (len(norm_step), len(names)).

    A run that met a loss or a gradient which is not finite ends with a record of that: the norms of
    the gradient, and no update.

    After some steps the loss was evaluated once more on the same batch, for the curvature along the
    step: probe_step, probe_loss_before, probe_loss_after, probe_grad_dot_update, probe_update_norm,
    probe_lr.

    At validations: validation_step, the number of steps taken before it, validation_loss (empty where
    there is none), and every metric under its name, `history["accuracy"]`.

    `epochs()` gives the mean loss of each epoch; `to_dict`, `to_csv` and `to_pandas` hand it all on.

    Args:
        names: names of the parameters, as in `Optimizer.params`.
        optimizer: name of the optimizer's class.
        batch_size: samples per step, None if not known.
        samples: samples per epoch, None if not known.
        steps_per_epoch: None if not known.
        first_step: steps taken before the run.
        max_records: at least 16. Fewer norms are kept where those of every parameter would take
            more than 64 MB.
        record_every: take the norms of one step in so many after the first 32; at least 1.
        metrics: names of what is recorded at validations besides their loss.

    Example:
        >>> import numpy as np, fastgd
        >>> result = fastgd.minimize(
        ...     lambda x: (x @ x, 2 * x), np.array([3.0, 4.0]), optimizer="sgd", lr=0.25, steps=3)
        >>> history = result.history
        >>> history
        <History of SGD: steps 0 to 2, loss 25 to 1.5625>
        >>> history["loss"].tolist(), history.grad_norm.tolist(), history.param_norm.tolist()
        ([25.0, 6.25, 1.5625], [10.0, 5.0, 2.5], [2.5, 1.25, 0.625])
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        optimizer: str = "",
        batch_size: int | None = None,
        samples: int | None = None,
        steps_per_epoch: int | None = None,
        first_step: int = 0,
        max_records: int = 10_000,
        record_every: int = 1,
        metrics: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.samples = samples
        self.steps_per_epoch = steps_per_epoch
        self.metrics = tuple(metrics)
        width = 2 + 4 * len(self.names)  # loss, lr, four sums for each parameter
        most = max(FEWEST_RECORDS, LAYER_BYTES // (8 * width))
        limit = integer("max_records", max_records, FEWEST_RECORDS)
        every = integer("record_every", record_every, 1)
        early = min(EARLY_STEPS, limit // 4)
        self._losses = Table(2, limit, early=first_step + early)
        early = min(early, most // 4)
        self._records = Table(width, min(limit, most), every, first_step + early)
        self._probes = Table(5, limit)
        self._validations = Table(1 + len(self.metrics), limit)
        self._validated = False  # with a loss, not only metrics
        self._epochs = Table(
            2, limit
        )  # steps, and the sum of their losses; the last one is under way
        self._epoch, self._epoch_steps, self._epoch_sum = 0, 0, 0.0

    def __len__(self) -> int:
        """The number of steps whose loss is recorded."""
        return len(self._losses)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One of the arrays by its name."""
        if name in self.metrics:
            return _column(self._validations, 1 + self.metrics.index(name))
        if name not in SERIES:
            known = (*SERIES, *self.metrics)
            raise KeyError(f"the history has no {name!r}{suggestion(name, known)}")
        value: NDArray[Any] = getattr(self, name)
        return value

    def __repr__(self) -> str:
        if not len(self):
            return f"<History of {self.optimizer}: no steps>"
        steps, loss = self.step, self.loss
        return (
            f"<History of {self.optimizer}: steps {steps[0]} to {steps[-1]}, loss "
            f"{loss[0]:.6g} to {loss[-1]:.6g}>"
        )

    # --- writing ---

    def due(self, step: int) -> bool:
        """Whether the norms of this step are to be recorded."""
        return self._records.due(step)

    def record(self, step: int, loss: float, lr: float, epoch: int) -> None:
        """Record the loss of a step.

        Args:
            step: steps taken before.
            loss: before the step.
            lr: the learning rate.
            epoch: epochs completed before.
        """
        if self._losses.due(step):
            row = self._losses.new_row(step)
            row[0] = loss
            row[1] = lr
        if epoch != self._epoch:
            if self._epoch_steps and self._epochs.due(self._epoch):
                self._epochs.new_row(self._epoch)[:] = self._epoch_steps, self._epoch_sum
            self._epoch, self._epoch_steps, self._epoch_sum = epoch, 0, 0.0
        self._epoch_steps += 1
        self._epoch_sum += loss

    def record_norms(
        self, step: int, loss: float, lr: float, sums: Floats, grad_scale: float = 1.0
    ) -> None:
        """Record the norms of a step, and its loss beside them.

        Args:
            step, loss, lr: see `record`.
            sums: shape (4, len(names)), for each parameter the squares of its gradient, of its
                update and of itself, and gradient · update.
            grad_scale: factor of the gradients in `sums`.
        """
        row = self._records.new_row(step)
        row[0] = loss
        row[1] = lr
        if grad_scale != 1.0:
            sums = sums * np.array([[grad_scale**2], [1.0], [1.0], [grad_scale]])
        row[2:] = sums.ravel()

    def record_probe(
        self, step: int, before: float, after: float, product: float, update: float, lr: float
    ) -> None:
        """Record the loss on the same batch before and after a step.

        Args:
            step: steps taken before.
            before, after: the two losses.
            product: gradient · update.
            update: norm of the update.
            lr: the learning rate.
        """
        if self._probes.due(step):
            self._probes.new_row(step)[:] = before, after, product, update, lr

    def record_validation(
        self, step: int, loss: float | None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Record a validation after `step` steps: its loss if it has one, and the metrics."""
        if self._validations.due(step):
            row = self._validations.new_row(step)
            row[0] = np.nan if loss is None else loss
            row[1:] = [(metrics or {})[name] for name in self.metrics]
        self._validated = self._validated or loss is not None

    # --- steps ---

    @property
    def step(self) -> NDArray[np.int64]:
        return self._losses.steps

    @property
    def loss(self) -> Floats:
        return _column(self._losses, 0)

    @property
    def lr(self) -> Floats:
        return _column(self._losses, 1)

    def epochs(self) -> EpochMeans:
        """The mean loss of each epoch, over all of its steps, whatever was thinned out. Of more epochs
        than `max_records` every second one is dropped, and so on.

        Example:
            >>> import numpy as np, fastgd
            >>> X = np.array([[1.0], [3.0]])
            >>> result = fastgd.minimize(
            ...     lambda w, x: (float(x.mean()), 0 * w), np.zeros(1), data=(X,), batch_size=1, epochs=2)
            >>> result.history.epochs().loss.tolist()
            [2.0, 2.0]
        """
        epoch, steps, sums = self._epochs.steps, *self._epochs.columns(0, 2).T
        if self._epoch_steps:  # of the one that is under way
            epoch = np.append(epoch, self._epoch)
            steps, sums = np.append(steps, self._epoch_steps), np.append(sums, self._epoch_sum)
        return EpochMeans(epoch, steps.astype(np.int64), sums / steps)

    # --- norms ---

    @property
    def norm_step(self) -> NDArray[np.int64]:
        return self._records.steps

    @property
    def norm_loss(self) -> Floats:
        return _column(self._records, 0)

    @property
    def norm_lr(self) -> Floats:
        return _column(self._records, 1)

    @property
    def grad_norm(self) -> Floats:
        return _root(_total(self._sums(0)))

    @property
    def update_norm(self) -> Floats:
        return _root(_total(self._sums(1)))

    @property
    def param_norm(self) -> Floats:
        return _root(_total(self._sums(2)))

    @property
    def grad_dot_update(self) -> Floats:
        return _total(self._sums(3))

    @property
    def layer_grad_norm(self) -> Floats:
        return _root(self._sums(0))

    @property
    def layer_update_norm(self) -> Floats:
        return _root(self._sums(1))

    @property
    def layer_param_norm(self) -> Floats:
        return _root(self._sums(2))

    def _sums(self, which: int) -> Floats:
        start = 2 + which * len(self.names)
        return self._records.columns(start, start + len(self.names))

    # --- probes and validations ---

    @property
    def probe_step(self) -> NDArray[np.int64]:
        return self._probes.steps

    @property
    def probe_loss_before(self) -> Floats:
        return _column(self._probes, 0)

    @property
    def probe_loss_after(self) -> Floats:
        return _column(self._probes, 1)

    @property
    def probe_grad_dot_update(self) -> Floats:
        return _column(self._probes, 2)

    @property
    def probe_update_norm(self) -> Floats:
        return _column(self._probes, 3)

    @property
    def probe_lr(self) -> Floats:
        return _column(self._probes, 4)

    @property
    def validation_step(self) -> NDArray[np.int64]:
        return self._validations.steps

    @property
    def validation_loss(self) -> Floats:
        return _column(self._validations, 0) if self._validated else np.empty(0)

    # --- elsewhere ---

    def to_dict(self) -> dict[str, NDArray[Any]]:
        """Every array by name, of several lengths: those of steps, norms, probes, validations."""
        return {name: self[name] for name in (*SERIES, *self.metrics)}

    def _rows(self) -> dict[str, NDArray[Any]]:
        """Columns of one length, a row for each step that anything is known of; NaN where it is not."""
        parts: list[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]] = [
            (self.step, {"loss": self.loss, "lr": self.lr}),
            (self.norm_step, {name: self[name] for name in NORMS}),
            (
                self.validation_step,
                {
                    **({"validation_loss": self.validation_loss} if self._validated else {}),
                    **{name: self[name] for name in self.metrics},
                },
            ),
        ]
        steps = np.unique(np.concatenate([where for where, _ in parts]))
        rows: dict[str, NDArray[Any]] = {"step": steps}
        for where, columns in parts:
            for name, values in columns.items():
                rows[name] = np.full(steps.size, np.nan)
                rows[name][np.searchsorted(steps, where)] = values
        return rows

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table: a header, and a row for each step with its loss, rate, norms and validation;
        empty where they were not taken. Numbers are written so that they come back exactly.

        Raises:
            OSError: the file cannot be written.
        """
        rows = self._rows()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(rows)
            for row in zip(*(column.tolist() for column in rows.values()), strict=True):
                writer.writerow("" if value != value else value for value in row)

    def to_pandas(self) -> pandas.DataFrame:
        """The table of `to_csv` as a DataFrame whose index is the step.

        Raises:
            ImportError: pandas is missing.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError('to_pandas needs pandas: pip install "fastgd[pandas]"') from None
        return pandas.DataFrame(self._rows()).set_index("step")


NORMS = ("grad_norm", "update_norm", "param_norm", "grad_dot_update")
SERIES = (
    *("step", "loss", "lr", "norm_step", "norm_loss", "norm_lr", *NORMS),
    *("layer_grad_norm", "layer_update_norm", "layer_param_norm"),
    *("probe_step", "probe_loss_before", "probe_loss_after", "probe_grad_dot_update"),
    *("probe_update_norm", "probe_lr", "validation_step", "validation_loss"),
)


def _column(table: Table, number: int) -> Floats:
    return table.columns(number, number + 1)[:, 0].copy()


def _total(sums: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # inf and NaN are what they are
        total: Floats = sums.sum(axis=1)
        return total


def _root(squares: Floats) -> Floats:
    root: Floats = np.sqrt(squares)
    return root


def __dir__() -> list[str]:
    return __all__
