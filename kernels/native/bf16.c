/* bfloat16: the upper half of an fp32 value, rounded to nearest even; what kernels/reference.py
 * does, to the bit but for which NaN a NaN becomes.
 *
 * `values`, `residual`, `total` and `out` have `count` fp32 values, `halves` as many bfloat16 ones. */
#include "simd.h"

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

/* Rounding could carry a NaN's bits over into infinity's or zero's, so a NaN is replaced. */
BODY uint16_t half_of(float x) {
    uint32_t bits = bits_of(x);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0u : rounded);
}

BODY float float_of_half(uint16_t half) { return float_of((uint32_t)half << 16); }

BODY void swarmrt_bf16_encode_body(const float *restrict values, uint16_t *restrict halves,
                                   size_t count) {
    for (size_t i = 0; i < count; i++)
        halves[i] = half_of(values[i]);
}

EXPORTED(swarmrt_bf16_encode, (const float *values, uint16_t *halves, size_t count),
         (values, halves, count))

/* Encodes values + residual; what the halves fail to say is the new residual, or 0 where it would
 * not be finite. */
BODY void swarmrt_bf16_encode_feedback_body(const float *restrict values, float *restrict residual,
                                            uint16_t *restrict halves, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float corrected = values[i] + residual[i];
        halves[i] = half_of(corrected);
        float lost = corrected - float_of_half(halves[i]);
        residual[i] = (bits_of(lost) & INFINITE_BITS) == INFINITE_BITS ? 0.0f : lost;
    }
}

EXPORTED(swarmrt_bf16_encode_feedback,
         (const float *values, float *residual, uint16_t *halves, size_t count),
         (values, residual, halves, count))

BODY void decode_values(const uint16_t *restrict halves, float *restrict out, size_t count) {
    for (size_t i = 0; i < count; i++)
        out[i] = float_of_half(halves[i]);
}

BODY void swarmrt_bf16_decode_body(const uint16_t *restrict halves, float *restrict out,
                                   size_t count) {
    size_t at = 0;
    if (count * sizeof(float) >= STREAM_BYTES && (uintptr_t)out % STREAM_ALIGNMENT == 0) {
        _Alignas(STREAM_ALIGNMENT) float decoded[CHUNK];
        for (; at + CHUNK <= count; at += CHUNK) {
            decode_values(halves + at, decoded, CHUNK);
            stream(out + at, decoded, sizeof decoded);
        }
        stream_end();
    }
    decode_values(halves + at, out + at, count - at);
}

EXPORTED(swarmrt_bf16_decode, (const uint16_t *halves, float *out, size_t count),
         (halves, out, count))

BODY void swarmrt_bf16_accumulate_body(const uint16_t *restrict halves, float *restrict total,
                                       size_t count) {
    for (size_t i = 0; i < count; i++)
        total[i] = total[i] + float_of_half(halves[i]);
}

EXPORTED(swarmrt_bf16_accumulate, (const uint16_t *halves, float *total, size_t count),
         (halves, total, count))
