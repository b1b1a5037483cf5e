"""What an interactive user sees: completion, reprs, the command line, a notebook."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd.__main__ import main

PUBLIC = [
    *("adapters", "averaging", "checkpoint", "clipping", "diagnostics", "distributed", "history"),
    *("initializers", "optimizers", "plot", "sampling", "schedules", "training"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_completion_shows_public_names_only(name: str) -> None:
    module = importlib.import_module(f"fastgd.{name}")
    shown = [x for x in dir(module) if not x.startswith("_")]
    extra = ["all_optimizers", "find"] if name == "optimizers" else []
    assert sorted(shown) == sorted([*module.__all__, *extra])


def test_adapters_are_there_on_attribute_access() -> None:
    pytest.importorskip("torch")
    assert callable(fastgd.adapters.torch.to_torch)
    with pytest.raises(AttributeError, match="no attribute 'mxnet'"):
        fastgd.adapters.mxnet  # type: ignore[attr-defined]  # noqa: B018


def test_an_optimizers_repr_has_options_and_groups() -> None:
    groups = [{"params": np.ones((3, 4))}, {"params": np.ones(3), "optimizer": "SGD", "lr": 0.5}]
    opt = fastgd.AdamW(groups, clip_norm=1.0, nonfinite="skip")
    opt.step([np.ones((3, 4)), np.ones(3)])
    first, *rest = repr(opt).splitlines()
    assert first == "AdamW: 1 steps taken, clip_norm=1.0, clip_value=None, nonfinite='skip'"
    assert rest[0].startswith("  group 0: 1 array of 12 elements, lr=0.001, betas=(0.9, 0.999)")
    assert rest[1].startswith("  group 1: SGD, 1 array of 3 elements, lr=0.5")


def test_what_is_to_be_read_is_its_repr() -> None:
    result = fastgd.minimize(lambda w: (float(w @ w), 2 * w), np.ones(2), steps=20)
    assert repr(result.diagnosis) == str(result.diagnosis)
    assert repr(result.diagnosis).startswith(f"{result.diagnosis.verdict}: ")
    report = fastgd.check_gradient(lambda w: (float(w @ w), 2 * w), np.ones(2))
    assert repr(report) == str(report)
    assert repr(report).startswith("Gradients right")


# --- the command line ---


@pytest.fixture
def short_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgd._bench.SECONDS", 0.01)
    monkeypatch.setattr("fastgd._bench.PAUSE", 0.0)


@pytest.mark.usefixtures("short_bench")
def test_bench_of_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--shapes", "30x20,20", "--threads", "1", "--dtype", "float64"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 arrays, 620 elements of float64, 1 thread, fastgd ")
    assert [line.split()[0] for line in text.splitlines()[4:9]] == [
        *("SGD", "Adam", "AdamW", "Adagrad", "RMSprop")
    ]


@pytest.mark.usefixtures("short_bench")
def test_bench_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fastgd.save(tmp_path / "run", fastgd.SGD({"W": np.ones((6, 5)), "b": np.ones(5)}))
    options = ["--checkpoint", str(tmp_path / "run"), "--optimizer", "lion", "--threads", "1"]
    assert main(["bench", *options]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 arrays, 35 elements of float32")
    assert text.splitlines()[4].startswith("Lion")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shapes", "3x"], "sizes such as"),
        (["--shapes", "0"], "sizes such as"),
        (["--optimizer", "adm"], "no optimizer 'adm'"),
        (["--optimizer", "muon", "--shapes", "7"], "Muon: parameter '0'"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--dtype", "int"], "invalid choice"),
    ],
)
def test_bench_says_what_is_wrong(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: Any = main(["bench", *options])
    except SystemExit as error:
        status = error.code
    assert status == 2
    text = capsys.readouterr().err
    assert message in text
    assert len(text.splitlines()) == 1


def test_the_console_script_is_the_module() -> None:
    program = Path(sys.executable).with_name("fastgd")
    if not program.exists():
        pytest.skip("fastgd was not installed into this environment")
    ours = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    module = subprocess.run(
        [sys.executable, "-m", "fastgd", "--version"], capture_output=True, text=True, check=True
    )
    assert ours.stdout == module.stdout == f"fastgd {fastgd.__version__}\n"


# --- a notebook ---

CELL = """
import time
import numpy as np
import fastgd

def value_and_grad(w, x):
    time.sleep(0.01)
    return float(w @ w), 2 * w

result = fastgd.minimize(value_and_grad, np.ones(2), data=(np.ones(40),), batch_size=4, epochs=3,
                         progress={progress}, validation=lambda w: float(w @ w))
result
"""


@pytest.mark.parametrize("progress", [True, None])
def test_progress_in_a_notebook(progress: bool | None, tmp_path: Path) -> None:
    """A widget with the numbers of the end, none of so short a run by default; the result reads well."""
    for module in ("nbclient", "ipykernel", "ipywidgets", "tqdm"):
        pytest.importorskip(module)
    runner = [sys.executable, str(Path(__file__).with_name("run_notebook.py"))]
    cell = CELL.format(progress=progress)
    done = subprocess.run(
        runner, input=cell, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    outputs, widgets = json.loads(done.stdout)
    shown = [output for output in outputs if output["output_type"] == "display_data"]
    assert len(shown) == (1 if progress else 0)
    if progress:
        assert "application/vnd.jupyter.widget-view+json" in shown[0]["data"]
        text = " ".join(str(state.get("value", "")) for state in widgets).replace("\u2007", " ")
        for part in ("30/30", "epoch 3/3", "loss ", "validation ", "lr 0.001"):
            assert part in text
    assert "Result(loss=" in outputs[-1]["data"]["text/plain"]


def test_importing_costs_no_optional_package() -> None:
    code = (
        "import sys, fastgd; print({'pandas', 'tqdm', 'matplotlib', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
