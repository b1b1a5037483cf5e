"""What tests/checkpoint/data/checkpoint-v1.npz holds; run this to write it.

    python -m tests.checkpoint.version_1

The file stands for all checkpoints that users have in format 1, so it is never written again: a later
fastgd must load the one that is there. Everything in it is set, nothing computed by a step, so that it
does not depend on the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import fastgd
from fastgd import schedules
from tests.fma import Array

FILE = Path(__file__).parent / "data" / "checkpoint-v1.npz"
X = np.zeros((10, 1))
METADATA = {
    "note": "ä",
    "scores": [1.5, float("inf")],
    "shape": (3, 2),
    "table": np.arange(4) * 0.5,
}


def falling(step: int) -> float:
    """A function whose name only is in the file."""
    return 0.1 / (1 + step)


def numbers(first: int, shape: int | tuple[int, ...], dtype: Any) -> Array:
    """first / 7, (first + 1) / 7, …, in memory order."""
    size = int(np.prod(shape))
    return np.asarray(np.arange(first, first + size) / 7, dtype).reshape(shape)


def plateau() -> schedules.ReduceOnPlateau:
    return schedules.ReduceOnPlateau(0.5, factor=0.25, patience=2)


def empty() -> dict[str, Any]:
    """All objects as they are before loading: optimizer, critic, rng, sampler, and the plateau."""
    lr = plateau()
    groups = [
        {"params": {"W": np.zeros((2, 3), np.float32), "b": np.zeros(3)}, "lr": lr},
        {"params": [np.zeros((2, 2), order="F")], "lr": falling},
    ]
    return {
        "optimizer": fastgd.Adam(groups),
        "critic": fastgd.SGD(np.zeros(2), momentum=0.5),
        "rng": np.random.default_rng(0),
        "sampler": fastgd.MiniBatches(X, batch_size=3),
        "plateau": lr,
    }


def filled() -> dict[str, Any]:
    """The same as they are after."""
    things = empty()
    optimizer, critic, rng = things["optimizer"], things["critic"], things["rng"]
    for i, (name, param) in enumerate(optimizer.params.items()):
        param[...] = numbers(10 * i, param.shape, param.dtype)
        state = optimizer.state_dict()
        state["step_count"] = 5
        entry = state["state"][name]
        entry["step"] = 5 - i
        entry["exp_avg"] = numbers(100 + 10 * i, param.shape, param.dtype)
        entry["exp_avg_sq"] = numbers(200 + 10 * i, param.shape, param.dtype)
        state["param_groups"][0]["betas"] = (0.8, schedules.warmup(0.99, 9, start_factor=0.5))
        state["param_groups"][1]["weight_decay"] = schedules.join([0.125, 0.25], [4])
        state["options"] = {"clip_norm": 2.0, "clip_value": None, "nonfinite": "skip"}
        optimizer.load_state_dict(state)
    critic.params["params"][...] = (1e-320, -0.0)
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": 2**127 + 12345, "inc": 2**126 + 1},
        "has_uint32": 1,
        "uinteger": 2**32 - 1,
    }
    things["sampler"].load_state_dict(things["sampler"].state_dict() | {"epoch": 3, "position": 2})
    state = {"lr": 0.125, "best": 1.5, "num_bad_epochs": 1, "cooldown_counter": 0, "last_epoch": 7}
    things["plateau"].load_state_dict(state)
    return things


if __name__ == "__main__":
    things = filled()
    del things["plateau"]  # within the optimizer
    FILE.parent.mkdir(exist_ok=True)
    fastgd.save(FILE, things.pop("optimizer"), metadata=METADATA, **things)
