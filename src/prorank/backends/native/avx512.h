/* 16 numbers at a time: AVX-512 with VNNI, and with bfloat16 where the processor multiplies it. */
#pragma once
#include <immintrin.h>

enum { LANES = 16, ROWS = 6, ACROSS = 4 }; /* a tile: 6 tokens, 4 vectors of outputs: 24 of 32 registers */
enum { STEP = 4, OFFSET = 128 };           /* inputs that one instruction adds up; they are bytes from 128 - 127 */

typedef __m512 Floats;
typedef __m512i Ints;
typedef uint8_t Rounded;

INLINE Floats every(float x) { return _mm512_set1_ps(x); }
INLINE Floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, Floats x) { _mm512_storeu_ps(to, x); }
INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
INLINE Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
INLINE Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
INLINE Floats absolute(Floats x) { return _mm512_abs_ps(x); }
INLINE Floats times_add(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
INLINE Floats whole(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE Floats times_power(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }

/* The first `count` of `yes`, the others of `no`. */
INLINE Floats first_of(int count, Floats yes, Floats no) {
    const int some = count < 0 ? 0 : count > LANES ? LANES : count;
    return _mm512_mask_mov_ps(no, (__mmask16)((1u << some) - 1), yes);
}

INLINE float largest_of(Floats x) { return _mm512_reduce_max_ps(x); }
INLINE float sum_of(const Floats x[SIXTEEN / LANES]) { return _mm512_reduce_add_ps(x[0]); }

INLINE Ints load_ints(const int32_t *from) { return _mm512_loadu_si512(from); }
INLINE Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
INLINE Ints load_weights(const int8_t *from) { return _mm512_load_si512(from); }

/* STEP inputs, in every lane. */
INLINE Ints repeat(const Rounded *from) {
    int32_t four;
    memcpy(&four, from, 4);
    return _mm512_set1_epi32(four);
}

/* The compiler would keep the sums in memory if it saw through this, and through `add_products`. */
INLINE Ints dot(Ints sum, Ints inputs, Ints weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(inputs), "v"(weights));
    return sum;
}

INLINE void store_rounded(Rounded *to, Floats x) {
    const __m512i steps = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(OFFSET));
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(steps));
}

/* Rounded to bfloat16, the nearest, ties to even, as the upper half of 32 bits. */
INLINE Ints to_bf16(Floats x) {
    const Ints bits = _mm512_castps_si512(x);
    const Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

INLINE void store_bf16(bf16 *to, Floats x) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(to_bf16(x), 16)));
}

#ifdef PRORANK_BF16
enum { PARTS = 1 }; /* instructions for a pair of products */
typedef bf16 Factor;
typedef Ints Pairs;

INLINE void store_factors(Factor *to, Floats x) { store_bf16(to, x); }
INLINE Pairs load_pairs(const bf16 *from, int part) { return (void)part, _mm512_load_si512(from); }

INLINE Pairs repeat_factor(const Factor *from, int part) {
    int32_t two;
    memcpy(&two, from + part, 4);
    return _mm512_set1_epi32(two);
}

INLINE Floats add_products(Floats sum, Pairs a, Pairs b) {
#ifdef PRORANK_EMULATED /* for a test on a processor without it */
    const Ints high = _mm512_set1_epi32((int)0xffff0000);
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                          _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                           _mm512_castsi512_ps(_mm512_and_si512(b, high)), sum);
#else
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#endif
}

#else
enum { PARTS = 2 }; /* instructions for a pair of products: its first, its second */
typedef float Factor;
typedef Floats Pairs;

INLINE void store_factors(Factor *to, Floats x) {
    store(to, _mm512_castsi512_ps(_mm512_and_si512(to_bf16(x), _mm512_set1_epi32((int)0xffff0000))));
}

INLINE Pairs load_pairs(const bf16 *from, int part) {
    const Ints both = _mm512_load_si512(from);
    return _mm512_castsi512_ps(part ? _mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000))
                                    : _mm512_slli_epi32(both, 16));
}

INLINE Pairs repeat_factor(const Factor *from, int part) { return every(from[part]); }

INLINE Floats add_products(Floats sum, Pairs a, Pairs b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
#endif

INLINE Floats load_f16(const uint16_t *from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)); }

/* A vector times the Hadamard matrix of its length. */
INLINE Floats spread_within(Floats y) {
    const __m512 zero = _mm512_setzero_ps();
    y = _mm512_add_ps(_mm512_shuffle_f32x4(y, y, 0x4e), _mm512_mask_sub_ps(y, 0xff00, zero, y));
    y = _mm512_add_ps(_mm512_shuffle_f32x4(y, y, 0xb1), _mm512_mask_sub_ps(y, 0xf0f0, zero, y));
    y = _mm512_add_ps(_mm512_permute_ps(y, 0x4e), _mm512_mask_sub_ps(y, 0xcccc, zero, y));
    return _mm512_add_ps(_mm512_permute_ps(y, 0xb1), _mm512_mask_sub_ps(y, 0xaaaa, zero, y));
}
