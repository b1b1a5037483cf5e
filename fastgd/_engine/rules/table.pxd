"""The table of rules: the one place of the engine that lists them.

`describe` tells Python what each rule expects of its class, which checks it at import: the names of the
hyperparameters come from the struct itself.
"""

from libc.string cimport memset

from fastgd._engine._work cimport (
    MOST_NUMBERS,
    MOST_RULES,
    MOST_STREAMS,
    MOST_SUMS,
    WIDTH,
    Conclude,
    DoubleMeasure,
    DoubleUpdate,
    Fill,
    Kernels,
    Rule,
    SingleMeasure,
    SingleUpdate,
)
from fastgd._engine.rules.adagrad cimport Adagrad, AdagradHyper, adagrad, adagrad_fill
from fastgd._engine.rules.adam cimport Adam, AdamHyper, adam, adam_fill, adamw_fill
from fastgd._engine.rules.rmsprop cimport RMSprop, RMSpropHyper, rmsprop, rmsprop_fill
from fastgd._engine.rules.sgd cimport SGD, SGDHyper, sgd, sgd_fill


cdef inline Rule* add(Kernels* kernels, dict rules, str name, size_t size, Fill fill,
                      SingleUpdate single, DoubleUpdate double_, dict hyperparameters, tuple state,
                      tuple numbers=()) except NULL:
    """Enter a rule; for what only some have see below."""
    cdef Rule* rule = &kernels.rules[kernels.rule_count]
    if (kernels.rule_count == MOST_RULES or size > WIDTH * sizeof(double) or len(state) > MOST_STREAMS
            or len(numbers) > MOST_NUMBERS):
        raise ImportError(f"fastgd: rule {name!r} is larger than _work.pxd allows")
    memset(rule, 0, sizeof(Rule))
    rule.single, rule.double_, rule.fill = single, double_, fill
    rule.state, rule.numbers = <int> len(state), <int> len(numbers)
    rules[name] = {
        "number": kernels.rule_count,
        "hyperparameters": {
            key: len(value) if isinstance(value, list) else 1 for key, value in hyperparameters.items()
        },
        "state": state,
        "numbers": numbers,
        "matrix": False,
    }
    kernels.rule_count += 1
    return rule


cdef inline int measures(Rule* rule, SingleMeasure single, DoubleMeasure double_, Conclude conclude,
                         tuple sums, bint joint=False) except -1:
    """A rule of two sweeps: the pairs of what is multiplied and summed over each array, or all."""
    cdef int i
    if len(sums) > MOST_SUMS:
        raise ImportError("fastgd: a rule takes more sums than _work.pxd allows")
    rule.measure_single, rule.measure_double, rule.conclude = single, double_, conclude
    rule.joint, rule.sums = joint, <int> len(sums)
    for i in range(rule.sums):
        rule.sum[i].left, rule.sum[i].right = sums[i][0], sums[i][1]
    return 0


cdef inline dict add_rules(Kernels* kernels):
    """Enter all rules; what each expects, by name."""
    cdef dict rules = {}
    cdef SGDHyper of_sgd
    cdef AdamHyper of_adam
    cdef AdagradHyper of_adagrad
    cdef RMSpropHyper of_rmsprop
    memset(&of_sgd, 0, sizeof(of_sgd))
    memset(&of_adam, 0, sizeof(of_adam))
    memset(&of_adagrad, 0, sizeof(of_adagrad))
    memset(&of_rmsprop, 0, sizeof(of_rmsprop))
    add(kernels, rules, "sgd", sizeof(SGD), sgd_fill, sgd[float], sgd[double], of_sgd,
        ("momentum_buffer",))
    add(kernels, rules, "adam", sizeof(Adam), adam_fill, adam[float], adam[double], of_adam,
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")).squares = True
    add(kernels, rules, "adamw", sizeof(Adam), adamw_fill, adam[float], adam[double], of_adam,
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")).squares = True
    add(kernels, rules, "adagrad", sizeof(Adagrad), adagrad_fill, adagrad[float], adagrad[double],
        of_adagrad, ("sum",)).squares = True
    add(kernels, rules, "rmsprop", sizeof(RMSprop), rmsprop_fill, rmsprop[float], rmsprop[double],
        of_rmsprop, ("square_avg", "momentum_buffer", "grad_avg")).squares = True
    return rules
