"""The command line: python -m fastgd demo | config."""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import fastgd
from fastgd.demo import DemoError, optional

PROGRAM = "python -m fastgd"
DEMO = """\
Trains a small multi-layer perceptron, its gradients written in plain NumPy, with batch, stochastic
and mini-batch gradient descent, then with the five optimizers, and prints one table. NumPy's matrix
products run on one thread, so that the results depend on the data and the seed only.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, without the program's name; None for that of this process.

    Returns:
        The exit status: 0, or 2 after one line on stderr about what the user can put right.

    Raises:
        SystemExit: of status 2 for wrong options, 0 for --help and --version.
    """
    options = _parser().parse_args(arguments)
    if options.command == "config":
        fastgd.show_config()
        return 0
    try:
        _demo(options)
    except DemoError as error:
        print(f"{PROGRAM} demo: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="Gradient descent for NumPy.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastgd {fastgd.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | config")
    commands.add_parser(
        "config", help="print what was built, and the threads in use", allow_abbrev=False
    )
    demo = commands.add_parser(
        "demo",
        help="train a small network with every variant of gradient descent",
        description=DEMO,
        allow_abbrev=False,
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="directory of IDX files named as MNIST's and Fashion-MNIST's (train-images-idx3-ubyte, "
        "... or with .gz), to be used instead of scikit-learn's digits",
    )
    demo.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of parameters and batches (default 0)"
    )
    demo.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a figure: .png, .pdf, .svg, ..."
    )
    demo.add_argument(
        "--threads",
        type=_threads,
        default=1,
        metavar="N",
        help="of fastgd's steps (default 1: the network is too small to gain by more)",
    )
    demo.add_argument(
        "--optimizer",
        type=_optimizer,
        action="append",
        metavar="NAME",
        help="run this one on mini-batches instead, one of fastgd.optimizers in any case; may be repeated",
    )
    demo.add_argument(
        "--lr",
        type=_rate,
        metavar="RATE",
        help="of the runs of --optimizer (default: each one's own)",
    )
    demo.add_argument(
        "--no-timing",
        dest="timing",
        action="store_false",
        help="leave out what is measured, so that equal seeds print equal text",
    )
    return parser


def _demo(options: argparse.Namespace) -> None:
    """Train everything, print the report and write the picture."""
    from fastgd.demo import data, picture, runs, table

    tqdm = optional("tqdm").tqdm
    limits = optional("threadpoolctl").threadpool_limits
    if options.plot is not None:
        picture.check(options.plot)
    dataset = data.digits() if options.data is None else data.from_directory(options.data)
    samples = len(dataset.train)
    plan = (
        runs.chosen(samples, options.optimizer, options.lr)
        if options.optimizer
        else runs.plan(samples)
    )
    outcomes = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(limits(1, user_api="blas"))
        stack.enter_context(fastgd.num_threads(options.threads))
        bar = stack.enter_context(
            tqdm(
                total=sum(run.cost for run in plan),
                bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}",
                leave=False,
                disable=None,  # unless stderr is a terminal
                ncols=min(shutil.get_terminal_size().columns, 100) - 1,  # also if it tells no size
                nrows=20,
            )
        )
        for run in plan:
            bar.set_description_str(f"{run.name:<17}")
            record = options.plot is not None
            outcomes.append(
                runs.train(run, dataset, options.seed, record=record, report=bar.update)
            )
    print(table.report(dataset, options.seed, outcomes, timing=options.timing))
    if options.plot is not None:
        picture.write(options.plot, dataset, outcomes)


def _optimizer(text: str) -> type[fastgd.Optimizer]:
    try:
        return fastgd.optimizers.find(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number greater than 0, got {text!r}")
    return rate


def _seed(text: str) -> int:
    return _whole(text, 0)


def _threads(text: str) -> int:
    return _whole(text, 1, 4096)


def _whole(text: str, low: int, high: int | None = None) -> int:
    """A whole number in a range."""
    wanted = f"a whole number from {low}" + ("" if high is None else f" to {high}")
    if not text.isascii() or not text.isdigit() or len(text) > 1000:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
    value = int(text)
    if value < low or (high is not None and value > high):
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
    return value


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
