/* Numeric primitives of the kernels: the fused multiply-add and the loads of every gradient format.
 *
 * FASTGD_FMA is a hardware FMA where the target has one and two rounded operations elsewhere. The
 * build passes -ffp-contract=off, so that these calls are the only fused operations: vector bodies,
 * scalar tails and every ISA build with FMA then round identically.
 *
 * Loads go through memcpy, which compiles to one unaligned load: gradients may be misaligned. */
#ifndef FASTGD_NUMERIC_H
#define FASTGD_NUMERIC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
#define FASTGD_FMAF(a, b, c) fmaf((a), (b), (c))
#define FASTGD_FMA(a, b, c) fma((a), (b), (c))
#define FASTGD_HAS_FMA 1
#else
#define FASTGD_FMAF(a, b, c) ((a) * (b) + (c))
#define FASTGD_FMA(a, b, c) ((a) * (b) + (c))
#define FASTGD_HAS_FMA 0
#endif

static inline float fastgd_float_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float fastgd_load_f32(const char *src) {
    float x;
    memcpy(&x, src, sizeof x);
    return x;
}

static inline double fastgd_load_f64(const char *src) {
    double x;
    memcpy(&x, src, sizeof x);
    return x;
}

/* bfloat16 is the upper half of a float32. */
static inline float fastgd_load_bf16(const char *src) {
    uint16_t x;
    memcpy(&x, src, sizeof x);
    return fastgd_float_from_bits((uint32_t)x << 16);
}

/* IEEE binary16, without branches so that it vectorises. Exponent and fraction move into float32's
 * fields; the bias is corrected by integer addition for normal numbers, once more for Inf and NaN,
 * and by a float subtraction for subnormals, which normalises them without touching a float32
 * subnormal (exact even where the caller runs with DAZ). */
static inline float fastgd_load_f16(const char *src) {
    uint16_t x;
    memcpy(&x, src, sizeof x);
    uint32_t magnitude = (uint32_t)(x & 0x7fffu) << 13;
    uint32_t exponent = magnitude & 0x0f800000u;
    uint32_t rebias = magnitude + 0x38000000u;
    uint32_t special = exponent == 0x0f800000u ? 0x38000000u : 0u;
    float normal = fastgd_float_from_bits(rebias + special);
    float subnormal = fastgd_float_from_bits(rebias + 0x00800000u) - fastgd_float_from_bits(0x38800000u);
    float value = exponent == 0u ? subnormal : normal;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return fastgd_float_from_bits(bits | (uint32_t)(x & 0x8000u) << 16);
}

#if defined(__GNUC__)
#define FASTGD_PREFETCH(address) __builtin_prefetch((address), 0, 2)
#else
#define FASTGD_PREFETCH(address) ((void) (address))
#endif

#endif
