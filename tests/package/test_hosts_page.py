"""Every block of docs/hosts.md by itself, where its library is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
OTHERS = ("statsmodels", "iminuit", "pymc", "GPy", "pennylane", "scipy")


def others(block: str) -> list[str]:
    """What a block imports that may not be there."""
    imported = {
        name.split(".")[0].strip()
        for names in re.findall(r"^import (.*)$", block, re.MULTILINE)
        for name in names.split(",")
    } | set(re.findall(r"^from (\w+)", block, re.MULTILINE))
    found = [
        name
        for name in OTHERS
        if name in imported or any(n.split(" ")[0] == name for n in imported)
    ]
    return [*found, "scipy"] if "adapters.scipy" in block else found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block: str) -> None:
    for name in others(block):
        pytest.importorskip(name)
    exec(compile(block, str(PAGE), "exec"), {"__name__": "page"})


def test_the_page_is_whole() -> None:
    assert len(BLOCKS) == 8
    assert "HOSTS" not in PAGE.read_text(encoding="utf-8")
