"""Has mypy --strict and pyright look at right.py and wrong.py, as a user's checker would.

    python tests/typing/check.py

Every use in right.py must be accepted, and exactly the lines of wrong.py that say so refused.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MYPY = ["mypy", "--strict", "--config-file=", "--follow-imports=silent"]
CHECKERS = {"mypy": MYPY, "pyright": ["pyright"]}


def refused(checker: str, name: str) -> tuple[set[int], str]:
    """The lines of the file that the checker refuses, and all that it says."""
    command = [*CHECKERS[checker], str(HERE / name)]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    if not re.search(r"Success|Found|\d+ error", done.stdout):  # it has not looked at it at all
        raise SystemExit(f"{checker} on {name}: {done.stdout}{done.stderr}")
    lines = re.findall(rf"{name}:(\d+):.*error", done.stdout)
    return set(map(int, lines)), done.stdout + done.stderr


def main() -> int:
    text = (HERE / "wrong.py").read_text(encoding="utf-8").splitlines()
    wrong = {i for i, line in enumerate(text, 1) if line.endswith("# wrong")}
    failed = False
    for checker in CHECKERS:
        for name, expected in (("right.py", set()), ("wrong.py", wrong)):
            found, said = refused(checker, name)
            if found != expected:
                failed = True
                missed, unasked = sorted(expected - found), sorted(found - expected)
                print(f"{checker} on {name}: missed {missed}, refused besides {unasked}\n{said}")
    print("FAILED" if failed else f"{len(wrong)} wrong uses refused, all right ones accepted")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
