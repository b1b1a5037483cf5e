"""The command line: fastgd demo | bench | config, or python -m fastgd …"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

import fastgd
from fastgd.demo import DemoError, optional

PROGRAM = "python -m fastgd"
SHAPES = "784x256,256,256x256,256,256x10,10"
BENCHED = ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop")
DEMO = """\
Trains a small multi-layer perceptron, its gradients written in plain NumPy, with batch, stochastic
and mini-batch gradient descent, then with the five optimizers, and prints one table. NumPy's matrix
products run on one thread, so that the results depend on the data and the seed only. Under mpiexec the
ranks share every batch.
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
        (_demo if options.command == "demo" else _bench)(options)
    except (DemoError, fastgd.CheckpointError, OSError) as error:
        print(f"{PROGRAM} {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description="Gradient descent for NumPy.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastgd {fastgd.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | bench | config")
    commands.add_parser(
        "config", help="print what was built, and the threads in use", allow_abbrev=False
    )
    bench = commands.add_parser(
        "bench",
        help="time steps over arrays of your shapes against PyTorch and the memory's bound",
        allow_abbrev=False,
    )
    bench.add_argument(
        "--shapes",
        type=_shapes,
        default=_shapes(SHAPES),
        metavar="A,BxC,…",
        help=f"of the arrays (default {SHAPES})",
    )
    bench.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="take the shapes of the parameters in it"
    )
    bench.add_argument(
        "--optimizer",
        type=_optimizer,
        action="append",
        metavar="NAME",
        help="one of fastgd.optimizers in any case; may be repeated (default: SGD, Adam, AdamW, Adagrad "
        "and RMSprop)",
    )
    bench.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    bench.add_argument(
        "--threads", type=_threads, metavar="N", help="of the steps (default: all that there are)"
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


def _bench(options: argparse.Namespace) -> None:
    """Measure, and print the table."""
    from fastgd._bench import report

    shapes = options.shapes
    if options.checkpoint is not None:
        parameters = fastgd.load(options.checkpoint).parameters
        shapes = [array.shape for array in parameters.values()]
    kinds = options.optimizer or [fastgd.optimizers.find(name) for name in BENCHED]
    for kind in kinds:
        for i, shape in enumerate(shapes):
            try:
                kind.check_array(str(i), np.empty(shape), kind.declaration.defaults)
            except ValueError as error:
                raise DemoError(f"{kind.__name__}: {error}") from None
    print(report(kinds, shapes, options.dtype, options.threads or fastgd.get_num_threads()))


def _demo(options: argparse.Namespace) -> None:
    """Train everything, print the report and write the picture."""
    from fastgd.demo import data, picture, runs, table
    from fastgd.distributed import launched

    comm = launched()
    leads = comm is None or comm.rank == 0

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
                disable=None if leads else True,  # unless stderr is a terminal
                ncols=min(shutil.get_terminal_size().columns, 100) - 1,  # also if it tells no size
                nrows=20,
            )
        )
        for run in plan:
            bar.set_description_str(f"{run.name:<17}")
            record = options.plot is not None
            outcomes.append(
                runs.train(run, dataset, options.seed, record=record, report=bar.update, comm=comm)
            )
    if not leads:
        return
    if comm is not None:
        print(f"{comm.size} ranks, each with its part of every batch")
    print(table.report(dataset, options.seed, outcomes, timing=options.timing))
    if options.plot is not None:
        picture.write(options.plot, dataset, outcomes)


def _shapes(text: str) -> list[tuple[int, ...]]:
    try:
        shapes = [tuple(int(n) for n in part.split("x")) for part in text.split(",")]
    except ValueError:
        shapes = [(0,)]
    if any(n < 1 for shape in shapes for n in shape):
        raise argparse.ArgumentTypeError(f"must be sizes such as 784x256,256, got {text!r}")
    return shapes


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


def run() -> NoReturn:
    """The program: the exit status is 130 after Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)


if __name__ == "__main__":
    run()
