"""Pictures: what they show, that they are legible in print, and what they refuse."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastgd
from fastgd import plot
from tests.fma import Array

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def rendered(ax: Any) -> Any:
    """The Axes, after drawing its figure: any warning or overflow would fail the test."""
    ax.figure.savefig(io.BytesIO(), format="png", dpi=50)
    return ax


def labels(ax: Any) -> list[str]:
    """The texts of the legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


def line(ax: Any, label: str) -> Any:
    """The line of that label."""
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def contours_of(ax: Any) -> Any:
    """The contours, of which there is one set."""
    (contours,) = ax.collections
    return contours


def bowl(x: Any, y: Any) -> Any:
    """Curvatures 1 and 10, so gradient descent diverges from a learning rate of 0.2 on."""
    return (x**2 + 10 * y**2) / 2


def descent(lr: float, steps: int = 30) -> Array:
    """The path of gradient descent on the bowl."""
    factors = 1 - lr * np.array([1.0, 10.0])
    return np.array([-4.0, 1.5]) * factors ** np.arange(steps + 1)[:, np.newaxis]


def sweep(**changes: Any) -> SimpleNamespace:
    """A range test: a plateau, a valley, divergence."""
    lrs = np.geomspace(1e-5, 10, 100)
    losses = 2.3 - 1.9 / (1 + 3e-3 / lrs) + 40 * np.maximum(0, lrs - 0.2) ** 2
    return SimpleNamespace(**{"lrs": lrs, "losses": losses, "suggestion": 4e-3, **changes})


PICTURES: dict[str, Callable[..., Any]] = {
    "history": lambda **kwargs: plot.history({"loss": 0.9 ** np.arange(20)}, **kwargs),
    "trajectory": lambda **kwargs: plot.trajectory(bowl, descent(0.1), **kwargs),
    "schedule": lambda **kwargs: plot.schedule(0.1, steps=5, **kwargs),
    "lr_sweep": lambda **kwargs: plot.lr_sweep(sweep(), **kwargs),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
class TestEveryPicture:
    def test_makes_a_figure_of_its_own(self, draw: Callable[..., Any]) -> None:
        ax = rendered(draw())
        assert pyplot.get_fignums() == [ax.figure.number]
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert labels(ax)

    def test_draws_on_a_given_axes(self, draw: Callable[..., Any]) -> None:
        figure, (left, right) = pyplot.subplots(1, 2, layout="constrained")
        right.set_title("mine")
        right.set_xlabel("my steps")
        assert draw(ax=right) is right
        rendered(right)
        assert pyplot.get_fignums() == [figure.number]
        assert not left.lines
        assert right.get_title() == "mine"
        assert right.get_xlabel() == "my steps"

    def test_refuses_another_object_for_axes(self, draw: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="ax must be a matplotlib Axes, got Figure"):
            draw(ax=pyplot.figure())

    def test_names_the_extra_that_brings_matplotlib(
        self, draw: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r'pip install "fastgd\[plot\]"'):
            draw()


def test_matplotlib_is_imported_on_use_only() -> None:
    code = "import sys, fastgd.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestPrint:
    def test_seven_lines_differ_without_colour(self) -> None:
        ax = rendered(plot.schedule(*range(1, 8), steps=20))
        assert len({line._unscaled_dash_pattern for line in ax.lines}) == 7

    def test_no_two_of_thirty_lines_look_alike(self) -> None:
        ax = rendered(plot.schedule(*range(1, 31), steps=20))
        looks = {(line._unscaled_dash_pattern, line.get_color()) for line in ax.lines}
        assert len(looks) == len(ax.lines) == 30

    def test_later_calls_continue_the_cycle(self) -> None:
        at_once = plot.schedule(1, 2, 3, steps=9)
        one_by_one = None
        for value in (1, 2, 3):
            one_by_one = plot.schedule(value, steps=9, ax=one_by_one)
        assert one_by_one is not None
        for first, second in zip(at_once.lines, one_by_one.lines, strict=True):
            assert first.get_color() == second.get_color()
            assert first.get_marker() == second.get_marker()
            assert first.get_markevery() == second.get_markevery()

    def test_markers_are_points_or_left_out(self) -> None:
        few, many = plot.schedule(1, steps=30).lines[0], plot.schedule(1, steps=31).lines[0]
        assert (few.get_marker(), many.get_marker()) == ("o", "none")
        assert few.get_markevery() is None


def luminance(color: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("style", ["default", "dark_background", "ggplot", "grayscale"])
@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_every_style_is_followed_and_legible(draw: Callable[..., Any], style: str) -> None:
    with pyplot.style.context(style):
        ax = rendered(draw())
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        assert ax.lines[0].get_color() == cycle[0]
        paper = luminance(ax.get_facecolor())
        for text in [*ax.texts, *ax.get_legend().get_texts(), ax.xaxis.label, ax.yaxis.label]:
            # of the legend and the labels on the paper, WCAG 2's contrast
            low, high = sorted([paper, luminance(text.get_color())])
            assert (high + 0.05) / (low + 0.05) > 3
        for line in ax.lines:
            low, high = sorted([paper, luminance(line.get_color())])
            assert (high + 0.05) / (low + 0.05) > 1.5


def curve_in(ax: Any, label: str) -> Array:
    """The part of a curve that is to be seen: its height, 0 at the bottom and 1 at the top."""
    points = ax.transAxes.inverted().transform(ax.transData.transform(line(ax, label).get_xydata()))
    heights: Array = points[:, 1]
    return heights


class TestLimits:
    def test_means_decide_and_not_the_noise(self, rng: np.random.Generator) -> None:
        loss = 1 + 0.1 * rng.standard_normal(1000)
        loss[500] = 50.0
        ax = rendered(plot.history({"loss": loss}))
        assert ax.get_yscale() == "linear"
        assert ax.get_ylim()[1] < 5

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("end", [1e6, math.inf, math.nan])
    def test_a_diverging_run_does_not_flatten_the_others(self, first: bool, end: float) -> None:
        good, bad = 1 + 0.9 ** np.arange(40), 2 * 1.5 ** np.arange(40)
        bad[-1] = end
        ax = None
        for label in ("bad", "good") if first else ("good", "bad"):
            loss = good if label == "good" else bad
            ax = plot.history({"loss": loss}, label=label, ax=ax)
        rendered(ax)
        heights = curve_in(ax, "good")
        assert 0 < heights.min() < 0.1
        assert heights.max() > 0.25
        assert heights.max() - heights.min() > 0.2
        shown = [text for text in labels(ax) if text.startswith("bad")]
        assert shown == ["bad" if math.isfinite(end) else "bad (not finite from step 39)"]
        assert np.isfinite(curve_in(ax, shown[0])[:3]).all()

    def test_alone_it_is_shown_whole(self) -> None:
        ax = rendered(plot.history({"loss": 2 * 1.5 ** np.arange(40)}))
        assert ax.get_ylim()[1] > 2 * 1.5**39

    def test_limits_set_by_hand_stay(self) -> None:
        _, ax = pyplot.subplots()
        ax.set_ylim(0, 7)
        plot.history({"loss": [1.0, 2.0, 3.0]}, ax=ax)
        assert ax.get_ylim() == (0, 7)

    @pytest.mark.parametrize("log", [True, False])
    def test_the_legend_lies_on_no_curve(self, log: bool, rng: np.random.Generator) -> None:
        ax = None
        for i in range(4):
            loss = 1 + i + 0.4 * np.sin(np.arange(400) / 20 + i)
            ax = plot.history({"loss": loss}, label=f"a run with a long name, {i}", log=log, ax=ax)
        assert ax is not None
        rendered(ax)
        ax.figure.draw_without_rendering()
        box = ax.get_legend().get_window_extent()
        for drawn in ax.lines:
            path = drawn.get_path().transformed(drawn.get_transform())
            assert not path.intersects_bbox(box, filled=False)


class TestEpochs:
    def test_of_a_run(self) -> None:
        import fastgd

        result = fastgd.minimize(
            lambda w, x: (1.0, np.ones(1)), np.zeros(1), data=(np.ones(10),), batch_size=3, epochs=5,
            validation=lambda w: 2.0,
        )  # fmt: skip
        ax = rendered(plot.history(result, x="epoch"))
        assert ax.get_xlabel() == "epoch"
        np.testing.assert_allclose(line(ax, "loss").get_xdata(), np.arange(20) / 4)
        np.testing.assert_allclose(line(ax, "validation loss").get_xdata(), [1, 2, 3, 4, 5])

    def test_what_does_not_tell_is_refused(self) -> None:
        with pytest.raises(ValueError, match='no "steps_per_epoch"'):
            plot.history({"loss": [1.0]}, x="epoch")
        with pytest.raises(ValueError, match="x must be one of 'step', 'epoch'"):
            plot.history({"loss": [1.0]}, x="epochs")  # type: ignore[arg-type]


HISTORY: dict[str, Any] = {
    "step": np.arange(0, 100, 2),
    "loss": 2 * 0.9 ** np.arange(50),
    "grad_norm": 3 * 0.9 ** np.arange(50),
    "lr": np.full(50, 1e-3),
    "validation_step": [0, 50, 98],
    "validation_loss": [2.1, 1.0, 1.2],
}


class TestHistory:
    @pytest.mark.parametrize(
        "result",
        [
            HISTORY,
            SimpleNamespace(**HISTORY),
            SimpleNamespace(history=HISTORY),
            SimpleNamespace(history=SimpleNamespace(**HISTORY)),
        ],
        ids=["mapping", "object", "result of mapping", "result of object"],
    )
    def test_loss_and_validation_loss(self, result: Any) -> None:
        ax = rendered(plot.history(result))
        assert labels(ax) == ["loss", "validation loss"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")
        np.testing.assert_array_equal(line(ax, "loss").get_xdata(), HISTORY["step"])
        np.testing.assert_array_equal(line(ax, "loss").get_ydata(), HISTORY["loss"])
        np.testing.assert_array_equal(line(ax, "validation loss").get_xdata(), [0, 50, 98])
        np.testing.assert_array_equal(line(ax, "validation loss").get_ydata(), [2.1, 1.0, 1.2])

    @pytest.mark.parametrize("absent", [None, [], np.empty(0)], ids=["None", "list", "array"])
    def test_without_validation(self, absent: Any) -> None:
        record = {**HISTORY, "validation_step": absent, "validation_loss": absent}
        assert labels(plot.history(record)) == ["loss"]

    def test_steps_count_from_zero_by_default(self) -> None:
        record = {"loss": [3.0, 2.0, 1.0], "validation_loss": [3.0, 2.0, 2.0]}
        ax = plot.history(record)
        np.testing.assert_array_equal(line(ax, "loss").get_xdata(), [0, 1, 2])
        np.testing.assert_array_equal(line(ax, "validation loss").get_xdata(), [0, 1, 2])

    def test_other_quantities(self) -> None:
        assert plot.history(HISTORY, "grad_norm").get_ylabel() == "gradient norm"
        ax = rendered(plot.history(HISTORY, ["grad_norm", "lr"], label="run"))
        assert labels(ax) == ["run, gradient norm", "run, learning rate"]

    def test_compares_runs(self) -> None:
        ax = plot.history({"loss": [2.0, 1.0]}, label="SGD")
        assert plot.history({"loss": [2.0, 0.5]}, label="Adam", ax=ax) is ax
        assert labels(rendered(ax)) == ["SGD", "Adam"]
        assert ax.get_ylabel() == "loss"

    @pytest.mark.parametrize(
        ("loss", "log", "expected"),
        [
            ([100.0, 1.0], None, "log"),
            ([2.0, 1.0], None, "linear"),
            ([100.0, 0.0], None, "linear"),
            ([100.0, -1.0], None, "linear"),
            ([100.0, 1.0], False, "linear"),
            ([2.0, 1.0], True, "log"),
            ([100.0, 1.0, math.nan, math.inf], None, "log"),
            ([math.nan, math.nan], None, "linear"),
        ],
    )
    def test_vertical_scale(self, loss: list[float], log: bool | None, expected: str) -> None:
        assert rendered(plot.history({"loss": loss}, log=log)).get_yscale() == expected

    def test_vertical_scale_follows_all_runs(self) -> None:
        ax = plot.history({"loss": [2.0, 1.0]})
        assert plot.history({"loss": [2.0, 0.01]}, ax=ax).get_yscale() == "log"
        assert plot.history({"loss": [2.0, 1.9]}, ax=ax).get_yscale() == "log"
        assert plot.history({"loss": [2.0, -1.0]}, ax=ax).get_yscale() == "linear"

    def test_says_where_the_loss_is_not_finite(self) -> None:
        ax = rendered(plot.history({"step": [5, 6, 7], "loss": [1.0, math.inf, math.nan]}))
        assert labels(ax) == ["loss (not finite from step 6)"]

    def test_noise_is_smoothed_and_still_shown(self, rng: np.random.Generator) -> None:
        loss = 1 + rng.standard_normal(1000) / 10
        ax = rendered(plot.history({"loss": loss}))
        assert labels(ax) == ["loss (mean of 21 steps)"]
        mean, raw = ax.lines
        np.testing.assert_array_equal(raw.get_ydata(), loss)
        smooth = mean.get_ydata()
        assert smooth[500] == pytest.approx(loss[490:511].mean(), rel=1e-12)
        assert smooth[0] == pytest.approx(loss[:11].mean(), rel=1e-12)
        assert smooth[-1] == pytest.approx(loss[-11:].mean(), rel=1e-12)

    def test_what_has_no_noise_is_not_smoothed(self) -> None:
        steps = np.arange(1000)
        one_way, swinging, overshooting = 0.99**steps, np.cos(steps / 3), (-0.99) ** steps
        for loss in (one_way, swinging, overshooting, np.ones(1000), np.full(1000, math.nan)):
            ax = plot.history({"loss": loss})
            assert len(ax.lines) == 1

    def test_a_validation_has_its_runs_colour(self) -> None:
        ax = plot.history(HISTORY, label="SGD")
        plot.history(HISTORY, label="Adam", ax=ax)
        colors = [drawn.get_color() for drawn in ax.lines]
        assert colors[0] == colors[1] != colors[2] == colors[3]

    def test_metrics_of_a_run(self) -> None:
        import fastgd

        result = fastgd.minimize(
            lambda w: (1.0, np.ones(1)), np.zeros(1), steps=3, metrics={"accuracy": lambda w: 0.5}
        )
        ax = rendered(plot.history(result, ["accuracy", "grad_norm"]))
        np.testing.assert_array_equal(line(ax, "accuracy").get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line(ax, "gradient norm").get_xdata(), [0, 1, 2])

    def test_smooth_is_obeyed(self) -> None:
        ax = plot.history({"loss": [1.0, 2.0, math.nan, 4.0, 5.0]}, smooth=3)
        assert labels(ax) == ["loss (mean of 3 steps, not finite from step 2)"]
        expected = np.array([1.5, 1.5, math.nan, 4.5, 4.5])
        np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata()), expected, rtol=1e-12)
        assert len(plot.history({"loss": [1.0, 2.0]}, smooth=1).lines) == 1
        assert labels(plot.history({"loss": [1.0, 2.0]}, smooth=99)) == ["loss (mean of 2 steps)"]

    def test_each_key_has_the_steps_it_was_recorded_at(self) -> None:
        record = {
            "step": np.arange(5), "loss": np.ones(5), "validation_step": np.array([2, 4]),
            "validation_loss": np.ones(2), "probe_step": np.array([1]), "probe_lr": np.ones(1),
        }  # fmt: skip
        lines = plot.history(record, ["loss", "validation_loss", "probe_lr"]).get_lines()
        assert [list(line.get_xdata()) for line in lines] == [[0, 1, 2, 3, 4], [2, 4], [1]]

    @pytest.mark.parametrize(
        ("result", "options", "error", "message"),
        [
            ([1.0, 2.0], {}, TypeError, "result must be a Result, its history or .*, got list"),
            (None, {}, TypeError, "result must be a Result.*got NoneType"),
            ({}, {}, ValueError, "the history has no 'loss'"),
            ({"loss": []}, {}, ValueError, "the history has no 'loss'"),
            (HISTORY, {"keys": "accuracy"}, ValueError, "the history has no 'accuracy'"),
            (HISTORY, {"keys": []}, TypeError, "keys must be a name or a list of names"),
            (HISTORY, {"keys": 3}, TypeError, "keys must be a name or a list of names, got 3"),
            ({"loss": ["a"]}, {}, TypeError, r"history\['loss'\] must be numbers"),
            ({"loss": [[1.0]]}, {}, ValueError, r"history\['loss'\] must be .* 1 dimension"),
            (
                {"loss": [1.0], "step": [1, 2]},
                {},
                ValueError,
                "1 values of 'loss', but 2 of 'step'",
            ),
            (
                {**HISTORY, "validation_step": None},
                {},
                ValueError,
                "3 values of 'validation_loss', but 50 of 'step'",
            ),
            (HISTORY, {"smooth": 0}, ValueError, "smooth must be at least 1, got 0"),
            (HISTORY, {"smooth": 1.5}, TypeError, "smooth must be an integer, got float: 1.5"),
            (HISTORY, {"log": "yes"}, TypeError, "log must be a bool, got str"),
            (HISTORY, {"label": 3}, TypeError, "label must be a str, got int"),
        ],
    )
    def test_refuses(self, result: Any, options: Any, error: type[Exception], message: str) -> None:
        _, ax = pyplot.subplots()
        with pytest.raises(error, match=message):
            plot.history(result, ax=ax, **options)
        assert not ax.lines


class TestTrajectory:
    def test_the_three_learning_rates(self) -> None:
        paths = {
            "too small": descent(0.005),
            "just right": descent(0.15),
            "too large": descent(0.22, steps=400),
        }
        ax = rendered(plot.trajectory(bowl, paths, minimum=(0, 0)))
        assert labels(ax) == ["too small", "just right", "too large"]
        assert [text.get_text() for text in ax.texts] == ["start", "minimum"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
        assert ax.get_aspect() == 1
        for label in ("too small", "just right"):
            np.testing.assert_array_equal(line(ax, label).get_xydata(), paths[label])
        # The view holds what converges and is not blown up by what does not.
        (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
        assert x0 < -4 < 0 < x1
        assert y0 < -0.75 < 1.5 < y1
        assert x1 - x0 < 12
        assert y1 - y0 < 12
        # The path that does not ends with the first point outside for good.
        drawn = line(ax, "too large").get_xydata()
        np.testing.assert_allclose(drawn, paths["too large"][: len(drawn)], rtol=2**-50)
        inside = (y0 <= drawn[:, 1]) & (drawn[:, 1] <= y1)
        assert inside[:-1].all()
        assert not inside[-1]
        assert len(drawn) > 3

    def test_contours_are_those_of_the_function(self) -> None:
        ax = plot.trajectory(bowl, descent(0.1), levels=[1.0, 4.0, 1e9])
        contours = contours_of(ax)
        heights, lines = contours.levels, contours.allsegs
        assert list(heights) == [1.0, 4.0]
        for height, segments in zip(heights, lines, strict=True):
            points = np.vstack(segments)
            np.testing.assert_allclose(bowl(*points.T), height, rtol=0.02)

    def test_contours_of_a_quadratic_are_equally_spaced(self) -> None:
        ax = plot.trajectory(
            lambda x, y: x**2 + y**2, [[1.0, 0.0]], xlim=(-1, 1), ylim=(-1, 1), levels=9
        )
        contours = contours_of(ax)
        radii = np.sqrt(contours.levels)[:8]  # the circles that lie within the square
        np.testing.assert_allclose(np.diff(radii), np.diff(radii)[0], rtol=0.05)

    @pytest.mark.parametrize(
        "fun",
        [
            lambda x, y: math.exp(x) + y * y,
            lambda x, y: x * x if x > 0 else y * y,
            lambda x, y: float(np.array([x, y]) @ np.array([x, y])),
            lambda x, y: np.array([x, y]) @ np.array([[1, 0], [0, 10]]) @ np.array([x, y]),
            lambda x, y: np.sum(np.array([x, y]) ** 2),
            lambda x, y: 1.0,
            lambda x, y: 3,
        ],
        ids=["math", "if", "float", "matmul", "sum", "constant", "integer"],
    )
    def test_functions_of_numbers_only(self, fun: Callable[[Any, Any], Any]) -> None:
        ax = rendered(plot.trajectory(fun, [[1.0, 1.0], [0.5, 0.25]], xlim=(-1, 2), ylim=(-1, 1)))
        if not ax.collections:  # the constants
            return
        contours = contours_of(ax)
        for height, segments in zip(contours.levels, contours.allsegs, strict=True):
            for x, y in np.vstack(segments)[::50]:
                # Linear interpolation on the grid, next to a jump for the function with an `if`.
                assert fun(x, y) == pytest.approx(height, abs=0.05) or abs(x) < 0.02

    def test_a_function_of_whole_arrays_is_called_for_them_at_once(self) -> None:
        calls = []

        def fun(x: Any, y: Any) -> Any:
            calls.append(np.shape(x))
            return bowl(x, y)

        plot.trajectory(fun, descent(0.1))
        assert len([shape for shape in calls if shape]) == 1
        assert len(calls) < 10

    @pytest.mark.parametrize("end", [1e300, -1e300, math.inf, -math.inf, math.nan])
    def test_huge_and_not_finite_points(self, end: float) -> None:
        path = np.array([[-4.0, 1.5], [0.0, 3.0], [2.0, end], [3.0, 0.0]])
        ax = rendered(plot.trajectory(bowl, {"a": path, "b": descent(0.1)}))
        assert np.isfinite(ax.lines[0].get_xydata()).all()
        assert np.abs(ax.lines[0].get_xydata()).max() < 1e4
        note = "" if math.isfinite(end) else " (not finite from step 2)"
        assert labels(ax) == [f"a{note}", "b"]

    def test_a_path_that_comes_back_is_drawn_whole(self) -> None:
        path = np.array([[-1.0, 0.0], [5.0, 40.0], [0.5, 0.0]])
        ax = rendered(plot.trajectory(bowl, path, xlim=(-2, 2), ylim=(-1, 1)))
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), path)
        assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 2), (-1, 1))

    @pytest.mark.parametrize(
        "path",
        [
            [[0.0, 0.0]],
            [[3.0, 1e-3], [2.0, 1e-3], [0.0, 1e-3]],
            [[1000.0, 1.0], [0.0, -1.0]],
            [[1.0, 1000.0], [-1.0, 0.0]],
            [[1.0, 1.0], [2.0, 2.0]],
            [[1.0, 1.0], [math.nan, 2.0]],
            [[1e6, 1e6], [1e6, 1e6]],
            [[1.0, 1.0], [-1e200, 1e200], [math.inf, math.nan]],
            np.array([[1.0, 1.0], [0.0, 0.0]], dtype=np.float32),
            np.array([[2, 1], [0, 0]]),
        ],
        ids=str,
    )
    def test_every_path_has_a_view(self, path: Any) -> None:
        ax = rendered(plot.trajectory(bowl, path))
        (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
        assert x0 < path[0][0] < x1
        assert y0 < path[0][1] < y1

    def test_python_numbers_may_overflow(self) -> None:
        ax = rendered(
            plot.trajectory(lambda x, y: math.exp(x * x) + 1 / y, [[1.0, 1.0]], xlim=(-40, 40))
        )
        assert ax.collections

    def test_an_elongated_view_is_not_flattened(self) -> None:
        ax = rendered(plot.trajectory(bowl, [[1000.0, 1.0], [0.0, -1.0]]))
        assert ax.get_aspect() == "auto"
        assert np.diff(ax.get_ylim()) < 5

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"fun": 3}, TypeError, r"fun must be a function of \(x, y\), got int"),
            ({"fun": lambda x, y: (x, y)}, TypeError, "fun must return one number for two"),
            ({"fun": lambda x, y: "a"}, TypeError, "fun must return one number for two"),
            ({"fun": lambda x: x}, TypeError, "positional argument"),
            ({"paths": {}}, ValueError, "paths must hold one path at least"),
            ({"paths": {"a": [1.0, 2.0]}}, ValueError, r"paths\['a'\] must be .* 2 dimensions"),
            ({"paths": {"a": np.empty((0, 2))}}, ValueError, r"paths\['a'\] must be a non-empty"),
            ({"paths": [[1.0, 2.0], [1.0]]}, ValueError, "paths must be a non-empty array"),
            ({"paths": np.ones((5, 3))}, ValueError, r"shape \(points, 2\), got \(5, 3\)"),
            ({"paths": [["a", "b"]]}, TypeError, "paths must be numbers"),
            ({"paths": [[math.nan, 1.0]]}, ValueError, "paths must start at a finite point"),
            ({"xlim": (1, 0)}, ValueError, r"xlim must increase, got \(1, 0\)"),
            ({"ylim": (0, math.inf)}, ValueError, "ylim must be finite"),
            ({"ylim": 3}, TypeError, "ylim must be a pair of numbers, got 3"),
            ({"ylim": (1, 2, 3)}, TypeError, "ylim must be a pair of numbers"),
            ({"minimum": (0, "b")}, TypeError, "minimum must be a pair of numbers"),
            ({"minimum": (0, math.nan)}, ValueError, "minimum must be finite"),
            ({"levels": 0}, ValueError, "levels must be at least 1"),
            ({"levels": True}, TypeError, "levels must be an integer"),
            ({"levels": None}, TypeError, "levels must be numbers"),
            ({"levels": [2.0, 1.0]}, ValueError, "levels must be finite and increase"),
            ({"levels": []}, ValueError, "levels must be a non-empty array"),
        ],
    )
    def test_refuses(self, arguments: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            plot.trajectory(**{"fun": bowl, "paths": descent(0.1), **arguments})
        assert pyplot.get_fignums() == []


class Decay:
    """A schedule whose repr is the call that makes it."""

    def __init__(self, lr: float, gamma: float) -> None:
        self.lr, self.gamma = lr, gamma

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma**step

    def __repr__(self) -> str:
        return f"decay(lr={self.lr!r}, gamma={self.gamma!r})"


class TestSchedule:
    def test_values(self) -> None:
        ax = rendered(plot.schedule(lambda step: 0.5**step, 0.25, steps=4, labels=["a", "b"]))
        assert labels(ax) == ["a", "b"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "learning rate")
        np.testing.assert_array_equal(line(ax, "a").get_xdata(), [0, 1, 2, 3])
        np.testing.assert_array_equal(line(ax, "a").get_ydata(), [1.0, 0.5, 0.25, 0.125])
        np.testing.assert_array_equal(line(ax, "b").get_ydata(), [0.25] * 4)

    def test_default_labels(self) -> None:
        def cosine(step: int) -> float:
            return math.cos(step)

        assert labels(plot.schedule(cosine, lambda step: 1.0, 0.5, Decay(1.0, 0.9), steps=2)) == [
            "cosine",
            "schedule 1",
            "0.5",
            "decay",
        ]
        assert labels(plot.schedule(Decay(1.0, 0.9), Decay(1.0, 0.8), steps=2)) == [
            "decay(gamma=0.9)",
            "decay(gamma=0.8)",
        ]

    def test_options(self) -> None:
        ax = rendered(plot.schedule(Decay(1.0, 0.1), steps=9, ylabel="momentum", log=True))
        assert (ax.get_ylabel(), ax.get_yscale()) == ("momentum", "log")

    def test_small_values_are_not_written_with_many_zeros(self) -> None:
        ax = rendered(plot.schedule(3e-4, 1e-4, steps=10))
        assert "times" in ax.yaxis.get_offset_text().get_text()

    @pytest.mark.parametrize(
        ("schedules", "options", "error", "message"),
        [
            ([], {"steps": 5}, TypeError, "schedules: give one at least"),
            ([0.1], {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
            ([0.1], {"steps": 5.0}, TypeError, "steps must be an integer, got float: 5.0"),
            ([0.1], {"steps": 5, "labels": ["a", "b"]}, ValueError, "labels must be 1"),
            ([0.1], {"steps": 5, "ylabel": 3}, TypeError, "ylabel must be a str"),
            ([0.1], {"steps": 5, "log": 1}, TypeError, "log must be a bool"),
            ([0.1, "a"], {"steps": 5}, TypeError, r"schedules\[1\] must be numbers"),
            ([lambda step: None], {"steps": 5}, TypeError, r"schedules\[0\] must be numbers"),
            (
                [lambda step: math.nan if step == 3 else 1.0],
                {"steps": 5},
                ValueError,
                r"schedules\[0\] is nan at step 3, expected a finite number",
            ),
        ],
    )
    def test_refuses(
        self, schedules: Any, options: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            plot.schedule(*schedules, **options)
        assert pyplot.get_fignums() == []


class TestSweep:
    def test_curve_and_suggestion(self) -> None:
        found = sweep()
        ax = rendered(plot.lr_sweep(found))
        assert labels(ax) == ["loss", "suggestion: 0.004"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
        assert ax.get_xscale() == "log"
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), found.lrs)
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.losses)
        assert list(ax.lines[1].get_xdata()) == [0.004, 0.004]

    def test_no_suggestion(self) -> None:
        ax = plot.lr_sweep(sweep(suggestion=None), label="Adam")
        assert labels(ax) == ["Adam"]

    def test_divergence_does_not_dwarf_the_valley(self) -> None:
        found = sweep()
        assert found.losses.max() > 1000
        low, high = plot.lr_sweep(found).get_ylim()
        assert low < found.losses.min()
        assert 2.3 < high < 4

    def test_losses_over_decades_get_a_logarithmic_axis(self) -> None:
        lrs = sweep().lrs
        ax = rendered(plot.lr_sweep(sweep(losses=1e-4 + 100 * np.exp(-20 * lrs))))
        assert ax.get_yscale() == "log"
        low, high = ax.get_ylim()
        assert 0 < low < 1e-4 < 100 < high

    @pytest.mark.parametrize(
        "losses",
        [
            np.full(100, math.nan),
            np.ones(100),
            np.arange(100.0),
            -np.arange(100.0),
            np.where(np.arange(100) > 50, math.inf, 1 / (1 + np.arange(100))),
        ],
        ids=["nan", "constant", "rising", "negative", "inf"],
    )
    def test_odd_curves(self, losses: Array) -> None:
        rendered(plot.lr_sweep(sweep(losses=losses)))

    def test_compares_sweeps(self) -> None:
        ax = plot.lr_sweep(sweep(), label="SGD")
        before = ax.get_ylim()
        plot.lr_sweep(sweep(losses=sweep().losses + 3), label="Adam", ax=ax)
        rendered(ax)
        assert labels(ax)[::2] == ["SGD", "Adam"]
        assert ax.get_ylim() == before

    @pytest.mark.parametrize(
        ("found", "error", "message"),
        [
            (None, TypeError, "sweep must be a result of find_lr, but has no attribute 'lrs'"),
            (sweep(lrs=[1.0]), ValueError, "sweep has 1 lrs, but 100 losses"),
            (sweep(lrs=[], losses=[]), ValueError, "sweep.lrs must be a non-empty array"),
            (sweep(lrs=-sweep().lrs), ValueError, "sweep.lrs must be finite and greater than 0"),
            (sweep(losses=["a"]), TypeError, "sweep.losses must be numbers"),
            (sweep(suggestion="a"), TypeError, "sweep.suggestion must be numbers"),
            (sweep(suggestion=-1.0), ValueError, "sweep.suggestion must be finite and > 0"),
        ],
    )
    def test_refuses(self, found: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            plot.lr_sweep(found)
        assert pyplot.get_fignums() == []


class TestDiagnosis:
    """What a diagnosis shows of a run."""

    def run(self, **changes: Any) -> Any:
        steps = np.arange(200.0)
        record = {"step": steps, "loss": 0.97**steps, "lr": np.full(200, 0.1), **changes}
        return fastgd.diagnose(record)

    def test_a_rate_that_is_too_high(self) -> None:
        def loss(x: Array) -> tuple[float, Array]:
            return float(x @ ([1.0, 10.0] * x)) / 2, [1.0, 10.0] * x

        result = fastgd.minimize(loss, np.ones(2), optimizer="sgd", lr=0.21, steps=100)
        found = fastgd.diagnose(result)
        above, below = found.plot()
        rendered(above)
        assert above.get_title(loc="left").replace("\n", " ") == found.summary
        assert [text.get_text() for text in above.texts] == ["lowest, at step 0"]
        assert labels(below) == ["used", "largest stable one (high confidence)"]
        assert line(below, "used").get_ydata()[0] == 0.21
        assert line(below, labels(below)[1]).get_ydata()[0] == found.stable_lr

    def test_layers_that_are_to_blame(self) -> None:
        names = [f"W{i}" for i in range(12)]
        norms = np.tile(10.0 ** -np.arange(12.0), (200, 1))
        found = self.run(
            names=names,
            loss=1 - 1e-4 * np.arange(200.0),
            layer_grad_norm=norms,
            layer_update_norm=0.1 * norms,
            layer_param_norm=np.ones((200, 12)),
            grad_norm=np.linalg.norm(norms, axis=1),
            optimizer="SGD",
        )
        assert found.verdict == "vanishing_gradients"
        _, below = found.plot()
        rendered(below)
        assert labels(below) == [*names[:4], *names[-4:]]  # those that differ most
        assert below.get_yscale() == "log"
        assert (line(below, "W11").get_ydata() == 1e-11).all()

    def test_overfitting_is_marked_at_the_best_validation(self) -> None:
        at = np.arange(0.0, 200, 10)
        found = self.run(validation_step=at, validation_loss=0.5 + 1e-4 * (at - 60) ** 2)
        assert found.verdict == "overfitting"
        above, below = found.plot()
        rendered(above)
        assert [text.get_text() for text in above.texts] == ["lowest, at step 60"]
        assert not below.axison  # no norms, no stable rate: nothing to show

    def test_values_that_are_not_finite(self) -> None:
        loss = 0.97 ** np.arange(200.0)
        loss[150:] = np.nan
        found = self.run(loss=loss, grad_norm=np.where(np.isnan(loss), np.nan, 1.0))
        assert found.verdict == "nonfinite_data_or_loss"
        above, below = found.plot()
        rendered(above)
        (text,) = above.texts
        assert text.get_text() == "the last finite loss"
        assert text.xy == (149, loss[149])
        assert below.get_ylabel() == "gradient norm"

    def test_axes_of_ones_own_and_both_styles(self) -> None:
        found = self.run()
        for style in ("default", "dark_background"):
            with pyplot.style.context(style):
                _, axes = pyplot.subplots(1, 2)
                assert plot.diagnosis(found, axes=axes) == tuple(axes)
                rendered(axes[0])
                face, text = axes[0].get_facecolor(), axes[0].title.get_color()
                assert to_rgb(face) != to_rgb(text)

    def test_what_is_refused(self) -> None:
        with pytest.raises(TypeError, match="found must be a Diagnosis"):
            plot.diagnosis({"loss": [1.0]})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="ax must be a matplotlib Axes"):
            self.run().plot(axes=(1, 2))
