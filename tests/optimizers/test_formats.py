"""State in fewer bits: the bits of every step, what it can be told to do, and what it costs a training."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd._arrays import formats
from tests import narrow
from tests.cases import CASES, Case
from tests.fma import Array
from tests.reference import OPTIMIZERS, Reference
from tests.support import assert_same_bits, engine_multiply_add, optimizer

FORMATS = ("bfloat16", "8bit")
SIZES = (1, 255, 257, 4095, 4096, 4097, 9000)


def takes(name: str, state_dtype: str, **kwargs: Any) -> bool:
    """Whether an optimizer has state that can be stored so."""
    try:
        opt = optimizer(name, np.ones(4096, np.float32), state_dtype=state_dtype, **kwargs)
    except ValueError:
        return False
    return any(isinstance(x, np.ndarray) for x in opt.state["params"].values())


NARROW_CASES = [
    (case, state_dtype)
    for case in CASES
    for state_dtype in FORMATS
    # What looks at whole arrays sees its state rounded between two sweeps.
    if not case.whole and takes(case.optimizer, state_dtype, **case.kwargs)
]


@pytest.mark.parametrize(("case", "state_dtype"), NARROW_CASES, ids=str)
def test_the_bits_of_every_step(case: Case, state_dtype: str, rng: np.random.Generator) -> None:
    """Decoded, updated by the rule as it is, and rounded as src_c/narrow.h says."""
    params = {str(n): rng.standard_normal(n).astype(np.float32) for n in SIZES}
    opt = optimizer(case.optimizer, params, state_dtype=state_dtype, **case.kwargs)
    ref = Reference(case.optimizer, params, multiply_add=engine_multiply_add(), **case.kwargs)
    kind = type(opt)
    for name, state in opt.state.items():  # what it begins with is rounded too
        arrays = {slot: x.copy() for slot, x in state.items() if isinstance(x, np.ndarray)}
        ref.state[name].update(formats.decoded(arrays, kind.kinds, int(name)))
    for step in range(5):
        scale = 10.0 ** rng.uniform(-3, 1)
        grads = {
            name: (scale * rng.standard_normal(p.size)).astype(np.float32)
            * (rng.random(p.size) < 0.9).astype(np.float32)
            for name, p in params.items()
        }
        opt.step(grads, loss=1.0)
        ref.step(grads, norm=opt.grad_norm, loss=1.0)
        for i, name in enumerate(params):
            assert_same_bits(params[name], ref.params[name], f"{name} after step {step}")
            arrays = {k: x for k, x in ref.state[name].items() if np.shape(x) == (int(name),)}
            now = narrow.stored(arrays, kind.kinds, kind.declaration.state, state_dtype, i, step)
            for slot, expected in now.items():
                where = f"{slot} of {name} after step {step}"
                np.testing.assert_array_equal(opt.state[name][slot], expected, where)
            ref.state[name].update(formats.decoded(now, kind.kinds, int(name)))


def trained(state_dtype: str | None, name: str = "AdamW", steps: int = 4, **kwargs: Any) -> Any:
    """Parameters, an optimizer that has taken some steps, and a function for the next gradients."""
    rng = np.random.default_rng(3)
    params = {
        "W": rng.standard_normal((90, 61)).astype(np.float32),
        "b": rng.standard_normal(61).astype(np.float32),
    }
    opt = optimizer(name, params, state_dtype=state_dtype, **kwargs)

    def grads() -> dict[str, Array]:
        return {k: rng.standard_normal(p.shape).astype(np.float32) for k, p in params.items()}

    for _ in range(steps):
        opt.step(grads())
    return params, opt, grads


@pytest.mark.parametrize("state_dtype", FORMATS)
@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adagrad", "LAMB"])
def test_same_bits_at_any_number_of_threads(name: str, state_dtype: str) -> None:
    rng = np.random.default_rng(4)
    start, grad = rng.standard_normal((2, 700_003)).astype(np.float32)
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    results = []
    for threads in (1, 2, 3):
        fastgd.set_num_threads(threads)
        p = start.copy()
        opt = optimizer(name, p, state_dtype=state_dtype, lr=0.01, **kwargs)
        for _ in range(3):
            opt.step(grad)
        results.append((p, opt.state["params"]))
    fastgd.set_num_threads(None)
    for p, state in results[1:]:
        assert_same_bits(p, results[0][0])
        for slot, array in state.items():
            np.testing.assert_array_equal(array, results[0][1][slot], slot)


@pytest.mark.parametrize("state_dtype", FORMATS)
def test_every_copy_goes_on_with_the_same_bits(state_dtype: str, tmp_path: Path) -> None:
    params, opt, grads = trained(state_dtype)
    fastgd.save(tmp_path / "run.npz", opt)
    others = [copy.deepcopy((params, opt)), pickle.loads(pickle.dumps((params, opt)))]
    for load in (
        lambda new: new.load_state_dict(opt.state_dict()),
        lambda new: fastgd.load(tmp_path / "run.npz", new),
    ):
        fresh = {k: p.copy() for k, p in params.items()}
        other = fastgd.AdamW(fresh, state_dtype=state_dtype)
        load(other)
        others.append((fresh, other))
    moved = {k: p.copy() for k, p in params.items()}
    _, rebound = copy.deepcopy((params, opt))
    rebound.rebind(moved)
    others.append((moved, rebound))
    for _ in range(2):
        now = grads()
        opt.step(now)
        for other_params, other in others:
            other.step(now)
            for k, p in params.items():
                assert_same_bits(other_params[k], p)
            for name, entry in opt.state.items():
                for slot, value in entry.items():
                    np.testing.assert_array_equal(other.state[name][slot], value)


@pytest.mark.parametrize(("narrow_dtype", "bound"), [("bfloat16", 0.004), ("8bit", 0.03)])
def test_state_changes_its_format(narrow_dtype: str, bound: float, tmp_path: Path) -> None:
    """float32 into fewer bits loses what is said; the way back nothing."""
    params, full, _ = trained(None)
    fresh = {k: p.copy() for k, p in params.items()}
    small = fastgd.AdamW(fresh, state_dtype=narrow_dtype)
    with pytest.warns(UserWarning, match="is stored in fewer bits .* of its norm") as told:
        small.load_state_dict(full.state_dict())
    assert ["'W'" in str(told[0].message), len(told)] == [True, 1 + (narrow_dtype == "bfloat16")]
    assert small.param_groups[0]["state_dtype"] == narrow_dtype
    assert small.step_count == full.step_count

    decoded = small.state_dict(decoded=True)["state"]
    for name, entry in full.state.items():
        for slot, array in entry.items():
            if slot != "step":
                error = np.linalg.norm(decoded[name][slot] - array) / np.linalg.norm(array)
                assert error <= bound, (name, slot)
                narrow_here = narrow_dtype == "bfloat16" or name == "W"
                assert (error > 0) == narrow_here

    fastgd.save(tmp_path / "full.npz", full)
    fastgd.save(tmp_path / "small.npz", small)
    from_file = fastgd.AdamW({k: p.copy() for k, p in params.items()}, state_dtype=narrow_dtype)
    with pytest.warns(UserWarning, match="fewer bits"):
        fastgd.load(tmp_path / "full.npz", from_file)
    back = [fastgd.AdamW({k: p.copy() for k, p in params.items()}) for _ in range(2)]
    assigned = copy.deepcopy((fresh, small))[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back[0].load_state_dict(small.state_dict())
        fastgd.load(tmp_path / "small.npz", back[1])
        assigned.param_groups[0]["state_dtype"] = None
    for name, entry in small.state.items():
        for slot, array in entry.items():
            np.testing.assert_array_equal(from_file.state[name][slot], array)
            if slot != "step":
                for other in (*back, assigned):
                    assert_same_bits(other.state[name][slot], decoded[name][slot])
    assigned.param_groups[0]["state_dtype"] = narrow_dtype  # what was read is on the grid
    for name, entry in small.state.items():
        for slot, array in entry.items():
            if slot != "exp_avg":  # a ratio of a rounded number to a rounded root
                np.testing.assert_array_equal(assigned.state[name][slot], array)


def test_a_stored_state_of_another_length_is_refused() -> None:
    _, small, _ = trained("8bit")
    saved = small.state_dict()
    saved["state"]["W"]["exp_avg"] = saved["state"]["W"]["exp_avg"][:-1]
    with pytest.raises(ValueError, match=r"'exp_avg' of parameter 'W' has shape \(8319,\)"):
        small.load_state_dict(saved)


def test_codes_of_what_has_none_are_refused() -> None:
    """Adafactor keeps rows and columns, Prodigy distances: nothing of these is stored in fewer bits."""
    for name, slot, dtype in (("Adafactor", "row_var", np.uint8), ("Prodigy", "s", np.uint16)):
        opt = optimizer(name, np.ones((64, 64), np.float32))
        saved = opt.state_dict()
        saved["state"]["params"][slot] = np.zeros(4160 if dtype == np.uint8 else (64, 64), dtype)
        with pytest.raises(ValueError, match=f"'{slot}' of parameter 'params' has shape"):
            opt.load_state_dict(saved)


REFUSED = [
    ("AdamW", {"state_dtype": "fp8"}, np.float32, "state_dtype must be None, 'bfloat16', '8bit'"),
    ("AdamW", {"state_dtype": 8}, np.float32, "state_dtype must be"),
    ("AdamW", {"state_dtype": "bfloat16"}, np.float64, "parameter 'W' is float64; state_dtype"),
    ("AdamW", {"state_dtype": "8bit"}, np.float64, "parameter 'W' is float64; state_dtype"),
    (
        "Prodigy",
        {"state_dtype": "bfloat16"},
        np.float32,
        "Prodigy keeps 'exp_avg', which would lose",
    ),
    ("ScheduleFreeSGD", {"state_dtype": "8bit"}, np.float32, "ScheduleFreeSGD keeps 'z'"),
    ("AdaBelief", {"state_dtype": "8bit"}, np.float32, 'pass None or "bfloat16"'),
    ("RMSprop", {"state_dtype": "8bit", "centered": True}, np.float32, "keeps 'grad_avg'"),
    ("RowWiseAdagrad", {"state_dtype": "bfloat16"}, np.float32, "keeps 'sum'"),
]


@pytest.mark.parametrize(("name", "kwargs", "dtype", "message"), REFUSED)
def test_refused(name: str, kwargs: Any, dtype: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer(name, {"W": np.ones((80, 80), dtype)}, **kwargs)


def test_refused_layouts() -> None:
    with pytest.raises(ValueError, match="'W' is in Fortran order, and state_dtype='8bit'"):
        fastgd.AdamW({"W": np.ones((80, 80), np.float32, order="F")}, state_dtype="8bit")
    opt = fastgd.AdamW({"W": np.ones((80, 80), np.float32)}, state_dtype="8bit")
    rows = fastgd.Rows([1, 3], np.ones((2, 80), np.float32))
    with pytest.raises(TypeError, match=r"'W' is of some rows.*blocks of 256.*bfloat16"):
        opt.step({"W": rows})
    opt.step({"W": fastgd.Sum([rows, np.ones((80, 80), np.float32)])})


@pytest.mark.parametrize("width", [3, 64, 700])
@pytest.mark.parametrize("name", ["Adam", "Adagrad", "SGD"])
def test_rows_touch_what_they_name(name: str, width: int, rng: np.random.Generator) -> None:
    """A step with some rows of a bfloat16 state does to them what one with all rows does."""
    start = rng.standard_normal((50, width)).astype(np.float32)
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    touched = np.array([3, 4, 17, 49])
    tables = [start.copy(), start.copy()]
    opts = [optimizer(name, table, state_dtype="bfloat16", **kwargs) for table in tables]
    for _ in range(3):
        values = rng.standard_normal((4, width)).astype(np.float32)
        dense = np.zeros_like(start)
        dense[touched] = values
        opts[0].step(dense)
        opts[1].step(fastgd.Rows(touched, values))
    assert_same_bits(tables[1][touched], tables[0][touched])
    others = np.setdiff1d(np.arange(50), touched)
    assert_same_bits(tables[1][others], start[others])
    for slot, array in opts[0].state["params"].items():
        if slot != "step":
            other = opts[1].state["params"][slot]
            np.testing.assert_array_equal(other[touched], array[touched])
            assert not other[others].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_gradient_stays_where_it_is(bad: float) -> None:
    """A NaN goes into its element, and with 8 bits into the block whose scale it shares; no further."""
    for state_dtype, spoiled in (("bfloat16", slice(700, 701)), ("8bit", slice(512, 768))):
        p = np.ones(5000, np.float32)
        opt = fastgd.AdamW(p, state_dtype=state_dtype)
        grad = np.ones(5000, np.float32)
        grad[700] = bad
        opt.step(grad)
        for _ in range(2):
            opt.step(np.ones(5000, np.float32))
        expected = np.zeros(5000, bool)
        expected[spoiled] = True
        np.testing.assert_array_equal(~np.isfinite(p), expected)


def test_numbers_at_the_ends_of_the_range() -> None:
    """The largest numbers stay finite, whatever noise is added; the smallest do not blow up."""
    rng = np.random.default_rng(5)
    for state_dtype, most in (("bfloat16", np.finfo(np.float32).max), ("8bit", 1.5e38)):
        huge = np.full(4096, most, np.float32)
        opt = fastgd.SGD(np.zeros(4096, np.float32), lr=0.0, momentum=0.5, state_dtype=state_dtype)
        opt.step(huge)
        assert np.isfinite(opt.state_dict(decoded=True)["state"]["params"]["momentum_buffer"]).all()
        p = np.zeros(4096, np.float32)
        opt = fastgd.Adam(p, lr=1.0, state_dtype=state_dtype)
        for _ in range(50):
            opt.step((1e-30 * rng.standard_normal(4096)).astype(np.float32))
        assert np.abs(p).max() <= 50


def test_what_it_takes() -> None:
    """Bytes of state for each parameter, as the README's table has them."""
    n = 1 << 20
    for name, state_dtype, expected in (
        ("AdamW", None, 8),
        ("AdamW", "bfloat16", 4),
        ("AdamW", "8bit", 2 + 1 / 32),
        ("Adagrad", "8bit", 1 + 1 / 64),
        ("SignSGD", "8bit", 0),
    ):
        assert (
            optimizer(name, np.zeros(n, np.float32), state_dtype=state_dtype).nbytes == n * expected
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_estimates_are_what_is_taken(name: str) -> None:
    shapes = {"W": (90, 61), "b": (61,), "small": (3, 4), "scalar": ()}
    if name == "Muon":
        del shapes["b"], shapes["scalar"]
    for state_dtype in (None, *FORMATS):
        for dtype in (np.float32, np.float64):
            params = {key: np.ones(shape, dtype) for key, shape in shapes.items()}
            try:
                opt = optimizer(name, params, state_dtype=state_dtype)
            except ValueError as error:
                with pytest.raises(ValueError, match=re.escape(str(error))):
                    fastgd.estimate_memory(shapes, name, dtype, state_dtype=state_dtype)
                continue
            need = fastgd.estimate_memory(shapes, name, dtype, state_dtype=state_dtype)
            assert need.state == opt.nbytes
            assert need.params == need.grads == sum(p.nbytes for p in params.values())
            assert need.total == sum(need)


def test_estimates_refuse_what_constructors_do() -> None:
    with pytest.raises(TypeError, match="unexpected argument 'momentun'"):
        fastgd.estimate_memory([3], "sgd", momentun=0.9)
    with pytest.raises(TypeError, match="float32 or float64, got int32"):
        fastgd.estimate_memory([3], "sgd", np.int32)
    assert fastgd.estimate_memory([10, (3, 2)], "sgd", momentum=0.9).state == 64


# --- what it costs a training: float32 beside it ---


def update_size_after_a_fall(state_dtype: str | None) -> float:
    """Of the elements of which the gradients fell tenfold, in units of lr, long afterwards."""
    rng = np.random.default_rng(0)
    p = np.zeros(4096, np.float32)
    opt = fastgd.Adam(p, lr=1.0, state_dtype=state_dtype)
    sizes = []
    for t in range(6000):
        grad = rng.standard_normal(p.size, np.float32)
        if t >= 1500:
            grad[::2] *= 0.1
        before = p.copy()
        opt.step(grad)
        if t >= 5500:
            sizes.append(np.abs(p - before)[::2].mean())
    return float(np.mean(sizes))


def drift_without_a_gradient(state_dtype: str | None) -> float:
    """How far an element moves in a step, in units of lr, once its gradient stays zero."""
    rng = np.random.default_rng(0)
    p = np.zeros(4096, np.float32)
    opt = fastgd.Adam(p, lr=1.0, state_dtype=state_dtype)
    for _ in range(100):
        opt.step(rng.standard_normal(p.size).astype(np.float32))
    moved = []
    for _ in range(200):
        grad = rng.standard_normal(p.size).astype(np.float32)
        grad[::2] = 0
        before = p.copy()
        opt.step(grad)
        moved.append(np.abs(p - before)[::2].mean())
    return float(np.mean(moved))


def error_over_five_decades(state_dtype: str | None) -> Array:
    """Mean square distance from the solution, for each decade of curvatures within the same blocks."""
    rng = np.random.default_rng(1)
    curvature = 10.0 ** rng.uniform(-5, 0, 1 << 14)
    p = rng.standard_normal(1 << 14).astype(np.float32)
    opt = fastgd.Adam(p, lr=lambda t: 0.01 * (1 - t / 1000), state_dtype=state_dtype)
    for _ in range(1000):
        noise = 0.5 * rng.standard_normal(p.size)
        opt.step((curvature * (p + noise)).astype(np.float32))
    decades = np.floor(np.log10(curvature)).astype(int)
    return np.array([np.square(p[decades == d]).mean() for d in range(-5, 0)])


@pytest.mark.parametrize("state_dtype", FORMATS)
def test_nothing_stalls_or_drifts(state_dtype: str) -> None:
    full = update_size_after_a_fall(None)
    assert abs(update_size_after_a_fall(state_dtype) / full - 1) < 0.05
    assert drift_without_a_gradient(state_dtype) < 1.02 * drift_without_a_gradient(None)
    errors = error_over_five_decades(state_dtype) / error_over_five_decades(None)
    assert np.all(errors < 1.15), errors


def test_rounded_to_nearest_a_second_moment_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it is rounded stochastically: the measure above tells the two apart."""
    monkeypatch.setattr(fastgd.Adam, "kinds", {"exp_avg": "average", "exp_avg_sq": "average"})
    assert update_size_after_a_fall("bfloat16") < 0.5 * update_size_after_a_fall(None)


def text(rng: np.random.Generator) -> tuple[Any, Array]:
    """Word counts of documents (CSR), whose words are as frequent as those of a language, and labels."""
    sparse = pytest.importorskip("scipy.sparse")
    documents, words, length = 2000, 5000, 80
    frequency = 1.0 / np.arange(1, words + 1)
    which = rng.choice(words, (documents, length), p=frequency / frequency.sum())
    counts = sparse.csr_array(
        (np.ones(which.size, np.float32), (np.repeat(np.arange(documents), length), which.ravel())),
        (documents, words),
    )
    scores = counts @ rng.standard_normal((words, 4))
    return counts, (scores + rng.gumbel(scale=4.0, size=scores.shape)).argmax(1)


def loss_of_text(kind: Any, state_dtype: str | None, seed: int, **kwargs: Any) -> float:
    """Of logistic regression, batches of 50 documents, dense gradients."""
    x, y = text(np.random.default_rng(0))
    rng = np.random.default_rng(seed)
    weights = np.zeros((x.shape[1], 4), np.float32)
    opt = kind(weights, state_dtype=state_dtype, **kwargs)

    def errors(rows: Array) -> tuple[float, Array]:
        scores = x[rows] @ weights
        scores -= scores.max(1, keepdims=True)
        probabilities = np.exp(scores)
        probabilities /= probabilities.sum(1, keepdims=True)
        loss = -np.log(probabilities[np.arange(len(rows)), y[rows]]).mean()
        probabilities[np.arange(len(rows)), y[rows]] -= 1
        return float(loss), probabilities / len(rows)

    for _ in range(4):
        for rows in rng.permutation(len(y)).reshape(-1, 50):
            opt.step((x[rows].T @ errors(rows)[1]).astype(np.float32))
    return errors(np.arange(len(y)))[0]


def loss_of_digits(
    kind: Any, state_dtype: str | None, seed: int, *, enlarged: int = 1, **kwargs: Any
) -> float:
    """Of a network of one hidden layer; enlarged: repeat the pixels, as large as those of Fashion-MNIST."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    side = 8 * enlarged
    x = np.kron(x.reshape(-1, 8, 8), np.ones((enlarged, enlarged))).reshape(-1, side * side)
    x = (x / 16).astype(np.float32)
    rng = np.random.default_rng(seed)
    hidden = 128
    params = [
        (rng.standard_normal((side * side, hidden)) * np.sqrt(2.0) / side).astype(np.float32),
        np.zeros(hidden, np.float32),
        (rng.standard_normal((hidden, 10)) * np.sqrt(1.0 / hidden)).astype(np.float32),
        np.zeros(10, np.float32),
    ]
    opt = kind(params, state_dtype=state_dtype, **kwargs)

    def forward(rows: Array) -> tuple[Array, Array, float]:
        h = np.maximum(x[rows] @ params[0] + params[1], 0)
        scores = h @ params[2] + params[3]
        scores -= scores.max(1, keepdims=True)
        probabilities = np.exp(scores)
        probabilities /= probabilities.sum(1, keepdims=True)
        return h, probabilities, float(-np.log(probabilities[np.arange(len(rows)), y[rows]]).mean())

    for _ in range(4):
        for rows in np.array_split(rng.permutation(len(y)), len(y) // 32):
            h, delta, _ = forward(rows)
            delta[np.arange(len(rows)), y[rows]] -= 1
            delta /= len(rows)
            back = (delta @ params[2].T) * (h > 0)
            opt.step([x[rows].T @ back, back.sum(0), h.T @ delta, delta.sum(0)])
    return forward(np.arange(len(y)))[2]


TRAININGS = [
    (train, kind, kwargs)
    for train, more in ((loss_of_text, {}), (loss_of_digits, {}), (loss_of_digits, {"enlarged": 3}))
    for kind, kwargs in (
        (fastgd.AdamW, {"lr": 2e-3, **more}),
        (fastgd.SGD, {"lr": 0.05, "momentum": 0.9, **more}),
        (fastgd.RMSprop, {"lr": 5e-4, **more}),
        (fastgd.Adagrad, {"lr": 0.02, **more}),
        (fastgd.Lion, {"lr": 3e-4, **more}),
        (fastgd.LAMB, {"lr": 3e-3, **more}),
        (fastgd.AdEMAMix, {"lr": 1e-3, **more}),
        (fastgd.NAdam, {"lr": 1e-3, **more}),
        (fastgd.Adamax, {"lr": 2e-3, **more}),
        (fastgd.Adadelta, {"lr": 0.5, **more}),
        (fastgd.ADOPT, {"lr": 1e-3, **more}),
        (fastgd.Yogi, {"lr": 2e-3, **more}),
        (fastgd.Muon, {"lr": 1e-2, **more}),
    )
    if not (kind is fastgd.Muon and train is loss_of_digits)  # has matrices only
]


@pytest.mark.parametrize(
    ("train", "kind", "kwargs"),
    TRAININGS,
    ids=[f"{t.__name__[8:]}{k.get('enlarged', '')}-{kind.__name__}" for t, kind, k in TRAININGS],
)
def test_a_training_ends_where_it_does_in_float32(train: Any, kind: Any, kwargs: Any) -> None:
    """Within 1 % of the loss, or within the spread of the seeds."""
    full = np.array([train(kind, None, seed, **kwargs) for seed in range(3)])
    for state_dtype in FORMATS:
        ours = np.array([train(kind, state_dtype, seed, **kwargs) for seed in range(3)])
        bound = max(0.01 * full.mean(), np.ptp(full))
        assert abs(ours.mean() - full.mean()) < bound, (state_dtype, ours, full)
