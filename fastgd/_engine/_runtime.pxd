cdef int team_size(Py_ssize_t work, Py_ssize_t serial_below) noexcept nogil
