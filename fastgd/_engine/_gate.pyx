"""Who uses an optimizer, one at a time, and what no signal can cut in two.

Python runs a signal's handler between two bytecodes, so a Ctrl-C can fall between taking a lock and the
`try` that gives it back. Everything here is compiled: between entering, calling and leaving there is no
bytecode.
"""

import _thread

from fastgd._engine._runtime cimport Pace, forks

cdef extern from "pythread.h" nogil:
    ctypedef void* PyThread_type_lock
    unsigned long PyThread_get_thread_ident()
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock)
    int PyThread_acquire_lock(PyThread_type_lock, int)
    void PyThread_release_lock(PyThread_type_lock)

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef extern from "gate.h" nogil:
    int FASTGD_ENTERED, FASTGD_BUSY, FASTGD_OWN, FASTGD_FORKED
    int fastgd_lock_init(fastgd_lock*, int)
    int fastgd_lock_enter(fastgd_lock*, unsigned long, int, fastgd_waiter*)
    void fastgd_lock_leave(fastgd_lock*, int)
    int fastgd_lock_wait(fastgd_lock*, fastgd_waiter*, int)
    void fastgd_lock_give_up(fastgd_lock*, fastgd_waiter*, int)
    int fastgd_lock_is_own(fastgd_lock*, unsigned long)

cdef enum:
    GLANCE = 50  # milliseconds between two looks for signals while waiting


cdef class Gate:
    """Serialises the uses of one optimizer: a lock with an owner, whose queue is first come, first
    served, and which knows about forks.

    It outlives the optimizer's plans, and keeps for them which number of threads is faster.
    """

    def __cinit__(self):
        self.pace = Pace()
        if fastgd_lock_init(&self.lock, forks()) != 0:
            raise MemoryError("fastgd: a lock could not be made")

    def call(self, function, *args):
        """function(*args), while nobody else uses the optimizer.

        Raises: RuntimeError if this thread is using it already, from within a schedule or a signal's
            handler; or if this process was forked while another thread did.
        """
        self.enter()
        try:
            return function(*args)
        finally:
            self.leave()

    def read(self, function, *args):
        """The same for what changes nothing, which this thread may do in the midst of a use of its own:
        as long as Python code can run, nothing has been changed yet.
        """
        cdef bint entered = self.enter_or_own()
        try:
            return function(*args)
        finally:
            if entered:
                self.leave()

    cdef void leave(self) noexcept:
        fastgd_lock_leave(&self.lock, forks())

    cdef int enter(self) except -1:
        if not self.enter_or_own():
            raise RuntimeError(
                "an optimizer was used from within its own step, by a schedule or a signal's handler")
        return 0

    cdef bint enter_or_own(self) except -1:
        """True when entered, False when this thread has been inside all along."""
        cdef unsigned long me = PyThread_get_thread_ident()
        cdef fastgd_waiter waiter
        cdef int outcome = fastgd_lock_enter(&self.lock, me, forks(), &waiter)
        if outcome == FASTGD_BUSY:
            return self.wait(me, &waiter)
        if outcome == FASTGD_FORKED:
            raise RuntimeError(
                "this process was forked while another thread was using the optimizer, whose "
                "parameters may be half updated here; make a new one from a checkpoint")
        return outcome == FASTGD_ENTERED

    cdef int wait(self, unsigned long me, fastgd_waiter* waiter) except -1:
        cdef int granted
        while True:
            with nogil:
                granted = fastgd_lock_wait(&self.lock, waiter, GLANCE)
            if granted:
                return True
            try:
                PyErr_CheckSignals()
            except BaseException:
                fastgd_lock_give_up(&self.lock, waiter, forks())
                raise
            if fastgd_lock_is_own(&self.lock, me):  # a handler's wait, and the turn of what it interrupts
                fastgd_lock_give_up(&self.lock, waiter, forks())
                return False


def together(gates, function, *args):
    """function(*args) inside all gates, which are entered in an order that all threads keep.

    Raises: as Gate.call.
    """
    cdef list entered = []
    cdef Gate gate
    try:
        for gate in sorted(set(gates), key=id):
            gate.enter()
            entered.append(gate)
        return function(*args)
    finally:
        for gate in entered:
            gate.leave()


def read_together(gates, function, *args):
    """The same for what changes nothing, see Gate.read."""
    cdef list entered = []
    cdef Gate gate
    try:
        for gate in sorted(set(gates), key=id):
            if gate.enter_or_own():
                entered.append(gate)
        return function(*args)
    finally:
        for gate in entered:
            gate.leave()


def uninterrupted(function):
    """function() in a thread of its own, for which this one waits whatever signals come.

    Handlers of signals, Ctrl-C among them, run in the main thread, and only when this has returned.
    """
    cdef PyThread_type_lock done = PyThread_allocate_lock()
    cdef list outcome = []
    cdef _Run run
    if done == NULL:
        raise MemoryError
    PyThread_acquire_lock(done, 1)
    run = _Run(function, outcome)
    run.done = done
    try:
        try:
            _thread.start_new_thread(run, ())
        except RuntimeError:  # no more threads, or the interpreter is ending
            run()
        with nogil:
            PyThread_acquire_lock(done, 1)
    finally:
        PyThread_free_lock(done)
    returned, value = outcome
    if returned:
        return value
    raise value


cdef class _Run:
    cdef object function
    cdef list outcome
    cdef PyThread_type_lock done

    def __init__(self, function, list outcome):
        self.function = function
        self.outcome = outcome

    def __call__(self):
        try:
            self.outcome += [True, self.function()]
        except BaseException as error:
            self.outcome += [False, error]
        finally:
            PyThread_release_lock(self.done)


def ensure(body, afterwards):
    """body(), and then afterwards() whatever happens, which no signal can prevent or cut short."""
    try:
        return body()
    finally:
        uninterrupted(afterwards)
