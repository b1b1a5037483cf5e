"""What adding an optimizer must touch, and what the package promises as a whole."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastgd
from fastgd import _engine
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._registry import all_optimizers
from tests.specs import SPECS

ROOT = Path(__file__).parents[2]
CLASSES = list(all_optimizers().values())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_optimizer_is_complete(kind: type[Optimizer]) -> None:
    name = kind.__name__
    assert getattr(fastgd, name) is kind, f"{name} is not exported in fastgd/__init__.py"
    assert name in fastgd.__all__, f"{name} is not in fastgd.__all__"
    assert name in SPECS, f"{name} has no file in tests/specs"
    docstring = inspect.getdoc(kind) or ""
    for part in ("Args:", "State:", "Raises:", "Example:", "References:", ">>>"):
        assert part in docstring, f"{name}'s docstring has no {part}"


def test_the_readmes_table_is_that_of_the_registry() -> None:
    tables = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert tables
    assert tables.loader
    module = importlib.util.module_from_spec(tables)
    tables.loader.exec_module(module)
    text = (ROOT / "README.md").read_text()
    assert module.updated(text) == text, "run `make docs`"


def test_every_rule_has_an_optimizer() -> None:
    declarations = [kind.declaration for kind in CLASSES]
    used = [rule for d in declarations for rule in (d.rule, *d.variants.values())]
    assert sorted(rule["number"] for rule in used) == sorted(
        rule["number"] for rule in _engine.rules.values()
    )


def test_no_private_module_is_imported_from_another_package() -> None:
    found = []
    for path in sorted((ROOT / "fastgd").rglob("*.py")):
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if not node.module.startswith("fastgd."):
                continue
            parts = node.module.split(".")
            for i, part in enumerate(parts):
                owner = ".".join(parts[:i])
                private = part.startswith("_") and owner != "fastgd"
                if private and own != owner and not own.startswith(owner + "."):
                    found.append(f"{path.name}:{node.lineno}: {node.module}")
    assert not found


def test_every_public_name_exists_and_is_documented() -> None:
    for name in fastgd.__all__:
        value = getattr(fastgd, name)
        if callable(value):
            assert inspect.getdoc(value), f"fastgd.{name} has no docstring"


def test_the_public_names_are_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [name for name in fastgd.__all__ if name != "__version__" and name not in text]
    assert not missing


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_importing_brings_numpy_only() -> None:
    """Optional extras are imported on use; nothing else may slow down an import."""
    code = (
        "import sys, fastgd; print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'scipy', 'sklearn', 'tqdm', 'matplotlib', 'torch', 'jax', 'hypothesis', 'ml_dtypes'}))"
    )
    assert run(code).stdout.strip() == "[]"


def test_show_config_tells_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    fastgd.show_config()
    printed = capsys.readouterr().out
    assert fastgd.__version__ in printed
    assert _engine.isa in printed
    assert str(fastgd.get_num_threads()) in printed


@pytest.mark.parametrize("isa", _engine.available_isas())
def test_the_build_can_be_chosen(isa: str) -> None:
    result = run("import fastgd; print(fastgd._engine.isa)", FASTGD_ISA=isa)
    assert result.stdout.strip() == isa, result.stderr


def test_an_unknown_build_is_refused() -> None:
    result = run("import fastgd", FASTGD_ISA="x86-64-v9")
    assert result.returncode != 0
    assert "ImportError: FASTGD_ISA='x86-64-v9'" in result.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert version("fastgd") == fastgd.__version__
    assert f"\nversion: {fastgd.__version__}\n" in (ROOT / "CITATION.cff").read_text()
