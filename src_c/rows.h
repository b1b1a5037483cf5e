/* Sums of the values of a row, and copies of narrow rows: short loops whose arrays do not overlap, which
 * only `restrict` can say. */
#ifndef FASTGD_ROWS_H
#define FASTGD_ROWS_H

#include <stddef.h>
#include <string.h>

#include "numeric.h"

#define FASTGD_ROWS(type, suffix, multiply_add)                                                      \
    static inline void fastgd_add_##suffix(type *restrict out, const type *restrict x, ptrdiff_t n) { \
        for (ptrdiff_t i = 0; i < n; i++) out[i] += x[i];                                            \
    }                                                                                                \
    static inline void fastgd_sum_##suffix(type *restrict out, const type *restrict x,                \
                                           const type *restrict y, ptrdiff_t n) {                    \
        for (ptrdiff_t i = 0; i < n; i++) out[i] = x[i] + y[i];                                      \
    }                                                                                                \
    static inline void fastgd_times_##suffix(type *restrict out, type w, const type *restrict x,     \
                                             ptrdiff_t n) {                                          \
        for (ptrdiff_t i = 0; i < n; i++) out[i] = w * x[i];                                         \
    }                                                                                                \
    static inline void fastgd_add_times_##suffix(type *restrict out, type w, const type *restrict x, \
                                                 ptrdiff_t n) {                                      \
        for (ptrdiff_t i = 0; i < n; i++) out[i] = multiply_add(w, x[i], out[i]);                    \
    }                                                                                                \
    static inline void fastgd_copy_##suffix(type *restrict out, const type *restrict x, ptrdiff_t n) { \
        if (n == 1)                                                                                  \
            out[0] = x[0];                                                                           \
        else                                                                                         \
            memcpy(out, x, (size_t)n * sizeof(type));                                                \
    }

FASTGD_ROWS(float, f32, FASTGD_FMAF)
FASTGD_ROWS(double, f64, FASTGD_FMA)

#endif
