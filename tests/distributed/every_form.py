"""Gradients of every form, groups, formats and options take the steps of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

import fastgd
from fastgd.distributed import DataParallel, Sharded
from tests.distributed.common import (
    COMM,
    RANK,
    RANKS,
    TIMEOUT,
    added,
    assert_equal_everywhere,
    distance,
    normal,
    ways,
)


def rows(seed: int, n: int, width: int) -> fastgd.Rows:
    rng = np.random.default_rng(seed)
    return fastgd.Rows(rng.integers(0, n, 40), rng.standard_normal((40, width)).astype(np.float32))


def text(seed: int, shape: tuple[int, ...]) -> Any:
    return scipy.sparse.random(*shape, 0.02, "csr", np.float32, random_state=seed)


def forms(step: int, rank: int) -> dict[str, Any]:
    """What one rank has: of some arrays another form than the others, or nothing."""
    seed = 1000 + 100 * step + 10 * rank
    dense = normal(seed, 500, 12)
    kinds = [dense, rows(seed, 500, 12), None, dense.astype(np.float64), dense.astype(np.float16)]
    return {
        "table": rows(seed, 700, 8),
        "mixed": kinds[(step + rank) % len(kinds)],
        "sparse": text(seed, (300, 40)),
        "text": fastgd.Factors(text(seed + 1, (6, 900)), normal(seed + 2, 6, 9)),
        "layer": fastgd.Factors(normal(seed + 3, 4, 60), normal(seed + 4, 4, 30)),
        "sum": fastgd.Sum([rows(seed + 5, 80, 3), normal(seed + 6, 80, 3)]),
        "turned": normal(seed + 7, 30, 40, order="C"),
        "strided": normal(seed + 8, 50, 8)[:, ::2],
        "scalar": normal(seed + 9),
        "never": None,
        "first": normal(seed + 10, 9) if rank == 0 else None,
        "even": normal(seed + 11, 70) if step % 2 else None,
    }


def start() -> dict[str, Any]:
    shapes = {"table": (700, 8), "mixed": (500, 12), "sparse": (300, 40), "text": (900, 9)}
    shapes |= {"layer": (60, 30), "sum": (80, 3), "turned": (30, 40), "strided": (50, 4)}
    shapes |= {"scalar": (), "never": (5,), "first": (9,), "even": (70,)}
    made = {name: normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    return made | {"turned": np.asfortranarray(made["turned"])}


def compare(kind: str, bound: float, **kwargs: Any) -> None:
    """Five steps in every way beside those of one process."""
    make = fastgd.optimizers.find(kind)
    for way, opt in ways(kind, start(), **kwargs):
        own = {key: value for key, value in kwargs.items() if key != "average"}
        reference = make(fastgd.place(start()), **own)
        before = opt.params["never"].copy()
        for step in range(5):
            assert opt.step(forms(step, RANK), 0.5)
            assert reference.step(added([forms(step, r) for r in range(RANKS)]), 0.5 / RANKS)
        off = distance(opt, reference)
        assert off <= bound, f"{kind} {kwargs} {way}: {off}"
        assert_equal_everywhere(opt)
        assert (opt.params["never"] == before).all()
        if reference.grad_norm is not None:
            assert abs(opt.grad_norm / reference.grad_norm - 1) < 1e-6


def groups() -> None:
    """Several groups, one with another optimizer, a schedule, and numbers assigned between steps."""

    def made(params: Any) -> list[dict[str, Any]]:
        schedule = fastgd.schedules.cosine(0.1, total_steps=8)
        return [
            {"params": params[0], "lr": schedule},
            {"params": params[1], "optimizer": "SGD", "lr": 0.1, "momentum": 0.9, "maximize": True},
        ]

    def trees(seed: int) -> list[Any]:
        return [{"W": normal(seed, 90, 11), "b": normal(seed + 1, 11)}, [normal(seed + 2, 400)]]

    for cls in (DataParallel, Sharded):
        params = trees(0)
        if cls is DataParallel:
            opt: Any = DataParallel(fastgd.AdamW(made(params)), COMM, timeout=TIMEOUT)
        else:
            opt = Sharded("adamw", made(params), comm=COMM, timeout=TIMEOUT)
        reference = fastgd.AdamW(made(trees(0)))
        for step in range(4):
            if step == 2:
                for each in (opt, reference):
                    each.param_groups[1]["lr"] = 0.05
            opt.step(trees(10 * step + 100 * RANK + 50))
            mean = [trees(10 * step + 100 * r + 50) for r in range(RANKS)]
            reference.step(added(mean), 1 / RANKS)
        assert distance(opt, reference) == 0
        assert list(opt.params) == list(reference.params)
        opt.close()


def formats() -> None:
    """State in fewer bits: the same on all ranks, and as close to float32 as in one process."""
    shape = (160, 256)
    for state_dtype in ("bfloat16", "8bit"):
        for way, opt in ways("adamw", normal(1, *shape), state_dtype=state_dtype, lr=1e-3):
            exact = fastgd.AdamW(normal(1, *shape), lr=1e-3)
            for step in range(20):
                grads = [normal(50 + RANKS * step + r, *shape) for r in range(RANKS)]
                opt.step(grads[RANK])
                exact.step(added(grads), 1 / RANKS)
            off = distance(opt, exact)
            assert 0 < off < 2e-3, f"{state_dtype} {way}: {off}"
            assert_equal_everywhere(opt)


def accumulation() -> None:
    """Several batches for one step, and gradients one by one."""
    shape = {"W": (300, 17), "b": (17,)}
    for way, opt in ways("sgd", {k: normal(1, *s) for k, s in shape.items()}, lr=0.1):
        reference = fastgd.SGD({k: normal(1, *s) for k, s in shape.items()}, lr=0.1)

        def grads(seed: int) -> dict[str, Any]:
            return {k: normal(seed, *s) for k, s in shape.items()}

        for step in range(3):
            seeds = [[100 * step + 10 * r + i for i in range(3)] for r in range(RANKS)]
            with opt.no_sync():
                assert opt.step(grads(seeds[RANK][0])) is False
            opt.accumulate(grads(seeds[RANK][1]))
            opt.step(grads(seeds[RANK][2]), 1 / 3)
            reference.step(added([grads(s) for each in seeds for s in each]), 1 / 3 / RANKS)
            assert distance(opt, reference) < 1e-6, way
            late = grads(seeds[RANK][0])
            order = list(late) if RANK % 2 else list(late)[::-1]
            for name in order:
                opt.ready(name, late[name])
            opt.step()
            reference.step(added([grads(s[0]) for s in seeds]), 1 / RANKS)
            assert distance(opt, reference) < 1e-6, way
        assert_equal_everywhere(opt)
        if not isinstance(opt.gradients, dict):
            raise AssertionError
        for array in opt.gradients.values():
            array[...] = RANK + 1
        opt.step(opt.gradients)
        total = sum(range(1, RANKS + 1))
        reference.step({k: np.full(s, total, np.float32) for k, s in shape.items()}, 1 / RANKS)
        assert distance(opt, reference) < 1e-6, way


def two_points() -> None:
    """Schedule-Free on several ranks: eval() and train()."""
    for way, opt in ways("schedulefreeadamw", normal(1, 900), lr=0.1):
        reference = fastgd.ScheduleFreeAdamW(normal(1, 900), lr=0.1)
        for step in range(4):
            grads = [normal(10 + RANKS * step + r, 900) for r in range(RANKS)]
            opt.step(grads[RANK])
            reference.step(added(grads), 1 / RANKS)
        with opt.evaluation(), reference.evaluation():
            assert opt.evaluating
            assert distance(opt, reference) == 0, way
            assert_equal_everywhere(opt)
        assert distance(opt, reference) == 0, way


def norms() -> None:
    for way, opt in ways("adam", {"W": normal(1, 300, 17), "b": normal(2, 17)}, lr=0.1):
        reference = fastgd.Adam({"W": normal(1, 300, 17), "b": normal(2, 17)}, lr=0.1)
        opt.track_norms = reference.track_norms = True
        grads = [{"W": normal(10 + r, 300, 17), "b": normal(20 + r, 17)} for r in range(RANKS)]
        opt.step(grads[RANK])
        reference.step(added(grads), 1 / RANKS)
        for key, value in reference.norms().items():
            np.testing.assert_allclose(opt.norms()[key], value, rtol=1e-5, err_msg=way)


def narrow_gradients() -> None:
    """Gradients that travel as bfloat16: each within half a unit of its last place."""
    if RANKS == 1:
        return
    for way, opt in ways("sgd", np.zeros(70_000, np.float32), lr=1.0, grad_dtype="bfloat16"):
        grads = [normal(5 + r, 70_000) for r in range(RANKS)]
        opt.step(grads[RANK])
        exact = -np.mean(grads, 0, dtype=np.float64)
        error = np.abs(opt.params["params"] - exact)
        bound = np.sum(np.abs(grads), 0) / RANKS * 2.0**-8
        assert (error <= bound + 1e-6).all(), way
        travelled = "False" in way
        assert (error.max() > 1e-5) == travelled, way
        assert_equal_everywhere(opt)


def main() -> None:
    float_bound = 2e-6  # float64 parts are rounded one by one
    compare("adam", float_bound, lr=0.01)
    compare("sgd", float_bound, lr=0.1, momentum=0.9)
    compare("adagrad", float_bound, lr=0.1, clip_norm=1.0)
    compare("rmsprop", float_bound, lr=0.01, nonfinite="skip", average=True)
    groups()
    formats()
    accumulation()
    two_points()
    norms()
    narrow_gradients()
    if RANK == 0:
        print("all forms agree")


main()
