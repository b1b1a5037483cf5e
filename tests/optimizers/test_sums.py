"""Gradients that are sums, and arrays whose memory runs across the parameter's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd import Factors, Rows, Sum
from tests.support import assert_same_bits, optimizer, tame

sparse = pytest.importorskip("scipy.sparse")


def random_csr(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> Any:
    return sparse.random_array(shape, density=0.02, rng=rng, format="csr").astype(dtype)


def lazy_parts(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> list[Any]:
    n, m = shape
    indices = rng.integers(0, n, 30)
    return [
        Rows(indices, tame(rng, (30, m), dtype)),
        random_csr(rng, shape, dtype),
        Factors(random_csr(rng, (3, n), dtype), tame(rng, (3, m), dtype)),
        Rows([5, 1], tame(rng, (2, m), np.float32)),
    ]


def mixed_parts(rng: np.random.Generator, shape: tuple[int, int], dtype: Any) -> list[Any]:
    n, m = shape
    return [
        tame(rng, shape, dtype),
        *lazy_parts(rng, shape, dtype),
        np.asfortranarray(tame(rng, shape, np.float32)),
        Factors(tame(rng, (2, n), dtype), tame(rng, (2, m), dtype)),
        tame(rng, shape, np.float16),
        tame(rng, (2 * n, m), np.float32)[::2],
    ]


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"clip_value": 0.1}], ids=str)
@pytest.mark.parametrize("parts", [mixed_parts, lazy_parts])
@pytest.mark.parametrize("shape", [(300, 7), (40, 1500), (3000, 1)], ids=str)
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "FTRL"])
def test_as_the_dense_sum(
    name: str, shape: Any, parts: Any, options: Any, dtype: Any, rng: np.random.Generator
) -> None:
    """Of rules for which no gradient and one of zero are the same."""
    start = tame(rng, shape, dtype)
    w, twin = start.copy(), start.copy()
    opt, other = (getattr(fastgd, name)(p, lr=0.1, **options) for p in (w, twin))
    for _ in range(3):
        grad = Sum(parts(rng, shape, dtype))
        opt.step(grad)
        other.step(grad.toarray(shape))
    error = 2e-5 if dtype == np.float32 else 1e-12
    assert w == pytest.approx(twin, rel=error, abs=error)
    assert opt.grad_norm == (other.grad_norm and pytest.approx(other.grad_norm, rel=1e-6))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["AdamW", "LAMB", "Muon", "Adafactor"])
def test_of_arrays_has_the_bits_of_numpys_sum(
    name: str, count: int, dtype: Any, rng: np.random.Generator
) -> None:
    start = tame(rng, (130, 90), dtype)
    w, twin = start.copy(), start.copy()
    opt, other = optimizer(name, w, clip_norm=1.0), optimizer(name, twin, clip_norm=1.0)
    for _ in range(3):
        grads = [tame(rng, w.shape, dtype) for _ in range(count)]
        grads[-1] = np.asfortranarray(grads[-1])
        total = grads[0]
        for grad in grads[1:]:
            total = total + grad
        opt.step(Sum(grads))
        other.step(total)
    assert_same_bits(w, twin)


def test_of_a_double_is_rounded_once(rng: np.random.Generator) -> None:
    w = np.zeros(3000, np.float32)
    a, b = tame(rng, 3000, np.float32), tame(rng, 3000, np.float64)
    fastgd.SGD(w, lr=1.0).step(Sum([a, b]))
    assert_same_bits(w, -(a + b).astype(np.float32))


@pytest.mark.parametrize("parts", [mixed_parts, lazy_parts])
def test_same_bits_at_any_number_of_threads(parts: Any, rng: np.random.Generator) -> None:
    results = []
    grads = [Sum(parts(rng, (4000, 150), np.float32)) for _ in range(3)]
    for threads in (1, 2, 3):
        with fastgd.num_threads(threads):
            w = np.ones((4000, 150), np.float32)
            opt = fastgd.Adam(w, clip_norm=0.1)
            for grad in grads:
                opt.step(grad)
        results.append(w)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_lazy_sums_leave_other_rows_alone(rng: np.random.Generator) -> None:
    w = tame(rng, (300, 7), np.float64)
    before = w.copy()
    opt = fastgd.AdamW(w, weight_decay=0.5)
    grad = Sum([Rows([3, 7], np.ones((2, 7))), Rows([7], np.ones((1, 7)))])
    opt.step(grad)
    assert (w != before).any(axis=1).nonzero()[0].tolist() == [3, 7]
    with pytest.raises(TypeError, match="looks at whole"):
        fastgd.LAMB(w).step(grad)


def test_nested_sums_and_what_is_none(rng: np.random.Generator) -> None:
    a = np.ones(3)
    assert repr(Sum([Sum([a, Rows([0], [1.0])]), a])) == "Sum(3 gradients: ndarray, Rows, ndarray)"
    with pytest.raises(ValueError, match="at least one"):
        Sum([])
    with pytest.raises(TypeError, match="list of gradients"):
        Sum(a)
    with pytest.raises(TypeError, match="part 1 must be a gradient"):
        Sum([a, None])


@pytest.mark.parametrize(
    ("grad", "match"),
    [
        (Sum([np.ones((3, 2)), np.ones((2, 3))]), r"'params' is a sum, of which part 1 has shape"),
        (Sum([np.ones((3, 2)), Rows([3], np.ones((1, 2)))]), "'params' has row 3"),
        (Sum([Rows([3], np.ones((1, 2))), Rows([0], np.ones((1, 2)))]), "'params' has row 3"),
        (Sum([np.ones((3, 2)), Factors(np.ones((1, 2)), np.ones((1, 3)))]), "has shape"),
    ],
)
def test_errors_name_the_array(grad: Any, match: str) -> None:
    w = np.ones((3, 2))
    opt = fastgd.Adam(w)
    with pytest.raises(ValueError, match=match):
        opt.step(grad)
    with pytest.raises(TypeError, match="'params'"):
        opt.step(Sum([np.ones((3, 2)), np.ones((3, 2), int)]))
    with pytest.raises(ValueError, match="overlaps the memory"):
        opt.step(Sum([np.ones((3, 2)), w]))
    assert (w == 1.0).all()
    assert opt.step_count == 0


def test_of_nothing() -> None:
    none = np.zeros(0, int)
    for shape in ((3, 0), (0, 2), (3, 2)):
        w = np.ones(shape)
        opt = fastgd.Adam(w)
        empty = Rows(none, np.zeros((0, *shape[1:])))
        assert opt.step(Sum([empty, empty]))
        assert opt.step(Sum([empty, np.zeros(shape), empty]))
        assert opt.step(Sum([empty, sparse.csr_array(shape), empty]))
        assert (w == 1.0).all()


def test_negative_indices_do_not_count_from_the_end() -> None:
    rows = Rows([-1], np.ones((1, 2)))
    for grad in (Sum([rows, rows]), Sum([rows, np.ones((3, 2))])):
        with pytest.raises(ValueError, match="'params' has row -1"):
            fastgd.SGD(np.ones((3, 2))).step(grad)
        with pytest.raises(ValueError, match="at least 0, got -1"):
            grad.toarray((3, 2))


def test_not_finite_in_any_part() -> None:
    w = np.ones((3, 2))
    opt = fastgd.Adam(w, nonfinite="skip")
    assert not opt.step(Sum([np.ones((3, 2)), Rows([1], [[np.nan, 0.0]])]))
    assert not opt.step(Sum([Rows([0], [[1.0, 0.0]]), Rows([1], [[np.inf, 0.0]])]))
    assert opt.step(Sum([np.ones((3, 2)), Rows([1], [[1.0, 0.0]])]))


def test_norm_and_number_of_parts_may_change(rng: np.random.Generator) -> None:
    w, twin = np.zeros((50, 4)), np.zeros((50, 4))
    opt, other = fastgd.Adagrad(w), fastgd.Adagrad(twin)
    for count in (1, 3, 2, 5, 1):
        grads = [tame(rng, (50, 4), np.float64) for _ in range(count)]
        grad: Any = Sum([*grads, Rows([2], np.ones((1, 4)))]) if count % 2 else grads[0]
        dense = grad.toarray((50, 4)) if count % 2 else grad
        assert fastgd.global_norm(grad) == pytest.approx(np.linalg.norm(dense), rel=1e-12)
        opt.step(grad)
        other.step(dense)
    assert w == pytest.approx(twin, rel=1e-12)


# --- memory that runs across the lines ---


def permuted(shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """A function that lays an array out with its axes in another order."""
    return lambda g: np.ascontiguousarray(g.transpose(axes)).transpose(np.argsort(axes))


LAYOUTS = {
    "Fortran": ((700, 130), (1, 0)),
    "one band and a rest": ((65, 4000), (1, 0)),
    "wide": ((3, 90_000), (1, 0)),
    "tall": ((90_000, 3), (1, 0)),
    "channels last": ((32, 48, 5, 7), (0, 2, 3, 1)),
    "reversed": ((20, 30, 40), (2, 1, 0)),
}


@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"grad_scale": 1e-40}], ids=str)
def test_turned_gradients_have_the_bits_of_straight_ones(
    layout: str, given: Any, options: Any, dtype: Any, rng: np.random.Generator
) -> None:
    shape, axes = LAYOUTS[layout]
    scale = options.get("grad_scale", 1.0)
    kwargs = {key: value for key, value in options.items() if key != "grad_scale"}
    start = tame(rng, shape, dtype)
    results = []
    grads = [tame(rng, shape, given) for _ in range(2)]
    for threads, form in ((1, np.array), (1, permuted(shape, axes)), (2, permuted(shape, axes))):
        with fastgd.num_threads(threads):
            w = start.copy()
            opt = fastgd.AdamW(w, **kwargs)
            for grad in grads:
                opt.step(form(grad), grad_scale=scale)
        results.append(w)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_turned_parameters_take_straight_gradients(rng: np.random.Generator) -> None:
    start, grad = tame(rng, (500, 300), np.float32), tame(rng, (500, 300), np.float32)
    w, twin = start.copy(), np.asfortranarray(start)
    for p in (w, twin):
        opt = fastgd.Adam(p)
        for _ in range(2):
            opt.step(grad)
    assert_same_bits(w, np.ascontiguousarray(twin))


# --- one number for each row ---


def test_row_wise_adagrad_is_its_formula_on_rows(rng: np.random.Generator) -> None:
    w = rng.standard_normal((40, 6))
    expected, squares = w.copy(), np.zeros(40)
    opt = fastgd.RowWiseAdagrad(w, lr=0.3, eps=1e-4)
    for _ in range(4):
        indices = rng.integers(0, 40, 9)
        values = rng.standard_normal((9, 6))
        opt.step(Rows(indices, values))
        for row in np.unique(indices):
            g = values[indices == row].sum(axis=0)
            squares[row] += np.mean(g**2)
            expected[row] -= 0.3 * g / (np.sqrt(squares[row]) + 1e-4)
    assert w == pytest.approx(expected, rel=1e-12)
    assert opt.state["params"]["sum"] == pytest.approx(squares, rel=1e-12)


@pytest.mark.parametrize("width", [1, 3, 1024, 1025, 5000])
def test_row_wise_adagrad_of_rows_and_dense(
    width: int, dtype: Any, rng: np.random.Generator
) -> None:
    """A row without a gradient does not move, so both agree; also across chunks and threads."""
    results = []
    grads = [(rng.integers(0, 30, 12), tame(rng, (12, width), dtype)) for _ in range(3)]
    start = tame(rng, (30, width), dtype)
    for threads, dense in ((1, False), (2, False), (1, True), (2, True)):
        with fastgd.num_threads(threads):
            w = start.copy()
            opt = fastgd.RowWiseAdagrad(w, lr=0.1, clip_norm=0.5)
            for indices, values in grads:
                grad: Any = Rows(indices, values)
                opt.step(grad.toarray(w.shape) if dense else grad)
        results.append(w)
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[2], results[3])
    assert results[0] == pytest.approx(results[2], rel=1e-5)


def test_row_wise_adagrad_refuses_what_has_no_rows() -> None:
    with pytest.raises(ValueError, match="'params' is in Fortran order"):
        fastgd.RowWiseAdagrad(np.ones((3, 2), order="F"))
    opt = fastgd.RowWiseAdagrad(np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"'params' is of some elements.*pass Rows"):
        opt.step(sparse.csr_array(np.eye(3, 2)))


@pytest.mark.parametrize("order", list(itertools.permutations(["float64", "float32", "float16"])))
def test_the_norm_of_parts_of_several_dtypes(
    order: tuple[str, ...], dtype: type[np.floating], rng: np.random.Generator
) -> None:
    """A part that lies as its float32 parameter does is no float64, though the norm is taken in it."""
    whole = rng.standard_normal((40, 50)).astype(np.float16)  # which all of them hold
    opt = fastgd.SGD(np.zeros((40, 50), dtype), lr=1.0, clip_norm=1e9)
    assert opt.step(fastgd.Sum([whole.astype(name) for name in order]))
    assert opt.grad_norm == pytest.approx(3 * np.linalg.norm(whole.astype(float)), rel=1e-12)
    assert (opt.params["params"] == -3 * whole.astype(dtype)).all()
