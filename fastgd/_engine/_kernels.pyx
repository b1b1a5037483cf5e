"""The plan of a step and the kernel that carries it out.

Layers, from the outside in:

  Plan         (_plan.pxi) what Python sees: the step of one optimizer over its arrays and state.
  Binding      (_binding.pxi) its base: validates one set of gradients and records their addresses,
               before anything is written.
  pass_range   one thread's share of the chunks, called from the body of the only two `prange` loops.
  *_chunk      CHUNK elements of the virtual concatenation of all arrays, which may be part of one
               array or several small ones. The chunks do not depend on the number of threads.
  *_piece      the part of one array that lies in one chunk: decodes the gradient where needed
               (_codecs) and calls the rule (_rules) or the reduction (_reductions).

One parallel region serves all arrays of a step, because waking a team costs as much as updating tens
of thousands of elements; below SERIAL_BELOW elements no region is opened at all. A step that needs
the norm of the gradients first walks its chunks forwards, then updates them backwards, so that the
update finds the last part of the gradients still in cache.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cython.parallel cimport prange
from libc.math cimport INFINITY, copysign, fabs, isfinite, sqrt as root
from libc.string cimport memcpy, memset

import numpy as np

from fastgd._engine._codecs cimport BF16, F16, F32, F64, Format, Layout, decode
from fastgd._engine._reductions cimport LANES, Sums, add_block, add_lanes, add_squares
from fastgd._engine._rules cimport (
    CLIP_VALUE,
    SCALE,
    WEIGHT_DECAY,
    adagrad,
    adam,
    floating,
    rmsprop,
    sgd,
)
from fastgd._engine._runtime cimport Gate, Pace, team_size

cdef extern from "numeric.h":
    int FASTGD_HAS_FMA

cnp.import_array()

cdef enum:
    CHUNK = 4096          # elements; also the unit of the deterministic reductions
    BLOCK = 1024          # elements decoded at a time: 8 KB of float64 in a 32 KB L1 cache
    ALIGN = 16            # every array begins at a multiple of this in the virtual concatenation
    WIDTH = 16            # coefficients of a row at most
    RUN = 256             # chunks walked forwards at a stretch on the way back, for the prefetchers
    SERIAL_BELOW = 262144  # elements: below, a team saves less than its threads cost the next product
    GIL_BELOW = 8192      # elements: below, releasing the GIL costs more than the step

has_fma = bool(FASTGD_HAS_FMA)
chunk = CHUNK

# --- The registry of rules: name -> the compiled loops ----------------------------------------------

ctypedef void (*SingleRule)(const double*, float*, const float*, float*, float*, float*,
                            Py_ssize_t) noexcept nogil
ctypedef void (*DoubleRule)(const double*, double*, const double*, double*, double*, double*,
                            Py_ssize_t) noexcept nogil

cdef struct Rule:
    SingleRule single
    DoubleRule double_
    int coefficients  # its own, after the head that all rules have

cdef Rule[8] RULES
RULES[0] = Rule(sgd[float], sgd[double], 6)
RULES[1] = Rule(adam[float], adam[double], 8)
RULES[2] = Rule(adagrad[float], adagrad[double], 3)
RULES[3] = Rule(rmsprop[float], rmsprop[double], 8)
rule_names = ("sgd", "adam", "adagrad", "rmsprop")

# --- What the threads read --------------------------------------------------------------------------

cdef packed struct Span:
    size_t param       # address of the first element
    size_t grad        # address of a gradient in the parameter's dtype and order, 0: use the layout
    size_t layout      # address of a Layout, 0: use grad; both 0: no gradient this step
    size_t slots[3]    # addresses of the state, 0: the group does not use the slot
    Py_ssize_t start   # in the virtual concatenation
    Py_ssize_t length  # elements
    Py_ssize_t row     # of the coefficients, -1: none yet
    Py_ssize_t double_  # 1: float64, 0: float32

span_dtype = np.dtype([
    ("param", np.uintp), ("grad", np.uintp), ("layout", np.uintp), ("slots", np.uintp, (3,)),
    ("start", np.intp), ("length", np.intp), ("row", np.intp), ("double_", np.intp),
])

cdef struct Work:
    const Span* spans
    Py_ssize_t span_count
    Py_ssize_t chunk_count
    const Py_ssize_t* first  # first span of each chunk
    const Py_ssize_t* piece  # number of the first piece of each chunk
    const double* coefficients
    double* grad_squares     # a sum per piece
    double* update_squares
    double* param_squares
    double* products         # of gradient and update
    double scale             # of the elements whose squares are summed
    int rule
    bint track

cdef enum Pass:
    REDUCE
    UPDATE
    UPDATE_BACKWARDS


cdef inline void call_rule(int rule, const double* k, floating* p, const floating* g, floating* a,
                           floating* b, floating* c, Py_ssize_t n) noexcept nogil:
    if floating is float:
        RULES[rule].single(k, p, g, a, b, c, n)
    else:
        RULES[rule].double_(k, p, g, a, b, c, n)


cdef inline floating* shifted(floating* base, size_t address, Py_ssize_t by) noexcept nogil:
    """A slot's address `by` elements on; NULL stays NULL. `base` only carries the type."""
    return NULL if address == 0 else (<floating*> address) + by


cdef inline const floating* gradient(const Span* span, Py_ssize_t at, Py_ssize_t n,
                                     floating* scratch) noexcept nogil:
    """n elements of the gradient from `at` on, n at most BLOCK where they must be decoded."""
    if span.layout == 0:
        return (<const floating*> span.grad) + at
    decode(<const Layout*> span.layout, at, n, scratch)
    return scratch


cdef void update_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                       Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """Elements begin … end of one array. Tracking adds sums over blocks that are in cache anyway."""
    cdef floating decoded[BLOCK]
    cdef floating before[BLOCK]
    cdef const double* k = work.coefficients + span.row * WIDTH
    cdef const floating* g
    cdef floating* a
    cdef floating* b
    cdef floating* c
    cdef Py_ssize_t at = begin, n
    cdef Py_ssize_t stride = BLOCK if span.layout != 0 or work.track else end - begin
    cdef Sums sums = Sums(0, 0, 0, 0)
    while at < end:
        n = min(stride, end - at)
        a = shifted(p, span.slots[0], at)
        b = shifted(p, span.slots[1], at)
        c = shifted(p, span.slots[2], at)
        g = gradient(span, at, n, &decoded[0])
        if work.track:
            memcpy(&before[0], p + at, n * sizeof(floating))
        call_rule(work.rule, k, p + at, g, a, b, c, n)
        if work.track:
            add_block(&sums, <const floating*> (p + at), <const floating*> &before[0], g, n)
        at += n
    if work.track:
        work.grad_squares[piece] = sums.grad
        work.update_squares[piece] = sums.update
        work.param_squares[piece] = sums.param
        work.products[piece] = sums.product


cdef void reduce_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                       Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """The gradient's sum of squares over one piece. `p` only carries the type."""
    cdef floating decoded[BLOCK]
    cdef double lanes[LANES]
    cdef Py_ssize_t at = begin, n
    cdef Py_ssize_t stride = BLOCK if span.layout != 0 else end - begin
    memset(&lanes[0], 0, sizeof(lanes))
    while at < end:
        n = min(stride, end - at)
        add_squares(&lanes[0], gradient(span, at, n, &decoded[0]), n, work.scale)
        at += n
    work.grad_squares[piece] = add_lanes(&lanes[0])


cdef void visit_chunk(const Work* work, Py_ssize_t chunk, Pass what) noexcept nogil:
    cdef Py_ssize_t low = chunk * CHUNK, high = low + CHUNK
    cdef Py_ssize_t i = work.first[chunk], piece = work.piece[chunk], begin, end
    cdef const Span* span
    while i < work.span_count and work.spans[i].start < high:
        span = &work.spans[i]
        begin = max(low - span.start, <Py_ssize_t> 0)
        end = min(high - span.start, span.length)
        if begin < end and (span.grad != 0 or span.layout != 0):
            if what == REDUCE:
                if span.double_:
                    reduce_piece(<double*> span.param, work, span, begin, end, piece)
                else:
                    reduce_piece(<float*> span.param, work, span, begin, end, piece)
            elif span.double_:
                update_piece(<double*> span.param, work, span, begin, end, piece)
            else:
                update_piece(<float*> span.param, work, span, begin, end, piece)
        i += 1
        piece += 1


cdef void pass_range(const Work* work, Pass what, Py_ssize_t thread, Py_ssize_t team) noexcept nogil:
    """The chunks of one thread: a contiguous share, so that it finds its state where it left it."""
    cdef Py_ssize_t low = work.chunk_count * thread // team
    cdef Py_ssize_t high = work.chunk_count * (thread + 1) // team
    cdef Py_ssize_t i, begin
    if what == UPDATE_BACKWARDS:
        while high > low:
            begin = max(low, high - RUN)
            for i in range(begin, high):
                visit_chunk(work, i, what)
            high = begin
    else:
        for i in range(low, high):
            visit_chunk(work, i, what)


cdef void pass_all(const Work* work, Pass what, int team) noexcept nogil:
    cdef Py_ssize_t thread
    if team == 1:
        pass_range(work, what, 0, 1)
        return
    for thread in prange(team, schedule="static", chunksize=1, num_threads=team):
        pass_range(work, what, thread, team)


include "_binding.pxi"
include "_plan.pxi"
