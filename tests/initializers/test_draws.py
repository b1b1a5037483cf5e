"""Initial weights: their law, their scale through depth, determinism, and what they refuse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastgd import initializers
from tests.fma import Array
from tests.support import assert_same_bits

UNIFORM = ["glorot_uniform", "he_uniform", "lecun_uniform"]
NORMAL = ["glorot_normal", "he_normal", "lecun_normal"]
EVERY = [*UNIFORM, *NORMAL, "orthogonal"]

# (shape, layout, fan_in, fan_out), worked out by hand
FANS = [
    ((784, 100), "in_out", 784, 100),
    ((100, 784), "out_in", 784, 100),
    ((1, 1), "in_out", 1, 1),
    ((5, 16, 32), "in_out", 80, 160),
    ((32, 16, 5), "out_in", 80, 160),
    ((3, 3, 16, 32), "in_out", 144, 288),
    ((32, 16, 3, 3), "out_in", 144, 288),
    ((2, 3, 5, 7, 11), "in_out", 210, 330),
    ((11, 7, 5, 3, 2), "out_in", 210, 330),
]

# name and options -> standard deviation for fan_in 300 and fan_out 200, worked out by hand
DEVIATIONS = [
    ("glorot", {}, math.sqrt(1 / 250)),
    ("glorot", {"gain": "tanh"}, 5 / 3 * math.sqrt(1 / 250)),
    ("glorot", {"gain": 0.5}, math.sqrt(1 / 1000)),
    ("he", {}, math.sqrt(1 / 150)),
    ("he", {"mode": "fan_out"}, 0.1),
    ("he", {"gain": "leaky_relu"}, math.sqrt(2 / 1.0001 / 300)),
    ("he", {"gain": initializers.gain("leaky_relu", 1.0)}, math.sqrt(1 / 300)),
    ("lecun", {}, math.sqrt(1 / 300)),
    ("lecun", {"gain": "selu"}, math.sqrt(9 / 4800)),
    ("lecun", {"gain": np.float32(2.0)}, math.sqrt(1 / 75)),
]


def initializer(name: str) -> Callable[..., Array]:
    chosen: Callable[..., Array] = getattr(initializers, name)
    return chosen


class TestGain:
    @pytest.mark.parametrize(
        ("activation", "param", "expected"),
        [
            ("linear", None, 1.0),
            ("sigmoid", None, 1.0),
            ("tanh", None, 1.6666666666666667),
            ("relu", None, 1.4142135623730951),
            ("leaky_relu", None, 1.4141428569978354),
            ("leaky_relu", 0.0, 1.4142135623730951),
            ("leaky_relu", 0.2, 1.3867504905630728),
            ("leaky_relu", 1, 1.0),
            ("leaky_relu", -1.0, 1.0),
            ("leaky_relu", 1e200, math.sqrt(2) * 1e-200),
            ("selu", None, 0.75),
        ],
    )
    def test_golden_values(self, activation: str, param: float | None, expected: float) -> None:
        assert initializers.gain(activation, param) == pytest.approx(expected, rel=2**-51)

    def test_agrees_with_torch(self) -> None:
        torch = pytest.importorskip("torch")
        for activation in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
            expected = torch.nn.init.calculate_gain(activation)
            assert initializers.gain(activation) == pytest.approx(expected, rel=2**-51)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (("swish",), ValueError, "activation must be one of 'linear', .*, got 'swish'"),
            ((None,), TypeError, "activation must be one of .*, got NoneType"),
            (("relu", 0.1), ValueError, "param must be None for 'relu', got 0.1"),
            (("leaky_relu", math.nan), ValueError, "param must be a number in .*, got nan"),
            (("leaky_relu", "0.1"), TypeError, "param must be a number in .*, got str"),
            (("leaky_relu", True), TypeError, "param must be a number in .*, got bool"),
        ],
    )
    def test_refuses(
        self, arguments: tuple[Any, ...], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            initializers.gain(*arguments)


class TestFans:
    @pytest.mark.parametrize(("shape", "layout", "fan_in", "fan_out"), FANS)
    def test_golden_values(
        self, shape: tuple[int, ...], layout: Any, fan_in: int, fan_out: int
    ) -> None:
        assert initializers.fans(shape, layout) == (fan_in, fan_out)

    def test_in_out_is_the_default(self) -> None:
        assert initializers.fans((3, 5)) == (3, 5)

    def test_takes_any_sequence_of_integers(self) -> None:
        assert initializers.fans([np.int32(3), 5]) == (3, 5)  # type: ignore[list-item]
        assert initializers.fans(np.ones((3, 5)).shape) == (3, 5)

    def test_agrees_with_torch(self) -> None:
        torch = pytest.importorskip("torch")
        for shape in [case[0] for case in FANS if case[1] == "out_in"]:
            expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
            assert initializers.fans(shape, "out_in") == expected


class TestLaw:
    @pytest.mark.parametrize(("family", "options", "deviation"), DEVIATIONS)
    def test_normal_is_the_deviation_times_standard_normal_draws(
        self, family: str, options: dict[str, Any], deviation: float
    ) -> None:
        shape = (300, 200)
        weights = initializer(f"{family}_normal")(shape, seed=7, dtype=np.float64, **options)
        draws = np.random.default_rng(7).standard_normal(shape)
        np.testing.assert_allclose(weights, deviation * draws, rtol=2**-50, atol=0)

    @pytest.mark.parametrize(("family", "options", "deviation"), DEVIATIONS)
    def test_uniform_is_within_a_bound_of_that_deviation(
        self, family: str, options: dict[str, Any], deviation: float
    ) -> None:
        shape, bound = (300, 200), math.sqrt(3) * deviation
        weights = initializer(f"{family}_uniform")(shape, seed=7, dtype=np.float64, **options)
        draws = 2 * np.random.default_rng(7).random(shape) - 1
        np.testing.assert_allclose(weights, bound * draws, rtol=0, atol=2**-50 * bound)

    # Of n draws, the variance's estimate has the relative standard error sqrt((kurtosis - 1) / n),
    # the mean's that of sqrt(1 / n) deviations. Bounds: 4 standard errors.
    @pytest.mark.parametrize("name", [*UNIFORM, *NORMAL])
    @pytest.mark.parametrize(
        ("shape", "layout"),
        [((500, 400), "in_out"), ((3, 3, 100, 200), "in_out"), ((200, 100, 3, 3), "out_in")],
    )
    def test_moments(self, name: str, shape: tuple[int, ...], layout: Any, dtype: Any) -> None:
        weights = initializer(name)(shape, layout=layout, seed=11, dtype=dtype).astype(np.float64)
        fan_in, fan_out = initializers.fans(shape, layout)
        family, law = name.split("_")
        variance = {"glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in, "lecun": 1 / fan_in}[family]
        kurtosis = {"uniform": 9 / 5, "normal": 3.0}[law]
        n = weights.size
        assert abs(np.mean(weights**2) / variance - 1) < 4 * math.sqrt((kurtosis - 1) / n)
        assert abs(np.mean(weights)) < 4 * math.sqrt(variance / n)
        measured = np.mean(weights**4) / variance**2
        eighth = {"uniform": 81 / 9, "normal": 105.0}[law]  # E[(w / deviation)^8]
        assert abs(measured - kurtosis) < 4 * math.sqrt((eighth - kurtosis**2) / n)

    @pytest.mark.parametrize(
        ("name", "bound"),
        [
            ("glorot_uniform", 0.1),
            ("he_uniform", math.sqrt(0.012)),
            ("lecun_uniform", 0.1 * 0.6**0.5),
        ],
    )
    def test_golden_bounds(self, name: str, bound: float, dtype: Any) -> None:
        """For fan_in 500 and fan_out 100: sqrt(6 / 600), sqrt(6 / 500), sqrt(3 / 500)."""
        weights = initializer(name)((500, 100), seed=3, dtype=dtype)
        # All but e^-10 of the runs of 50,000 draws come within 10 / 50,000 of the bound.
        assert dtype(bound * (1 - 2e-4)) < np.abs(weights).max() <= dtype(bound)

    def test_normal_is_not_truncated(self) -> None:
        weights = initializers.lecun_normal((400, 500), seed=0).astype(np.float64) * 20
        beyond = np.mean(np.abs(weights) > 2)
        expected = math.erfc(math.sqrt(2))  # 4.55 %
        assert abs(beyond - expected) < 4 * math.sqrt(expected / weights.size)
        assert np.abs(weights).max() > 4


class TestOrthogonal:
    @pytest.mark.parametrize(
        ("shape", "layout"),
        [
            ((64, 64), "in_out"),
            ((90, 40), "in_out"),
            ((40, 90), "in_out"),
            ((90, 40), "out_in"),
            ((3, 3, 8, 20), "in_out"),
            ((20, 8, 3, 3), "out_in"),
            ((2, 2, 3, 50), "in_out"),
            ((50, 3, 2, 2), "out_in"),
            ((1, 7), "in_out"),
            ((1, 1), "in_out"),
        ],
    )
    @pytest.mark.parametrize("gain", [1.0, "relu"])
    def test_rows_or_columns_are_orthonormal(
        self, shape: tuple[int, ...], layout: Any, gain: Any, dtype: Any
    ) -> None:
        weights = initializers.orthogonal(shape, gain=gain, layout=layout, seed=5, dtype=dtype)
        assert weights.shape == shape
        assert weights.dtype == dtype
        assert weights.flags.c_contiguous
        outputs = shape[-1] if layout == "in_out" else shape[0]
        matrix = weights.astype(np.float64)
        matrix = matrix.reshape(-1, outputs) if layout == "in_out" else matrix.reshape(outputs, -1)
        short = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        expected = np.eye(len(short)) * (2.0 if gain == "relu" else 1.0)
        # Householder's QR is orthogonal to a modest multiple of eps that grows like the root of the
        # size (Higham 2002, section 19.3), and entries are products with gain² <= 2: how the
        # installed LAPACK adds up decides between 2 and 10 eps here.
        np.testing.assert_allclose(short, expected, rtol=0, atol=32 * np.finfo(dtype).eps)

    def test_the_other_layout_is_the_transpose(self) -> None:
        for shape in [(30, 50), (50, 30), (40, 40)]:
            np.testing.assert_array_equal(
                initializers.orthogonal(shape, seed=2),
                initializers.orthogonal(shape[::-1], seed=2, layout="out_in").T,
            )

    def test_is_uniformly_distributed(self) -> None:
        """Under the Haar measure on O(2) the trace has mean 0 and the determinant both signs."""
        rng = np.random.default_rng(1)
        n = 2000
        many = np.array([initializers.orthogonal((2, 2), seed=rng) for _ in range(n)])
        # E[tr] = 0, E[tr²] = 1; without the correction of signs E[tr] would be about -1.27.
        assert abs(np.trace(many, axis1=1, axis2=2).mean()) < 4 / math.sqrt(n)
        assert abs(np.mean(np.linalg.det(many) > 0) - 0.5) < 4 * 0.5 / math.sqrt(n)
        assert np.abs(many.mean(axis=0)).max() < 4 * math.sqrt(0.5 / n)

    def test_deep_linear_network_keeps_every_norm(self) -> None:
        rng = np.random.default_rng(4)
        signal = rng.standard_normal((20, 64))
        norms = np.linalg.norm(signal, axis=1)
        for _ in range(100):
            signal = signal @ initializers.orthogonal((64, 64), seed=rng, dtype=np.float64)
        np.testing.assert_allclose(np.linalg.norm(signal, axis=1), norms, rtol=100 * 64 * 2**-52)


def second_moment(activation: Callable[[Array], Array], variance: float) -> float:
    """E[activation(z)²] for z ~ N(0, variance), by the trapezoidal rule."""
    z = np.linspace(-12, 12, 4801)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return float(np.sum(activation(math.sqrt(variance) * z) ** 2 * density) * (z[1] - z[0]))


def forward(
    activation: Callable[[Array], Array], make: Callable[..., Array], **options: Any
) -> tuple[list[float], list[float]]:
    """Second moments before the 21 activations of a wide random network, and those of theory.

    Theory is the infinitely wide limit: q[l + 1] = width * Var[w] * E[activation(sqrt(q[l]) z)²]
    (Poole et al. 2016, equation 3, without biases).
    """
    width, rng = 512, np.random.default_rng(6)
    signal = rng.standard_normal((64, width))
    theory, measured = [1.0], [float(np.mean(signal**2))]
    scale = width * float(np.mean(make((width, width), seed=0, dtype=np.float64, **options) ** 2))
    for _ in range(20):
        weights = make((width, width), seed=rng, dtype=np.float64, **options)
        signal = activation(signal) @ weights
        theory.append(scale * second_moment(activation, theory[-1]))
        measured.append(float(np.mean(signal**2)))
    return measured, theory


def relu(z: Array) -> Array:
    return np.maximum(z, 0.0)


def leaky(z: Array) -> Array:
    return np.where(z > 0, z, 0.3 * z)


def selu(z: Array) -> Array:
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0)))


class TestDepth:
    """The gains do what they are for: 20 layers neither silence a signal nor blow it up."""

    @pytest.mark.parametrize("make", [initializers.he_normal, initializers.he_uniform])
    def test_he_keeps_the_variance_through_relu(self, make: Callable[..., Array]) -> None:
        measured, theory = forward(relu, make)
        np.testing.assert_allclose(theory, 1.0, rtol=0.05)
        # A layer's random factor has relative deviation sqrt(5 / width) ~ 0.1 for one input; it is
        # the same for all inputs as soon as they have become parallel, so 20 layers give ~0.44.
        assert 0.3 < measured[-1] < 3

    def test_without_its_gain_relu_halves_the_variance(self) -> None:
        measured, _ = forward(relu, initializers.lecun_normal)
        assert 0.3 < measured[-1] * 2.0**20 < 3

    def test_leaky_relu(self) -> None:
        gain = initializers.gain("leaky_relu", 0.3)
        measured, theory = forward(leaky, initializers.he_normal, gain=gain)
        np.testing.assert_allclose(theory, 1.0, rtol=0.05)
        assert 0.3 < measured[-1] < 3

    def test_tanh_settles_at_the_fixed_point(self) -> None:
        measured, theory = forward(np.tanh, initializers.glorot_normal, gain="tanh")
        assert theory[-1] == pytest.approx(1.178, rel=0.02)
        np.testing.assert_allclose(measured, theory, rtol=0.05)

    def test_without_its_gain_tanh_fades(self) -> None:
        measured, theory = forward(np.tanh, initializers.glorot_normal)
        assert theory[-1] < 0.04
        np.testing.assert_allclose(measured, theory, rtol=0.15)

    def test_lecun_is_the_fixed_point_of_selu(self) -> None:
        measured, theory = forward(selu, initializers.lecun_normal)
        np.testing.assert_allclose(theory, 1.0, rtol=0.03)
        np.testing.assert_allclose(measured, 1.0, rtol=0.25)

    def test_fan_out_keeps_the_variance_of_gradients(self) -> None:
        """Layers of alternating width: backwards it is the fan_out that has to be divided by."""
        rng = np.random.default_rng(8)
        gradient = rng.standard_normal((100, 300))
        for i in range(20):
            shape = (900, 300) if i % 2 == 0 else (300, 900)
            weights = initializers.he_normal(
                shape, gain="linear", mode="fan_out", seed=rng, dtype=np.float64
            )
            gradient = gradient @ weights.T
        assert np.mean(gradient**2) == pytest.approx(1.0, abs=0.25)


class TestDeterminism:
    @pytest.mark.parametrize("name", EVERY)
    def test_same_seed_same_weights(self, name: str, dtype: Any) -> None:
        make = initializer(name)
        first = make((7, 5), seed=42, dtype=dtype)
        assert first.dtype == dtype
        assert first.shape == (7, 5)
        assert first.flags.c_contiguous
        assert_same_bits(make((7, 5), seed=42, dtype=dtype), first)
        assert_same_bits(make((7, 5), seed=np.int64(42), dtype=dtype), first)
        assert_same_bits(make([7, 5], seed=np.random.default_rng(42), dtype=dtype), first)
        assert not np.array_equal(make((7, 5), seed=43, dtype=dtype), first)

    @pytest.mark.parametrize("name", EVERY)
    def test_float32_is_the_default_and_is_float64_rounded(self, name: str) -> None:
        make = initializer(name)
        assert_same_bits(
            make((7, 5), seed=1), make((7, 5), seed=1, dtype=np.float64).astype(np.float32)
        )

    @pytest.mark.parametrize("name", EVERY)
    def test_a_generator_advances(self, name: str) -> None:
        make, rng = initializer(name), np.random.default_rng(0)
        assert not np.array_equal(make((4, 4), seed=rng), make((4, 4), seed=rng))

    @pytest.mark.parametrize("name", EVERY)
    def test_no_seed_is_unpredictable_and_leaves_the_global_state_alone(self, name: str) -> None:
        make = initializer(name)
        before = np.random.get_state(legacy=False)  # noqa: NPY002
        assert not np.array_equal(make((4, 4)), make((4, 4)))
        after = np.random.get_state(legacy=False)  # noqa: NPY002
        np.testing.assert_equal(after, before)


BAD_ARGUMENTS = [
    ({"shape": 5}, TypeError, "shape must be a tuple of integers, got int: 5"),
    ({"shape": "ab"}, TypeError, "shape must be a tuple of integers, got str"),
    ({"shape": (3.0, 4)}, TypeError, "shape must be a tuple of integers"),
    ({"shape": (3, None)}, TypeError, "shape must be a tuple of integers"),
    ({"shape": ()}, ValueError, "shape must have at least two dimensions"),
    ({"shape": (5,)}, ValueError, "shape must have at least two dimensions.*bias"),
    ({"shape": (5, 0)}, ValueError, "shape must have dimensions of at least 1"),
    ({"shape": (-1, 5)}, ValueError, "shape must have dimensions of at least 1"),
    ({"gain": 0}, ValueError, "gain must be a number in .0, inf., got 0"),
    ({"gain": -1.0}, ValueError, "gain must be a number in .0, inf."),
    ({"gain": math.inf}, ValueError, "gain must be a number in .*, got inf"),
    ({"gain": 10**400}, ValueError, "gain must be a number in .0, inf."),
    ({"gain": math.nan}, ValueError, "gain must be a number in .0, inf."),
    ({"gain": "swish"}, ValueError, "gain must be one of 'linear'.*, got 'swish'"),
    ({"gain": None}, TypeError, "gain must be a number in .*, got NoneType"),
    ({"gain": True}, TypeError, "gain must be a number in .*, got bool"),
    ({"gain": np.ones(3)}, TypeError, "gain must be a number in .*, got ndarray"),
    ({"layout": "oi"}, ValueError, "layout must be one of 'in_out', 'out_in', got 'oi'"),
    ({"layout": None}, TypeError, "layout must be one of"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": 1.5}, TypeError, "seed must be an integer, got float.*numpy.random.Generator"),
    ({"seed": "0"}, TypeError, "seed must be an int"),
    ({"seed": True}, TypeError, "seed must be an int.*got bool"),
    ({"seed": np.random.RandomState(0)}, TypeError, "got RandomState"),
    ({"dtype": np.float16}, TypeError, "dtype must be native float32 or float64"),
    ({"dtype": np.int64}, TypeError, "dtype must be native float32 or float64"),
    ({"dtype": np.dtype(np.float32).newbyteorder()}, TypeError, "dtype must be native"),
    ({"dtype": None}, TypeError, "dtype must be native float32 or float64, got None"),
    ({"dtype": "no such"}, TypeError, "dtype must be native float32 or float64"),
]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    BAD_ARGUMENTS,
    ids=[re.sub(" at 0x[0-9A-Fa-f]+", "", str(case[0])) for case in BAD_ARGUMENTS],
)
def test_refuses(
    name: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(error, match=message):
        initializer(name)(**{"shape": (3, 4), "seed": rng, **arguments})
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("name", ["he_uniform", "he_normal"])
@pytest.mark.parametrize(("mode", "error"), [("fan_avg", ValueError), (None, TypeError)])
def test_refuses_mode(name: str, mode: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="mode must be one of 'fan_in', 'fan_out'"):
        initializer(name)((3, 4), mode=mode)


@pytest.mark.parametrize("name", EVERY)
def test_options_are_keywords(name: str) -> None:
    with pytest.raises(TypeError, match="positional"):
        initializer(name)((3, 4), 1.0)
