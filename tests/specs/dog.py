"""DoG, DoWG, PolyakSGD and Prodigy, whose sums run over all arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.fma import Array, MultiplyAdd
from tests.specs._spec import (
    FLAG,
    NONNEGATIVE,
    OTHER,
    PAIR,
    POSITIVE,
    REAL,
    ErrorCase,
    H,
    Item,
    Spec,
    State,
    always,
    decayed,
    fading_decay,
    falling,
    l2,
    no_state,
    number,
    total,
    wavy,
)


def squares(*arrays: Array) -> float:
    return math.fsum(total(x, x) for x in arrays)


def moved(item: Item, g: Array, rate: float, fma: MultiplyAdd) -> Array:
    return fma(number(item.p, -rate), g, item.p)


def dog(items: list[Item], fma: MultiplyAdd) -> list[tuple[Array, State]]:
    """Joint; of each array by itself with layerwise."""
    if len(items) > 1 and items[0].h["layerwise"]:
        return [dog([item], fma)[0] for item in items]
    gs = [l2(item.p, item.g, item.h, fma) for item in items]
    way = math.sqrt(squares(*(item.p - item.state["init_buffer"] for item in items)))
    size, start = squares(*gs), math.sqrt(squares(*(item.p for item in items)))
    result = []
    for item, g in zip(items, gs, strict=True):
        h, eta = item.h, item.h["init_eta"]
        rbar = item.state["rbar"]
        if item.t == 1 and eta is None:
            rbar = h["reps_rel"] * (1.0 + start)
        rbar, total_squares = max(rbar, way), item.state["G"] + size
        rate = h["lr"] * rbar / math.sqrt(total_squares) if total_squares else 0.0
        if item.t == 1 and eta is not None:
            rate = h["lr"] * eta
        state = {"init_buffer": item.state["init_buffer"], "rbar": rbar, "G": total_squares}
        result.append((moved(item, g, rate, fma), state))
    return result


def dowg(items: list[Item], fma: MultiplyAdd) -> list[tuple[Array, State]]:
    way = squares(*(item.p - item.state["init_buffer"] for item in items))
    size = squares(*(item.g for item in items))
    result = []
    for item in items:
        r_squared = max(item.state["r_squared"], way)
        v = item.state["v"] + r_squared * size
        rate = item.h["lr"] * r_squared / (math.sqrt(v) + item.h["eps"])
        state = {"init_buffer": item.state["init_buffer"], "r_squared": r_squared, "v": v}
        result.append((moved(item, item.g, rate, fma), state))
    return result


def polyak(items: list[Item], fma: MultiplyAdd) -> list[tuple[Array, State]]:
    size = squares(*(item.g for item in items))
    result = []
    for item in items:
        h = item.h
        denominator = size * h["scaling"] ** 2 + h["eps"]
        gap = item.loss - h["f_min"]
        gap = max(gap, 0.0) if h["clamp"] else gap
        rate = 0.0 if denominator <= 2.0**-52 else h["scaling"] * min(gap / denominator, h["lr"])
        result.append((moved(item, item.g, rate, fma), {}))
    return result


def prodigy(items: list[Item], fma: MultiplyAdd) -> list[tuple[Array, State]]:
    made: list[tuple[Item, Array, State, float, float]] = []
    products, sizes = [], []
    for item in items:
        h, old, t = item.h, item.state, item.t
        beta1, beta2 = h["betas"]
        beta3 = math.sqrt(beta2) if h["beta3"] is None else h["beta3"]
        d, p = old["d"], item.p
        step = d * h["lr"]
        if h["use_bias_correction"]:
            step *= math.sqrt(1.0 - beta2**t) / (1.0 - beta1**t)
        weight = d / h["d0"] * step
        _, g = decayed(p, item.g, h, h["decouple"], fma)
        inflow = number(p, d / h["d0"] * d if h["safeguard_warmup"] else weight)
        s = fma(number(p, beta3), old["s"], inflow * g)
        square = number(p, d * d * (1.0 - beta2)) * g * g
        new = {
            "exp_avg": fma(number(p, beta1), old["exp_avg"], number(p, d * (1.0 - beta1)) * g),
            "exp_avg_sq": fma(number(p, beta2), old["exp_avg_sq"], square),
            "s": s,
            "p0": old["p0"],
        }
        products.append(total(number(p, weight) * g, old["p0"] - p))
        sizes.append(total(np.abs(s)))
        made.append((item, p, new, step, beta3))
    product, size = math.fsum(products), math.fsum(sizes)
    result = []
    for item, p, new, step, beta3 in made:
        h, old = item.h, item.state
        if size == 0:
            kept = {key: old[key] for key in ("d", "d_max", "d_numerator")}
            result.append((p, {**new, **kept}))
            continue
        numerator = beta3 * old["d_numerator"] + product
        estimate = h["d_coef"] * numerator / size
        d = max(old["d"], estimate) if old["d"] == h["d0"] else old["d"]
        d_max = max(old["d_max"], estimate)
        d = min(d_max, d * h["growth_rate"])
        keep = 1.0 - h["weight_decay"] * step if h["decouple"] else 1.0
        direction = new["exp_avg"] / (np.sqrt(new["exp_avg_sq"]) + number(p, d * h["eps"]))
        moved_to = fma(number(p, -step), direction, p * number(p, keep)) if step else p
        result.append((moved_to, {**new, "d": d, "d_max": d_max, "d_numerator": numerator}))
    return result


def only_once(name: str) -> ErrorCase:
    return ErrorCase(f"{name}-schedule", {name: falling}, TypeError, (rf"\b{name}\b", "read"))


def start(name: str, **numbers: str | float) -> Any:
    """The parameter under `name`; numbers, or the hyperparameters that they are."""
    return lambda p, h: {
        name: p.copy(),
        **{key: float(h[x] if isinstance(x, str) else x) for key, x in numbers.items()},
    }


SPECS = {
    "DoG": Spec(
        hyper={
            "lr": H(1.0, NONNEGATIVE),
            "reps_rel": H(1e-6, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "eps": H(1e-8, NONNEGATIVE, once=True),
            "init_eta": H(None, OTHER),
            "layerwise": H(False, FLAG, ours=True),
        },
        rule=dog,
        state=lambda h: ("init_buffer",),
        first=start("init_buffer", rbar=0.0, G="eps"),
        cases={
            "defaults": {},
            "reps_rel": {"reps_rel": 0.01, "eps": 0.1},
            "weight_decay": {"weight_decay": 0.3, "reps_rel": 0.01},
            "init_eta": {"init_eta": 0.1},
            "layerwise": {"layerwise": True, "reps_rel": 0.01},
            "all": {"lr": wavy, "reps_rel": 0.1, "weight_decay": 0.3, "maximize": True},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2, "reps_rel": 0.01},
        },
        overrides=[
            {"reps_rel": 0.01},
            {"lr": falling, "maximize": True},
            {"weight_decay": 0.2},
            {"eps": 0.1, "init_eta": 0.1},
        ],
        errors=[
            only_once("eps"),
            ErrorCase("eta", {"init_eta": -1.0}, ValueError, ("init_eta", "-1")),
        ],
        whole=always,
        joint=True,
        ulps=64,
        keeps_squares=False,
        golden={"DoG": {}},
    ),
    "DoWG": Spec(
        hyper={"lr": H(1.0, NONNEGATIVE), "eps": H(1e-4, NONNEGATIVE, once=True)},
        rule=dowg,
        state=lambda h: ("init_buffer",),
        first=start("init_buffer", r_squared="eps", v=0.0),
        cases={
            "defaults": {},
            "lr": {"lr": 0.5, "eps": 0.01},
            "all": {"lr": wavy, "maximize": True},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[{}, {"lr": falling, "maximize": True}, {"eps": 0.1}, {"lr": 0.3}],
        errors=[only_once("eps")],
        whole=always,
        joint=True,
        ulps=64,
        keeps_squares=False,
        golden={"DoWG": {}},
    ),
    "PolyakSGD": Spec(
        hyper={
            "lr": H(1.0, NONNEGATIVE),
            "scaling": H(1.0, NONNEGATIVE),
            "f_min": H(0.0, REAL),
            "eps": H(0.0, NONNEGATIVE),
            "clamp": H(True, FLAG, ours=True),
        },
        rule=polyak,
        state=no_state,
        cases={
            "defaults": {},
            "lr": {"lr": 0.01},
            "scaling": {"scaling": 0.5, "eps": 0.1},
            "f_min": {"f_min": 0.7},
            "clamp": {"f_min": 0.7, "clamp": False},
            "all": {"lr": wavy, "maximize": True, "f_min": -3.0},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2},
        },
        overrides=[{}, {"lr": falling}, {"eps": 0.1}, {"scaling": 0.3}],
        whole=always,
        joint=True,
        needs_loss=True,
        ulps=64,
        keeps_squares=False,
        golden={"Polyak SGD": {"clamp": False}},
        golden_cases={
            "max_lr=0.1": {"lr": 0.1},
            "sps+ with f_min=0.5": {"clamp": True, "f_min": 0.5},
        },
    ),
    "Prodigy": Spec(
        hyper={
            "lr": H(1.0, NONNEGATIVE),
            "betas": H((0.9, 0.999), PAIR),
            "beta3": H(None, OTHER),
            "eps": H(1e-8, NONNEGATIVE),
            "weight_decay": H(0, NONNEGATIVE),
            "decouple": H(True, FLAG),
            "use_bias_correction": H(False, FLAG),
            "safeguard_warmup": H(False, FLAG),
            "d0": H(1e-6, POSITIVE, once=True),
            "d_coef": H(1.0, POSITIVE),
            "growth_rate": H(math.inf, OTHER),
        },
        rule=prodigy,
        state=lambda h: ("exp_avg", "exp_avg_sq", "s", "p0"),
        first=start("p0", d="d0", d_max="d0", d_numerator=0.0),
        cases={
            "defaults": {},
            "betas": {"betas": (0.6, 0.8), "beta3": 0.5, "d0": 1e-3},
            "d0": {"d0": 0.01, "eps": 0.1},
            "weight_decay": {"weight_decay": 0.3, "d0": 0.01},
            "L2": {"weight_decay": 0.3, "d0": 0.01, "decouple": False},
            "corrected": {"use_bias_correction": True, "d0": 0.01},
            "safeguard": {"safeguard_warmup": True, "d0": 0.01},
            "growth": {"growth_rate": 1.02, "d_coef": 2.0, "d0": 0.01},
            "all": {"lr": wavy, "d0": 0.1, "weight_decay": fading_decay, "maximize": True},
            "clip_both": {"clip_norm": 5.0, "clip_value": 0.2, "d0": 0.01},
        },
        overrides=[{}, {"maximize": True}, {"weight_decay": 0.2}, {"d_coef": 2.0}],
        errors=[
            only_once("d0"),
            ErrorCase("beta3", {"beta3": 1.0}, ValueError, ("beta3", "1")),
            ErrorCase("growth", {"growth_rate": 0.5}, ValueError, ("growth_rate", r"0\.5")),
        ],
        whole=always,
        joint=True,
        ulps=256,
        golden={"Prodigy": {}},
        golden_cases={"optax (bias correction always)": {"use_bias_correction": True}},
    ),
}
