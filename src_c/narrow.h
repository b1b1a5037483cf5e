/* Optimizer state in fewer bits: bfloat16, and blocks of 8-bit codes with a scale each.
 *
 * Rounded stochastically: up with the probability that makes the stored number right on average, since a
 * second moment that moves by less than half a unit in its last place would never move. The noise is a
 * fixed table XORed with one hash per block, so that the same step gives the same bits whoever takes it.
 *
 * An 8-bit block has FASTGD_CODED elements. Its byte j of word l is element j * WORDS + l: every lane of
 * every loop has 32 bits, and any compiler vectorises it at full width. Blocks come in groups of GROUP:
 * their scales, one line of the cache, then their codes. NaN and infinity in a block make its scale NaN,
 * which then is what all of it decodes to.
 *
 *   root       x >= 0, as a number of 4 bits of exponent and 4 of fraction above a floor b, 2^-15 of the
 *              power of two below the largest: x + b is rounded, so that 0 stays 0 and what is smaller
 *              than b has equal steps of b/16. Something greater than 0 stays so.
 *   signed     the same with a sign and 3 bits of fraction.
 *   ratio      x / √v of a first moment and the second that is stored beside it as its root: a whole number
 *              of 127ths of the block's largest. It is bounded, so that the block's outliers do not take
 *              the other elements' bits, and does not change when its root is rounded. */
#ifndef FASTGD_NARROW_H
#define FASTGD_NARROW_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "noise.h"
#include "numeric.h"

#define FASTGD_CODED 256

enum {
    FASTGD_WORDS = FASTGD_CODED / 4,
    FASTGD_GROUP = 16,                                                   /* blocks */
    FASTGD_GROUP_BYTES = FASTGD_GROUP * (FASTGD_CODED + (int)sizeof(float)),
    FASTGD_ROOT_SHIFT = 19,                                              /* 4 bits of fraction */
    FASTGD_SIGNED_SHIFT = 20,                                            /* 3 */
    FASTGD_BINADES = 15,                                                 /* from the largest to the floor */
};

static inline uint32_t fastgd_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline uint32_t fastgd_most(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* A hash of 32 bits. */
static inline uint32_t fastgd_mix(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* --- bfloat16 --- */

/* What is stored of `bits` when `carry` is added below: a finite number stays finite, and a NaN one as every
 * operation makes it, quiet. */
static inline uint16_t fastgd_upper_half(uint32_t bits, uint32_t carry) {
    return (uint16_t)((bits + ((bits & 0x7fffffffu) < 0x7f7f0000u ? carry : 0u)) >> 16);
}

static inline void fastgd_encode_bf16(uint16_t *restrict out, const float *restrict x, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t bits = fastgd_bits(x[i]);
        out[i] = fastgd_upper_half(bits, 0x7fffu + (bits >> 16 & 1u));
    }
}

/* Elements at … at+n of an array of which `out` is the first, of which a block's noise begins anew. */
static inline void fastgd_encode_bf16_random(uint16_t *restrict out, const float *restrict x, ptrdiff_t at,
                                             ptrdiff_t n, uint32_t seed) {
    while (n > 0) {
        ptrdiff_t within = at % FASTGD_CODED;
        ptrdiff_t run = FASTGD_CODED - within < n ? FASTGD_CODED - within : n;
        const uint32_t *noise = fastgd_noise + within;
        uint32_t hash = fastgd_mix(seed + (uint32_t)(at / FASTGD_CODED));
        for (ptrdiff_t i = 0; i < run; i++)
            out[i] = fastgd_upper_half(fastgd_bits(x[i]), (noise[i] ^ hash) >> 16);
        at += run, n -= run, out += run, x += run;
    }
}

/* --- blocks of 8-bit codes --- */

static inline float *fastgd_scale(char *data, ptrdiff_t block) {
    return (float *)(data + block / FASTGD_GROUP * FASTGD_GROUP_BYTES) + block % FASTGD_GROUP;
}

static inline uint32_t *fastgd_words(char *data, ptrdiff_t block) {
    return (uint32_t *)(data + block / FASTGD_GROUP * FASTGD_GROUP_BYTES +
                        FASTGD_GROUP * sizeof(float) + block % FASTGD_GROUP * FASTGD_CODED);
}

/* The floor of numbers of which the largest has these bits: with what rounding and the floor add it stays
 * below the largest that a code can say. */
static inline float fastgd_floor_of(uint32_t largest) {
    if (largest >= 0x7f800000u)
        return fastgd_float_from_bits(0x7fc00000u);
    uint32_t binade = (largest + (1u << FASTGD_SIGNED_SHIFT) + 512u) & 0x7f800000u;
    uint32_t down = (uint32_t)FASTGD_BINADES << 23;
    return fastgd_float_from_bits(binade > down ? binade - down : 0u);
}

static inline float fastgd_above_floor(uint32_t code, int shift, float floor) {
    return fastgd_float_from_bits((code << shift) + fastgd_bits(floor)) - floor;
}

static inline uint32_t fastgd_steps_above(float x, int shift, float floor, uint32_t noise) {
    return (fastgd_bits(x + floor) - fastgd_bits(floor) + noise) >> shift;
}

static inline void fastgd_decode_root(const char *data, ptrdiff_t block, int squared, float *restrict x) {
    const uint32_t *restrict words = fastgd_words((char *)data, block);
    const float floor = *fastgd_scale((char *)data, block);
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < FASTGD_WORDS; l++) {
            float root = fastgd_above_floor(words[l] >> 8 * j & 255u, FASTGD_ROOT_SHIFT, floor);
            x[j * FASTGD_WORDS + l] = squared ? root * root : root;
        }
}

static inline void fastgd_decode_signed(const char *data, ptrdiff_t block, float *restrict x) {
    const uint32_t *restrict words = fastgd_words((char *)data, block);
    const float floor = *fastgd_scale((char *)data, block);
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < FASTGD_WORDS; l++) {
            uint32_t code = words[l] >> 8 * j;
            float size = fastgd_above_floor(code & 127u, FASTGD_SIGNED_SHIFT, floor);
            x[j * FASTGD_WORDS + l] = fastgd_float_from_bits(fastgd_bits(size) | (code & 128u) << 24);
        }
}

/* A first moment and the second, both. */
static inline void fastgd_decode_ratio(const char *data, const char *beside, ptrdiff_t block,
                                       float *restrict first, float *restrict second) {
    const uint32_t *restrict words = fastgd_words((char *)data, block);
    const uint32_t *restrict roots = fastgd_words((char *)beside, block);
    const float scale = *fastgd_scale((char *)data, block), floor = *fastgd_scale((char *)beside, block);
    for (int j = 0; j < 4; j++)
        for (int l = 0; l < FASTGD_WORDS; l++) {
            float root = fastgd_above_floor(roots[l] >> 8 * j & 255u, FASTGD_ROOT_SHIFT, floor);
            float ratio = (float)((int32_t)(words[l] >> 8 * j & 255u) - 128) * scale;
            second[j * FASTGD_WORDS + l] = root * root;
            first[j * FASTGD_WORDS + l] = ratio * root;
        }
}

static inline uint32_t fastgd_largest(const float *restrict x) {
    uint32_t largest = 0;
    for (int i = 0; i < FASTGD_CODED; i++)
        largest = fastgd_most(largest, fastgd_bits(x[i]) & 0x7fffffffu);
    return largest;
}

/* Roots, all of them: x is what is stored. */
static inline void fastgd_encode_roots(char *data, ptrdiff_t block, const float *restrict x,
                                       uint32_t largest, uint32_t seed) {
    uint32_t *restrict words = fastgd_words(data, block);
    const float floor = *fastgd_scale(data, block) = fastgd_floor_of(largest);
    const uint32_t hash = fastgd_mix(seed + (uint32_t)block);
    for (int l = 0; l < FASTGD_WORDS; l++) {
        uint32_t word = 0;
        for (int j = 0; j < 4; j++) {
            int i = j * FASTGD_WORDS + l;
            uint32_t noise = (fastgd_noise[i] ^ hash) >> (32 - FASTGD_ROOT_SHIFT);
            uint32_t code = fastgd_steps_above(x[i], FASTGD_ROOT_SHIFT, floor, noise);
            word |= fastgd_most(code, x[i] > 0 ? 1u : 0u) << 8 * j;
        }
        words[l] = word;
    }
}

/* x is changed. */
static inline void fastgd_encode_root(char *data, ptrdiff_t block, int squared, float *restrict x,
                                      uint32_t seed) {
    if (squared)
        for (int i = 0; i < FASTGD_CODED; i++)
            x[i] = sqrtf(x[i]);
    fastgd_encode_roots(data, block, x, fastgd_largest(x), seed);
}

static inline void fastgd_encode_signed(char *data, ptrdiff_t block, const float *restrict x,
                                        uint32_t seed) {
    uint32_t *restrict words = fastgd_words(data, block);
    const float floor = *fastgd_scale(data, block) = fastgd_floor_of(fastgd_largest(x));
    const uint32_t hash = fastgd_mix(seed + (uint32_t)block);
    for (int l = 0; l < FASTGD_WORDS; l++) {
        uint32_t word = 0;
        for (int j = 0; j < 4; j++) {
            int i = j * FASTGD_WORDS + l;
            uint32_t noise = (fastgd_noise[i] ^ hash) >> (32 - FASTGD_SIGNED_SHIFT);
            uint32_t code = fastgd_steps_above(fabsf(x[i]), FASTGD_SIGNED_SHIFT, floor, noise);
            word |= ((code & 127u) | (fastgd_bits(x[i]) >> 24 & 128u)) << 8 * j;
        }
        words[l] = word;
    }
}

/* A first moment and the second, which are changed. */
static inline void fastgd_encode_ratio(char *data, char *beside, ptrdiff_t block, float *restrict first,
                                       float *restrict second, uint32_t seed, uint32_t seed_beside) {
    uint32_t *restrict words = fastgd_words(data, block);
    uint32_t largest = 0, largest_root = 0;
    for (int i = 0; i < FASTGD_CODED; i++) {
        float root = sqrtf(second[i]);
        float ratio = first[i] / (root + 1e-18f); /* 0 where there is no root to speak of */
        largest = fastgd_most(largest, fastgd_bits(ratio) & 0x7fffffffu);
        largest_root = fastgd_most(largest_root, fastgd_bits(root) & 0x7fffffffu);
        first[i] = ratio;
        second[i] = root;
    }
    fastgd_encode_roots(beside, block, second, largest_root, seed_beside);
    const float most = fastgd_float_from_bits(largest);
    const float scale = largest >= 0x7f800000u ? fastgd_float_from_bits(0x7fc00000u)
                        : most < 1e-30f        ? 0.0f
                                               : most / 127.0f;
    /* So much below 127 that noise does not carry the largest beyond it. */
    const float inverse = scale > 0 ? 126.99997f / most : 0.0f;
    const uint32_t hash = fastgd_mix(seed + (uint32_t)block) >> 16;
    *fastgd_scale(data, block) = scale;
    for (int l = 0; l < FASTGD_WORDS; l++) {
        uint32_t word = 0;
        for (int j = 0; j < 4; j++) {
            int i = j * FASTGD_WORDS + l;
            /* 128 … 129 in steps of 2^-16; what is cut off below it makes the code. */
            float noise = fastgd_float_from_bits(0x43000000u | (fastgd_noise[i] >> 16 ^ hash));
            float moved = FASTGD_FMAF(first[i], inverse, noise);
            moved = moved > 1.0f ? moved : 1.0f; /* a NaN too */
            word |= (uint32_t)(int32_t)moved << 8 * j;
        }
        words[l] = word;
    }
}

#endif
