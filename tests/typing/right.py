"""Right uses, every one of which mypy --strict and pyright accept. Not run: see check.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastgd
from fastgd import schedules
from fastgd.adapters.torch import to_torch

Vector = NDArray[np.float64]


def value_and_grad(w: Vector, *batch: Vector) -> tuple[float, Vector]:
    return float(w @ w), 2.0 * w


def with_aux(w: Vector) -> tuple[tuple[float, dict[str, int]], Vector]:
    return (float(w @ w), {"n": w.size}), 2.0 * w


def rate(step: int) -> float:
    return 0.1 / (1 + step)


def train(optimizer: fastgd.Optimizer, grads: list[Vector]) -> bool:
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.clip_norm = 1.0
    optimizer.clip_value = schedules.linear(1.0, total_steps=10)
    optimizer.nonfinite = "skip"
    norm: float | None = optimizer.grad_norm
    count: int = optimizer.step_count
    print(norm, count, optimizer.params["w"].shape, optimizer.options["clip_norm"])
    with optimizer.evaluation():
        print(optimizer.evaluating)
    return optimizer.step(grads, grad_scale=0.5)


w = np.zeros(3)
made: list[fastgd.Optimizer] = [
    fastgd.SGD(w, lr=0.1, momentum=rate, nesterov=False),
    fastgd.SGD([{"params": w, "lr": 0.1}, {"params": [np.ones(2)]}]),
    fastgd.Adam({"w": w}, lr=rate, betas=(0.9, schedules.constant(0.99)), amsgrad=True),
    fastgd.AdamW(w, 0.1, (0.9, 0.99), weight_decay=0.1, clip_norm=1.0, nonfinite="raise"),
    fastgd.Lion(w, lr=schedules.cosine(0.1, total_steps=100), cautious=True),
    fastgd.Muon(np.ones((3, 3)), ns_steps=5, adjust_lr_fn=None),
    fastgd.ScheduleFreeAdamW(w, warmup_steps=10, maximize=False),
    fastgd.Adagrad(w, state_dtype="bfloat16"),
    fastgd.SGD(w, momentum=0.9, state_dtype=None),
]
kind: type[fastgd.Optimizer] = fastgd.optimizers.find("adamw")
names: dict[str, type[fastgd.Optimizer]] = fastgd.optimizers.all_optimizers()

result: fastgd.Result = fastgd.minimize(value_and_grad, w, lr=0.1, momentum=0.9, optimizer="sgd")
result = fastgd.minimize(with_aux, w, has_aux=True, betas=(0.9, 0.99), optimizer=fastgd.Adam)
result = fastgd.minimize(
    value_and_grad,
    w,
    data=(np.ones((4, 2)), np.ones(4)),
    batch_size=2,
    epochs=3,
    optimizer=made[0],
    callback=lambda info: info.step > 3 and info.lr < 1.0 and info.grad_norm < 1.0,
    validation=lambda params: 1.0,
    metrics={"accuracy": lambda params: 0.5},
    monitor="accuracy",
    mode="max",
    patience=fastgd.EarlyStopping(3, mode="max"),
    average=("ema", 0.99),
    progress=True,
    on_interrupt="raise",
)
x: Any = result.x
fun: float = result.fun
success: bool = result.success
message: str = result.message
best: int | None = result.best_step
losses: NDArray[np.float64] = result.history.loss
steps: NDArray[np.int64] = result.history.step
means: NDArray[np.float64] = result.history.epochs().loss
diagnosis: fastgd.Diagnosis = fastgd.diagnose(result)
stable: float | None = diagnosis.stable_lr
sweep: fastgd.LRSweep = fastgd.find_lr(value_and_grad, w, weight_decay=0.1, optimizer="adamw")
report: fastgd.GradientReport = fastgd.check_gradient(value_and_grad, w)
ok: bool = report.ok

lr: Callable[[int], float] = schedules.warmup(schedules.exponential(0.1, gamma=0.9), 10)
plateau = schedules.ReduceOnPlateau(0.1, patience=3)
reduced: bool = plateau.update(0.5)

batches = fastgd.MiniBatches(np.ones((4, 2)), np.ones(4), batch_size=2, seed=0)
for xb, yb in batches:
    print(xb.shape, yb.shape)

fastgd.save("run.npz", made[0], metadata={"epoch": 3}, sampler=batches)
checkpoint: fastgd.Checkpoint = fastgd.load("run.npz", made[0], sampler=batches)
norm: float = fastgd.clip_grad_norm_([np.ones(3)], 1.0)
fastgd.set_num_threads(2)
with fastgd.num_threads(1):
    threads: int = fastgd.get_num_threads()
nbytes: int = made[0].nbytes
need: int = fastgd.estimate_memory({"W": (3, 4)}, fastgd.Adam, state_dtype="8bit").total
zeros: NDArray[Any] = fastgd.zeros((3, 4), np.float64, "F")
full = made[0].state_dict(decoded=True)
W: NDArray[Any] = fastgd.initializers.he_normal((3, 4), seed=0)
axes = fastgd.plot.history(result, label="run")
axes.set_title("loss")
version: str = fastgd.__version__
print(to_torch)
