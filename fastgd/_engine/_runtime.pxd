cdef int team_size(Py_ssize_t work, Py_ssize_t serial_below) noexcept nogil

cdef class Gate:
    cdef bint busy
    cdef int waiting           # threads
    cdef int generation        # forks that had happened when it was set
    cdef unsigned long thread  # that set it

    cdef int enter(self) except -1
    cdef int wait(self, unsigned long me) except -1
    cdef void leave(self) noexcept
