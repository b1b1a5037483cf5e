"""The demo's runs, and the loop that trains and times them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastgd import schedules
from fastgd._arrays.tree import flatten
from fastgd.demo import network
from fastgd.demo.data import Dataset, Part
from fastgd.distributed import DataParallel
from fastgd.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from fastgd.sampling import MiniBatches

Floats: TypeAlias = NDArray[np.float64]

FEW = 10_000  # up to so many training images: a wide network, small batches
STOCHASTIC_STEPS = 60_000  # at most
STEP_COST = 40  # of a step by itself, in samples of a large batch
CURVE_POINTS = 40
CURVE_SAMPLES = 2_000


@dataclass(frozen=True)
class Run:
    """One way to train the network: an optimizer and the batches that it sees.

    The learning rate falls along half a cosine from `lr` to 0 within the steps.
    """

    name: str
    optimizer: Callable[..., Any]
    lr: float
    batch_size: int
    steps: int

    @property
    def cost(self) -> int:
        """How long the run takes, roughly, in samples of a large batch."""
        return self.steps * (self.batch_size + STEP_COST)


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    run: Run
    accuracy: float  # share of the test images that is classified right
    loss: float  # over all the training images, after the last step
    epochs: float  # passes over the training images
    seconds: float  # of training, evaluations not counted
    optimizer_seconds: float
    # Rows of epochs and the loss over the first CURVE_SAMPLES training images; none if unrecorded.
    curve: Floats


@dataclass
class _Progress:
    """How far a run has come, and the time that it took."""

    samples: int = 0
    seconds: float = 0.0
    optimizer_seconds: float = 0.0


def plan(samples: int) -> list[Run]:
    """Return the runs for so many training images: three kinds of batch, then five optimizers."""
    small = samples <= FEW
    size = min(32 if small else 128, samples)
    steps = -(-samples // size) * _between(2, 900_000 // samples, 40)
    mini = partial(Run, batch_size=size, steps=steps)
    return [
        Run("SGD, batch", SGD, 0.4, samples, _between(10, 2_400_000 // samples, 300)),
        Run("SGD, stochastic", SGD, 0.002, 1, min(10 * samples, STOCHASTIC_STEPS)),
        mini("SGD, mini-batch", SGD, 0.1),
        mini("SGD with momentum", partial(SGD, momentum=0.9), 0.02),
        mini("Adam", Adam, 0.002),
        mini("AdamW", partial(AdamW, weight_decay=0.1), 0.002),
        mini("Adagrad", Adagrad, 0.02),
        mini("RMSprop", RMSprop, 0.001),
    ]


def chosen(samples: int, kinds: Sequence[type[Optimizer]], lr: float | None) -> list[Run]:
    """Return runs of these optimizers on mini-batches, at `lr` or at each one's own default."""
    mini = next(run for run in plan(samples) if run.name == "SGD, mini-batch")
    return [
        Run(
            kind.__name__,
            partial(where_it_fits, kind),
            kind.declaration.defaults["lr"] if lr is None else lr,
            mini.batch_size,
            mini.steps,
        )
        for kind in kinds
    ]


def where_it_fits(
    kind: type[Optimizer],
    params: Any,
    lr: Any,
    *,
    rest: Mapping[str, Any] | None = None,
    **other: Any,
) -> Optimizer:
    """An optimizer over all arrays, those that its rule cannot update (Muon's biases) with AdamW.

    Args:
        kind: of the optimizer.
        params: a tree.
        lr: Learning rate; of a schedule its first value where the rule reads the rate only once.
        rest: Hyperparameters of AdamW, if not AdamW's own defaults.
        other: Hyperparameters of `kind`.
    """
    made: Any = kind
    values = {**kind.declaration.defaults, **other, "lr": lr}
    parts: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for name, array in flatten(params)[0]:
        try:
            kind.check_array(name, array, values)
            parts[0][name] = array
        except ValueError:
            parts[1][name] = array
    groups: Any = params
    if parts[1]:
        groups = [{"params": parts[0]}, {"params": parts[1], "optimizer": AdamW, **(rest or {})}]
    try:
        return made(groups, lr=lr, **other)  # type: ignore[no-any-return]
    except TypeError:  # the rate is read only once
        return made(groups, lr=lr(0), **other)  # type: ignore[no-any-return]


def layer_sizes(data: Dataset) -> tuple[int, int, int]:
    """The network's layers: inputs, hidden units, outputs."""
    return data.train.images.shape[1], 256 if len(data.train) <= FEW else 128, data.classes


def train(
    run: Run,
    data: Dataset,
    seed: int,
    *,
    record: bool,
    report: Callable[[int], Any],
    comm: Any = None,
) -> Outcome:
    """Train a new network, every run of a seed from the same parameters.

    Args:
        run: How.
        data: On what.
        seed: Decides the initial parameters and the order of the samples.
        record: Also evaluate the loss on the way, for a curve.
        report: Called after every step with its part of `run.cost`.
        comm: Of the ranks that share every batch; None for one process.
    """
    # A spawned sequence: the order of the samples is drawn from the seed itself.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    params = network.make_params(layer_sizes(data), rng)
    shown = data.train.first(CURVE_SAMPLES)
    marks = set(np.geomspace(1, run.steps, CURVE_POINTS).round().tolist() if record else [])
    progress, curve = _Progress(), []
    with np.errstate(over="ignore", invalid="ignore"):  # should it diverge, the table says nan
        optimizer: Any = run.optimizer(params, lr=schedules.cosine(run.lr, total_steps=run.steps))
        if comm is not None:
            optimizer = DataParallel(optimizer, comm)
        for step in _descend(run, optimizer, params, data.train, seed, progress):
            report(run.cost // run.steps)
            if step in marks:
                with optimizer.evaluation():
                    loss, _ = network.evaluate(params, shown.images, shown.labels)
                curve.append((progress.samples / len(data.train), loss))
        optimizer.eval()
        loss, _ = network.evaluate(params, data.train.images, data.train.labels)
        _, accuracy = network.evaluate(params, data.test.images, data.test.labels)
        if comm is not None:
            optimizer.close()
    return Outcome(
        run=run,
        accuracy=accuracy,
        loss=loss,
        epochs=progress.samples / len(data.train),
        seconds=progress.seconds,
        optimizer_seconds=progress.optimizer_seconds,
        curve=np.array(curve, dtype=np.float64).reshape(-1, 2),
    )


def _descend(
    run: Run,
    optimizer: Any,
    params: network.Params,
    part: Part,
    seed: int,
    progress: _Progress,
) -> Iterator[int]:
    """Take the run's steps, and give their number after each; what is done then is not timed."""
    ranks = getattr(optimizer, "size", 1)
    size = None if run.batch_size == len(part) else max(1, run.batch_size // ranks)
    batches = MiniBatches(
        part.images,
        part.labels,
        batch_size=size,
        seed=seed,
        reuse=True,
        shard=(getattr(optimizer, "rank", 0), ranks),
        drop_last=ranks > 1,  # so that every rank's batch weighs the same
    )
    epochs = chain.from_iterable(repeat(batches))
    begin = perf_counter()
    for step, (images, labels) in enumerate(islice(epochs, run.steps), 1):
        loss, grads = network.value_and_grad(params, images, labels)
        computed = perf_counter()
        optimizer.step(arranged(grads, optimizer), loss=loss)
        end = perf_counter()
        progress.samples += len(labels) * ranks
        progress.seconds += end - begin
        progress.optimizer_seconds += end - computed
        yield step
        begin = perf_counter()


def arranged(grads: Any, optimizer: Any) -> Any:
    """Gradients of a tree as `where_it_fits` has its parameters: as they are, or by group and name."""
    groups: list[dict[str, Any]] = [{} for _ in optimizer.param_groups]
    if len(groups) == 1:
        return grads
    named = dict(flatten(grads)[0])
    for name in optimizer.params:
        group, path = name.split("/", 1)
        groups[int(group)][path] = named[path]
    return groups


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
