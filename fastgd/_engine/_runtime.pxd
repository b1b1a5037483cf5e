cdef int team_size(Py_ssize_t work, Py_ssize_t serial_below) noexcept nogil
cdef int forks() noexcept nogil

cdef class Pace:
    cdef double[2] seconds     # per unit of work: one thread's, the team's
    cdef double started        # 0: not timed
    cdef long uses, next_trial, interval
    cdef bint serially, trial

    cdef int choose(self, Py_ssize_t work, Py_ssize_t serial_below) noexcept
    cdef void done(self, Py_ssize_t work) noexcept
    cdef void record(self, double taken) noexcept
