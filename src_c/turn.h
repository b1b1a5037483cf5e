/* The transpose of a tile that lies in the cache, four by four (floats) or two by two (doubles) elements in
 * registers: what a compiler makes of the plain loops moves one element at a time. */
#ifndef FASTGD_TURN_H
#define FASTGD_TURN_H

#include <stddef.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#define FASTGD_SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (fastgd_index4){i, j, k, l})
#define FASTGD_SHUFFLE2(a, b, i, j) __builtin_shuffle(a, b, (fastgd_index2){i, j})
#else
#define FASTGD_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#define FASTGD_SHUFFLE2(a, b, i, j) __builtin_shufflevector(a, b, i, j)
#endif

typedef float fastgd_float4 __attribute__((vector_size(16)));
typedef double fastgd_double2 __attribute__((vector_size(16)));
typedef int fastgd_index4 __attribute__((vector_size(16)));
typedef long long fastgd_index2 __attribute__((vector_size(16)));

/* out[i * out_step + j] = x[j * step + i] for i < n, j < m. */
static inline void fastgd_turn_f32(const float *restrict x, ptrdiff_t step, float *restrict out,
                                   ptrdiff_t out_step, ptrdiff_t n, ptrdiff_t m) {
    ptrdiff_t i = 0, j = 0;
    for (j = 0; j + 4 <= m; j += 4) {
        for (i = 0; i + 4 <= n; i += 4) {
            fastgd_float4 a, b, c, d, e, f, g, h;
            memcpy(&a, x + j * step + i, 16);
            memcpy(&b, x + (j + 1) * step + i, 16);
            memcpy(&c, x + (j + 2) * step + i, 16);
            memcpy(&d, x + (j + 3) * step + i, 16);
            e = FASTGD_SHUFFLE4(a, b, 0, 4, 1, 5);
            f = FASTGD_SHUFFLE4(a, b, 2, 6, 3, 7);
            g = FASTGD_SHUFFLE4(c, d, 0, 4, 1, 5);
            h = FASTGD_SHUFFLE4(c, d, 2, 6, 3, 7);
            a = FASTGD_SHUFFLE4(e, g, 0, 1, 4, 5);
            b = FASTGD_SHUFFLE4(e, g, 2, 3, 6, 7);
            c = FASTGD_SHUFFLE4(f, h, 0, 1, 4, 5);
            d = FASTGD_SHUFFLE4(f, h, 2, 3, 6, 7);
            memcpy(out + i * out_step + j, &a, 16);
            memcpy(out + (i + 1) * out_step + j, &b, 16);
            memcpy(out + (i + 2) * out_step + j, &c, 16);
            memcpy(out + (i + 3) * out_step + j, &d, 16);
        }
        for (; i < n; i++)
            for (ptrdiff_t k = j; k < j + 4; k++) out[i * out_step + k] = x[k * step + i];
    }
    for (; j < m; j++)
        for (i = 0; i < n; i++) out[i * out_step + j] = x[j * step + i];
}

static inline void fastgd_turn_f64(const double *restrict x, ptrdiff_t step, double *restrict out,
                                   ptrdiff_t out_step, ptrdiff_t n, ptrdiff_t m) {
    ptrdiff_t i = 0, j = 0;
    for (j = 0; j + 2 <= m; j += 2) {
        for (i = 0; i + 2 <= n; i += 2) {
            fastgd_double2 a, b, c, d;
            memcpy(&a, x + j * step + i, 16);
            memcpy(&b, x + (j + 1) * step + i, 16);
            c = FASTGD_SHUFFLE2(a, b, 0, 2);
            d = FASTGD_SHUFFLE2(a, b, 1, 3);
            memcpy(out + i * out_step + j, &c, 16);
            memcpy(out + (i + 1) * out_step + j, &d, 16);
        }
        for (; i < n; i++)
            for (ptrdiff_t k = j; k < j + 2; k++) out[i * out_step + k] = x[k * step + i];
    }
    for (; j < m; j++)
        for (i = 0; i < n; i++) out[i * out_step + j] = x[j * step + i];
}

#endif
