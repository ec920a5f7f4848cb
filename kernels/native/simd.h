/* One body, compiled for several instruction sets; the widest that this CPU has is called.
 *
 * A body is plain C that the compiler vectorises. It is inlined into one function an instruction
 * set, so nothing here is written twice, and a CPU without the wide ones runs the baseline. Other
 * architectures (NEON) have the baseline only, which their compilers vectorise as well. */
#ifndef SWARMRT_SIMD_H
#define SWARMRT_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BODY static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

enum simd { BASELINE, AVX2, AVX512 };

#ifndef SIMD_AT_MOST
#define SIMD_AT_MOST AVX512 /* the tests also build with less */
#endif

BODY enum simd simd_level(void) {
#if defined(__x86_64__)
    if (SIMD_AT_MOST >= AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (SIMD_AT_MOST >= AVX2 && __builtin_cpu_supports("avx2"))
        return AVX2;
#endif
    return BASELINE;
}

/* EXPORTED(name, (parameters), (arguments)) defines `name`, which calls `name_body`. */
#if defined(__x86_64__)
#define EXPORTED(name, parameters, arguments)                                                \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))    \
    static void name##_avx512 parameters { name##_body arguments; }                          \
    __attribute__((target("avx2"))) static void name##_avx2 parameters {                     \
        name##_body arguments;                                                               \
    }                                                                                        \
    static void name##_baseline parameters { name##_body arguments; }                        \
    EXPORT void name parameters {                                                            \
        switch (simd_level()) {                                                              \
        case AVX512: name##_avx512 arguments; break;                                         \
        case AVX2: name##_avx2 arguments; break;                                             \
        case BASELINE: name##_baseline arguments; break;                                     \
        }                                                                                    \
    }
#else
#define EXPORTED(name, parameters, arguments) \
    EXPORT void name parameters { name##_body arguments; }
#endif

/* Of the functions' parameters; kernels/compiled.py refuses a library with another one. */
#define INTERFACE 3

/* The cache is passed by for an output that is too large to be read from it again: that saves
 * reading the lines that are about to be overwritten. glibc's memcpy does the same. */
#define STREAM_BYTES ((size_t)4 << 20)
#define STREAM_ALIGNMENT 16 /* of the output; parts of a tensor begin anywhere */

#if defined(__x86_64__)
#include <emmintrin.h>
BODY void stream(void *restrict to, const void *restrict from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 16)
        _mm_stream_si128((__m128i *)((char *)to + i),
                         _mm_load_si128((const __m128i *)((const char *)from + i)));
}
BODY void stream_end(void) { _mm_sfence(); }
#else
BODY void stream(void *restrict to, const void *restrict from, size_t bytes) {
    memcpy(to, from, bytes);
}
BODY void stream_end(void) {}
#endif

#endif
