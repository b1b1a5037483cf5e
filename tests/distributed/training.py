"""minimize(comm=…): the run of one process on batches that are as many times as large."""

from __future__ import annotations

import numpy as np
import pytest

import fastgd
from tests.distributed.common import COMM, RANK, RANKS, normal

X = normal(1, 91, 6, dtype=np.float64)
Y = X @ np.arange(6.0) + normal(2, 91, dtype=np.float64)


def loss(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    r = x @ w - y
    return float(r @ r / len(y)), 2 * x.T @ r / len(y)


def alike(thing: object) -> None:
    assert len(set(map(repr, COMM.allgather(thing)))) == 1


def main() -> None:
    size = 12 // RANKS
    runs = {
        "full batches": ({}, {}, {"steps": 30}),
        "mini-batches": ({"batch_size": size}, {"batch_size": 12}, {"epochs": 3}),
        "accumulated": (
            {"batch_size": size, "accumulate": 2},
            {"batch_size": 12, "accumulate": 2},
            {"epochs": 3},
        ),
        "everything": (
            {"batch_size": size},
            {"batch_size": 12},
            {
                "epochs": 4,
                "validation": (X[:30], Y[:30]),
                "patience": 2,
                "average": "ema",
                "metrics": {"first": lambda w: float(w[0])},
                "clip_norm": 1.0,
            },
        ),
        "steps": ({"batch_size": size}, {"batch_size": 12}, {"steps": 13}),
        "tol": ({}, {}, {"tol": 1e-3, "steps": 4000, "lr": 0.05}),
    }
    for name, (own, whole, common) in runs.items():
        common = {"optimizer": "adam", "lr": 0.1, "data": (X, Y), "progress": False, **common}
        ours = fastgd.minimize(loss, np.zeros(6) + RANK, comm=COMM, **own, **common)
        reference = fastgd.minimize(loss, np.zeros(6), **whole, **common)
        np.testing.assert_allclose(ours.params, reference.params, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(ours.loss, reference.loss, rtol=1e-9, err_msg=name)
        assert (ours.nit, ours.reason) == (reference.nit, reference.reason), name
        np.testing.assert_allclose(
            ours.history.loss, reference.history.loss, rtol=1e-9, err_msg=name
        )
        np.testing.assert_allclose(
            ours.history.grad_norm, reference.history.grad_norm, rtol=1e-6, err_msg=name
        )
        assert ours.history.batch_size == reference.history.batch_size, name
        assert ours.history.samples == reference.history.samples, name
        alike(ours.params.tobytes())
        alike(fastgd.diagnose(ours).verdict)

    # A function without data, and batches of any kind, of which ranks have not equally many.
    mine = slice(RANK, None, RANKS)
    here = fastgd.minimize(lambda w: loss(w, X[mine], Y[mine]), np.zeros(6), comm=COMM, lr=0.1)
    assert abs(here.params[5] - 5) < 0.5
    batches = [(X[i : i + 5], Y[i : i + 5]) for i in range(0, 40 + 5 * RANK, 5)]
    there = fastgd.minimize(loss, np.zeros(6), data=batches, comm=COMM, epochs=2, lr=0.1)
    assert there.nit == 2 * (8 + RANKS - 1)
    alike(there.params.tobytes())

    wrong = fastgd.MiniBatches(X, Y, batch_size=5, shard=(0, RANKS + 1))
    with pytest.raises(ValueError, match=r"shard=\(comm.rank, comm.size\)"):
        fastgd.minimize(loss, np.zeros(6), data=wrong, comm=COMM)
    with pytest.raises(TypeError, match="must be an mpi4py communicator"):
        fastgd.minimize(loss, np.zeros(6), data=(X, Y), comm="world")
    for _ in range(30):  # what they share is given back
        fastgd.minimize(loss, np.zeros(6), data=(X, Y), comm=COMM, steps=2, progress=False)
    if RANK == 0:
        print("training agrees")


main()
