/* Sums of weighted rows, for several rows of the result at a time: two registers of each of four of them stay
 * where they are over all samples, so that one load serves four products. With intrinsics, since a compiler
 * keeps such arrays in registers on some targets only; what it makes of the plain loops has the same bits. */
#ifndef FASTGD_PRODUCT_H
#define FASTGD_PRODUCT_H

#include <stddef.h>

#include "numeric.h"

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

/* Four rows by the columns of two registers of the result. */
#define FASTGD_STRIP(type, suffix, vector, load, store, set, times, multiply_add)                    \
    enum { FASTGD_COLUMNS_##suffix = 2 * sizeof(vector) / sizeof(type) };                            \
    static inline void fastgd_strip_##suffix(type *restrict out, ptrdiff_t step, const type *restrict x, \
                                             ptrdiff_t x_step, const type *restrict weights,         \
                                             ptrdiff_t w_step, ptrdiff_t samples, int first) {       \
        const ptrdiff_t n = sizeof(vector) / sizeof(type);                                           \
        const type *u = weights, *v = u + w_step, *w = v + w_step, *z = w + w_step;                  \
        type *a = out, *b = a + step, *c = b + step, *d = c + step;                                  \
        vector x0 = load(x), x1 = load(x + n), a0, a1, b0, b1, c0, c1, d0, d1;                       \
        if (first) {                                                                                 \
            a0 = times(set(u[0]), x0), a1 = times(set(u[0]), x1);                                    \
            b0 = times(set(v[0]), x0), b1 = times(set(v[0]), x1);                                    \
            c0 = times(set(w[0]), x0), c1 = times(set(w[0]), x1);                                    \
            d0 = times(set(z[0]), x0), d1 = times(set(z[0]), x1);                                    \
        } else {                                                                                     \
            a0 = load(a), a1 = load(a + n), b0 = load(b), b1 = load(b + n);                          \
            c0 = load(c), c1 = load(c + n), d0 = load(d), d1 = load(d + n);                          \
        }                                                                                            \
        for (ptrdiff_t k = first ? 1 : 0; k < samples; k++) {                                        \
            x0 = load(x + k * x_step), x1 = load(x + k * x_step + n);                                \
            a0 = multiply_add(set(u[k]), x0, a0), a1 = multiply_add(set(u[k]), x1, a1);              \
            b0 = multiply_add(set(v[k]), x0, b0), b1 = multiply_add(set(v[k]), x1, b1);              \
            c0 = multiply_add(set(w[k]), x0, c0), c1 = multiply_add(set(w[k]), x1, c1);              \
            d0 = multiply_add(set(z[k]), x0, d0), d1 = multiply_add(set(z[k]), x1, d1);              \
        }                                                                                            \
        store(a, a0), store(a + n, a1), store(b, b0), store(b + n, b1);                              \
        store(c, c0), store(c + n, c1), store(d, d0), store(d + n, d1);                              \
    }

#if defined(__AVX512F__)
FASTGD_STRIP(float, f32, __m512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_mul_ps,
             _mm512_fmadd_ps)
FASTGD_STRIP(double, f64, __m512d, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, _mm512_mul_pd,
             _mm512_fmadd_pd)
#elif defined(__FMA__)
FASTGD_STRIP(float, f32, __m256, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_mul_ps,
             _mm256_fmadd_ps)
FASTGD_STRIP(double, f64, __m256d, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_set1_pd, _mm256_mul_pd,
             _mm256_fmadd_pd)
#else
#define FASTGD_AT(x) (*(x))
#define FASTGD_PUT(x, value) (*(x) = (value))
#define FASTGD_ITSELF(x) (x)
#define FASTGD_TIMES(x, y) ((x) * (y))
FASTGD_STRIP(float, f32, float, FASTGD_AT, FASTGD_PUT, FASTGD_ITSELF, FASTGD_TIMES, FASTGD_FMAF)
FASTGD_STRIP(double, f64, double, FASTGD_AT, FASTGD_PUT, FASTGD_ITSELF, FASTGD_TIMES, FASTGD_FMA)
#endif

/* out[i, c] = sum over k of weights[i, k] * x[k, c], in the order of k, of `lines` by `columns`; added to what is
 * there unless `first`. `step`, `x_step` and `w_step` are the elements between the rows of each. */
#define FASTGD_PRODUCT(type, suffix, multiply_add)                                                   \
    static inline void fastgd_product_##suffix(type *restrict out, ptrdiff_t step, const type *restrict x, \
                                               ptrdiff_t x_step, const type *restrict weights,       \
                                               ptrdiff_t w_step, ptrdiff_t lines, ptrdiff_t samples, \
                                               ptrdiff_t columns, int first) {                       \
        const ptrdiff_t n = FASTGD_COLUMNS_##suffix;                                                 \
        const ptrdiff_t strips = columns - columns % n, fours = lines - lines % 4;                   \
        for (ptrdiff_t i = 0; i < fours; i += 4)                                                     \
            for (ptrdiff_t c = 0; c < strips; c += n)                                                \
                fastgd_strip_##suffix(out + i * step + c, step, x + c, x_step, weights + i * w_step, w_step, \
                                      samples, first);                                               \
        for (ptrdiff_t i = 0; i < lines; i++) {                                                      \
            type *restrict line = out + i * step;                                                    \
            const type *restrict w = weights + i * w_step;                                           \
            const ptrdiff_t begin = i < fours ? strips : 0;                                          \
            for (ptrdiff_t k = 0; begin < columns && k < samples; k++) {                             \
                const type *restrict row = x + k * x_step;                                           \
                if (first && k == 0)                                                                 \
                    for (ptrdiff_t c = begin; c < columns; c++) line[c] = w[0] * row[c];             \
                else                                                                                 \
                    for (ptrdiff_t c = begin; c < columns; c++)                                      \
                        line[c] = multiply_add(w[k], row[c], line[c]);                               \
            }                                                                                        \
        }                                                                                            \
    }

FASTGD_PRODUCT(float, f32, FASTGD_FMAF)
FASTGD_PRODUCT(double, f64, FASTGD_FMA)

#endif
