"""The machine and the process: CPU level, number of threads, forks, and which way is faster.

Every OpenMP decision of fastgd is taken here, by `team_size`.
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import os

from fastgd._engine._cgroup import cpu_quota

cdef extern from "platform.h" nogil:
    int fastgd_x86_64_level()
    int fastgd_openmp_version()
    int fastgd_openmp_max_threads()
    int fastgd_watch_forks()
    int fastgd_forked
    bint FASTGD_EAGER_TEAMS

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


cdef int forks() noexcept nogil:
    """Forks between the process that loaded the engine and this one."""
    return fastgd_forked


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
        if self.started != 0:
            self.record((now() - self.started) / work)

    cdef void record(self, double taken) noexcept:
        """What a unit of the use's work took."""
        cdef double* seconds = &self.seconds[0 if self.serially else 1]
        cdef bint won
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

    def replay(self, serial, team):
        """For tests: one use of large work on two threads or more, as if a unit of it took `serial`
        seconds on one thread and `team` in a team; whether it chose one thread.
        """
        self.choose(1, 0)
        if self.started == 0:
            raise RuntimeError("the number of threads is fixed, so nothing is timed")
        self.record(serial if self.serially else team)
        return bool(self.serially)
