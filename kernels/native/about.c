/* What kernels/compiled.py asks of the library before it uses it. */
#include "simd.h"

EXPORT int swarmrt_interface(void) { return INTERFACE; }

EXPORT int swarmrt_simd_level(void) { return (int)simd_level(); }
