"""Wrong uses: mypy --strict and pyright refuse every line marked `# wrong`. Not run: see check.py."""

from __future__ import annotations

import numpy as np

import fastgd
from fastgd import schedules

w = np.zeros(3)


def value_and_grad(w: object) -> tuple[float, object]:
    return 0.0, w


fastgd.Adamw(w)  # wrong
fastgd.SGD()  # wrong
fastgd.SGD(w, lr="0.1")  # wrong
fastgd.SGD(w, learning_rate=0.1)  # wrong
fastgd.SGD(w, nesterov=0.5)  # wrong
fastgd.SGD(w, nonfinite="ignore")  # wrong
fastgd.SGD(w, state_dtype="fp8")  # wrong
fastgd.Adam(w, betas=0.9)  # wrong
fastgd.Adam(w, betas=(0.9, "0.99"))  # wrong
fastgd.Adam(w, lr=lambda: 0.1)  # wrong
opt = fastgd.Adam(w)
opt.zero_grad()  # wrong
opt.step()  # wrong
opt.step(w, 1.0, 2.0)  # wrong
count: str = opt.step_count  # wrong
fastgd.minimize(value_and_grad, w, optimiser="sgd")  # wrong
fastgd.minimize(value_and_grad, w, lr="fast")  # wrong
fastgd.minimize(value_and_grad, w, maxiter=3)  # wrong
fastgd.minimize(value_and_grad, w, momentum=None)  # wrong
fastgd.minimize(value_and_grad, w, patience="long")  # wrong
fastgd.minimize(value_and_grad, w, mode="most")  # wrong
fastgd.minimize(value_and_grad, w, on_interrupt="stop")  # wrong
fastgd.minimize(0.5, w)  # wrong
result = fastgd.minimize(value_and_grad, w)
loss: str = result.loss  # wrong
losses = result.losses  # wrong
next_step = result.best_step + 1  # wrong
fastgd.find_lr(value_and_grad, w, lr_low=0.1)  # wrong
schedules.cosine(0.1, T_max=10)  # wrong
schedules.cosine(0.1)  # wrong
fastgd.load(3, opt)  # wrong
fastgd.save("run.npz")  # wrong
fastgd.set_num_threads("all")  # wrong
fastgd.EarlyStopping("3")  # wrong
fastgd.MiniBatches(w, batch_size="32")  # wrong
code = fastgd.diagnose(result).verdict.code  # wrong
