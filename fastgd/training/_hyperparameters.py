"""What `minimize` passes on to optimizers, for type checkers: the names of all of them, and their types.

What each optimizer takes of these is in its own signature, and checked when it is made.
"""

from __future__ import annotations

from fastgd.optimizers import Number, Options


class Hyperparameters(Options, total=False):
    """Of any optimizer."""

    lr: Number
    adjust_lr_fn: str | None
    alpha: Number
    alpha_warmup: float | None
    always_adapt: bool
    amsgrad: bool
    beta: Number
    beta1: Number | None
    beta2_decay: Number
    beta3: Number | None
    beta3_warmup: float | None
    betas: tuple[Number, Number] | tuple[Number, Number, Number]
    bias_correction: bool
    cautious: bool
    centered: bool
    centralize: bool
    clamp: bool
    clip_exponent: float | None
    constant_momentum: bool
    d: Number
    d0: Number
    d_coef: Number
    dampening: Number
    decay_in_norm: bool
    decouple: bool
    decoupled_weight_decay: bool
    degenerated_to_sgd: bool
    eps: Number | tuple[float | None, float]
    eps_added: bool
    eps_hat: bool
    eps_inside: bool
    eps_outside: bool
    eps_root: Number
    etas: tuple[float, float]
    f_min: Number
    flatten: bool
    grad_averaging: bool
    growth_rate: float
    init_eta: float | None
    initial_accumulator_value: Number
    initial_exp_avg: Number
    keep_start: bool
    l1: Number
    l2: Number
    l2_shrinkage: Number
    lambd: Number
    layerwise: bool
    lr_decay: Number
    lr_in_momentum: bool
    momentum: Number
    momentum_decay: Number
    nesterov: bool
    no_prox: bool
    ns_coefficients: tuple[float, float, float]
    ns_steps: int
    r: Number
    rectify: bool
    relative_step: bool
    reps_rel: Number
    rho: Number
    safeguard_warmup: bool
    scale_parameter: bool
    scaling: Number
    step_sizes: tuple[float, float]
    t0: Number
    trust_clip: bool
    trust_coefficient: Number
    use_bias_correction: bool
    warmup_steps: Number
    weight_decay: Number
    weight_lr_power: Number
