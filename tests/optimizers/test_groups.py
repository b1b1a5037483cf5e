"""Groups of several optimizers; names; containers whose entries are rebound; attributes that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastgd
from tests.support import assert_same_bits


def problem(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    params = {"W": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    return params, {"W": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}


def test_each_group_has_the_rule_of_its_optimizer(rng: np.random.Generator) -> None:
    params, grads = problem(rng)
    alone = {name: array.copy() for name, array in params.items()}
    opt = fastgd.SGD(
        [
            {"params": params["W"]},
            {"params": params["b"], "optimizer": fastgd.AdamW, "lr": 0.01},
        ],
        lr=0.1,
        momentum=0.9,
    )
    first = fastgd.SGD(alone["W"], lr=0.1, momentum=0.9)
    second = fastgd.AdamW(alone["b"], lr=0.01)
    for _ in range(4):
        opt.step([grads["W"], grads["b"]])
        first.step(grads["W"])
        second.step(grads["b"])
    for name, array in alone.items():
        assert_same_bits(params[name], array, name)
    assert set(opt.state["0"]) == {"step", "momentum_buffer"}
    assert set(opt.state["1"]) == {"step", "exp_avg", "exp_avg_sq"}
    assert [group.optimizer for group in opt.param_groups] == [fastgd.SGD, fastgd.AdamW]
    assert opt.param_groups[1]["weight_decay"] == 0.01  # AdamW's own default

    again = fastgd.SGD(
        [{"params": np.zeros((4, 3))}, {"params": np.zeros(3), "optimizer": "AdamW"}], momentum=0.9
    )
    saved = opt.state_dict()
    assert saved["param_groups"][1]["optimizer"] == "AdamW"
    again.load_state_dict(saved)
    np.testing.assert_equal(again.state, opt.state)
    wrong = fastgd.SGD([{"params": np.zeros((4, 3))}, {"params": np.zeros(3)}], momentum=0.9)
    with pytest.raises(ValueError, match="group 1 is of 'AdamW', this one of 'SGD'"):
        wrong.load_state_dict(saved)


def test_a_group_of_an_optimizer_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"no optimizer 'adamv'.*did you mean 'Adam"):
        fastgd.SGD([{"params": np.zeros(2), "optimizer": "adamv"}])
    with pytest.raises(TypeError, match="must be an optimizer's class"):
        fastgd.SGD([{"params": np.zeros(2), "optimizer": dict}])


def test_names_do_not_depend_on_when_a_group_came() -> None:
    at_once = fastgd.SGD([{"params": {"W": np.zeros(1)}}, {"params": [np.zeros(2)]}])
    later = fastgd.SGD({"W": np.zeros(1)})
    assert list(later.params) == ["W"]
    later.add_param_group({"params": [np.zeros(2)]})
    assert list(later.params) == list(at_once.params) == ["0/W", "1/0"]
    assert list(fastgd.SGD([{"params": {"W": np.zeros(1)}}]).params) == ["W"]


REBOUND: dict[str, Any] = {
    "dict": lambda p: p.__setitem__("W", p["W"] * 2),
    "nested": lambda p: p["layers"][0].__setitem__("b", np.zeros(2)),
    "list": lambda p: p["layers"].__setitem__(1, np.zeros(3)),
    "container": lambda p: p.__setitem__("layers", [{"b": np.zeros(2)}, np.zeros(3)]),
    "reordered": lambda p: p.update(W=p.pop("W") + 1),
}


@pytest.mark.parametrize("how", REBOUND)
def test_a_rebound_entry_is_noticed(how: str) -> None:
    params: dict[str, Any] = {"W": np.ones((2, 2)), "layers": [{"b": np.ones(2)}, np.ones(3)]}
    opt = fastgd.SGD(params, lr=0.1)
    arrays = dict(opt.params)
    grads = {"W": np.ones((2, 2)), "layers": [{"b": np.ones(2)}, np.ones(3)]}
    opt.step(grads)
    before = {name: array.copy() for name, array in arrays.items()}
    REBOUND[how](params)
    with pytest.raises(ValueError, match=r"was replaced by another array.*\[\.\.\.\] = .*rebind"):
        opt.step(grads)
    for name, array in arrays.items():
        assert_same_bits(array, before[name], name)
    assert opt.step_count == 1
    opt.rebind({name: params[name] for name in grads})  # in the order that it was given
    opt.step(grads)
    assert opt.params["W"] is params["W"]


def test_containers_may_be_emptied_or_changed_otherwise() -> None:
    """Only another array in a parameter's place is a mistake; what else a host does is its own affair."""
    params: dict[str, Any] = {"W": np.ones(2), "b": np.ones(1)}
    opt = fastgd.SGD(params, lr=0.5)
    W = params["W"]
    params["b"] = None
    opt.step({"W": np.ones(2), "b": np.ones(1)})
    params["more"] = np.ones(3)
    opt.step({"W": np.ones(2), "b": np.ones(1)})
    params.clear()
    opt.step({"W": np.ones(2), "b": np.ones(1)})
    assert W.tolist() == [-0.5, -0.5]


def test_attributes_that_would_do_nothing() -> None:
    opt = fastgd.Adam(np.zeros(2))
    with pytest.raises(AttributeError, match=r"param_groups\[0\]\['lr'\] = 0.5"):
        opt.lr = 0.5
    with pytest.raises(AttributeError, match=r"param_groups\[0\]\['betas'\]"):
        opt.betas  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'track_norms'"):
        opt.track_norm = True
    with pytest.raises(AttributeError, match="did you mean 'clip_norm'"):
        opt.clipnorm = 1.0
    with pytest.raises(AttributeError, match="no attribute 'anything'"):
        opt.anything = 1
    group = opt.param_groups[0]
    with pytest.raises(AttributeError, match=r"group\['lr'\] = 0.5"):
        group.lr = 0.5
    with pytest.raises(AttributeError, match="did you mean 'lr'"):
        group.learning_rate = 0.5
    with pytest.raises(AttributeError, match=r"group\['lr'\]"):
        group.lr  # noqa: B018
    opt.track_norms = True
    assert opt.param_groups[0]["lr"] == 1e-3


def test_a_class_of_ones_own() -> None:
    class Mine(fastgd.Adam):
        def __init__(self, params: Any, rate: float) -> None:
            super().__init__(params, lr=rate, betas=(0.5, 0.9))
            self.notes = ["anything"]

    w, v = np.ones(3), np.ones(3)
    mine, plain = Mine(w, 0.1), fastgd.Adam(v, lr=0.1, betas=(0.5, 0.9))
    mine.step(np.ones(3))
    plain.step(np.ones(3))
    assert_same_bits(w, v)
    assert mine.notes == ["anything"]
    assert mine.state_dict()["optimizer"] == "Mine"
    with pytest.raises(AttributeError, match=r"param_groups\[0\]\['lr'\]"):
        mine.lr = 0.5


def test_the_current_values_of_schedules() -> None:
    opt = fastgd.SGD(np.zeros(2), lr=lambda step: 1.0 / (1 + step), momentum=0.5)
    opt.step(np.ones(2))
    assert callable(opt.param_groups[0]["lr"])
    assert opt.param_groups[0].current["lr"] == 0.5
    assert opt.param_groups[0].current["momentum"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.1}, "unexpected argument 'learning_rate'; did you mean 'lr'"),
        ({"beta1": 0.9}, "did you mean 'betas'"),
        ({"weight_dacay": 0.1}, "did you mean 'weight_decay'"),
        ({"clipnorm": 1.0}, "did you mean 'clip_norm'"),
        ({"LR": 0.1}, "did you mean 'lr'"),
    ],
)
def test_did_you_mean(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        fastgd.Adam(np.zeros(2), **arguments)
    with pytest.raises(ValueError, match="no hyperparameter"):
        fastgd.Adam([{"params": np.zeros(2), **arguments}])
