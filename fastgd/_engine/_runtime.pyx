"""What does not depend on the instruction set: CPU level, thread count, fork guard, row gather.

Every OpenMP decision of fastgd is taken here, by `team_size`.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import os
import time

from fastgd._engine._cgroup import cpu_quota

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef extern from "platform.h" nogil:
    int fastgd_x86_64_level()
    int fastgd_openmp_version()
    int fastgd_openmp_max_threads()
    int fastgd_watch_forks()
    void fastgd_prefetch_row(const char*, Py_ssize_t)
    int fastgd_forked
    bint FASTGD_EAGER_TEAMS

cnp.import_array()

if fastgd_watch_forks() != 0:
    raise ImportError("fastgd: pthread_atfork failed, so a forked child could hang; out of memory?")

x86_64_level = fastgd_x86_64_level()
openmp_version = fastgd_openmp_version()

cdef enum:
    FIRST_TRIAL = 16    # uses between two trials of the way that was slower
    LAST_TRIAL = 512

cdef int openmp_at_import = fastgd_openmp_max_threads()
cdef int chosen_threads = 0  # 0: the default


cdef int default_threads() except -1:
    """OpenMP's own count (OMP_NUM_THREADS), CPU affinity or the cgroup's quota: the least."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else openmp_at_import
    return min(openmp_at_import, allowed, cpu_quota() or openmp_at_import)


cdef int default_count = default_threads()


cdef int team_size(Py_ssize_t work, Py_ssize_t serial_below) noexcept nogil:
    """Threads for a region of `work` units: one below the threshold and in a forked child.

    Between parallel regions the answer for large work stays the same, since libgomp rebuilds its
    pool when the size of the team changes. A lowered OpenMP limit (threadpoolctl,
    omp_set_num_threads) is honoured as it is at the time of the call.
    """
    cdef int threads, limit
    if (work < serial_below and not FASTGD_EAGER_TEAMS) or fastgd_forked:
        return 1
    threads = chosen_threads if chosen_threads > 0 else default_count
    if threads == 1:
        return 1
    limit = fastgd_openmp_max_threads()
    if limit < openmp_at_import and limit < threads:
        return limit
    return threads


def set_num_threads(n):
    """Use `n` threads in large steps from now on, in the whole process.

    Args:
        n: a positive int, or None for the default: up to as many as OMP_NUM_THREADS, CPU affinity
            and the cgroup's CPU quota allow, or one where that turns out to be faster, such as
            beside another library's busy threads. Results do not depend on it.

    Raises:
        TypeError: `n` is not an int. ValueError: `n` is not in 1 … 4096.
    """
    global chosen_threads
    if n is None:
        chosen_threads = 0
        return
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"the number of threads must be an int or None, got {type(n).__name__}")
    if not 1 <= n <= 4096:
        raise ValueError(f"the number of threads must be in 1 … 4096, got {n}")
    chosen_threads = n


def get_num_threads():
    """The number of threads that a large step may use: 1 in a forked child or a serial build."""
    return team_size(1, 0) if openmp_version else 1


def get_chosen_threads():
    """What set_num_threads was given, None for the default: for restoring it."""
    return chosen_threads if chosen_threads > 0 else None


cdef double now() noexcept nogil:
    """Seconds on a monotonic clock."""
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec + 1e-9 * t.tv_nsec


cdef class Pace:
    """Whether repeated large work is done by the whole team or by one thread: whichever is faster.

    A team has to be woken and waited for, and another library's threads may hold the cores it wants:
    OpenBLAS's own keep spinning after a product, and then a step of a tenth of a millisecond waits
    for several. So both ways are timed now and then, and results do not depend on the choice. The
    slower one is tried again after FIRST_TRIAL uses, and each time that it loses after twice as many.

    A number of threads that was chosen with set_num_threads is obeyed and nothing is timed. Nor does a
    use count whose `done` never comes.
    """

    cdef int choose(self, Py_ssize_t work, Py_ssize_t serial_below) noexcept:
        """The number of threads for the next use, of which `done` is told when it is over."""
        cdef int team = team_size(work, serial_below)
        cdef Py_ssize_t use = self.uses + 1
        self.started = 0
        if team == 1 or chosen_threads > 0 or FASTGD_EAGER_TEAMS:
            return team
        self.trial = use >= self.next_trial
        if use <= 3:  # the team's first use makes its threads and touches new memory
            self.serially = use == 2
        else:
            self.serially = (self.seconds[0] < self.seconds[1]) != self.trial
        self.started = now()
        return 1 if self.serially else team

    cdef void done(self, Py_ssize_t work) noexcept:
        cdef double* seconds = &self.seconds[0 if self.serially else 1]
        cdef double taken
        cdef bint won
        if self.started == 0:
            return
        taken = (now() - self.started) / work
        self.uses += 1
        if self.uses <= 3:
            seconds[0] = taken
        else:
            seconds[0] = (seconds[0] + taken) / 2
        if self.uses < 3:
            return
        if self.uses == 3:
            self.interval = FIRST_TRIAL
        elif self.trial:
            won = (self.seconds[0] < self.seconds[1]) == self.serially
            self.interval = FIRST_TRIAL if won else min(2 * self.interval, LAST_TRIAL)
        else:
            return
        self.next_trial = self.uses + self.interval


NAP = 5e-5  # seconds


cdef class Gate:
    """Serialises the uses of one optimizer; `with` it. Cheaper than a lock where nobody waits.

    The flag is read and set under the GIL. Whoever finds it set sleeps in short naps: two threads
    that use one optimizer at the same time are rare, and steps long. A thread that comes again
    while others wait naps first, longer than they do, so that they get their turn.

    It outlives the optimizer's plans, and keeps for them which number of threads is faster.
    """

    def __cinit__(self):
        self.pace = Pace()

    def __enter__(self):
        self.enter()

    def __exit__(self, *args):
        self.leave()

    cdef void leave(self) noexcept:
        self.busy = False

    cdef int enter(self) except -1:
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.busy or self.waiting > 0:
            self.wait(me)
        self.busy = True
        self.generation = fastgd_forked
        self.thread = me
        return 0

    cdef int wait(self, unsigned long me) except -1:
        if not self.busy and self.generation != fastgd_forked:
            self.waiting = 0  # those who waited were threads of the parent process
        self.waiting += 1
        try:
            if not self.busy and self.thread == me:
                time.sleep(4 * NAP)
            while self.busy:
                if self.generation != fastgd_forked:
                    raise RuntimeError(
                        "this process was forked while another thread was using the optimizer, whose "
                        "parameters may be half updated here; make a new one from a checkpoint")
                if self.thread == me:
                    raise RuntimeError("an optimizer was used from within its own step, by a schedule")
                time.sleep(NAP)
        finally:
            self.waiting -= 1
        return 0


# Below this many bytes waking a thread costs more than it saves.
cdef Py_ssize_t GATHER_SERIAL_BELOW = 1 << 20
cdef Py_ssize_t GATHER_GIL_BELOW = 1 << 15
cdef Pace gather_pace = Pace()


cdef void copy_rows(const char* src, Py_ssize_t stride, const cnp.int64_t* index, Py_ssize_t begin,
                    Py_ssize_t end, Py_ssize_t row_bytes, char* out) noexcept nogil:
    cdef Py_ssize_t i
    # A constant size lets the compiler turn the copy into one load and one store.
    if row_bytes == 4:
        for i in range(begin, end):
            memcpy(out + i * 4, src + index[i] * stride, 4)
    elif row_bytes == 8:
        for i in range(begin, end):
            memcpy(out + i * 8, src + index[i] * stride, 8)
    else:
        for i in range(begin, end):
            if i + 2 < end:
                fastgd_prefetch_row(src + index[i + 2] * stride, min(row_bytes, <Py_ssize_t> 4096))
            memcpy(out + i * row_bytes, src + index[i] * stride, row_bytes)


def gather_rows(cnp.ndarray src not None, cnp.ndarray index not None, cnp.ndarray out not None,
                bint serial=False):
    """Write `src[index]` into `out`, bit for bit, with all threads when the rows are many.

    Args:
        src: (n, …) of any dtype without objects, its rows C-contiguous, any stride between them.
        index: (m,) int64, C-contiguous, each in 0 … n-1.
        out: (m, …) C-contiguous, writeable, of src's dtype and row shape; must not overlap src.
        serial: use the calling thread only: for a background thread, whose own OpenMP team would
            compete with that of the main thread.

    Raises:
        TypeError, ValueError: an array is not as above. IndexError: an index is out of range.
        Nothing has been written then.
    """
    cdef Py_ssize_t n, m, i, row_bytes, stride, team, t
    cdef bint paced
    cdef const cnp.int64_t* rows
    cdef const char* source
    cdef char* target
    if src.ndim < 1 or src.dtype.hasobject:
        raise TypeError("gather_rows: src must have at least one dimension and no object dtype")
    if index.ndim != 1 or cnp.PyArray_TYPE(index) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(index):
        raise TypeError("gather_rows: index must be a C-contiguous one-dimensional int64 array")
    n, m = src.shape[0], index.shape[0]
    if out.dtype != src.dtype or out.ndim != src.ndim or out.shape[0] != m or not cnp.PyArray_CHKFLAGS(
            out, cnp.NPY_ARRAY_CARRAY):
        raise ValueError("gather_rows: out must be C-contiguous, writeable and of src's dtype and row shape")
    for i in range(1, src.ndim):
        if out.shape[i] != src.shape[i]:
            raise ValueError("gather_rows: out and src differ in the shape of a row")
    row_bytes = src.dtype.itemsize
    for i in range(src.ndim - 1, 0, -1):
        if src.shape[i] != 1 and src.strides[i] != row_bytes:
            raise ValueError("gather_rows: the rows of src must be C-contiguous")
        row_bytes *= src.shape[i]
    rows = <const cnp.int64_t*> cnp.PyArray_DATA(index)
    for i in range(m):
        if rows[i] < 0 or rows[i] >= n:
            raise IndexError(f"gather_rows: index[{i}] = {rows[i]} is out of range for {n} rows")
    stride = src.strides[0]
    source = <const char*> cnp.PyArray_DATA(src)
    target = <char*> cnp.PyArray_DATA(out)
    if m == 0 or row_bytes == 0:
        return
    paced = not serial and m * row_bytes >= GATHER_SERIAL_BELOW
    team = gather_pace.choose(m * row_bytes, GATHER_SERIAL_BELOW) if paced else 1
    if m * row_bytes < GATHER_GIL_BELOW:
        copy_rows(source, stride, rows, 0, m, row_bytes, target)
    elif team == 1:
        with nogil:
            copy_rows(source, stride, rows, 0, m, row_bytes, target)
    else:
        with nogil:
            for t in prange(team, schedule="static", chunksize=1, num_threads=team):
                copy_rows(source, stride, rows, t * m // team, (t + 1) * m // team, row_bytes, target)
    if paced:
        gather_pace.done(m * row_bytes)
