"""The examples in the docstrings and in the README run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastgd

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fastgd.__path__, "fastgd.")
    if "_kernels" not in module.name and not module.name.endswith("__main__")
)
HOSTS = ("autograd", "jax", "keras", "scipy", "sklearn", "thinc", "torch")
NEEDS = {f"fastgd.adapters.{name}": name for name in HOSTS}


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for module, host in NEEDS.items():
        if name.startswith(module):
            pytest.importorskip(host)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8
    pytest.importorskip("matplotlib")
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
