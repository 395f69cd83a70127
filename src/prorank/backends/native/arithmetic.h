/* Some numbers at a time: what the other parts of native.c compute with. Each instruction set has a header with the
 * same types and functions; the compiler's flags choose. */
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum { PANEL = 64 };   /* outputs that stand together */
enum { GROUP = 64 };   /* neighbouring inputs that are spread together and share a scale */
enum { SIXTEEN = 16 }; /* sums of floats at a time, whatever a vector holds: all add in one order */

typedef uint16_t bf16;

#if defined(PRORANK_AVX512)
#include "avx512.h"
#elif defined(PRORANK_AVX2)
#include "avx2.h"
#elif defined(PRORANK_NEON)
#include "neon.h"
#else
#error "name an instruction set: -DPRORANK_AVX512, -DPRORANK_AVX2 or -DPRORANK_NEON"
#endif

enum { VECTORS = PANEL / LANES, SUMS = SIXTEEN / LANES };

/* e^x by 2^n times Taylor's series of 2^f, |f| <= 1/2; relative error below 2e-7. */
INLINE Floats exponential(Floats x) {
    const Floats y = times(larger(x, every(-87.0f)), every(1.44269504f));
    const Floats n = whole(y), f = subtract(y, n);
    Floats p = every(1.54035304e-4f);
    p = times_add(p, f, every(1.33335581e-3f));
    p = times_add(p, f, every(9.61812911e-3f));
    p = times_add(p, f, every(5.55041087e-2f));
    p = times_add(p, f, every(2.40226507e-1f));
    p = times_add(p, f, every(6.93147181e-1f));
    p = times_add(p, f, every(1.0f));
    return times_power(p, n);
}
