"""What a step is to the kernels, and what the kernels are to a step.

A plan (_plan.pyx, compiled once) fills a `Work`; a build of the kernels (_kernels_*.pyx, one for each
instruction set) offers `Kernels`. Nothing else passes between the two.
"""

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    CHUNK = 4096      # elements; also the unit of the deterministic reductions
    BLOCK = 1024      # elements decoded at a time: 8 KB of float64 in a 32 KB L1 cache
    ALIGN = 256       # every array begins at a multiple of this in the virtual concatenation
    WIDTH = 24        # doubles of a row: its head and the rule's own coefficients
    MOST_STREAMS = 5  # state arrays of a parameter, the scratch of a matrix rule included
    MOST_NUMBERS = 4  # that a rule keeps for each array between steps
    MOST_TERMS = 3    # blocks that a measuring rule fills
    MOST_SUMS = 4     # over an array, of a measuring rule or of a tracked step
    MOST_RULES = 64
    MAX_DIMS = 64     # NumPy's own limit
    BAND = 64         # lines of an array whose memory runs across them that are turned at a time
    BAND_PAD = 16     # elements between them, so that they do not share a set of the cache
    MOST_BANDS = 4    # that a thread has at a time: of that many parts of a sum

cdef enum Format:
    F32 = 0
    F64 = 1
    F16 = 2
    BF16 = 3
    # Of state only, see src_c/narrow.h:
    BF16_RANDOM = 4  # rounded stochastically
    ROOT8 = 5        # blocks of 8-bit codes: of the roots of what the rule sees,
    SIZE8 = 6        # of what is at least 0,
    SIGNED8 = 7      # of anything,
    RATIO8 = 8       # of the ratio to the root of another array of the state,
    PAIRED8 = 9      # which is this one, ROOT8 whose ratios are stored beside

# A strided array, its axes in the order in which the parameter's memory walks them (slowest first),
# those that can be walked as one merged; or a product, whose lines are formed a band at a time.
cdef struct Layout:
    const char* data
    Format format
    int ndim
    Py_ssize_t band       # lines that are turned at a time, see _codecs.pxd; 0: the last axis is walked
    int slot              # of a thread's bands: its own among those of a sum
    const double* left    # NULL, or of a product of (n, samples) and data, (samples, m), the first
    Py_ssize_t samples
    Py_ssize_t shape[MAX_DIMS]
    Py_ssize_t strides[MAX_DIMS]

# Memory that a rule reads and writes beside the gradient: the parameter, or an array of its state.
cdef struct Stream:
    char* data         # NULL: the group does not use it
    Format format
    int beside         # RATIO8: the number of the PAIRED8 array
    uint32_t seed      # of the noise of this step
    bint mapped        # it lies in a file, shared, and is of the parameter's size

# The rows that a gradient touches, of parameters in C order; the others have none.
cdef struct Touched:
    const int64_t* numbers  # ascending, each once
    const int64_t* starts   # of each row among the places; one more at the end
    const int64_t* places   # of the values that are summed
    const double* weights   # of each; NULL: 1
    Py_ssize_t count
    Py_ssize_t width        # elements of a row

# Where a gradient, or one of several that are summed, lies.
cdef struct Source:
    const char* grad        # one in the parameter's format and order; NULL: see the layout
    const Layout* layout    # NULL: see grad
    const Touched* touched  # NULL: of all elements; else grad or layout are those of the values
    const Source* more      # of a sum, which has neither grad nor layout, the first part; of that the next
    bint mapped             # it lies in a file, shared

cdef inline bint is_given(const Source* source) noexcept nogil:
    """Whether there is a gradient this step."""
    return source.grad != NULL or source.layout != NULL or source.more != NULL

cdef struct Span:
    Stream param
    Stream state[MOST_STREAMS]  # in the order in which the rule names it
    Source source         # of the gradient; all NULL: none this step
    Py_ssize_t start      # in the virtual concatenation
    Py_ssize_t length     # elements
    Py_ssize_t visited    # that a step walks over: all, or those of the rows that are touched
    Py_ssize_t width      # elements of a row of the parameter
    Py_ssize_t row        # of the coefficients, -1: none yet
    bint narrow           # some of the state is stored in fewer bits
    bint wide             # the gradient is scaled in double precision before it is rounded

# The head of every rule's coefficients: what becomes of the gradient first.
cdef struct Head:
    double scale         # multiplies it: its sign, grad_scale and the clipping coefficient
    double clip_value    # then clamps it to ±this
    double weight_decay  # then adds this times the parameter (L2)
    double loss          # of a rule whose step needs it

# --- rules ---

# The update of n elements: row of coefficients, parameter, gradient, state.
ctypedef void (*SingleUpdate)(const double*, float*, const float*, float**, Py_ssize_t) noexcept nogil
ctypedef void (*DoubleUpdate)(const double*, double*, const double*, double**, Py_ssize_t) noexcept nogil
# The same before it, which writes blocks of terms and perhaps the state, but not the parameter.
ctypedef void (*SingleMeasure)(const double*, const float*, const float*, float**, float**,
                               Py_ssize_t) noexcept nogil
ctypedef void (*DoubleMeasure)(const double*, const double*, const double*, double**, double**,
                               Py_ssize_t) noexcept nogil
# The coefficients of an array's t-th step: hyperparameters, t, the array's numbers (which are
# advanced), row.
ctypedef void (*Fill)(const double*, double, double*, double*) noexcept nogil
# What the sums change in them: sums, elements that were summed, the array's numbers, row.
ctypedef void (*Conclude)(const double*, double, double*, double*) noexcept nogil

cdef enum:  # what a sum multiplies, element by element
    TERM_0 = 0
    TERM_1 = 1
    TERM_2 = 2
    PARAM = 3
    NOTHING = 4  # on the right: a plain sum of what is on the left

cdef struct Sum:
    int left
    int right

cdef struct Rule:
    SingleUpdate single
    DoubleUpdate double_
    SingleMeasure measure_single  # NULL: one sweep is enough
    DoubleMeasure measure_double
    Fill fill
    Conclude conclude             # NULL: the coefficients do not depend on sums
    int state
    int numbers
    int sums
    Sum sum[MOST_SUMS]
    bint joint                    # the sums run over all arrays of the step, not over each
    bint squares                  # it keeps squares of gradients
    bint by_row                   # sums and the only number kept are those of each row, the state has it
    bint matrix                   # `measure` writes a direction for NumPy to work on, see _plan.pyx

# --- a sweep over chunks ---

cdef enum Sweep:
    REDUCE      # the squares of the gradients
    MEASURE     # the sums of measuring rules
    DIRECT      # the directions of matrix rules, into scratch
    UPDATE
    UPDATE_BACKWARDS

# Some lines of an array whose memory runs across them, decoded: one thread's, of one sweep.
cdef struct Band:
    const Layout* layout  # NULL: none yet
    Py_ssize_t line       # the first
    size_t itemsize       # of what it was decoded to
    char* data

cdef struct Work:
    const Span* spans
    Py_ssize_t span_count
    Py_ssize_t chunk_count
    Py_ssize_t begin, end    # chunks of this sweep
    const Py_ssize_t* first  # first span of each chunk
    const Py_ssize_t* piece  # number of the first piece of each chunk
    const double* rows       # WIDTH doubles each
    const int* rules         # of each row, in `table`
    const Rule* table
    double* sums[MOST_SUMS]  # by piece: of the gradient's squares; of a rule; or the tracked ones
    double scale             # REDUCE: of the elements whose squares are summed
    double prescale          # of all gradients, in double precision; 1: they are taken as they are
    double wide_scale        # the same of the wide ones
    bint track
    char* scratch            # for bands: MOST_BANDS of band_size bytes for each thread; NULL: none is turned
    size_t band_size
    Band* bands              # of the thread

cdef enum:  # the sums of a tracked step
    GRAD_SQUARES = 0
    UPDATE_SQUARES = 1
    PARAM_SQUARES = 2
    PRODUCTS = 3  # of gradient and update

cdef struct Kernels:
    void (*sweep)(const Work*, Sweep, int) noexcept nogil  # by so many threads
    Rule rules[MOST_RULES]
    int rule_count
    bint has_fma
