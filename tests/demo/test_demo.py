"""The demo: its gradients, what it prints, and what it says about wrong options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgd
from fastgd.__main__ import main
from fastgd.demo import data, network, runs
from tests.demo.files import complaint, write_folder

ADAPTIVE = ("Adam", "AdamW", "Adagrad", "RMSprop")
NAMES = ("SGD, batch", "SGD, stochastic", "SGD, mini-batch", "SGD with momentum", *ADAPTIVE)
FASHION = Path("/usr/share/datasets/fashion-mnist")

# --- the network ---


def problem(
    sizes: tuple[int, ...], samples: int, rng: np.random.Generator
) -> tuple[network.Params, network.Array, network.Array]:
    """Parameters, biases not zero, and a batch, in float64."""
    params = [
        {name: array.astype(np.float64) for name, array in layer.items()}
        for layer in network.make_params(sizes, rng)
    ]
    for layer in params:
        layer["b"] += 0.1 * rng.standard_normal(layer["b"].shape)
    return params, rng.standard_normal((samples, sizes[0])), rng.integers(sizes[-1], size=samples)


@pytest.mark.parametrize("samples", [1, 7])
@pytest.mark.parametrize("sizes", [(5, 3), (6, 8, 4), (5, 7, 6, 3)], ids=str)
def test_gradients_are_the_central_differences(
    sizes: tuple[int, ...], samples: int, rng: np.random.Generator
) -> None:
    params, images, labels = problem(sizes, samples, rng)
    _, grads = network.value_and_grad(params, images, labels)
    h = 1e-6
    for layer, gradient in zip(params, grads, strict=True):
        assert layer.keys() == gradient.keys()
        for name, array in layer.items():
            numeric = np.empty_like(array)
            for place in np.ndindex(array.shape):
                kept, losses = array[place], []
                for shift in (h, -h):
                    array[place] = kept + shift
                    losses.append(network.value_and_grad(params, images, labels)[0])
                array[place] = kept
                numeric[place] = (losses[0] - losses[1]) / (2 * h)
            # The difference's own error: h² from its truncation, ulp(loss) / h from rounding.
            np.testing.assert_allclose(gradient[name], numeric, rtol=0, atol=2e-9, err_msg=name)


def test_the_loss_is_the_mean_cross_entropy(rng: np.random.Generator) -> None:
    params, images, labels = problem((6, 5, 4), 9, rng)
    hidden = np.maximum(images @ params[0]["W"] + params[0]["b"], 0)
    odds = np.exp(hidden @ params[1]["W"] + params[1]["b"])
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(9), labels]).mean()
    loss, _ = network.value_and_grad(params, images, labels)
    assert loss == pytest.approx(expected, rel=1e-14)


def test_outputs_of_any_size_do_not_overflow() -> None:
    params = [{"W": np.array([[1e4, -1e4]]), "b": np.zeros(2)}]
    loss, grads = network.value_and_grad(params, np.ones((1, 1)), np.array([1]))
    assert loss == 2e4
    np.testing.assert_array_equal(grads[0]["W"], [[1.0, -1.0]])


def test_evaluation_in_parts_is_that_of_the_whole(rng: np.random.Generator) -> None:
    samples = 2 * network.ROWS_AT_ONCE + 3
    params, images, labels = problem((4, 6, 3), samples, rng)
    loss, accuracy = network.evaluate(params, images, labels)
    assert loss == pytest.approx(network.value_and_grad(params, images, labels)[0], rel=1e-13)
    hidden = np.maximum(images @ params[0]["W"] + params[0]["b"], 0)
    guesses = (hidden @ params[1]["W"] + params[1]["b"]).argmax(axis=1)
    assert accuracy == np.mean(guesses == labels)


# --- the command line ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of IDX files; see `write_folder`."""
    return write_folder(tmp_path)


OPTIONS = {
    "--seed x": "argument --seed: must be a whole number from 0, got 'x'",
    "--seed -1": "argument --seed: must be a whole number from 0, got '-1'",
    "--seed 1.5": "argument --seed: must be a whole number from 0, got '1.5'",
    "--threads 0": "argument --threads: must be a whole number from 1 to 4096, got 0",
    "--threads 5000": "argument --threads: must be a whole number from 1 to 4096, got 5000",
    "--epochs 3": "unrecognized arguments: --epochs 3",
    "--no": "unrecognized arguments: --no",
    "--data": "argument --data: expected one argument",
    "--data /nowhere/at/all": "/nowhere/at/all: no such directory",
    f"--data {'long' * 100}": "no such directory",
    "--plot picture": "--plot picture: the name must end in .png or .pdf or .svg or .jpg",
    "--plot nowhere/at/all.png": "--plot nowhere/at/all.png: there is no directory nowhere/at",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_bad_option_is_refused(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert OPTIONS[options] in complaint(capsys, *options.split())


def test_a_picture_cannot_replace_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "figures.png").mkdir()
    line = complaint(capsys, "--plot", str(tmp_path / "figures.png"))
    assert "figures.png: is a directory" in line


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("sklearn.datasets", "", "demo"),
        ("tqdm", "", "demo"),
        ("threadpoolctl", "", "demo"),
        ("matplotlib.figure", "--plot picture.png", "plot"),
    ],
)
def test_a_missing_extra_is_named(
    module: str,
    options: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    line = complaint(capsys, *options.split())
    assert line.startswith(f"python -m fastgd demo: cannot import {module}")
    assert line.endswith(f'pip install "fastgd[{extra}]"\n')


@pytest.mark.parametrize("arguments", [[], ["train"], ["config", "now"]], ids=" ".join)
def test_a_bad_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    out, line = capsys.readouterr()
    assert out == ""
    assert line.count("\n") == 1


def test_config_is_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    fastgd.show_config()
    assert printed == capsys.readouterr().out


# --- what it prints ---


def rows(report: str) -> dict[str, list[str]]:
    """The table's cells after the first, by the run's name."""
    lines = report.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("---")) + 1
    cells = (line.split("  ") for line in lines[start : start + len(NAMES)])
    return {first: [cell.strip() for cell in rest if cell] for first, *rest in cells}


def accuracies(report: str) -> dict[str, float]:
    return {name: float(cells[2].rstrip("%")) / 100 for name, cells in rows(report).items()}


def demo(*options: str) -> str:
    """Run the demo in a process of its own, which must not say anything on stderr."""
    command = [sys.executable, "-W", "error", "-m", "fastgd", "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_demo_on_the_digits() -> None:
    pytest.importorskip("sklearn")
    first, second = demo(), demo("--no-timing", "--threads", "2")
    for report in (first, demo("--seed", "1")):
        assert list(rows(report)) == list(NAMES)
        assert min(accuracies(report)[name] for name in ADAPTIVE) > 0.96
        assert min(accuracies(report).values()) > 0.93
        assert max(map(len, report.splitlines())) <= 100
        assert report.isascii()
    # Whatever is the same at every run stands first in its line; measurements follow, or nothing.
    timed, plain = first.splitlines(), second.splitlines()
    assert timed[-1].startswith("steps/s, time in optimizer: measured")
    assert len(timed) == len(plain) + 1
    for line, beginning in zip(timed[:-1], plain, strict=True):
        assert line.startswith(beginning)


@pytest.mark.long
@pytest.mark.skipif(not FASHION.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_the_demo_on_fashion_mnist() -> None:
    report = demo("--data", str(FASHION))
    assert "60,000 training and 10,000 test images of 28x28 pixels, 10 classes" in report
    assert min(accuracies(report)[name] for name in ADAPTIVE) > 0.87


def test_the_demo_on_idx_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--data", str(folder), "--no-timing"]
    reports = []
    for more in ([], ["--seed", "0"], ["--seed", "123456789012345678901234567890"]):
        assert main([*arguments, *more]) == 0
        out, err = capsys.readouterr()
        reports.append(out)
        assert err == ""
    assert reports[0] == reports[1] != reports[2]
    assert reports[0].startswith(
        "IDX files: 60 training and 20 test images of 6x5 pixels, 3 classes"
    )
    assert min(accuracies(reports[0]).values()) > 0.9
    assert rows(reports[0])["SGD, batch"][-2:] == ["300", "300"]
    assert rows(reports[0])["SGD, stochastic"][-2:] == ["10", "600"]
    assert rows(reports[0])["Adam"][-2:] == ["40", "80"]


def test_the_number_of_threads_is_put_back(
    folder: Path, capsys: pytest.CaptureFixture[str], restored_threads: None
) -> None:
    fastgd.set_num_threads(3)
    main(["demo", "--data", str(folder), "--threads", "2"])
    assert fastgd.get_num_threads() == 3


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".JPG"])
def test_the_picture_is_written(
    suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path = folder / f"picture{suffix}"
    assert main(["demo", "--data", str(folder), "--plot", str(path)]) == 0
    start = path.read_bytes()[:5]
    assert start.startswith((b"\x89PNG", b"%PDF-", b"<?xml", b"\xff\xd8"))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal to pretend")
def test_a_terminal_sees_progress(folder: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "fastgd", "demo", "--data", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        assert process.stdout is not None
        assert b"RMSprop" in process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"SGD, batch +0% \|", shown)
    assert re.search(rb"RMSprop +\d+% \|", shown)
    assert shown.count(b"\n") == 0


def _read(terminal: int) -> bytes:
    """What a terminal was sent, nothing when its other end is closed."""
    try:
        return os.read(terminal, 4096)
    except OSError:  # what Linux says then
        return b""


# --- the plan ---


@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33, 1347, 10_000, 10_001, 60_000, 700_000])
def test_every_data_size_has_a_plan(samples: int) -> None:
    plan = runs.plan(samples)
    assert [run.name for run in plan] == list(NAMES)
    for run in plan:
        assert 1 <= run.batch_size <= samples
        assert run.steps >= 1
    batch, stochastic, *mini = plan
    assert batch.batch_size == samples
    assert (stochastic.batch_size, stochastic.steps) == (1, min(10 * samples, 60_000))
    assert len({(run.batch_size, run.steps) for run in mini}) == 1


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("samples", [33, 60])
def test_an_outcome_counts_what_was_done(record: bool, samples: int, folder: Path) -> None:
    whole = data.from_directory(folder)
    dataset = data.Dataset("some", whole.train.first(samples), whole.test, whole.size, 3)
    for run in runs.plan(samples)[:4]:
        reported: list[int] = []
        outcome = runs.train(run, dataset, seed=5, record=record, report=reported.append)
        assert sum(reported) == run.cost
        assert len(reported) == run.steps
        assert outcome.epochs == run.steps / -(-samples // run.batch_size)
        assert 0 < outcome.optimizer_seconds < outcome.seconds
        epochs, losses = outcome.curve.T
        assert len(epochs) == len(losses)
        assert (len(epochs) > 20) == record
        if record:
            assert (np.diff(epochs) > 0).all()
            assert (epochs[-1], losses[-1]) == (outcome.epochs, outcome.loss)


# --- any optimizer ---


def test_any_optimizer_can_be_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matrix rules among them, rules that need the loss, those that average, and one read-once rate."""
    monkeypatch.setattr(runs, "_between", lambda low, value, high: 2)  # epochs
    names = ["muon", "PolyakSGD", "ScheduleFreeAdamW", "rprop", "lion"]
    flags = [text for name in names for text in ("--optimizer", name)]
    assert main(["demo", "--no-timing", *flags]) == 0
    printed = capsys.readouterr().out
    for name in ("Muon", "PolyakSGD", "ScheduleFreeAdamW", "Rprop", "Lion"):
        assert re.search(rf"^{name} +32 ", printed, re.MULTILINE), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "adamv"], "did you mean 'Adam'"),
        (["--optimizer", "adam", "--lr", "0"], "greater than 0"),
        (["--optimizer", "adam", "--lr", "x"], "greater than 0"),
    ],
)
def test_wrong_optimizers_and_rates(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["demo", *arguments])
    assert message in capsys.readouterr().err
