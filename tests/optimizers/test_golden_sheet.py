"""Three steps of every optimizer against values computed with 60 digits, by formulas of their own.

tests/specs/golden.json was worked out with mpmath from the papers and the libraries' sources, by nobody's
optimizer. Budget: float64, 8 ulp of the largest value for three steps; a matrix rule has its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.reference import Reference
from tests.specs import SPECS
from tests.specs._spec import COMMON
from tests.support import optimizer

SHEET = json.loads((Path(__file__).parents[1] / "specs" / "golden.json").read_text())
LOSSES = [float(x) for x in SHEET["meta"]["polyak losses"]]
# Not part of fastgd (yet: rows of sparse gradients, Muon with optax' bias correction); the rest is
# asserted to be claimed by a specification.
UNCLAIMED = {
    "Muon (optax)",
    "NovoGrad",
    "SM3",
    "MARS-AdamW",
    "MARS-Lion",
    "Sophia-G",
    "SparseAdam",
    "Adagrad sparse",
}
# What a case says beside hyperparameters; eps1 is what None stands for.
NOTES = {"want", "steps shown", "eps1"}


class Golden(NamedTuple):
    name: str
    optimizer: str
    kwargs: dict[str, Any]
    case: dict[str, Any]

    def __str__(self) -> str:
        return self.name


def value(given: Any) -> Any:
    if isinstance(given, list):
        return tuple(map(value, given))
    return float(given) if isinstance(given, str) and re.match(r"[-\d.]", given) else given


def goldens() -> list[Golden]:
    found = []
    for name, spec in SPECS.items():
        for entry, base in spec.golden.items():
            for case in SHEET["optimizers"][entry]:
                kwargs = {
                    **base,
                    **{k: value(v) for k, v in case["hyper"].items() if k not in NOTES},
                }
                own = spec.golden_cases.get(case["case"], kwargs)
                if not isinstance(own, str):
                    kwargs = {**base, **own}
                    assert set(kwargs) <= {*spec.hyper, *COMMON}, (entry, case["case"], kwargs)
                    found.append(Golden(f"{entry}: {case['case']}", name, kwargs, case))
    return found


def test_every_entry_is_claimed() -> None:
    claimed = [entry for spec in SPECS.values() for entry in spec.golden]
    assert sorted({*claimed, *UNCLAIMED}) == sorted(SHEET["optimizers"])


def start_of(case: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The parameter and the gradients; "v as 1x3" gives the vector a shape."""
    key, _, shape = case["start"].partition(" as ")
    data = SHEET["meta"][key]
    theta, gradients = np.array(data["theta0"], float), np.array(data["gradients"], float)
    if shape:
        rows, columns = map(int, shape.split("x"))
        theta, gradients = theta.reshape(rows, columns), gradients.reshape(-1, rows, columns)
    return theta, list(gradients)


def shown(case: dict[str, Any]) -> list[int]:
    """The steps after which the sheet has values."""
    return [int(x) for x in case["hyper"].get("steps shown", "1, 2, 3").split(",")]


def bound(golden: Golden, expected: np.ndarray, step: int) -> float:
    ulps = 8 + SPECS[golden.optimizer].ulps
    return max(step / 3, 1.0) * ulps * 2.0**-52 * max(1.0, float(np.abs(expected).max()))


def arrays(golden: Golden, steps: list[int]) -> list[np.ndarray]:
    shape = start_of(golden.case)[0].shape
    return [np.array(theta, float).reshape(shape) for theta in golden.case["theta"]][: len(steps)]


def kept(golden: Golden, p: np.ndarray, state: dict[str, Any]) -> np.ndarray:
    """What a case looks at: the parameter, or another view of it."""
    want = golden.case["hyper"].get("want", "theta")
    if want == "x":  # of Schedule-Free
        hyper = {**SPECS[golden.optimizer].defaults, **golden.kwargs}
        b = hyper.get("momentum", hyper.get("betas", (0,))[0])
        return (p - (1 - b) * state["z"]) / b
    return p if want in ("theta", "y") else state[want]


@pytest.mark.parametrize("golden", goldens(), ids=str)
def test_engine(golden: Golden) -> None:
    p, gradients = start_of(golden.case)
    opt = optimizer(golden.optimizer, p, **golden.kwargs)
    steps = shown(golden.case)
    wanted = dict(zip(steps, arrays(golden, steps), strict=True))
    for step in range(1, steps[-1] + 1):
        assert opt.step(gradients[(step - 1) % 3], loss=LOSSES[(step - 1) % 3])
        if step in wanted:
            seen = kept(golden, p, opt.state["params"])
            assert np.abs(seen - wanted[step]).max() <= bound(golden, wanted[step], step), step


@pytest.mark.parametrize("golden", goldens(), ids=str)
def test_reference(golden: Golden) -> None:
    p, gradients = start_of(golden.case)
    ref = Reference(golden.optimizer, {"p": p}, **golden.kwargs)
    steps = shown(golden.case)
    wanted = dict(zip(steps, arrays(golden, steps), strict=True))
    for step in range(1, steps[-1] + 1):
        assert ref.step({"p": gradients[(step - 1) % 3]}, loss=LOSSES[(step - 1) % 3])
        if step in wanted:
            seen = kept(golden, ref.params["p"], ref.state["p"])
            assert np.abs(seen - wanted[step]).max() <= bound(golden, wanted[step], step), step
