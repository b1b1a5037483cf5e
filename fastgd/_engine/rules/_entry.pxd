"""How a rule is entered in the table of a build, and what Python is told of it.

What a rule expects of its class is compared with it when the class is defined: the names of the
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
            key: len(value) if isinstance(value, dict) else 1 for key, value in hyperparameters.items()
        },
        "state": state,
        "numbers": numbers,
        "matrix": False,
        "by_row": False,
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


cdef inline int makes_directions(Rule* rule, dict entry, SingleMeasure single,
                                 DoubleMeasure double_) except -1:
    """A matrix rule: what the first sweep writes, the class works on with NumPy."""
    if rule.state + 1 > MOST_STREAMS:
        raise ImportError("fastgd: a matrix rule has more state than _work.pxd allows")
    rule.measure_single, rule.measure_double = single, double_
    rule.matrix = True
    entry["matrix"] = True
    return 0


cdef inline Rule* sums_rows(Rule* rule, dict entry, SingleMeasure single, DoubleMeasure double_,
                            Conclude conclude) except NULL:
    """A rule that keeps one number for each row, in its only state: `conclude` is given the sum over the
    row of the squares of the term that is measured, and the row's number.
    """
    rule.measure_single, rule.measure_double, rule.conclude = single, double_, conclude
    rule.by_row = True
    entry["by_row"] = True
    return rule
