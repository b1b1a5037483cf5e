"""The stages of a step: sweeps over its chunks, of which each build of the kernels has its own.

  sweep        all chunks, by a team: the only two `prange` loops of a step are here.
  sweep_range  one thread's share of them, the body of those loops.
  *_chunk      CHUNK elements of the virtual concatenation of all arrays, which may be part of one
               array or several small ones. The chunks do not depend on the number of threads.
  *_piece      the part of one array that lies in one chunk: decodes the gradient where needed
               (_codecs) and calls the rule (rules/) or the reduction (_reductions).

One parallel region serves all arrays of a stage, because waking a team costs as much as updating tens
of thousands of elements. A step whose update needs a sum first walks its chunks forwards for it, then
updates them backwards, so that the update finds the last part of the arrays still in cache.
"""

from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from fastgd._engine._reductions cimport (
    LANES,
    Sums,
    add_block,
    add_lanes,
    add_products,
    add_squares,
)
from fastgd._engine._narrow cimport (
    NARROW_BLOCK,
    Decoded,
    load_state,
    point,
    put_rows,
    store_state,
    take_rows,
)
from fastgd._engine._sums cimport decode_any
from fastgd._engine._touched cimport (
    SEVERAL,
    fetch_rows,
    gradient_block,
    put_block,
    row_gradient,
    take_block,
)
from fastgd._engine._work cimport (
    BLOCK,
    CHUNK,
    DIRECT,
    F64,
    GRAD_SQUARES,
    MEASURE,
    MOST_BANDS,
    MOST_STREAMS,
    MOST_SUMS,
    MOST_TERMS,
    NOTHING,
    PARAM,
    PARAM_SQUARES,
    PRODUCTS,
    REDUCE,
    UPDATE_BACKWARDS,
    UPDATE_SQUARES,
    WIDTH,
    Band,
    Rule,
    Span,
    Sweep,
    Touched,
    Work,
    is_given,
)
from fastgd._engine.rules._common cimport floating, fma

cdef extern from "numeric.h" nogil:
    void FASTGD_PREFETCH(const void*)

cdef enum:
    LINE = 64  # bytes of a line of cache
    ROW_LANES = 8
    ROWS_AHEAD = 8  # rows that are asked for before they are updated
    # Elements of a gradient that are decoded at a time: so few that the memory brings those of all
    # streams side by side, as if it were one loop.
    DECODED_BLOCK = 128
    RUN = 256  # chunks walked forwards at a stretch on the way back, for the prefetchers


cdef inline const Rule* rule_of(const Work* work, const Span* span) noexcept nogil:
    return work.table + work.rules[span.row]


cdef inline void call_update(const Rule* rule, const double* row, floating* p, const floating* grad,
                             floating** state, Py_ssize_t n) noexcept nogil:
    if floating is float:
        rule.single(row, p, grad, state, n)
    else:
        rule.double_(row, p, grad, state, n)


cdef inline void call_measure(const Rule* rule, const double* row, const floating* p,
                              const floating* grad, floating** state, floating** terms,
                              Py_ssize_t n) noexcept nogil:
    if floating is float:
        rule.measure_single(row, p, grad, state, terms, n)
    else:
        rule.measure_double(row, p, grad, state, terms, n)


cdef inline double scale_of(const Work* work, const Span* span) noexcept nogil:
    """What multiplies the gradient in double precision before the rule sees it."""
    return work.wide_scale if span.wide else work.prescale


cdef inline bint decodes(const Work* work, const Span* span) noexcept nogil:
    """Whether the gradient does not lie there as a rule takes it."""
    return span.source.grad == NULL or work.prescale != 1


cdef inline const floating* gradient_times(const Work* work, const Span* span, double scale, Py_ssize_t at,
                                           Py_ssize_t n, floating* scratch) noexcept nogil:
    """n elements of the gradient from `at` on times `scale`, n at most BLOCK where they are not taken
    from where they lie.
    """
    cdef const floating* grad
    cdef Py_ssize_t i
    if span.source.grad == NULL:
        decode_any(work.bands, &span.source, span.wide, scale, at, n, scratch)
        return scratch
    grad = (<const floating*> span.source.grad) + at
    if scale == 1:
        return grad
    for i in range(n):
        scratch[i] = <floating> (grad[i] * scale)
    return scratch


cdef inline const floating* unscaled(const Work* work, const Span* span, Py_ssize_t at, Py_ssize_t n,
                                     floating* scratch) noexcept nogil:
    """The gradient as the caller gave it."""
    return gradient_times(work, span, 1, at, n, scratch)


cdef inline const floating* gradient(const Work* work, const Span* span, Py_ssize_t at, Py_ssize_t n,
                                     floating* scratch) noexcept nogil:
    """The gradient as a rule takes it."""
    return gradient_times(work, span, scale_of(work, span), at, n, scratch)


cdef inline void reduce_piece(floating* kind, const Work* work, const Span* span, Py_ssize_t begin,
                              Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """The gradient's sum of squares over one piece. `kind` only carries the type."""
    cdef floating decoded[BLOCK]
    cdef double lanes[LANES]
    cdef Py_ssize_t at = begin, n
    cdef Py_ssize_t stride = BLOCK if span.source.grad == NULL else end - begin
    memset(&lanes[0], 0, sizeof(lanes))
    while at < end:
        n = min(stride, end - at)
        add_squares(&lanes[0], unscaled(work, span, at, n, &decoded[0]), n, work.scale)
        at += n
    work.sums[GRAD_SQUARES][piece] = add_lanes(&lanes[0])


cdef inline void fetch(const floating* x, Py_ssize_t n) noexcept nogil:
    """Have the memory bring elements that are wanted soon, while others are summed."""
    cdef Py_ssize_t i = 0
    while i < n:
        FASTGD_PREFETCH(x + i)
        i += LINE // <Py_ssize_t> sizeof(floating)


cdef inline void measure_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                               Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """The sums of a rule that looks before it updates: of terms that stay in cache."""
    cdef const Rule* rule = rule_of(work, span)
    cdef floating decoded[BLOCK]
    cdef floating blocks[MOST_TERMS][BLOCK]
    cdef double lanes[MOST_SUMS][LANES]
    cdef floating* terms[MOST_TERMS]
    cdef floating* state[MOST_STREAMS]
    cdef Decoded narrow
    cdef const floating* sources[MOST_TERMS + 2]
    cdef Py_ssize_t at = begin, n
    cdef int i
    memset(&lanes[0][0], 0, sizeof(lanes))
    for i in range(MOST_TERMS):
        terms[i] = &blocks[i][0]
        sources[i] = terms[i]
    sources[NOTHING] = NULL
    while at < end:
        n = min(<Py_ssize_t> BLOCK, end - at)
        load_state(span, rule.state, &narrow, at, n, &state[0])
        sources[PARAM] = <const floating*> (p + at)
        call_measure(rule, work.rows + span.row * WIDTH, <const floating*> (p + at),
                     gradient(work, span, at, n, &decoded[0]), &state[0], &terms[0], n)
        if span.narrow:
            store_state(span, rule.state, &narrow, at, n, &state[0])
        fetch(p + at + n, min(<Py_ssize_t> BLOCK, end - at - n))
        if span.source.grad != NULL:
            fetch((<const floating*> span.source.grad) + at + n, min(<Py_ssize_t> BLOCK, end - at - n))
        for i in range(rule.sums):
            if rule.sum[i].left == rule.sum[i].right:
                add_squares(&lanes[i][0], sources[rule.sum[i].left], n, 1)
            else:
                add_products(&lanes[i][0], sources[rule.sum[i].left], sources[rule.sum[i].right], n)
        at += n
    for i in range(rule.sums):
        work.sums[i][piece] = add_lanes(&lanes[i][0])


cdef inline void direct_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                              Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """The direction of a matrix rule, into the scratch that follows its state."""
    cdef const Rule* rule = rule_of(work, span)
    cdef floating decoded[BLOCK]
    cdef floating* state[MOST_STREAMS]
    cdef Decoded narrow
    cdef Py_ssize_t at = begin, n
    while at < end:
        n = min(<Py_ssize_t> BLOCK, end - at)
        load_state(span, rule.state + 1, &narrow, at, n, &state[0])
        call_measure(rule, work.rows + span.row * WIDTH, <const floating*> (p + at),
                     gradient(work, span, at, n, &decoded[0]), &state[0], &state[rule.state], n)
        if span.narrow:
            store_state(span, rule.state, &narrow, at, n, &state[0])
        at += n


cdef inline void keep(const Work* work, Py_ssize_t piece, const Sums* sums) noexcept nogil:
    """The sums of a tracked piece."""
    work.sums[GRAD_SQUARES][piece] = sums.grad
    work.sums[UPDATE_SQUARES][piece] = sums.update
    work.sums[PARAM_SQUARES][piece] = sums.param
    work.sums[PRODUCTS][piece] = sums.product


cdef inline void track(Sums* sums, const Work* work, const Span* span, Py_ssize_t at, const floating* p,
                       const floating* before, const floating* grad, Py_ssize_t n,
                       floating* scratch) noexcept nogil:
    """Add n elements from `at` on to the sums of a tracked piece: of the gradient as the caller gave it."""
    if scale_of(work, span) != 1:
        grad = unscaled(work, span, at, n, scratch)
    add_block(sums, p, before, grad, n)


cdef inline Py_ssize_t stride_of(const Work* work, const Span* span, Py_ssize_t n) noexcept nogil:
    """How many of n elements are updated at a time."""
    if work.track or (span.source.layout != NULL and span.source.layout.band > 0):
        return BLOCK
    return DECODED_BLOCK if decodes(work, span) else n


cdef inline void update_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                              Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """Elements begin … end of one array. Tracking adds sums over blocks that are in cache anyway."""
    cdef const Rule* rule = rule_of(work, span)
    cdef floating decoded[BLOCK]
    cdef floating before[BLOCK]
    cdef floating* state[MOST_STREAMS]
    cdef const floating* grad
    cdef Py_ssize_t at = begin, n
    cdef Py_ssize_t stride = stride_of(work, span, end - begin)
    cdef Sums sums = Sums(0, 0, 0, 0)
    while at < end:
        n = min(stride, end - at)
        point(span, rule.state + rule.matrix, at, &state[0])
        grad = gradient(work, span, at, n, &decoded[0])
        if work.track:
            memcpy(&before[0], p + at, n * sizeof(floating))
        call_update(rule, work.rows + span.row * WIDTH, p + at, grad, &state[0], n)
        if work.track:
            track(&sums, work, span, at, <const floating*> (p + at), <const floating*> &before[0], grad, n,
                  &decoded[0])
        at += n
    if work.track:
        keep(work, piece, &sums)


cdef inline void update_narrow(float* p, const Work* work, const Span* span, Py_ssize_t begin,
                               Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """`update_piece` of an array whose state is stored in fewer bits."""
    cdef const Rule* rule = rule_of(work, span)
    cdef float grads[NARROW_BLOCK]
    cdef float before[NARROW_BLOCK]
    cdef float* state[MOST_STREAMS]
    cdef Decoded decoded
    cdef const float* grad
    cdef Py_ssize_t at = begin, n
    cdef Sums sums = Sums(0, 0, 0, 0)
    while at < end:
        n = min(<Py_ssize_t> NARROW_BLOCK, end - at)
        load_state(span, rule.state + rule.matrix, &decoded, at, n, &state[0])
        grad = gradient(work, span, at, n, &grads[0])
        if work.track:
            memcpy(&before[0], p + at, n * sizeof(float))
        rule.single(work.rows + span.row * WIDTH, p + at, grad, &state[0], n)
        store_state(span, rule.state, &decoded, at, n, &state[0])
        if work.track:
            track(&sums, work, span, at, <const float*> (p + at), <const float*> &before[0], grad, n,
                  &grads[0])
        at += n
    if work.track:
        keep(work, piece, &sums)


cdef inline void reduce_touched(floating* kind, const Work* work, const Span* span, Py_ssize_t begin,
                                Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """`reduce_piece` of a gradient of some rows."""
    cdef floating block[BLOCK]
    cdef double lanes[LANES]
    cdef Py_ssize_t at = begin, n
    memset(&lanes[0], 0, sizeof(lanes))
    while at < end:
        n = min(<Py_ssize_t> BLOCK, end - at)
        gradient_block(&span.source, at, 1, n, &block[0])
        add_squares(&lanes[0], <const floating*> &block[0], n, work.scale)
        at += n
    work.sums[GRAD_SQUARES][piece] = add_lanes(&lanes[0])


cdef inline void update_touched(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                                Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """`update_piece` of a gradient of some rows: of wide ones each where it lies, of narrower ones several
    at a time in blocks, since calling a rule takes as long as a hundred elements.
    """
    cdef const Rule* rule = rule_of(work, span)
    cdef Py_ssize_t width = span.source.touched.width, at = begin, n, place
    cdef double scale = scale_of(work, span)
    cdef bint several = width < SEVERAL
    cdef floating decoded[BLOCK]
    cdef floating before[BLOCK]
    cdef floating blocks[MOST_STREAMS + 1][SEVERAL]
    cdef floating* state[MOST_STREAMS]
    cdef Decoded narrow
    cdef floating* target
    cdef const floating* grad
    cdef Sums sums = Sums(0, 0, 0, 0)
    cdef int i
    fetch_rows(p, span, rule.state, begin, min(end, begin + SEVERAL))
    while at < end:
        n = min(<Py_ssize_t> SEVERAL if several else min(width - at % width, <Py_ssize_t> BLOCK), end - at)
        if at + n < end and not several:
            fetch_rows(p, span, rule.state, at + n, min(end, at + n + SEVERAL))
        if several:
            target = &blocks[MOST_STREAMS][0]
            take_block(span.source.touched, <const floating*> p, at, n, target)
            for i in range(rule.state):
                state[i] = NULL
                if span.state[i].data != NULL:
                    state[i] = &blocks[i][0]
                    take_rows(span.source.touched, &span.state[i], at, n, state[i])
            gradient_block(&span.source, at, scale, n, &decoded[0])
            grad = &decoded[0]
        else:
            place = span.source.touched.numbers[at // width] * width + at % width
            target = p + place
            load_state(span, rule.state, &narrow, place, n, &state[0])
            grad = row_gradient(&span.source, at // width, at % width, scale, n, &decoded[0])
        if work.track:
            memcpy(&before[0], target, n * sizeof(floating))
        call_update(rule, work.rows + span.row * WIDTH, target, grad, &state[0], n)
        if work.track:
            if scale != 1:  # what is tracked is the caller's gradient
                gradient_block(&span.source, at, 1, n, &decoded[0])
                grad = &decoded[0]
            add_block(&sums, <const floating*> target, <const floating*> &before[0], grad, n)
        if several:
            put_block(span.source.touched, p, at, n, <const floating*> target)
            for i in range(rule.state):
                if state[i] != NULL:
                    put_rows(span.source.touched, &span.state[i], at, n, <const floating*> state[i])
        elif span.narrow:
            store_state(span, rule.state, &narrow, place, n, &state[0])
        at += n
    if work.track:
        keep(work, piece, &sums)


cdef inline double row_squares(const floating* x, Py_ssize_t n, double total) noexcept nogil:
    """total + the sum of x², in few lanes, since a row may be short."""
    cdef double lanes[ROW_LANES]
    cdef double value
    cdef Py_ssize_t i, block
    cdef int lane
    for lane in range(ROW_LANES):
        lanes[lane] = 0
    for block in range(n // ROW_LANES):
        for lane in range(ROW_LANES):
            value = x[block * ROW_LANES + lane]
            lanes[lane] = fma(value, value, lanes[lane])
    for i in range(n - n % ROW_LANES, n):
        value = x[i]
        lanes[i % ROW_LANES] = fma(value, value, lanes[i % ROW_LANES])
    for lane in range(ROW_LANES):
        total += lanes[lane]
    return total


cdef inline const floating* row_part(const Work* work, const Span* span, Py_ssize_t row, Py_ssize_t column,
                                     double scale, Py_ssize_t n, floating* scratch) noexcept nogil:
    """n elements of a row of the gradient, of the touched ones where it has such."""
    if span.source.touched != NULL:
        return row_gradient(&span.source, row, column, scale, n, scratch)
    return gradient_times(work, span, scale, row * span.width + column, n, scratch)


cdef inline void update_rows(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                             Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    """The rows that begin at elements begin … end, each with coefficients of its own: a rule that keeps
    one number for each row concludes it from a sum over that, and updates the row.
    """
    cdef const Rule* rule = rule_of(work, span)
    cdef const Touched* touched = span.source.touched
    cdef Py_ssize_t width = span.width, row = (begin + width - 1) // width, number, column, n
    cdef double scale = scale_of(work, span)
    cdef double coefficients[WIDTH]
    cdef double sums[MOST_SUMS]
    cdef double kept
    cdef floating decoded[BLOCK]
    cdef floating before[BLOCK]
    cdef floating term[BLOCK]
    cdef floating* terms[MOST_TERMS]
    cdef floating* state[MOST_STREAMS]
    cdef floating* target
    cdef const floating* grad
    cdef Sums tracked = Sums(0, 0, 0, 0)
    terms[0] = &term[0]
    memset(&state[0], 0, sizeof(state))
    if touched != NULL:
        fetch_rows(p, span, 0, row * width, min(end, (row + ROWS_AHEAD) * width))
    while row * width < end:
        number = row
        if touched != NULL:
            number = touched.numbers[row]
            if (row + ROWS_AHEAD) * width < end:
                fetch_rows(p, span, 0, (row + ROWS_AHEAD) * width, (row + ROWS_AHEAD + 1) * width)
                FASTGD_PREFETCH((<floating*> span.state[0].data) + touched.numbers[row + ROWS_AHEAD])
        target = p + number * width
        memcpy(&coefficients[0], work.rows + span.row * WIDTH, sizeof(coefficients))
        sums[0], column = 0, 0
        while column < width:
            n = min(<Py_ssize_t> BLOCK, width - column)
            grad = row_part(work, span, row, column, scale, n, &decoded[0])
            call_measure(rule, &coefficients[0], <const floating*> (target + column), grad, &state[0],
                         &terms[0], n)
            sums[0] = row_squares(<const floating*> &term[0], n, sums[0])
            column += n
        kept = (<floating*> span.state[0].data)[number]
        rule.conclude(&sums[0], width, &kept, &coefficients[0])
        (<floating*> span.state[0].data)[number] = <floating> kept
        column = 0
        while column < width:
            n = min(<Py_ssize_t> BLOCK, width - column)
            if width > BLOCK:  # else it is still there
                grad = row_part(work, span, row, column, scale, n, &decoded[0])
            if work.track:
                memcpy(&before[0], target + column, n * sizeof(floating))
            call_update(rule, &coefficients[0], target + column, grad, &state[0], n)
            if work.track:
                if scale != 1:  # what is tracked is the caller's gradient
                    grad = row_part(work, span, row, column, 1, n, &decoded[0])
                add_block(&tracked, <const floating*> (target + column), <const floating*> &before[0],
                          grad, n)
            column += n
        row += 1
    if work.track:
        keep(work, piece, &tracked)


cdef inline void visit_piece(floating* p, const Work* work, const Span* span, Py_ssize_t begin,
                             Py_ssize_t end, Py_ssize_t piece, Sweep what) noexcept nogil:
    if what == MEASURE:
        if rule_of(work, span).sums > 0:
            measure_piece(p, work, span, begin, end, piece)
    elif what == DIRECT:
        if rule_of(work, span).matrix:
            direct_piece(p, work, span, begin, end, piece)
    elif rule_of(work, span).by_row:
        update_rows(p, work, span, begin, end, piece)
    elif span.source.touched != NULL:
        update_touched(p, work, span, begin, end, piece)
    elif span.narrow:
        update_narrow(<float*> p, work, span, begin, end, piece)
    else:
        update_piece(p, work, span, begin, end, piece)


cdef inline void reduce_any(floating* kind, const Work* work, const Span* span, Py_ssize_t begin,
                            Py_ssize_t end, Py_ssize_t piece) noexcept nogil:
    if span.source.touched != NULL:
        reduce_touched(kind, work, span, begin, end, piece)
    else:
        reduce_piece(kind, work, span, begin, end, piece)


cdef inline void visit_chunk(const Work* work, Py_ssize_t chunk, Sweep what) noexcept nogil:
    cdef Py_ssize_t low = chunk * CHUNK, high = low + CHUNK
    cdef Py_ssize_t i = work.first[chunk], piece = work.piece[chunk], begin, end
    cdef const Span* span
    while i < work.span_count and work.spans[i].start < high:
        span = &work.spans[i]
        begin = max(low - span.start, <Py_ssize_t> 0)
        end = min(high - span.start, span.visited)
        if begin < end and is_given(&span.source):
            if what == REDUCE:  # a wide gradient's squares may be beyond the parameter's range
                if span.param.format == F64 or span.wide:
                    reduce_any(<double*> NULL, work, span, begin, end, piece)
                else:
                    reduce_any(<float*> NULL, work, span, begin, end, piece)
            elif span.param.format == F64:
                visit_piece(<double*> span.param.data, work, span, begin, end, piece, what)
            else:
                visit_piece(<float*> span.param.data, work, span, begin, end, piece, what)
        i += 1
        piece += 1


cdef inline void sweep_range(const Work* work, Sweep what, Py_ssize_t thread,
                             Py_ssize_t team) noexcept nogil:
    """The chunks of one thread: a contiguous share, so that it finds its state where it left it."""
    cdef Py_ssize_t count = work.end - work.begin
    cdef Py_ssize_t low = work.begin + count * thread // team
    cdef Py_ssize_t high = work.begin + count * (thread + 1) // team
    cdef Py_ssize_t i, begin
    cdef Work own = work[0]
    cdef Band bands[MOST_BANDS]
    own.bands = NULL
    if work.scratch != NULL:
        own.bands = &bands[0]
        for i in range(MOST_BANDS):
            bands[i].layout = NULL
            bands[i].data = work.scratch + (thread * MOST_BANDS + i) * <Py_ssize_t> work.band_size
    if what == UPDATE_BACKWARDS:
        while high > low:
            begin = max(low, high - RUN)
            for i in range(begin, high):
                visit_chunk(&own, i, what)
            high = begin
    else:
        for i in range(low, high):
            visit_chunk(&own, i, what)


cdef inline void sweep(const Work* work, Sweep what, int team) noexcept nogil:
    cdef Py_ssize_t thread
    if team == 1:
        sweep_range(work, what, 0, 1)
        return
    for thread in prange(team, schedule="static", chunksize=1, num_threads=team):
        sweep_range(work, what, thread, team)
