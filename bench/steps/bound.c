/* The bandwidth bound: the memory traffic of an optimizer's step and next to no arithmetic.
 *
 * One stream is read (the gradients g) and one to three are read and written (parameters and state),
 * by a plain loop over contiguous memory. bound.py places the streams. */
#include <omp.h>

/* Elements below which waking a second thread costs more than it saves. */
#define SERIAL_BELOW 49152
#define MIX(x) (0.999f * (x) + 0.001f * g[i])

static void write1(const float *restrict g, float *restrict a, long n) {
    for (long i = 0; i < n; i++) a[i] = MIX(a[i]);
}

static void write2(const float *restrict g, float *restrict a, float *restrict b, long n) {
    for (long i = 0; i < n; i++) {
        a[i] = MIX(a[i]);
        b[i] = MIX(b[i]);
    }
}

static void write3(const float *restrict g, float *restrict a, float *restrict b,
                   float *restrict c, long n) {
    for (long i = 0; i < n; i++) {
        a[i] = MIX(a[i]);
        b[i] = MIX(b[i]);
        c[i] = MIX(c[i]);
    }
}

/* What clipping adds: the gradients are read once more. */
static float sum_of_squares(const float *g, long n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < n; i++) sum += g[i] * g[i];
    return sum;
}

/* Elements begin … end - 1: the norm (returned) or the update. */
static float pass(float *const *s, int count, int norm, long begin, long end) {
    long n = end - begin;
    if (norm) return sum_of_squares(s[0] + begin, n);
    if (count == 2) write1(s[0] + begin, s[1] + begin, n);
    if (count == 3) write2(s[0] + begin, s[1] + begin, s[2] + begin, n);
    if (count == 4) write3(s[0] + begin, s[1] + begin, s[2] + begin, s[3] + begin, n);
    return 0;
}

static float pass_all(float *const *s, int count, int norm, long n, int threads) {
    float sum = 0;
    if (threads == 1 || n < SERIAL_BELOW) return pass(s, count, norm, 0, n);
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    {
        long lines = n / 16, team = omp_get_num_threads(), me = omp_get_thread_num();
        long end = me + 1 == team ? n : lines * (me + 1) / team * 16;
        sum += pass(s, count, norm, lines * me / team * 16, end);
    }
    return sum;
}

/* `calls` steps over `count` streams s of n elements each; s[0] holds the gradients. */
float bound_run(float *const *s, int count, int clip, long n, int threads, long calls) {
    float sum = 0;
    for (long call = 0; call < calls; call++) {
        if (clip) sum += pass_all(s, count, 1, n, threads);
        pass_all(s, count, 0, n, threads);
    }
    return sum;
}
