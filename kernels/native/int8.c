/* Blockwise int8: what kernels/reference.py does, to the bit.
 *
 * `values`, `residual`, `total` and `out` have `count` fp32 values, `codes` as many int8 values and
 * `scales` one fp32 value for each block of `block` values; the last block may be shorter.
 * No pointer need be aligned beyond its type, and none may overlap another. */
#include "simd.h"

#define SMALLEST_ABSMAX 0x1.fcp-120f /* 127 * 2^-126: below it the scale would be subnormal */
#define ROUND_MAGIC 0x1.8p23f        /* x + this is x rounded to nearest even, |x| < 2^22 */
#define INFINITE_BITS 0x7f800000u
#define CHUNK 256 /* values decoded at a time when they are streamed: 1 KiB, in the L1 cache */

BODY uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

BODY float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Bijection of 32-bit words: the finalizer of MurmurHash3 (Austin Appleby, public domain). */
BODY uint32_t mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

/* Positive floats are ordered as their bits are, with infinity and NaN above all others. */
BODY uint32_t absmax_bits(const float *restrict values, size_t count) {
    int32_t most = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t bits = (int32_t)(bits_of(values[i]) & 0x7fffffffu);
        most = bits > most ? bits : most;
    }
    return (uint32_t)most;
}

BODY void round_nearest(const float *restrict values, int8_t *restrict codes, size_t count,
                        float inverse) {
    for (size_t i = 0; i < count; i++)
        codes[i] = (int8_t)(uint8_t)bits_of(values[i] * inverse + ROUND_MAGIC);
}

/* Up with the probability of the fraction. (All in floats: gcc 12 vectorises no other way of
 * writing it.) `first` is the index of values[0] in the tensor. */
BODY void round_stochastic(const float *restrict values, int8_t *restrict codes, size_t count,
                           float inverse, size_t first, uint32_t key) {
    for (size_t i = 0; i < count; i++) {
        float exact = values[i] * inverse;
        exact = exact < 127.0f ? exact : 127.0f;
        exact = exact > -127.0f ? exact : -127.0f;
        float down = (exact + ROUND_MAGIC) - ROUND_MAGIC;
        down = down > exact ? down - 1.0f : down;
        float drawn = (float)(int32_t)(mix(mix((uint32_t)(first + i)) + key) >> 8) * 0x1p-24f;
        float rounded = down + (drawn < exact - down ? 1.0f : 0.0f);
        codes[i] = (int8_t)(int32_t)rounded;
    }
}

/* One block's codes; its scale. `first` and `key` are for stochastic rounding. */
BODY float encode_block(const float *restrict values, int8_t *restrict codes, size_t count,
                        int stochastic, size_t first, uint32_t key) {
    uint32_t most = absmax_bits(values, count);
    if (most >= INFINITE_BITS || float_of(most) < SMALLEST_ABSMAX) {
        memset(codes, 0, count);
        return most >= INFINITE_BITS ? float_of(0x7fc00000u) : 0.0f;
    }
    float absmax = float_of(most), inverse = 127.0f / absmax;
    if (stochastic)
        round_stochastic(values, codes, count, inverse, first, key);
    else
        round_nearest(values, codes, count, inverse);
    return absmax / 127.0f;
}

BODY void swarmrt_int8_encode_body(const float *restrict values, float *restrict scales,
                                   int8_t *restrict codes, size_t count, size_t block,
                                   int stochastic, uint32_t key) {
    for (size_t at = 0; at < count; at += block) {
        size_t size = count - at < block ? count - at : block;
        *scales++ = encode_block(values + at, codes + at, size, stochastic, at, key);
    }
}

EXPORTED(swarmrt_int8_encode,
         (const float *values, float *scales, int8_t *codes, size_t count, size_t block,
          int stochastic, uint32_t key),
         (values, scales, codes, count, block, stochastic, key))

/* Encodes values + residual; what the codes fail to say is the new residual. A block that is not
 * finite leaves none, or it would be so forever. */
BODY void swarmrt_int8_encode_feedback_body(const float *restrict values, float *restrict residual,
                                            float *restrict scales, int8_t *restrict codes,
                                            size_t count, size_t block, int stochastic,
                                            uint32_t key) {
    for (size_t at = 0; at < count; at += block) {
        size_t size = count - at < block ? count - at : block;
        float *left = residual + at;
        for (size_t i = 0; i < size; i++)
            left[i] = values[at + i] + left[i];
        float scale = encode_block(left, codes + at, size, stochastic, at, key);
        for (size_t i = 0; i < size; i++) {
            float lost = left[i] - (float)codes[at + i] * scale;
            left[i] = (bits_of(lost) & INFINITE_BITS) == INFINITE_BITS ? 0.0f : lost;
        }
        *scales++ = scale;
    }
}

EXPORTED(swarmrt_int8_encode_feedback,
         (const float *values, float *residual, float *scales, int8_t *codes, size_t count,
          size_t block, int stochastic, uint32_t key),
         (values, residual, scales, codes, count, block, stochastic, key))

BODY void decode_values(const int8_t *restrict codes, float *restrict out, size_t count,
                        float scale) {
    for (size_t i = 0; i < count; i++)
        out[i] = (float)codes[i] * scale;
}

BODY void swarmrt_int8_decode_body(const float *restrict scales, const int8_t *restrict codes,
                                   float *restrict out, size_t count, size_t block) {
    int large = count * sizeof(float) >= STREAM_BYTES && block % CHUNK == 0 &&
                (uintptr_t)out % STREAM_ALIGNMENT == 0;
    size_t at = 0;
    if (large) {
        _Alignas(STREAM_ALIGNMENT) float decoded[CHUNK];
        for (; at + CHUNK <= count; at += CHUNK) {
            decode_values(codes + at, decoded, CHUNK, scales[at / block]);
            stream(out + at, decoded, sizeof decoded);
        }
        stream_end();
    }
    while (at < count) {
        size_t size = block - at % block;
        size = count - at < size ? count - at : size;
        decode_values(codes + at, out + at, size, scales[at / block]);
        at += size;
    }
}

EXPORTED(swarmrt_int8_decode,
         (const float *scales, const int8_t *codes, float *out, size_t count, size_t block),
         (scales, codes, out, count, block))

BODY void swarmrt_int8_accumulate_body(const float *restrict scales, const int8_t *restrict codes,
                                       float *restrict total, size_t count, size_t block) {
    for (size_t at = 0; at < count; at += block) {
        size_t size = count - at < block ? count - at : block;
        float scale = *scales++;
        for (size_t i = 0; i < size; i++)
            total[at + i] = total[at + i] + (float)codes[at + i] * scale;
    }
}

EXPORTED(swarmrt_int8_accumulate,
         (const float *scales, const int8_t *codes, float *total, size_t count, size_t block),
         (scales, codes, total, count, block))
