"""Schedule-Free SGD and AdamW: an average of the iterates in place of a falling rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastgd._arrays.tree import Array
from fastgd.optimizers._base import Optimizer
from fastgd.optimizers._fields import Fraction, Fractions, NonNegative, Options, Real, Values

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _itself(param: Array) -> Array:
    return param


class _ScheduleFree(Optimizer, averages=True):
    """What the two share."""

    @classmethod
    def first_values(cls, values: Values) -> dict[str, float | Callable[[Array], Any]]:
        return {"z": _itself}


class ScheduleFreeSGD(_ScheduleFree, rule="schedule_free_sgd"):
    """SGD whose iterates are averaged as it goes, so that the rate need not fall.

        lr_t = lr * min(1, t / warmup_steps),  w = t^r * (largest lr_t)^weight_lr_power,  c = w / Σw
        d = g + weight_decay * y                    (g is the gradient at y)
        z ← z - lr_t * d
        x ← (1 - c) * x + c * z
        y ← (1 - momentum) * z + momentum * x

    The parameters are y while training. `eval()` puts x in their place, to be evaluated and saved,
    `train()` y; `with opt.evaluation():` does both. A checkpoint knows which it holds. Formula, names
    and defaults are the authors' (schedulefree); Keras' form ignores the weights under a warm-up.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        momentum: weight of x in y, a number or a function step -> number, in (0, 1).
        weight_decay: at y, a number or a function step -> number, at least 0.
        warmup_steps: a number, at least 0.
        r: power of the step in its weight, a number or a function step -> number.
        weight_lr_power: power of the largest rate in it, a number or a function step -> number.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: z, of the parameter's shape and dtype; the numbers weight_sum, lr_max and evaluating.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([3.0, -4.0])
        >>> opt = fastgd.ScheduleFreeSGD(theta, lr=0.5)
        >>> for _ in range(200):
        ...     _ = opt.step(2 * theta)
        >>> with opt.evaluation():
        ...     bool(np.linalg.norm(theta) < 0.01)
        True

    References:
        Defazio et al. 2024, The road less scheduled, equations 1 to 3.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 1.0,
        momentum: Fraction = 0.9,
        weight_decay: NonNegative = 0,
        warmup_steps: NonNegative = 0,
        r: Real = 0.0,
        weight_lr_power: Real = 2.0,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if values["momentum"] == 0:
            raise ValueError("momentum must be greater than 0: it is the weight of the average")

    @classmethod
    def weight_of_average(cls, values: Values) -> float:
        return float(values["momentum"])


class ScheduleFreeAdamW(_ScheduleFree, rule="schedule_free_adamw", adaptive=True):
    """AdamW whose iterates are averaged as it goes, so that the rate need not fall.

        v ← beta2 * v + (1 - beta2) * g²
        d = g / (√v̂ + eps) + weight_decay * y,  v̂ = v / (1 - beta2^t)
        z, x and y as in `ScheduleFreeSGD`, with beta1 for its momentum

    There is no first moment: beta1 is the weight of x in y. `eval()`, `train()` and `evaluation()` as
    of `ScheduleFreeSGD`.

    Args:
        params: see `SGD`.
        lr: learning rate, a number or a function step -> number, at least 0.
        betas: weight of x in y, in (0, 1), and decay rate of the second moment, in [0, 1); each a number
            or a function step -> number.
        eps: a number or a function step -> number, at least 0.
        weight_decay: at y, a number or a function step -> number, at least 0.
        warmup_steps, r, weight_lr_power: see `ScheduleFreeSGD`.
        maximize, state_dtype, state_dir, clip_norm, clip_value, nonfinite: see `SGD`.

    State: z, exp_avg_sq (v), each of the parameter's shape and dtype; the numbers weight_sum, lr_max and
    evaluating.

    Raises:
        TypeError, ValueError: an array or a hyperparameter is not as described; names it.

    Example:
        >>> import numpy as np, fastgd
        >>> theta = np.array([1.0])
        >>> opt = fastgd.ScheduleFreeAdamW(theta, lr=0.1)
        >>> opt.step(np.array([5.0]))
        True
        >>> theta.round(6).tolist()
        [0.9]

    References:
        Defazio et al. 2024, The road less scheduled, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegative = 0.0025,
        betas: Fractions = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0,
        warmup_steps: NonNegative = 0,
        r: Real = 0.0,
        weight_lr_power: Real = 2.0,
        **options: Unpack[Options],
    ) -> None: ...

    @classmethod
    def check_together(cls, values: Values) -> None:
        if values["betas"][0] == 0:
            raise ValueError("betas[0] must be greater than 0: it is the weight of the average")

    @classmethod
    def weight_of_average(cls, values: Values) -> float:
        return float(values["betas"][0])
