"""Sweeps over arrays in mapped files, a window of chunks at a time: while one is worked on the next is
read, and the one before is written and let go. What is done to the elements is the same.
"""

from fastgd._engine._work cimport (
    BF16,
    BF16_RANDOM,
    CHUNK,
    F16,
    F64,
    MOST_STREAMS,
    REDUCE,
    UPDATE_BACKWARDS,
    Format,
    Kernels,
    Layout,
    Source,
    Span,
    Sweep,
    Work,
    is_given,
)

cdef extern from "windows.h" nogil:
    void fastgd_expect(const char*, Py_ssize_t)
    void fastgd_leave(const char*, Py_ssize_t, bint)

cdef enum:
    GROUP = 4096        # elements in 8 bits, see _arrays/formats.py,
    GROUP_BYTES = 4160  # and what they take
    ALIVE = 3           # windows that are in memory at a time


cdef inline Py_ssize_t offset_of(Format format, Py_ssize_t at) noexcept nogil:
    """The bytes before element `at`."""
    if format == F64:
        return at * 8
    if format == F16 or format == BF16 or format == BF16_RANDOM:
        return at * 2
    if format > BF16_RANDOM:
        return at // GROUP * GROUP_BYTES + at % GROUP
    return at * 4


cdef inline void visit_bytes(const char* data, Format format, Py_ssize_t low, Py_ssize_t high, int action,
                             bint written) noexcept nogil:
    cdef Py_ssize_t begin = offset_of(format, low)
    cdef Py_ssize_t length = offset_of(format, high) - begin
    if format > BF16_RANDOM and high % GROUP != 0:
        length += GROUP_BYTES - GROUP  # the scales of the last group; not a byte beyond the array
    if action == 0:
        fastgd_expect(data + begin, length)
    else:
        fastgd_leave(data + begin, length, written)


cdef inline void visit_gradient(const Span* span, Py_ssize_t low, Py_ssize_t high, int action) noexcept nogil:
    cdef const Source* source = &span.source
    cdef const Layout* layout = source.layout
    if not source.mapped:
        return
    if source.grad != NULL:
        visit_bytes(source.grad, span.param.format, low, high, action, False)
    elif layout != NULL and layout.ndim == 1 and layout.strides[0] == offset_of(layout.format, 1):
        visit_bytes(layout.data, layout.format, low, high, action, False)


cdef inline void visit_window(const Work* work, Py_ssize_t begin, Py_ssize_t end, Sweep what,
                              int action) noexcept nogil:
    """Ask for, 0, or let go of, 1, what a sweep over chunks begin … end reads and writes in files."""
    cdef Py_ssize_t i, low, high
    cdef int j
    cdef const Span* span
    if begin >= end:
        return
    i = work.first[begin]
    while i < work.span_count and work.spans[i].start < end * CHUNK:
        span = &work.spans[i]
        i += 1
        if not is_given(&span.source) or span.source.touched != NULL:
            continue
        low = max(begin * CHUNK - span.start, <Py_ssize_t> 0)
        high = min(end * CHUNK - span.start, span.visited)
        if low >= high:
            continue
        visit_gradient(span, low, high, action)
        if what == REDUCE:
            continue
        if span.param.mapped:
            visit_bytes(span.param.data, span.param.format, low, high, action, True)
        for j in range(MOST_STREAMS):
            if span.state[j].mapped:
                visit_bytes(span.state[j].data, span.state[j].format, low, high, action, True)


cdef inline Py_ssize_t bytes_of(const Work* work, Py_ssize_t chunk) noexcept nogil:
    """Of files, that an update of a chunk touches."""
    cdef Py_ssize_t i = work.first[chunk], total = 0, n
    cdef int j
    cdef const Span* span
    while i < work.span_count and work.spans[i].start < (chunk + 1) * CHUNK:
        span = &work.spans[i]
        n = (min((chunk + 1) * CHUNK - span.start, span.visited)
             - max(chunk * CHUNK - span.start, <Py_ssize_t> 0))
        if n > 0:
            if span.param.mapped:
                total += offset_of(span.param.format, n)
            if span.source.mapped:
                total += 8 * n  # at most
            for j in range(MOST_STREAMS):
                if span.state[j].mapped:
                    total += offset_of(span.state[j].format, n)
        i += 1
    return total


cdef inline Py_ssize_t edge(const Work* work, Py_ssize_t start, int step, Py_ssize_t most) noexcept nogil:
    """Where a window that begins, or ends, at `start` ends, or begins: of so many bytes at most, or one
    chunk.
    """
    cdef Py_ssize_t at = start, total = 0, chunk
    while (at < work.chunk_count) if step > 0 else (at > 0):
        chunk = at if step > 0 else at - 1
        total += bytes_of(work, chunk)
        if total > most and at != start:
            break
        at += step
    return at


cdef inline void leave_touched(const Work* work) noexcept nogil:
    """Let go of arrays of which some rows were updated: nobody knows which pages."""
    cdef Py_ssize_t i
    cdef int j
    cdef const Span* span
    for i in range(work.span_count):
        span = &work.spans[i]
        if span.source.touched != NULL and span.length > 0:
            if span.param.mapped:
                visit_bytes(span.param.data, span.param.format, 0, span.length, 1, True)
            for j in range(MOST_STREAMS):
                if span.state[j].mapped:
                    visit_bytes(span.state[j].data, span.state[j].format, 0, span.length, 1, True)


cdef inline void sweep_windows(const Kernels* kernels, Work* work, Sweep what, int team,
                               Py_ssize_t resident) noexcept nogil:
    """Over all chunks; at most about `resident` bytes of files are in memory at a time."""
    cdef int step = -1 if what == UPDATE_BACKWARDS else 1
    cdef Py_ssize_t most = resident // ALIVE
    cdef Py_ssize_t here = work.chunk_count if step < 0 else 0
    cdef Py_ssize_t there = edge(work, here, step, most), beyond, behind = here
    visit_window(work, min(here, there), max(here, there), what, 0)
    while here != there:
        beyond = edge(work, there, step, most)
        visit_window(work, min(there, beyond), max(there, beyond), what, 0)
        work.begin, work.end = min(here, there), max(here, there)
        kernels.sweep(work, what, team)
        visit_window(work, min(behind, here), max(behind, here), what, 1)
        behind, here, there = here, there, beyond
    visit_window(work, min(behind, here), max(behind, here), what, 1)
    if what != REDUCE:
        leave_touched(work)
