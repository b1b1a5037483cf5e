"""Gradients of some rows, sparse ones, factors: as if the rest of the parameter were not there."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
import fastgd._arrays.gradients
from fastgd import Factors, Rows, Sum
from fastgd.optimizers import all_optimizers
from tests.support import assert_same_bits, engine_multiply_add, optimizer, tame

sparse = pytest.importorskip("scipy.sparse")

SHAPES = [(50,), (50, 3), (50, 31), (50, 32), (30, 7, 5), (9, 3000), (5000, 2)]


# Of which each looks at a whole array before it updates it.
WHOLE = {"LAMB", "LARS", "Adafactor", "Muon", "DoG", "DoWG", "PolyakSGD", "Prodigy"}
ELEMENTWISE = [name for name in all_optimizers() if name not in WHOLE]


def some_rows(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, k: int = 12) -> Rows:
    """In no order, most of them twice."""
    indices = rng.integers(0, shape[0], k)
    return Rows(np.concatenate([indices, indices[: k // 2]]),
                tame(rng, (k + k // 2, *shape[1:]), dtype))  # fmt: skip


def in_order(grad: Rows, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are touched, and their gradients: equal ones added one after another."""
    rows = np.unique(grad.indices)
    sums = np.zeros((len(rows), *grad.values.shape[1:]), dtype)
    for k, row in enumerate(rows):
        first, *others = grad.values[grad.indices == row].astype(dtype)
        sums[k] = first
        for other in others:
            sums[k] += other
    return rows, sums


@pytest.mark.parametrize("name", [*sorted(WHOLE), "AdamW"])
def test_rules_that_look_at_whole_arrays_refuse_them(name: str) -> None:
    w = np.ones((3, 2))
    opt = optimizer(name, w, **({"cautious": True} if name == "AdamW" else {}))
    with pytest.raises(TypeError, match=rf"'params' is of some rows.*{name} .*looks at whole"):
        opt.step(Rows([0], np.ones((1, 2))), loss=1.0)
    assert w.tolist() == np.ones((3, 2)).tolist()
    assert opt.step_count == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_as_the_same_rows_by_themselves(
    name: str, shape: tuple[int, ...], dtype: type[np.floating], rng: np.random.Generator
) -> None:
    """Bit for bit, the first time; all other rows and their state stay as they were."""
    table = tame(rng, shape, dtype)
    before = table.copy()
    grad = some_rows(rng, shape, dtype)
    rows, sums = in_order(grad, dtype)
    part = table[rows].copy()
    opt, alone = optimizer(name, table), optimizer(name, part)
    state = {k: v.copy() for k, v in opt.state["params"].items() if isinstance(v, np.ndarray)}
    opt.step(grad)
    alone.step(sums)
    assert_same_bits(table[rows], part, name)
    others = np.setdiff1d(np.arange(shape[0]), rows)
    assert_same_bits(table[others], before[others], name)
    for key, old in state.items():
        new = opt.state["params"][key]
        assert_same_bits(new[others], old[others], key)
        assert_same_bits(new[rows], alone.state["params"][key], key)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "RMSprop"])
def test_all_rows_are_the_dense_gradient(
    name: str, dtype: type[np.floating], rng: np.random.Generator
) -> None:
    for shape in SHAPES:
        table, dense = tame(rng, shape, dtype), None
        dense = table.copy()
        opt, other = optimizer(name, table), optimizer(name, dense)
        for _ in range(4):
            order = rng.permutation(shape[0])
            grad = tame(rng, shape, dtype)
            opt.step(Rows(order, grad[order]))
            other.step(grad)
        assert_same_bits(table, dense, str(shape))


@pytest.mark.parametrize("index", [np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64])
def test_indices_of_any_integer_dtype(index: Any) -> None:
    w = np.zeros((100, 2))
    fastgd.SGD(w, lr=1.0).step(Rows(np.array([7, 99, 7], index), np.ones((3, 2))))
    assert w.sum(axis=1).nonzero()[0].tolist() == [7, 99]
    assert w[7].tolist() == [-2.0, -2.0]


@pytest.mark.parametrize(
    "kind", ["float16", "bfloat16", "float64", "strided", "reversed", "column"]
)
@pytest.mark.parametrize("width", [3, 64])
def test_values_of_any_dtype_and_layout(kind: str, width: int, rng: np.random.Generator) -> None:
    values: Any = rng.integers(-8, 8, (6, width)).astype(np.float32)  # exact in all of them
    given = values
    if kind == "bfloat16":
        given = values.astype(pytest.importorskip("ml_dtypes").bfloat16)
    elif kind.startswith("float"):
        given = values.astype(kind)
    elif kind == "strided":
        given = np.repeat(np.repeat(values, 2, axis=0), 3, axis=1)[::2, ::3]
    elif kind == "reversed":
        given = values[::-1].copy()[::-1]
    else:
        given = np.asfortranarray(values)
    expected, w = np.zeros((20, width), np.float32), np.zeros((20, width), np.float32)
    for array, grad in ((expected, values), (w, given)):
        fastgd.SGD(array, lr=0.5).step(Rows([3, 5, 3, 19, 0, 5], grad))
    assert_same_bits(w, expected)


def test_none_dense_and_rows_in_turn(rng: np.random.Generator) -> None:
    """The steps of each array are its own; what a step walks over changes from step to step."""
    params = {"a": np.zeros((300, 40)), "b": np.zeros(5000), "c": np.zeros((70, 3))}
    twins = {key: p.copy() for key, p in params.items()}
    opt, other = fastgd.SGD(params, lr=0.1), fastgd.SGD(twins, lr=0.1)
    for _ in range(30):
        grads: Any = {}
        dense: Any = {}
        for key, p in params.items():
            kind = rng.integers(0, 3)
            rows = some_rows(rng, p.shape, np.float64)
            whole = tame(rng, p.shape, np.float64)
            grads[key] = [None, whole, rows][kind]
            dense[key] = [None, whole, rows.toarray(p.shape)][kind]
        opt.step(grads)
        other.step(dense)
    for key, p in params.items():
        np.testing.assert_allclose(p, twins[key], rtol=1e-13, atol=1e-13)
    assert opt.state["a"]["step"] == other.state["a"]["step"]


def test_no_rows_at_all_count_as_a_step() -> None:
    w = np.ones((4, 3))
    opt = fastgd.Adam(w, clip_norm=1.0)
    assert opt.step(Rows([], np.zeros((0, 3))))
    assert (opt.step_count, opt.state["params"]["step"], opt.grad_norm) == (1, 1, 0.0)
    assert w.tolist() == np.ones((4, 3)).tolist()


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("width", [1, 5, 64, 100])
def test_the_same_bits_at_any_number_of_threads(width: int, rng: np.random.Generator) -> None:
    made = []
    indices = np.minimum(rng.zipf(1.3, 40_000) - 1, 9_999)
    grad = Rows(indices, rng.standard_normal((40_000, width)).astype(np.float32))
    for threads in (1, 2, 3, 7):
        fastgd.set_num_threads(threads)
        w = np.zeros((10_000, width), np.float32)
        opt = fastgd.Adam(w, clip_norm=1.0)
        opt.track_norms = True
        for _ in range(2):
            opt.step(grad)
        made.append((w, opt.state["params"]["exp_avg_sq"], opt.grad_norm, repr(opt.norms())))
    for w, squares, norm, norms in made[1:]:
        assert_same_bits(w, made[0][0])
        assert_same_bits(squares, made[0][1])
        assert (norm, norms) == made[0][2:]


@pytest.mark.parametrize("width", [3, 64])
@pytest.mark.parametrize("wide", [False, True])
def test_options_hold(width: int, wide: bool, rng: np.random.Generator) -> None:
    """Clipping by norm and value, grad_scale, maximize, tracking: as of the dense gradient."""
    w = tame(rng, (40, width), np.float32)
    twin = w.copy()
    options: Any = {"lr": 0.1, "clip_norm": 2.0, "clip_value": 0.3, "maximize": True}
    opt, other = fastgd.SGD(w, **options), fastgd.SGD(twin, **options)
    opt.track_norms = other.track_norms = True
    for _ in range(3):
        grad = some_rows(rng, w.shape, np.float64 if wide else np.float32)
        dense = grad.toarray(w.shape)
        opt.step(grad, 0.5)
        other.step(dense, 0.5)
        assert opt.grad_norm == pytest.approx(other.grad_norm, rel=1e-6)
        np.testing.assert_allclose(w, twin, rtol=1e-5, atol=1e-6)
        for key in ("grad", "update", "grad_dot_update"):
            np.testing.assert_allclose(opt.norms()[key], other.norms()[key], rtol=1e-5)
        rows = np.unique(grad.indices)
        np.testing.assert_allclose(opt.norms()["param"], np.linalg.norm(w[rows]), rtol=1e-6)


def test_factors_beyond_float32_are_scaled_before_they_are_rounded() -> None:
    w = np.zeros((3, 40), np.float32)
    opt = fastgd.SGD(w, lr=1.0)
    opt.step(Rows([1, 1], np.full((2, 40), 1e50)), grad_scale=1e-50)
    assert w[1].tolist() == [-2.0] * 40


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite(nonfinite: str, bad: float) -> None:
    w = np.ones((5, 3))
    opt = fastgd.Adam({"table": w}, nonfinite=nonfinite)  # type: ignore[arg-type]
    grad = {"table": Rows([2, 4], [[1.0, 1.0, 1.0], [1.0, bad, 1.0]])}
    if nonfinite == "raise":
        with pytest.raises(FloatingPointError, match="'table'"):
            opt.step(grad)
    else:
        assert not opt.step(grad)
    assert w.tolist() == np.ones((5, 3)).tolist()
    assert opt.step_count == 0


# --- SciPy's sparse arrays ---


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize("make", ["array", "matrix"])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam"])
def test_sparse_arrays(form: str, make: str, name: str, rng: np.random.Generator) -> None:
    """Touched are the elements that are stored; others stay, as if they had no gradient."""
    dense = rng.standard_normal((40, 30)) * (rng.random((40, 30)) < 0.1)
    grad = getattr(sparse, f"{form}_{make}")(dense)
    w = rng.standard_normal((40, 30))
    before, stored = w.copy(), dense != 0
    part = w[stored].copy()
    opt, alone = optimizer(name, w), optimizer(name, part)
    for _ in range(3):
        opt.step(grad)
        alone.step(dense[stored])
    assert_same_bits(w[stored], part)
    assert_same_bits(w[~stored], before[~stored])


def test_a_sparse_array_of_one_dimension() -> None:
    if not hasattr(sparse, "coo_array"):
        pytest.skip("SciPy has none")
    try:
        grad = sparse.coo_array(np.array([0.0, 2.0, 0.0, 1.0]))
        assert grad.ndim == 1
    except (ValueError, AssertionError):
        pytest.skip("SciPy has none of one dimension")
    w = np.zeros(4)
    fastgd.SGD(w, lr=1.0).step(grad)
    assert w.tolist() == [0.0, -2.0, 0.0, -1.0]


def test_duplicates_of_a_sparse_array_add_up() -> None:
    grad = sparse.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    w = np.zeros((2, 2))
    fastgd.SGD(w, lr=1.0).step(grad)
    assert w.tolist() == [[0.0, -3.0], [-4.0, 0.0]]


def test_a_sparse_array_with_duplicates_is_only_read() -> None:
    """By steps, norms and minimize, which sums its squares where a loss is not finite."""
    grad = sparse.csr_matrix((np.array([1.0, 2.0, 4.0]), [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    w = np.zeros((2, 2))
    fastgd.SGD(w, lr=1.0, clip_norm=100.0).step(grad)
    assert w.tolist() == [[0.0, -3.0], [-4.0, 0.0]]
    assert fastgd.global_norm(grad) == 5.0
    fastgd.minimize(lambda w: (np.nan, grad), w, steps=2)
    assert (grad.data.tolist(), grad.indices.tolist()) == ([1.0, 2.0, 4.0], [1, 1, 0])


# --- factors ---


@pytest.mark.parametrize("samples", [0, 1, 3, 32])
@pytest.mark.parametrize("shape", [(20, 5), (7, 40), (3, 3000)])
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_factors_are_their_product(
    samples: int, shape: tuple[int, int], form: str, dtype: Any, rng: np.random.Generator
) -> None:
    left = tame(rng, (samples, shape[0]), dtype)
    if form == "csr":
        left = left * (rng.random(left.shape) < 0.3).astype(dtype)
    right = tame(rng, (samples, shape[1]), dtype)
    w = tame(rng, shape, dtype)
    expected = w - dtype(0.5) * (left.T @ right)
    given = sparse.csr_matrix(left) if form == "csr" else left
    fastgd.SGD(w, lr=0.5).step(Factors(given, right))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(w, expected, rtol=0, atol=8 * (samples + 1) * eps * 10)


@pytest.mark.parametrize("samples", [2, 31, 33, 70])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (6, 129), (66, 300), (3, 9000), (700, 65)])
def test_dense_factors_are_summed_in_the_order_of_the_samples(
    samples: int, shape: tuple[int, int], dtype: Any, rng: np.random.Generator
) -> None:
    """The bits of one fused sum, however the product is cut into bands and tiles; also within a Sum."""
    multiply_add = engine_multiply_add()
    left, right = (tame(rng, (samples, n), dtype) for n in shape)
    expected = left[0][:, None] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        expected = multiply_add(
            np.broadcast_to(a[:, None], shape), np.broadcast_to(b, shape), expected
        )
    for grad in (Factors(left, right), Factors(left[:, :], np.asfortranarray(right))):
        w = np.zeros(shape, dtype)
        fastgd.SGD(w, lr=1.0).step(grad)
        assert_same_bits(w, dtype(0) - expected)
    w = np.zeros(shape, dtype)
    fastgd.SGD(w, lr=1.0).step(Sum([np.ones(shape, dtype), Factors(left, right)]))
    assert_same_bits(w, dtype(0) - (dtype(1) + expected))


def test_dense_factors_at_any_number_of_threads(
    rng: np.random.Generator, restored_threads: None
) -> None:
    left, right = tame(rng, (5, 900), np.float32), tame(rng, (5, 700), np.float32)
    found = []
    for threads in (1, 2, 3):
        fastgd.set_num_threads(threads)
        w = np.ones((900, 700), np.float32)
        fastgd.AdamW(w, lr=0.1).step(Factors(left, right))
        found.append(w)
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


@pytest.mark.parametrize("name", ["AdamW", "Adagrad", "Lion"])
def test_dense_factors_with_options_as_the_array(
    name: str, dtype: Any, rng: np.random.Generator
) -> None:
    left, right = tame(rng, (9, 130), dtype), tame(rng, (9, 257), dtype)
    options: dict[str, Any] = {"lr": 0.01, "clip_norm": 1.0, "nonfinite": "raise"}
    one, other = np.ones((130, 257), dtype), np.ones((130, 257), dtype)
    kind = all_optimizers()[name]
    a, b = kind(one, **options), kind(other, **options)
    a.track_norms = b.track_norms = True
    for scale in (1.0, 0.25):
        a.step(Factors(left, right), scale)
        b.step(left.T @ right, scale)
    rtol = 2e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(one, other, rtol=rtol)
    assert a.grad_norm == pytest.approx(b.grad_norm, rel=rtol)
    for key, value in a.norms().items():
        np.testing.assert_allclose(value, b.norms()[key], rtol=10 * rtol)
    left[3, 5] = np.nan
    with pytest.raises(FloatingPointError):
        a.step(Factors(left, right))


def test_factors_in_csr_touch_only_rows_that_occur(rng: np.random.Generator) -> None:
    left = sparse.csr_matrix(([1.0, 2.0, 3.0], ([0, 1, 1], [4, 4, 9])), shape=(2, 50))
    right = rng.standard_normal((2, 6))
    w = np.zeros((50, 6))
    opt = fastgd.AdamW(w, lr=0.1, weight_decay=0.1)
    opt.step(Factors(left, right))
    assert np.flatnonzero(w.any(axis=1)).tolist() == [4, 9]
    assert np.flatnonzero(opt.state["params"]["exp_avg"].any(axis=1)).tolist() == [4, 9]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Rows([0.5], np.ones((1, 2))), TypeError, "indices must be integers"),
        (lambda: Rows([[0]], np.ones((1, 2))), ValueError, "indices must have one dimension"),
        (lambda: Rows([0, 1], np.ones((1, 2))), ValueError, "a row for each of the 2 indices"),
        (lambda: Rows([True], np.ones((1, 2))), TypeError, "indices must be integers"),
        (lambda: Factors(np.ones(2), np.ones((1, 2))), ValueError, "left must have two"),
        (
            lambda: Factors(np.ones((1, 2), int), np.ones((1, 2))),
            TypeError,
            "left must be of a flo",
        ),
        (lambda: Factors(np.ones((2, 2)), np.ones((1, 2))), ValueError, "a sample each"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_parameter_in_fortran_order_is_refused() -> None:
    w = np.asfortranarray(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"'params' .* Fortran order.*ascontiguousarray"):
        fastgd.SGD(w).step(Rows([1], np.ones((1, 3))))


# --- against PyTorch ---


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda w: fastgd.Adam(w, lr=0.01, eps_hat=True), ("SparseAdam", {"lr": 0.01})),
        (lambda w: fastgd.Adagrad(w, lr=0.05), ("Adagrad", {"lr": 0.05})),
        (lambda w: fastgd.SGD(w, lr=0.1), ("SGD", {"lr": 0.1})),
    ],
    ids=["Adam", "Adagrad", "SGD"],
)
def test_as_pytorchs_sparse_gradients(ours: Any, theirs: Any, rng: np.random.Generator) -> None:
    """50 steps of an embedding's gradients, in float64 to 1e-12."""
    torch = pytest.importorskip("torch")
    w = rng.standard_normal((60, 9))
    tensor = torch.tensor(w, requires_grad=True)
    name, options = theirs
    opt, other = ours(w), getattr(torch.optim, name)([tensor], **options)
    for _ in range(50):
        grad = some_rows(rng, w.shape, np.float64)
        opt.step(grad)
        tensor.grad = torch.sparse_coo_tensor(
            grad.indices[np.newaxis], torch.from_numpy(grad.values), w.shape,
            check_invariants=True,
        )  # fmt: skip
        other.step()
    np.testing.assert_allclose(w, tensor.detach().numpy(), rtol=1e-12, atol=1e-13)


# --- in training ---


def test_minimize_an_embedding(rng: np.random.Generator) -> None:
    """Factorization by rows: the same run as with dense gradients, accumulated or not."""
    users, items = rng.integers(0, 30, 400), rng.integers(0, 20, 400)
    ratings = rng.standard_normal(400)

    def value_and_grad(p: Any, u: Any, i: Any, r: Any) -> Any:
        error = (p["U"][u] * p["V"][i]).sum(axis=1) - r
        scale = 2 * error[:, np.newaxis] / len(r)
        grads = {"U": Rows(u, scale * p["V"][i]), "V": Rows(i, scale * p["U"][u])}
        return float(error @ error) / len(r), grads

    def dense(p: Any, *batch: Any) -> Any:
        loss, grads = value_and_grad(p, *batch)
        return loss, {key: grad.toarray(p[key].shape) for key, grad in grads.items()}

    start = {"U": rng.standard_normal((30, 4)), "V": rng.standard_normal((20, 4))}
    for accumulate in (1, 3):
        results = [
            fastgd.minimize(
                function, start, data=(users, items, ratings), batch_size=30, epochs=4,
                optimizer="adagrad", lr=0.1, accumulate=accumulate, copy=True,
            )
            for function in (value_and_grad, dense)
        ]  # fmt: skip
        for key in start:
            np.testing.assert_allclose(results[0].x[key], results[1].x[key], rtol=1e-10)
        norms = [result.history.grad_norm for result in results]
        np.testing.assert_allclose(norms[0], norms[1], rtol=1e-10)
        assert results[0].diagnosis.verdict == results[1].diagnosis.verdict
    report = fastgd.check_gradient(value_and_grad, start, users, items, ratings)
    assert report.ok


def test_minimize_stops_at_what_is_not_finite() -> None:
    result = fastgd.minimize(
        lambda w: (np.inf, Rows([1], np.full((1, 2), np.nan))), np.ones((3, 2)), steps=3
    )
    assert "gradient 'params' has a NaN" in result.reason


def accumulated(shape: tuple[int, ...], grads: list[Any]) -> np.ndarray:
    """What one step of all these gradients, each of a batch, makes of zeros."""
    w = np.zeros(shape)
    fastgd.minimize(
        lambda w, number: (0.0, grads[number]),
        w,
        data=[(number,) for number in range(len(grads))],
        accumulate=len(grads),
        epochs=1,
        optimizer=fastgd.SGD(w, lr=1.0),
    )
    return w


def test_accumulating_different_kinds(rng: np.random.Generator) -> None:
    rows, more = some_rows(rng, (6, 2), np.float64), some_rows(rng, (6, 2), np.float64)
    factors = Factors(rng.standard_normal((4, 6)), rng.standard_normal((4, 2)))
    text = sparse.random_array((6, 2), density=0.5, rng=np.random.default_rng(0), format="csr")
    dense = rng.standard_normal((6, 2))
    for grads in (
        [rows, dense, more],
        [dense, rows],
        [rows, factors, text],
        [Sum([rows, dense]), more, Sum([text, factors])],
        [Sum([rows, text]), Sum([more, text]), factors],
    ):
        expected = sum(
            grad.toarray() if isinstance(grad, Factors) or sparse.issparse(grad)
            else grad.toarray((6, 2)) if isinstance(grad, (Rows, Sum)) else grad
            for grad in grads
        )  # fmt: skip
        assert accumulated((6, 2), grads) == pytest.approx(-expected / len(grads), abs=1e-12)


def test_accumulating_other_shapes_is_refused() -> None:
    for grads in (
        [Rows([1], np.ones((1, 2))), np.ones((3, 4))],
        [Rows([4], np.ones((1, 2))), np.ones((3, 2))],
        [Factors(np.ones((1, 3)), np.ones((1, 2))), np.ones((2, 3))],
    ):
        with pytest.raises(ValueError, match=r"value_and_grad returned .* for one batch and"):
            accumulated((3, 2), grads)


def test_norms_of_gradients_by_themselves(rng: np.random.Generator) -> None:
    rows = some_rows(rng, (50, 3), np.float64)
    factors = Factors(rng.standard_normal((4, 6)), rng.standard_normal((4, 3)))
    matrix = sparse.random(8, 9, density=0.3, random_state=0, format="csr")
    dense = [rows.toarray((50, 3)), factors.toarray(), matrix.toarray(), np.ones(3)]
    found = fastgd.global_norm([rows, factors, matrix, np.ones(3), None])
    assert found == pytest.approx(fastgd.global_norm(dense), rel=1e-13)


def test_a_checkpoint_of_a_table(tmp_path: Path, rng: np.random.Generator) -> None:
    w, twin = np.zeros((50, 3)), np.zeros((50, 3))
    opt, other = fastgd.Adam(w), fastgd.Adam(twin)
    grads = [some_rows(rng, w.shape, np.float64) for _ in range(6)]
    for grad in grads[:3]:
        opt.step(grad)
    fastgd.save(tmp_path / "run", opt)
    fastgd.load(tmp_path / "run", other)
    for grad in grads[3:]:
        opt.step(grad)
        other.step(grad)
    assert_same_bits(twin, w)


def test_doctests() -> None:
    result = doctest.testmod(fastgd._arrays.gradients)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0,)])
def test_parameters_without_elements(shape: tuple[int, ...]) -> None:
    params = {"none": np.zeros(shape), "some": np.zeros((4, 2))}
    opt = fastgd.Adam(params, clip_norm=1.0)
    k = min(shape[0], 2)
    grads = {"none": Rows(range(k), np.ones((k, *shape[1:]))), "some": Rows([1], np.ones((1, 2)))}
    assert opt.step(grads)
    assert params["some"].any(axis=1).tolist() == [False, True, False, False]
