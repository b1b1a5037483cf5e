"""What the literature proves about the methods, on problems whose answer is known.

Everything is float64 and seeded. Where a rate is exact it is compared within a tolerance of
rounding; where it is asymptotic or statistical, the tolerance is derived beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from tests.fma import Array
from tests.support import optimizer

EIGENVALUES = np.array([1.0, 1.7, 3.0, 5.5, 8.0, 10.0])
SMALL, LARGE = float(EIGENVALUES[0]), float(EIGENVALUES[-1])
KAPPA = LARGE / SMALL


@pytest.fixture
def basis(rng: np.random.Generator) -> Array:
    """An orthonormal basis: the eigenvectors of the quadratic."""
    return np.linalg.qr(rng.standard_normal((6, 6)))[0]


def descend(basis: Array, steps: int, eigenvalues: Array = EIGENVALUES, **kwargs: Any) -> Array:
    """Coordinates in the eigenbasis after each step of SGD on x' A x / 2, from all ones."""
    matrix = basis @ np.diag(eigenvalues) @ basis.T
    x = basis @ np.ones(len(eigenvalues))
    opt = fastgd.SGD(x, **kwargs)
    path = []
    for _ in range(steps):
        opt.step(matrix @ x)
        path.append(basis.T @ x)
    return np.array(path)


def rate(path: Array, start: int) -> float:
    """The average factor per step by which the distance shrinks from step `start` to the end."""
    lengths = np.linalg.norm(path, axis=1)
    return float((lengths[-1] / lengths[start]) ** (1 / (len(path) - 1 - start)))


@pytest.mark.parametrize("lr", [0.01, 1 / LARGE, 2 / (SMALL + LARGE), 1.9 / LARGE])
def test_gradient_descent_contracts_at_the_predicted_rate(basis: Array, lr: float) -> None:
    """The error obeys e' = (I - lr A) e: along eigenvector i it is (1 - lr lambda_i)^k."""
    assert lr < 2 / LARGE
    path = descend(basis, 40, lr=lr)
    k = np.arange(1, 41)[:, None]
    # Absolute: each of the 40 products with the matrix leaves a few roundings of size 1 at first.
    np.testing.assert_allclose(path, (1 - lr * EIGENVALUES) ** k, rtol=0, atol=40 * 2.0**-50)
    slowest = np.abs(1 - lr * EIGENVALUES).max()
    long = descend(basis, 120, lr=lr)
    assert rate(long, 60) <= slowest * (1 + 1e-12)
    assert np.linalg.norm(long[-1]) < np.linalg.norm(long[0])


def test_the_best_constant_rate(basis: Array) -> None:
    """lr = 2 / (mu + L) contracts by (kappa - 1) / (kappa + 1) in every step."""
    path = descend(basis, 60, lr=2 / (SMALL + LARGE))
    lengths = np.linalg.norm(path, axis=1)
    assert (lengths[1:] <= lengths[:-1] * (KAPPA - 1) / (KAPPA + 1) * (1 + 1e-9)).all()
    assert rate(path, 40) == pytest.approx((KAPPA - 1) / (KAPPA + 1), rel=1e-6)


def test_gradient_descent_diverges_above_two_over_l(basis: Array) -> None:
    lr = 2.02 / LARGE
    path = descend(basis, 400, lr=lr)
    lengths = np.linalg.norm(path, axis=1)
    assert lengths[-1] > 50 * lengths[0]
    assert rate(path, 300) == pytest.approx(lr * LARGE - 1, rel=1e-6)  # 1.02
    at_the_edge = descend(basis, 400, lr=2 / LARGE)
    assert np.abs(at_the_edge[-1, -1]) == pytest.approx(1.0, rel=1e-10)  # neither


def test_heavy_ball_reaches_the_accelerated_rate() -> None:
    """Polyak (1964): (sqrt kappa - 1) / (sqrt kappa + 1), against (kappa - 1) / (kappa + 1)."""
    eigenvalues = np.array([1.0, 3.0, 20.0, 50.0, 100.0])
    kappa, root = 100.0, 10.0
    momentum = ((root - 1) / (root + 1)) ** 2
    lr = 4 / (np.sqrt(100.0) + 1.0) ** 2
    accelerated = (root - 1) / (root + 1)
    path = descend(np.eye(5), 160, eigenvalues, lr=lr, momentum=momentum)
    # Double roots at both ends of the spectrum add a factor linear in k: (160 / 80)^(1/80) = 1.009.
    assert rate(path, 80) == pytest.approx(accelerated, rel=0.012)
    plain = descend(np.eye(5), 160, eigenvalues, lr=2 / 101)
    assert rate(plain, 80) == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-3)
    assert np.linalg.norm(path[-1]) < 1e-9 * np.linalg.norm(plain[-1])


def test_nesterov_momentum_beats_plain_descent() -> None:
    """Nesterov (2004), section 2.2, constant momentum with lr = 1 / L: 1 - 1 / sqrt kappa."""
    eigenvalues = np.array([1.0, 3.0, 20.0, 50.0, 100.0])
    path = descend(
        np.eye(5), 200, eigenvalues, lr=1 / 100, momentum=(10 - 1) / (10 + 1), nesterov=True
    )
    # At the smallest eigenvalue r^2 - 2 (0.9) r + 0.9^2 = 0 has the double root 0.9: k 0.9^k, and
    # the factor k adds (200 / 100)^(1/100) = 1.007 per step.
    assert rate(path, 100) == pytest.approx(1 - 1 / 10, rel=0.01)


def adam_path(name: str, scale: float, **kwargs: Any) -> Array:
    rng = np.random.default_rng(3)
    p = rng.standard_normal(50)
    opt = optimizer(name, p, lr=0.01, eps=0.0, **kwargs)
    path = []
    for _ in range(30):
        opt.step(scale * rng.standard_normal(50))
        path.append(p.copy())
    return np.array(path)


def test_adamw_decay_is_independent_of_the_gradients_scale() -> None:
    """Loshchilov and Hutter (2019). Powers of two scale every intermediate exactly: equal bits."""
    decoupled = [adam_path("AdamW", scale, weight_decay=0.1) for scale in (1.0, 1024.0, 2.0**-20)]
    np.testing.assert_array_equal(decoupled[0], decoupled[1])
    np.testing.assert_array_equal(decoupled[0], decoupled[2])
    # Adam alone has that invariance, and its L2 penalty is what breaks it.
    np.testing.assert_array_equal(adam_path("Adam", 1.0), adam_path("Adam", 1024.0))
    coupled = [adam_path("Adam", scale, weight_decay=0.1) for scale in (1.0, 1024.0)]
    assert np.abs(coupled[0] - coupled[1]).max() > 1e-3


def test_adamw_decays_geometrically_without_a_gradient() -> None:
    p = np.linspace(-2.0, 2.0, 9)
    start = p.copy()
    opt = fastgd.AdamW(p, lr=0.1, weight_decay=0.5)
    for _ in range(50):
        opt.step(np.zeros(9))
    np.testing.assert_allclose(p, start * (1 - 0.1 * 0.5) ** 50, rtol=50 * 2.0**-52, atol=0)


ESCAPES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.02, "momentum": 0.9}),
    ("Adam", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 1e-3}),
    ("Adagrad", {"lr": 0.1}),
    ("RMSprop", {"lr": 0.005}),
]


def saddle_path(name: str, kwargs: dict[str, Any], batch: int | None) -> Array:
    """Mini-batches of f(x, y) = x^2/2 - y^2/2 + y^4/4 + mean of z_i . (x, y), with mean(z) = 0.

    The origin is a strict saddle, (0, 1) and (0, -1) are the minima, both of value -1/4. The start
    (1, 0) lies on the line that the exact gradient never leaves.
    """
    rng = np.random.default_rng(11)
    noise = 0.1 * rng.standard_normal((64, 2))
    noise -= noise.mean(axis=0)
    p = np.array([1.0, 0.0])
    opt = optimizer(name, p, **kwargs)
    for _ in range(1500):
        g = np.array([p[0], p[1] ** 3 - p[1]])
        if batch is not None:
            g += noise[rng.integers(64, size=batch)].mean(axis=0)
        opt.step(g)
    return p


@pytest.mark.parametrize(("name", "kwargs"), ESCAPES, ids=lambda x: x if isinstance(x, str) else "")
def test_mini_batch_noise_leaves_a_strict_saddle(name: str, kwargs: dict[str, Any]) -> None:
    """Ge et al. (2015): gradient noise alone is enough to escape."""
    stuck = saddle_path(name, kwargs, batch=None)
    assert stuck[1] == 0.0
    x, y = saddle_path(name, kwargs, batch=8)
    assert x**2 / 2 - y**2 / 2 + y**4 / 4 < -0.24


def test_adagrad_regret_bound(rng: np.random.Generator) -> None:
    """Duchi, Hazan and Singer (2011), theorem 5 for the diagonal matrix and no regularizer.

    Online absolute loss |a_t . x - b_t| with sparse features. For every comparator u,
    sum f_t(x_t) - f_t(u) <= (D^2 / (2 lr) + lr) sum_i ||g_{1:T,i}||, D = max_t ||x_t - u||_inf.
    """
    dimension, rounds, lr = 20, 400, 0.5
    frequencies = 1.0 / np.arange(1, dimension + 1)
    features = rng.standard_normal((rounds, dimension)) * (
        rng.random((rounds, dimension)) < frequencies
    )
    truth = rng.uniform(-1, 1, dimension)
    targets = features @ truth + 0.1 * rng.standard_normal(rounds)

    x = np.zeros(dimension)
    opt = fastgd.Adagrad(x, lr=lr)
    points, gradients = [], []
    for a, b in zip(features, targets, strict=True):
        points.append(x.copy())
        gradients.append(np.sign(a @ x - b) * a)
        opt.step(gradients[-1])

    played = np.array(points)
    losses = np.abs(np.sum(features * played, axis=1) - targets)
    lengths = np.linalg.norm(gradients, axis=0).sum()
    for comparator in (truth, np.zeros(dimension), 0.5 * truth, truth + 0.3):
        regret = np.sum(losses - np.abs(features @ comparator - targets))
        diameter = np.abs(played - comparator).max()
        assert regret <= (diameter**2 / (2 * lr) + lr) * lengths
    # Sublinear: the second half costs less than the first.
    excess = losses - np.abs(features @ truth - targets)
    assert excess[rounds // 2 :].sum() < 0.5 * excess[: rounds // 2].sum()


def noisy_descent(lr: Any, steps: int, coordinates: int = 4000) -> float:
    """Mean squared error on x^2 / 2 with unit noise on the gradient, many independent copies."""
    rng = np.random.default_rng(5)
    x = np.ones(coordinates)
    opt = fastgd.SGD(x, lr=lr)
    for _ in range(steps):
        opt.step(x + rng.standard_normal(coordinates))
    return float(np.mean(x**2))


def inverse_time(step: int) -> float:
    return 1.0 / (step + 1.0)


def test_robbins_monro() -> None:
    """Decreasing steps lr_k = 1 / (k + 1) converge on a noisy strongly convex quadratic.

    Here x_k is minus the mean of k noises: the mean squared error is exactly 1 / k. A chi-square
    mean over 4000 copies has relative deviation sqrt(2 / 4000) = 2.2 %; 9 % is four of them.
    """
    for steps in (10, 100, 1000):
        assert noisy_descent(inverse_time, steps) == pytest.approx(1 / steps, rel=0.09)


def test_constant_steps_stop_at_the_noise_floor() -> None:
    """With lr constant the error settles at lr / (2 - lr) instead."""
    for lr in (0.5, 0.1):
        assert noisy_descent(lr, 200) == pytest.approx(lr / (2 - lr), rel=0.09)
