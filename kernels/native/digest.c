/* The fingerprint of kernels/digest.py: two sums, modulo 2^64, over 64-bit words mixed with their
 * places, of which `place` is the first. `data` has 8 * `words` bytes and need not be aligned; `sums`
 * has two words. */
#include "simd.h"

BODY void swarmrt_fingerprint_body(const uint8_t *restrict data, size_t words, size_t place,
                                   uint64_t *restrict sums) {
    uint64_t first = 0, second = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t x;
        memcpy(&x, data + 8 * i, 8);
        x += (uint64_t)(place + i + 1) * 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        first += x;
        second += (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
    }
    sums[0] = first;
    sums[1] = second;
}

EXPORTED(swarmrt_fingerprint,
         (const uint8_t *data, size_t words, size_t place, uint64_t *sums),
         (data, words, place, sums))
