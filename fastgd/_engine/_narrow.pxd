"""State that is stored in fewer bits, decoded for a rule and encoded again: see src_c/narrow.h.

A rule sees float32 blocks of it that stay in the L1 cache; n rules and m formats are n + m functions.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memset

from fastgd._engine._runs cimport convert_run
from fastgd._engine._touched cimport put_block, take_block
from fastgd._engine._work cimport (
    BF16,
    BF16_RANDOM,
    BLOCK,
    F32,
    F64,
    MOST_STREAMS,
    PAIRED8,
    RATIO8,
    ROOT8,
    SIGNED8,
    SIZE8,
    Span,
    Stream,
    Touched,
)
from fastgd._engine.rules._common cimport floating

cdef extern from "narrow.h" nogil:
    enum:
        CODED "FASTGD_CODED"  # elements of a block of 8-bit codes
    void fastgd_encode_bf16(uint16_t*, const float*, Py_ssize_t)
    void fastgd_encode_bf16_random(uint16_t*, const float*, Py_ssize_t, Py_ssize_t, unsigned int)
    void fastgd_decode_root(const char*, Py_ssize_t, bint, float*)
    void fastgd_decode_signed(const char*, Py_ssize_t, float*)
    void fastgd_decode_ratio(const char*, const char*, Py_ssize_t, float*, float*)
    void fastgd_encode_root(char*, Py_ssize_t, bint, float*, unsigned int)
    void fastgd_encode_signed(char*, Py_ssize_t, const float*, unsigned int)
    void fastgd_encode_ratio(char*, char*, Py_ssize_t, float*, float*, unsigned int, unsigned int)

cdef enum:
    # Elements that are decoded at a time: so few that one block's loads, another's update and a third's
    # stores are under way at once; with more of them one waits for the other.
    NARROW_BLOCK = 256
    STAGGER = 240       # elements by which blocks lie apart beyond their size, see _arrays/memory.py

# What a thread needs for it, on its stack.
cdef struct Decoded:
    float[MOST_STREAMS][BLOCK + STAGGER] blocks


cdef inline bint is_narrow(const Stream* stream) noexcept nogil:
    return stream.data != NULL and stream.format != F32 and stream.format != F64


cdef inline void load_block(const Span* span, const Stream* stream, Decoded* decoded, int i, Py_ssize_t at,
                            Py_ssize_t n) noexcept nogil:
    """n elements from `at` on of array i of the state, which begin a block of codes if there are such."""
    cdef Py_ssize_t done = 0, block = at // CODED
    if stream.format == BF16 or stream.format == BF16_RANDOM:
        convert_run(BF16, stream.data + 2 * at, 2, n, &decoded.blocks[i][0])
        return
    while done < n:
        if stream.format == RATIO8:
            fastgd_decode_ratio(stream.data, span.state[stream.beside].data, block, &decoded.blocks[i][done],
                                &decoded.blocks[stream.beside][done])
        elif stream.format == SIGNED8:
            fastgd_decode_signed(stream.data, block, &decoded.blocks[i][done])
        elif stream.format != PAIRED8:
            fastgd_decode_root(stream.data, block, stream.format == ROOT8, &decoded.blocks[i][done])
        done += CODED
        block += 1


cdef inline void encode16(const Stream* stream, Py_ssize_t at, Py_ssize_t n, const float* x) noexcept nogil:
    """n elements of a bfloat16 array from `at` on."""
    if stream.format == BF16:
        fastgd_encode_bf16(<uint16_t*> stream.data + at, x, n)
    else:
        fastgd_encode_bf16_random(<uint16_t*> stream.data + at, x, at, n, stream.seed)


cdef inline void store_block(const Span* span, const Stream* stream, Decoded* decoded, int i, Py_ssize_t at,
                             Py_ssize_t n) noexcept nogil:
    """The way back, which spoils what is decoded."""
    cdef Py_ssize_t done = 0, block = at // CODED
    cdef const Stream* beside
    if stream.format == BF16 or stream.format == BF16_RANDOM:
        encode16(stream, at, n, &decoded.blocks[i][0])
        return
    while done < n:
        if stream.format == RATIO8:
            beside = &span.state[stream.beside]
            fastgd_encode_ratio(stream.data, beside.data, block, &decoded.blocks[i][done],
                                &decoded.blocks[stream.beside][done], stream.seed, beside.seed)
        elif stream.format == SIGNED8:
            fastgd_encode_signed(stream.data, block, &decoded.blocks[i][done], stream.seed)
        elif stream.format != PAIRED8:
            fastgd_encode_root(stream.data, block, stream.format == ROOT8, &decoded.blocks[i][done],
                               stream.seed)
        done += CODED
        block += 1


cdef inline void point(const Span* span, int count, Py_ssize_t at, floating** state) noexcept nogil:
    """The state at element `at`; NULL stays NULL."""
    cdef int i
    for i in range(count):
        state[i] = NULL if span.state[i].data == NULL else (<floating*> span.state[i].data) + at


cdef inline void load_state(const Span* span, int count, Decoded* decoded, Py_ssize_t at, Py_ssize_t n,
                            floating** state) noexcept nogil:
    """Point to n elements of the state from `at` on: where they lie, or decoded; n at most BLOCK, and `at`
    a multiple of CODED where there are codes.
    """
    cdef int i
    point(span, count, at, state)
    if floating is float:
        for i in range(count):
            if is_narrow(&span.state[i]):
                load_block(span, &span.state[i], decoded, i, at, n)
                state[i] = &decoded.blocks[i][0]


cdef inline void store_state(const Span* span, int count, Decoded* decoded, Py_ssize_t at, Py_ssize_t n,
                             floating** state) noexcept nogil:
    """Encode what was decoded. Beyond the end of an array its last block is filled with zeros."""
    cdef Py_ssize_t end = (n + CODED - 1) // CODED * CODED
    cdef int i
    if floating is float:
        for i in range(count):
            if n < end and is_narrow(&span.state[i]):
                memset(&decoded.blocks[i][n], 0, (end - n) * sizeof(float))
        for i in range(count):
            if is_narrow(&span.state[i]):
                store_block(span, &span.state[i], decoded, i, at, n)


cdef inline void take_rows(const Touched* touched, const Stream* stream, Py_ssize_t at, Py_ssize_t n,
                           floating* out) noexcept nogil:
    """`take_block` of an array of the state, which has no blocks of codes."""
    cdef Py_ssize_t row = at // touched.width, column = at % touched.width, m
    if not is_narrow(stream):
        take_block(touched, <const floating*> stream.data, at, n, out)
        return
    while n > 0:
        m = min(touched.width - column, n)
        convert_run(BF16, stream.data + 2 * (touched.numbers[row] * touched.width + column), 2, m, out)
        out, n, row, column = out + m, n - m, row + 1, 0


cdef inline void put_rows(const Touched* touched, const Stream* stream, Py_ssize_t at, Py_ssize_t n,
                          const floating* block) noexcept nogil:
    """The way back."""
    cdef Py_ssize_t row = at // touched.width, column = at % touched.width, m
    if floating is float:
        if is_narrow(stream):
            while n > 0:
                m = min(touched.width - column, n)
                encode16(stream, touched.numbers[row] * touched.width + column, m, block)
                block, n, row, column = block + m, n - m, row + 1, 0
            return
    put_block(touched, <floating*> stream.data, at, n, block)
