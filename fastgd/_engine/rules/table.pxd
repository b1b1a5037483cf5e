"""The table of rules: the one place of the engine that lists their files. A rule's number in it means
nothing beyond a build: Python knows rules by name.
"""

from fastgd._engine._work cimport Kernels
from fastgd._engine.rules.adadelta cimport enter as enter_adadelta
from fastgd._engine.rules.adafactor cimport enter as enter_adafactor
from fastgd._engine.rules.adagrad cimport enter as enter_adagrad
from fastgd._engine.rules.adam cimport enter as enter_adam
from fastgd._engine.rules.ademamix cimport enter as enter_ademamix
from fastgd._engine.rules.belief cimport enter as enter_belief
from fastgd._engine.rules.dog cimport enter as enter_dog
from fastgd._engine.rules.ftrl cimport enter as enter_ftrl
from fastgd._engine.rules.lamb cimport enter as enter_lamb
from fastgd._engine.rules.lion cimport enter as enter_lion
from fastgd._engine.rules.muon cimport enter as enter_muon
from fastgd._engine.rules.nadam cimport enter as enter_nadam
from fastgd._engine.rules.rmsprop cimport enter as enter_rmsprop
from fastgd._engine.rules.rprop cimport enter as enter_rprop
from fastgd._engine.rules.schedule_free cimport enter as enter_schedule_free
from fastgd._engine.rules.sgd cimport enter as enter_sgd


cdef inline dict add_rules(Kernels* kernels):
    """Enter all rules; what each expects, by name."""
    cdef dict rules = {}
    enter_adadelta(kernels, rules)
    enter_adafactor(kernels, rules)
    enter_adagrad(kernels, rules)
    enter_adam(kernels, rules)
    enter_ademamix(kernels, rules)
    enter_belief(kernels, rules)
    enter_dog(kernels, rules)
    enter_ftrl(kernels, rules)
    enter_lamb(kernels, rules)
    enter_lion(kernels, rules)
    enter_muon(kernels, rules)
    enter_nadam(kernels, rules)
    enter_rmsprop(kernels, rules)
    enter_rprop(kernels, rules)
    enter_schedule_free(kernels, rules)
    enter_sgd(kernels, rules)
    return rules
