"""Fixtures shared by all tests. Helper functions that are not fixtures live in support.py."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is imported
HOSTS = ("autograd", "jax", "keras", "optax", "scipy", "sklearn", "thinc", "torch")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Which of the libraries that fastgd adapts to were not there to be tested against."""
    missing = [name for name in HOSTS if importlib.util.find_spec(name) is None]
    if missing:
        terminalreporter.write_line(f"not installed, so not tested against: {', '.join(missing)}")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(20240229)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> type[np.floating]:
    """Each dtype that a parameter may have."""
    chosen: type[np.floating] = request.param
    return chosen


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Puts the number of threads back after a test that changes it."""
    import fastgd

    before = fastgd._engine.get_chosen_threads()
    yield
    fastgd.set_num_threads(before)


@pytest.fixture
def numbers_in_double() -> Iterator[None]:
    """PyTorch makes the numbers of a rule (NAdam's mu_product) in its default dtype."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
