from fastgd._engine._runtime cimport Pace

cdef extern from "gate.h" nogil:
    ctypedef struct fastgd_lock:
        pass
    ctypedef struct fastgd_waiter:
        pass

cdef class Gate:
    cdef fastgd_lock lock
    cdef Pace pace

    cdef int enter(self) except -1
    cdef bint enter_or_own(self) except -1
    cdef int wait(self, unsigned long me, fastgd_waiter* waiter) except -1
    cdef void leave(self) noexcept
