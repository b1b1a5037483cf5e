"""A few steps of every optimizer against values worked out by hand from the papers' formulas.

The inputs are chosen so that the square roots come out rational: every expected value is an
exact fraction, derived in the comment beside it. Only where an irrational root remains is the
value a literal of 30 digits, with its closed form.

Budget: float64, 4 ulp of 1 (all values are below 2 and each step rounds a handful of times).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.reference import Reference
from tests.support import optimizer

BUDGET = 4 * 2.0**-52

F = Fraction
Exact = Fraction | Decimal | int


@dataclass(frozen=True)
class Golden:
    """Start, gradients, and the parameter after each step."""

    name: str
    optimizer: str
    kwargs: Mapping[str, Any]
    gradients: Sequence[float]
    expected: Sequence[Exact]
    start: float = 1.0
    state: Mapping[str, Exact] = field(default_factory=dict)  # after the last step

    def __str__(self) -> str:
        return f"{self.optimizer}-{self.name}"


def halves_then(step: int) -> float:
    """1/2, 1/4, 1."""
    return (0.5, 0.25, 1.0)[step]


# lr = 1/2 and start 1 throughout, unless said otherwise.
# SGD, gradients 1, 1/2, -1/4. Polyak (1964) with PyTorch's buffer b = mu b + (1 - dampening) g.
G_SGD = (1.0, 0.5, -0.25)
SGD = [
    # 1 - 1/2 = 1/2; - 1/4 = 1/4; + 1/8 = 3/8.
    Golden("plain", "SGD", {"lr": 0.5}, G_SGD, (F(1, 2), F(1, 4), F(3, 8))),
    # g' = 1 + 1/2 = 3/2: 1 - 3/4 = 1/4.  g' = 1/2 + 1/8 = 5/8: 1/4 - 5/16 = -1/16.
    # g' = -1/4 - 1/32 = -9/32: -1/16 + 9/64 = 5/64.
    Golden(
        "weight_decay",
        "SGD",
        {"lr": 0.5, "weight_decay": 0.5},
        G_SGD,
        (F(1, 4), F(-1, 16), F(5, 64)),
    ),
    # The sign turns the gradient, not the decay. g' = -1 + 1/2 = -1/2: 5/4.
    # g' = -1/2 + 5/8 = 1/8: 5/4 - 1/16 = 19/16.  g' = 1/4 + 19/32 = 27/32: 19/16 - 27/64 = 49/64.
    Golden(
        "maximize-weight_decay",
        "SGD",
        {"lr": 0.5, "weight_decay": 0.5, "maximize": True},
        G_SGD,
        (F(5, 4), F(19, 16), F(49, 64)),
    ),
    # b = 1, 1/2 + 1/2 = 1, 1/2 - 1/4 = 1/4: 1/2, 0, -1/8.
    Golden(
        "momentum",
        "SGD",
        {"lr": 0.5, "momentum": 0.5},
        G_SGD,
        (F(1, 2), F(0), F(-1, 8)),
        state={"momentum_buffer": F(1, 4)},
    ),
    # The first gradient enters undamped: b = 1, 1/2 + 3/8 = 7/8, 7/16 - 3/16 = 1/4:
    # 1/2, 1/2 - 7/16 = 1/16, 1/16 - 1/8 = -1/16.
    Golden(
        "dampening",
        "SGD",
        {"lr": 0.5, "momentum": 0.5, "dampening": 0.25},
        G_SGD,
        (F(1, 2), F(1, 16), F(-1, 16)),
    ),
    # Sutskever et al. (2013), PyTorch's form: d = g + b / 2 = 3/2, 1/2 + 1/2 = 1, -1/4 + 1/8 = -1/8.
    # 1 - 3/4 = 1/4, 1/4 - 1/2 = -1/4, -1/4 + 1/16 = -3/16.
    Golden(
        "nesterov",
        "SGD",
        {"lr": 0.5, "momentum": 0.5, "nesterov": True},
        G_SGD,
        (F(1, 4), F(-1, 4), F(-3, 16)),
    ),
    # Rates 1/2, 1/4, 1 inside the buffer: b = 1/2, 1/4 + 1/8 = 3/8, 3/16 - 1/4 = -1/16:
    # 1/2, 1/8, 3/16.
    Golden(
        "lr_in_momentum",
        "SGD",
        {"lr": halves_then, "momentum": 0.5, "lr_in_momentum": True},
        G_SGD,
        (F(1, 2), F(1, 8), F(3, 16)),
        state={"momentum_buffer": F(-1, 16)},
    ),
    # The same rates outside: b = 1, 1, 1/4: 1/2, 1/2 - 1/4 = 1/4, 1/4 - 1/4 = 0.
    Golden(
        "schedule", "SGD", {"lr": halves_then, "momentum": 0.5}, G_SGD, (F(1, 2), F(1, 4), F(0))
    ),
    # With the rate inside, Nesterov's d = lr g + b / 2 = 3/4, 1/8 + 3/16 = 5/16,
    # -1/4 - 1/32 = -9/32: 1/4, -1/16, 7/32.
    Golden(
        "nesterov-lr_in_momentum",
        "SGD",
        {"lr": halves_then, "momentum": 0.5, "nesterov": True, "lr_in_momentum": True},
        G_SGD,
        (F(1, 4), F(-1, 16), F(7, 32)),
    ),
]

# Adam: Kingma and Ba (2015), algorithm 1, with betas (1/2, 3/4), eps = 1, gradients 3, -3, 3.
# |g| is constant, so v_hat = 9 always. m = 3/2, 3/4 - 3/2 = -3/4, -3/8 + 3/2 = 9/8;
# m_hat = 3, -3/4 / 3/4 = -1, 9/8 / 7/8 = 9/7. Steps 1/2 m_hat / (3 + 1) = 3/8, -1/8, 9/56.
G_ADAM = (3.0, -3.0, 3.0)
ADAM_BASE = {"lr": 0.5, "betas": (0.5, 0.75), "eps": 1.0}
ADAM = [
    # 5/8, 3/4, 3/4 - 9/56 = 33/56. v = 9 (1 - 27/64) = 333/64.
    Golden(
        "formula",
        "Adam",
        {**ADAM_BASE},
        G_ADAM,
        (F(5, 8), F(3, 4), F(33, 56)),
        state={"exp_avg": F(9, 8), "exp_avg_sq": F(333, 64)},
    ),
    # L2: from 2, raw gradients 2, -61/16, 17/8 become 2 + 1 = 3, -61/16 + 13/16 = -3,
    # 17/8 + 7/8 = 3: 2 - 3/8 = 13/8, 13/8 + 1/8 = 7/4, 7/4 - 9/56 = 89/56.
    Golden(
        "weight_decay",
        "Adam",
        {**ADAM_BASE, "weight_decay": 0.5},
        (2.0, -61 / 16, 17 / 8),
        (F(13, 8), F(7, 4), F(89, 56)),
        start=2.0,
    ),
    # Maximizing turns the steps round: 11/8, 5/4, 5/4 + 9/56 = 79/56.
    Golden(
        "maximize",
        "Adam",
        {**ADAM_BASE, "maximize": True},
        G_ADAM,
        (F(11, 8), F(5, 4), F(79, 56)),
    ),
    # Reddi et al. (2018) with PyTorch's maximum over the uncorrected v. Gradients 3, 0: v = 9/4,
    # 27/16; the maximum stays 9/4, v_hat = 9/4 / 7/16 = 36/7; m_hat = 3/4 / 3/4 = 1.
    # 5/8 - 1/2 / (6 / sqrt 7 + 1) = 5/8 - sqrt 7 / (2 (6 + sqrt 7)).
    Golden(
        "amsgrad",
        "Adam",
        {**ADAM_BASE, "amsgrad": True},
        (3.0, 0.0),
        (F(5, 8), Decimal("0.471991243682973387189488025486")),
        state={"max_exp_avg_sq": F(9, 4)},
    ),
    # Kingma and Ba, end of section 2: lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt v + eps).
    # t = 1: 1/2 (1/2 / 1/2) (3/2) / (3/2 + 1) = 3/10.
    # t = 2: 1/2 (sqrt 7 / 4 / 3/4) (-3/4) / (3 sqrt 7 / 4 + 1) = -sqrt 7 / (2 (3 sqrt 7 + 4)).
    Golden(
        "eps_hat",
        "Adam",
        {**ADAM_BASE, "eps_hat": True},
        (3.0, -3.0),
        (F(7, 10), Decimal("0.810819093146187634446739755164")),
    ),
    # Loshchilov and Hutter (2019), PyTorch's order: first p (1 - lr wd) = 3/4 p, then Adam's step.
    # 3/4 - 3/8 = 3/8; 9/32 + 1/8 = 13/32; 39/128 - 9/56 = 129/896.
    Golden(
        "formula",
        "AdamW",
        {**ADAM_BASE, "weight_decay": 0.5},
        G_ADAM,
        (F(3, 8), F(13, 32), F(129, 896)),
    ),
]

# Adagrad: Duchi et al. (2011), gradients 3, 4, 12 whose squares sum to 9, 25, 169; eps = 1.
ADAGRAD = [
    # 1 - 1/2 3/4 = 5/8; 5/8 - 1/2 4/6 = 7/24; 7/24 - 1/2 12/14 = -23/168.
    Golden(
        "formula",
        "Adagrad",
        {"lr": 0.5, "eps": 1.0},
        (3.0, 4.0, 12.0),
        (F(5, 8), F(7, 24), F(-23, 168)),
        state={"sum": 169},
    ),
    # Rates 1/2, 1/4, 1/6: 5/8; 5/8 - 1/4 4/6 = 11/24; 11/24 - 1/6 12/14 = 53/168.
    Golden(
        "lr_decay",
        "Adagrad",
        {"lr": 0.5, "eps": 1.0, "lr_decay": 1.0},
        (3.0, 4.0, 12.0),
        (F(5, 8), F(11, 24), F(53, 168)),
    ),
    # From 16, gradients 3, 12, 84: 25, 169, 7225 = 85^2. 1 - 1/2 3/6 = 3/4;
    # 3/4 - 1/2 12/14 = 9/28; 9/28 - 1/2 84/86 = -201/1204.
    Golden(
        "initial_accumulator_value",
        "Adagrad",
        {"lr": 0.5, "eps": 1.0, "initial_accumulator_value": 16.0},
        (3.0, 12.0, 84.0),
        (F(3, 4), F(9, 28), F(-201, 1204)),
        state={"sum": 7225},
    ),
    # eps = 16 under the root: sqrt(9 + 16) = 5, sqrt(153 + 16) = 13, sqrt(7209 + 16) = 85.
    # 1 - 1/2 3/5 = 7/10; 7/10 - 1/2 12/13 = 31/130; 31/130 - 1/2 84/85 = -113/442.
    Golden(
        "eps_inside",
        "Adagrad",
        {"lr": 0.5, "eps": 16.0, "eps_inside": True},
        (3.0, 12.0, 84.0),
        (F(7, 10), F(31, 130), F(-113, 442)),
        state={"sum": 7209},
    ),
    # From 2, raw gradients 2, 51/16, 545/48 plus p / 2 become 3, 4, 12:
    # 2 - 3/8 = 13/8 (4 - 13/16 = 51/16); 13/8 - 1/3 = 31/24 (12 - 31/48 = 545/48);
    # 31/24 - 3/7 = 145/168.
    Golden(
        "weight_decay",
        "Adagrad",
        {"lr": 0.5, "eps": 1.0, "weight_decay": 0.5},
        (2.0, 51 / 16, 545 / 48),
        (F(13, 8), F(31, 24), F(145, 168)),
        start=2.0,
    ),
]

# RMSprop: Tieleman and Hinton (2012); alpha = 3/4, eps = 2, gradients 4, 2, 2:
# v = 16/4 = 4, 3 + 1 = 4, 4: the direction g / (2 + 2) is 1, 1/2, 1/2.
G_RMSPROP = (4.0, 2.0, 2.0)
RMSPROP_BASE = {"lr": 0.5, "alpha": 0.75, "eps": 2.0}
RMSPROP = [
    Golden(
        "formula",
        "RMSprop",
        {**RMSPROP_BASE},
        G_RMSPROP,
        (F(1, 2), F(1, 4), F(0)),
        state={"square_avg": 4},
    ),
    # From 2, raw gradients 3, 5/4, -21/8 plus p / 2 become 4, 2, -2: 3/2, 5/4, 3/2.
    Golden(
        "weight_decay",
        "RMSprop",
        {**RMSPROP_BASE, "weight_decay": 0.5},
        (3.0, 5 / 4, -21 / 8),
        (F(3, 2), F(5, 4), F(3, 2)),
        start=2.0,
    ),
    # b = 1, 1/2 + 1/2 = 1, 1/2 + 1/2 = 1: 1/2, 0, -1/2.
    Golden(
        "momentum",
        "RMSprop",
        {**RMSPROP_BASE, "momentum": 0.5},
        G_RMSPROP,
        (F(1, 2), F(0), F(-1, 2)),
        state={"momentum_buffer": 1},
    ),
    # Rates 1/2, 1/4, 1 inside: b = 1/2, 1/4 + 1/8 = 3/8, 3/16 + 1/2 = 11/16: 1/2, 1/8, -9/16.
    Golden(
        "lr_in_momentum",
        "RMSprop",
        {**RMSPROP_BASE, "lr": halves_then, "momentum": 0.5, "lr_in_momentum": True},
        G_RMSPROP,
        (F(1, 2), F(1, 8), F(-9, 16)),
        state={"momentum_buffer": F(11, 16)},
    ),
    # Graves (2013), eq. 38-41, alpha = 1/2, gradients 4, 3, 13/4. v = 8, 17/2; a = 2, 5/2:
    # v - a^2 = 4, 9/4. v = 17/4 + 169/32 = 305/32, a = 5/4 + 13/8 = 23/8: 305/32 - 529/64 = 81/64.
    # 1 - 1/2 4/(2 + 2) = 1/2; 1/2 - 1/2 3/(3/2 + 2) = 1/14; 1/14 - 1/2 13/4/(9/8 + 2) = -157/350.
    Golden(
        "centered",
        "RMSprop",
        {"lr": 0.5, "alpha": 0.5, "eps": 2.0, "centered": True},
        (4.0, 3.0, 3.25),
        (F(1, 2), F(1, 14), F(-157, 350)),
        state={"grad_avg": F(23, 8), "square_avg": F(305, 32)},
    ),
    # eps = 5 under the root, gradients 4, 2, 7: v = 4, 4, 3 + 49/4 = 61/4; roots 3, 3, 9/2.
    # 1 - 1/2 4/3 = 1/3; 1/3 - 1/2 2/3 = 0; 0 - 1/2 7/(9/2) = -7/9.
    Golden(
        "eps_inside",
        "RMSprop",
        {**RMSPROP_BASE, "eps": 5.0, "eps_inside": True},
        (4.0, 2.0, 7.0),
        (F(1, 3), F(0), F(-7, 9)),
    ),
]

GOLDEN = [*SGD, *ADAM, *ADAGRAD, *RMSPROP]


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_engine(golden: Golden) -> None:
    p = np.full(5, golden.start)
    opt = optimizer(golden.optimizer, p, **golden.kwargs)
    for step, (g, expected) in enumerate(zip(golden.gradients, golden.expected, strict=True)):
        assert opt.step(np.full(5, g))
        assert np.abs(p - float(expected)).max() <= BUDGET, f"step {step}"
    for slot, value in golden.state.items():
        scale = max(1.0, abs(float(value)))
        assert np.abs(opt.state["params"][slot] - float(value)).max() <= scale * BUDGET, slot


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_reference(golden: Golden) -> None:
    ref = Reference(golden.optimizer, {"p": np.array([golden.start])}, **golden.kwargs)
    for step, (g, expected) in enumerate(zip(golden.gradients, golden.expected, strict=True)):
        assert ref.step({"p": np.array([g])})
        assert abs(ref.params["p"][0] - float(expected)) <= BUDGET, f"step {step}"
    for slot, value in golden.state.items():
        scale = max(1.0, abs(float(value)))
        assert abs(ref.state["p"][slot][0] - float(value)) <= scale * BUDGET, slot


def test_clip_norm_is_global() -> None:
    # Norm of (3, 4) is 5: the coefficient 1/5 makes the gradients 3/5 and 4/5.
    params = [np.zeros(1), np.zeros(1)]
    opt = optimizer("SGD", params, lr=1.0, clip_norm=1.0)
    opt.step([np.array([3.0]), np.array([4.0])])
    assert opt.grad_norm == 5.0
    assert abs(params[0][0] + 0.6) <= BUDGET
    assert abs(params[1][0] + 0.8) <= BUDGET


def test_clip_norm_comes_before_clip_value_and_after_grad_scale() -> None:
    # 1/2 (6, 8) = (3, 4), norm 5, clipped to norm 5/2: (3/2, 2); then clamped to 7/4.
    params = [np.zeros(1), np.zeros(1)]
    opt = optimizer("SGD", params, lr=1.0, clip_norm=2.5, clip_value=1.75)
    opt.step([np.array([6.0]), np.array([-8.0])], grad_scale=0.5)
    assert opt.grad_norm == 5.0
    assert params[0][0] == -1.5
    assert params[1][0] == 1.75
