r"""Trainings in other libraries, with their own optimizer and with fastgd's behind their interface.

    python -m bench.hosts [torch keras sklearn thinc autograd jax] [--rounds 7] [--markdown docs/hosts.md]

Each line is one training, run in turns by the host alone and with fastgd; the ratio is of the medians of
whole runs, the shares are the optimizer's of the run's time, and the last losses are beside each other.
A host that is not installed is named at the end. With --markdown the table goes into a page, between the
lines that begin with "<!-- hosts" and "<!-- end".
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")


class Run(NamedTuple):
    """One training: seconds, of them in the optimizer, and the last loss."""

    seconds: float
    stepping: float
    loss: float


Training = Callable[[], Run]
HEAD = ["| training | against | times | share |", "|---|---|---|---|"]


class Clock:
    """Counts the time in a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def compared(title: str, trainings: dict[str, Training], rounds: int) -> list[str]:
    """Rows of the table. The last of the trainings is fastgd's; each of the others is a host's."""
    runs: dict[str, list[Run]] = {name: [] for name in trainings}
    for i in range(rounds + 1):
        for name, training in trainings.items():
            run = training()
            if i > 0:
                runs[name].append(run)
    seconds = {name: statistics.median(r.seconds for r in found) for name, found in runs.items()}
    shares = {
        name: statistics.median(r.stepping / r.seconds for r in found)
        for name, found in runs.items()
    }
    *hosts, ours = trainings
    print(f"{title}: optimizer's share {_share(shares[ours])}, loss {runs[ours][-1].loss:.6g}")
    rows = []
    for name in hosts:
        times = seconds[name] / seconds[ours]
        print(
            f"    {times:5.2f} x against {name:<22} share {_share(shares[name])}, "
            f"loss {runs[name][-1].loss:.6g}"
        )
        rows.append(
            f"| {title} | {name} | {times:.2f} | {_share(shares[name])} → {_share(shares[ours])} |"
        )
    return rows


def _share(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"


# --- PyTorch ---


def torch_scenes(rounds: int) -> Iterator[list[str]]:
    import torch

    import fastgd.adapters.torch as adapter

    torch.set_num_threads(2)

    def training(
        layers: Sequence[Any], shape: tuple[int, int], steps: int, make: Any, clip: float | None
    ) -> Training:
        torch.manual_seed(0)
        model = torch.nn.Sequential(*(layer() for layer in layers))
        optimizer = make(model.parameters())
        x, y = torch.randn(shape), torch.randn(shape[0], model[-1].out_features)
        fused = clip is not None and isinstance(optimizer, adapter.Optimizer)

        def run() -> Run:
            clock = Clock()
            step = clock.around(optimizer.step)
            clipped = clock.around(torch.nn.utils.clip_grad_norm_)
            begin = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(x), y)
                loss.backward()
                if clip is not None and not fused:
                    clipped(model.parameters(), clip)
                step()
            return Run(time.perf_counter() - begin, clock.seconds, loss.item())

        return run

    small = [lambda: torch.nn.Linear(32, 32, bias=False)] * 38
    large = [
        lambda: torch.nn.Linear(512, 2048),
        torch.nn.ReLU,
        lambda: torch.nn.Linear(2048, 2048),
        torch.nn.ReLU,
        lambda: torch.nn.Linear(2048, 1600),
    ]
    theirs = torch.optim.AdamW
    for title, layers, shape, steps, clip in (
        ("torch, 38 tensors of 32 x 32", small, (16, 32), 60, None),
        ("torch, the same with clipping", small, (16, 32), 60, 1.0),
        ("torch, 8.5 M parameters, batch 16", large, (16, 512), 6, None),
    ):
        hosts = {
            "its default": lambda p: theirs(p, 1e-3),
            "foreach": lambda p: theirs(p, 1e-3, foreach=True),
            "fused": lambda p: theirs(p, 1e-3, fused=True),
            "fastgd": lambda p, clip=clip: adapter.AdamW(p, 1e-3, clip_norm=clip),
        }
        yield compared(
            title,
            {name: training(layers, shape, steps, make, clip) for name, make in hosts.items()},
            rounds,
        )

    def stepping(make: Any) -> Training:
        tensors = [torch.nn.Parameter(torch.randn(1000)) for _ in range(100)]
        for tensor in tensors:
            tensor.grad = torch.randn(1000)
        optimizer = make(tensors)

        def run() -> Run:
            begin = time.perf_counter()
            for _ in range(100):
                optimizer.step()
            seconds = time.perf_counter() - begin
            return Run(seconds, seconds, float("nan"))

        return run

    steps_only = {
        "its default": stepping(theirs),
        "fused": stepping(lambda p: theirs(p, fused=True)),
        "fastgd": stepping(adapter.AdamW),
    }
    yield compared("torch, the step alone over 100 tensors of 1,000", steps_only, rounds)


# --- Keras ---


def keras_scenes(rounds: int) -> Iterator[list[str]]:
    import keras

    import fastgd.adapters.keras as adapter

    x = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    y = np.abs(x[:, :10]).argmax(1)

    def training(module: Any, width: int, batch: int) -> Training:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((64,)),
                *(keras.layers.Dense(width, activation="relu") for _ in range(3)),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(module.Adam(1e-4), "sparse_categorical_crossentropy")

        def run() -> Run:
            clock = Clock()
            optimizer = model.optimizer
            object.__setattr__(
                optimizer, "apply", clock.around(type(optimizer).apply.__get__(optimizer))
            )
            begin = time.perf_counter()
            found = model.fit(x, y, batch_size=batch, epochs=1, shuffle=False, verbose=0)
            return Run(time.perf_counter() - begin, clock.seconds, found.history["loss"][-1])

        return run

    for width, batch in ((2048, 64), (128, 16)):
        yield compared(
            f"keras, fit, 3 layers of {width:,}, batch {batch}",
            {
                "keras.optimizers.Adam": training(keras.optimizers, width, batch),
                "fastgd": training(adapter, width, batch),
            },
            rounds,
        )


# --- scikit-learn ---


def sklearn_scenes(rounds: int) -> Iterator[list[str]]:
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier
    from sklearn.neural_network import _stochastic_optimizers as optimizers

    from fastgd.adapters import sklearn as adapter

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)

    def training(
        kind: Any, owner: Any, hidden: tuple[int, ...], batch: int, epochs: int
    ) -> Training:
        def run() -> Run:
            clock, plain = Clock(), owner.update_params
            owner.update_params = _method(clock, plain)
            try:
                model = kind(hidden, batch_size=batch, max_iter=epochs, random_state=0, tol=0.0)
                begin = time.perf_counter()
                model.fit(x, y)
                return Run(time.perf_counter() - begin, clock.seconds, model.loss_)
            finally:
                owner.update_params = plain

        return run

    for hidden, batch, epochs in (((1024, 1024), 200, 2), ((1024, 1024), 32, 1), ((100,), 200, 10)):
        yield compared(
            f"scikit-learn, fit, layers {hidden}, batch {batch}",
            {
                "MLPClassifier": training(
                    MLPClassifier, optimizers.BaseOptimizer, hidden, batch, epochs
                ),
                "fastgd": training(
                    adapter.MLPClassifier, adapter.OptimizerAdapter, hidden, batch, epochs
                ),
            },
            rounds,
        )


def _method(clock: Clock, plain: Callable[..., Any]) -> Callable[..., Any]:
    def timed(self: Any, *args: Any) -> Any:
        return clock.around(plain)(self, *args)

    return timed


# --- thinc ---


def thinc_scenes(rounds: int) -> Iterator[list[str]]:
    import thinc.optimizers
    from thinc.api import Relu, Softmax, chain, fix_random_seed

    import fastgd.adapters.thinc as adapter

    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 126)).astype(np.float32)
    y = np.eye(10, dtype=np.float32)[np.abs(x[:, :10]).argmax(1)]

    def training(module: Any) -> Training:
        fix_random_seed(0)
        model = chain(*(Relu(nO=126) for _ in range(9)), Softmax())
        model.initialize(x, y)
        optimizer = module.Adam(1e-3)

        def run() -> Run:
            clock = Clock()
            begin, loss = time.perf_counter(), 0.0
            for _ in range(30):
                guess, back = model.begin_update(x)
                back((guess - y) / len(x))
                clock.around(model.finish_update)(optimizer)
                optimizer.step_schedules()
                loss = -float(np.log((guess * y).sum(1) + 1e-12).mean())
            return Run(time.perf_counter() - begin, clock.seconds, loss)

        return run

    def updates(module: Any) -> Training:
        weights = [rng.standard_normal(16_000).astype(np.float32) for _ in range(18)]
        grads = [w.copy() for w in weights]
        optimizer = module.Adam(1e-3)

        def run() -> Run:
            begin = time.perf_counter()
            for _ in range(30):
                for k, (w, g) in enumerate(zip(weights, grads, strict=True)):
                    optimizer((k, "W"), w, g)
                optimizer.step_schedules()
            seconds = time.perf_counter() - begin
            return Run(seconds, seconds, float("nan"))

        return run

    for title, scene in (
        ("thinc, 9 layers of 126, batch 64", training),
        ("thinc, the updates alone of 18 arrays of 16,000", updates),
    ):
        yield compared(
            title, {"thinc's Adam": scene(thinc.optimizers), "fastgd": scene(adapter)}, rounds
        )


# --- autograd ---


def autograd_scenes(rounds: int) -> Iterator[list[str]]:
    import autograd.numpy as anp
    from autograd import grad
    from autograd.misc import optimizers

    import fastgd.adapters.autograd as adapter

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 64)), rng.standard_normal((32, 10))

    def start(width: int) -> list[Any]:
        sizes = [64, width, width, 10]
        shapes = list(itertools.pairwise(sizes))
        made = np.random.default_rng(1)
        return [(made.standard_normal(s) / s[0] ** 0.5, np.zeros(s[1])) for s in shapes]

    def loss(params: Any, _: int = 0) -> Any:
        out = x
        for W, b in params:
            out = anp.tanh(anp.dot(out, W) + b)
        return anp.mean((out - y) ** 2)

    def training(module: Any, width: int) -> Training:
        def run() -> Run:
            clock = Clock()
            gradient = clock.around(grad(loss))
            begin = time.perf_counter()
            found = module.adam(gradient, start(width), num_iters=30)
            seconds = time.perf_counter() - begin
            return Run(seconds, seconds - clock.seconds, float(loss(found)))

        return run

    for width in (32, 512):
        yield compared(
            f"autograd, two layers of {width}, batch 32",
            {"autograd's adam": training(optimizers, width), "fastgd": training(adapter, width)},
            rounds,
        )


# --- JAX ---


def jax_scenes(rounds: int) -> Iterator[list[str]]:
    import jax
    import jax.numpy as jnp
    import optax

    import fastgd
    from fastgd.adapters.jax import value_and_grad

    rng = np.random.default_rng(0)

    def start(width: int) -> list[Any]:
        made = np.random.default_rng(1)
        sizes = [64, width, width, 10]
        shapes = list(itertools.pairwise(sizes))
        return [(made.standard_normal(s) / s[0] ** 0.5).astype(np.float32) for s in shapes]

    x = rng.standard_normal((32, 64)).astype(np.float32)
    y = rng.standard_normal((32, 10)).astype(np.float32)

    def loss(params: Any, x: Any, y: Any) -> Any:
        for W in params[:-1]:
            x = jnp.tanh(x @ W)
        return jnp.mean((x @ params[-1] - y) ** 2)

    def theirs(width: int, together: bool) -> Training:
        rule = optax.adam(1e-3)
        gradient = jax.value_and_grad(loss)

        def update(params: Any, state: Any, grads: Any) -> Any:
            updates, state = rule.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        def whole(params: Any, state: Any, x: Any, y: Any) -> Any:
            value, grads = gradient(params, x, y)
            return value, *update(params, state, grads)

        one = jax.jit(whole, donate_argnums=(0, 1))
        two, second = jax.jit(gradient), jax.jit(update, donate_argnums=(0, 1))

        def run() -> Run:
            params = [jnp.asarray(w.copy()) for w in start(width)]
            state, value = rule.init(params), 0.0
            begin = time.perf_counter()
            for _ in range(20):
                if together:
                    value, params, state = one(params, state, x, y)
                else:
                    value, grads = two(params, x, y)
                    params, state = second(params, state, grads)
            jax.block_until_ready(params)
            return Run(time.perf_counter() - begin, float("nan"), float(value))

        return run

    def ours(width: int) -> Training:
        gradient = value_and_grad(loss)

        def run() -> Run:
            clock, params = Clock(), start(width)
            optimizer = fastgd.Adam(params)
            step, value = clock.around(optimizer.step), 0.0
            begin = time.perf_counter()
            for _ in range(20):
                value, grads = gradient(params, x, y)
                step(grads)
            return Run(time.perf_counter() - begin, clock.seconds, value)

        return run

    for width in (256, 1024, 3072):
        count = sum(w.size for w in start(width)) / 1e6
        yield compared(
            f"jax, two layers of {width:,}, {count:.2g} M parameters, batch 32",
            {
                "optax, one jit": theirs(width, True),
                "optax, two jits": theirs(width, False),
                "fastgd": ours(width),
            },
            rounds,
        )


SCENES: dict[str, Callable[[int], Iterator[list[str]]]] = {
    "torch": torch_scenes,
    "keras": keras_scenes,
    "sklearn": sklearn_scenes,
    "thinc": thinc_scenes,
    "autograd": autograd_scenes,
    "jax": jax_scenes,
}


def installed(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if importlib.util.find_spec(name) is not None:
            yield name


def main() -> None:
    parser = argparse.ArgumentParser(description="Trainings in other libraries, with and without.")
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"of {', '.join(SCENES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the table there")
    arguments = parser.parse_args()
    wanted = arguments.hosts or list(SCENES)
    unknown = sorted(set(wanted) - set(SCENES))
    if unknown:
        parser.error(f"no host {unknown[0]!r}; there are {', '.join(SCENES)}")
    there = list(installed(wanted))
    warnings.simplefilter("ignore")
    rows = [row for name in there for part in SCENES[name](arguments.rounds) for row in part]
    if arguments.markdown:
        page = arguments.markdown.read_text(encoding="utf-8")
        table = "\n".join([*HEAD, *rows])
        begin, end = r"(<!-- hosts.*?-->\n).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>"
        arguments.markdown.write_text(re.sub(begin, end, page, flags=re.DOTALL), encoding="utf-8")
    missing = sorted(set(wanted) - set(there))
    if missing:
        print(f"not installed: {', '.join(missing)}")


if __name__ == "__main__":
    main()
