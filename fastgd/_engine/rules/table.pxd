"""The table of rules: the one place of the engine that lists their files. A rule's number in it means
nothing beyond a build: Python knows rules by name.
"""

from fastgd._engine._work cimport Kernels
from fastgd._engine.rules.adagrad cimport enter as enter_adagrad
from fastgd._engine.rules.adam cimport enter as enter_adam
from fastgd._engine.rules.lamb cimport enter as enter_lamb
from fastgd._engine.rules.lion cimport enter as enter_lion
from fastgd._engine.rules.muon cimport enter as enter_muon
from fastgd._engine.rules.nadam cimport enter as enter_nadam
from fastgd._engine.rules.rmsprop cimport enter as enter_rmsprop
from fastgd._engine.rules.sgd cimport enter as enter_sgd


cdef inline dict add_rules(Kernels* kernels):
    """Enter all rules; what each expects, by name."""
    cdef dict rules = {}
    enter_adagrad(kernels, rules)
    enter_adam(kernels, rules)
    enter_lamb(kernels, rules)
    enter_lion(kernels, rules)
    enter_muon(kernels, rules)
    enter_nadam(kernels, rules)
    enter_rmsprop(kernels, rules)
    enter_sgd(kernels, rules)
    return rules
