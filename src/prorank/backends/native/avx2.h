/* 8 numbers at a time: AVX2 with FMA, and with AVX-VNNI (or AVX-512's VNNI at this width) where it is compiled for it.
 *
 * AVX2 multiplies bytes into 16 bits that overflow: 255 * 128 * 2 does not fit. So its inputs are 16 bits wide, the
 * weights are widened as they are loaded, and vpmaddwd adds up two products at a time, exactly. */
#pragma once
#include <immintrin.h>

#if defined(__AVXVNNI__) || defined(__AVX512VNNI__)
#define BYTES
#endif

enum { LANES = 8, ROWS = 6, ACROSS = 2 }; /* a tile: 6 tokens, 2 vectors of outputs: 12 of 16 registers */

typedef __m256 Floats;
typedef __m256i Ints;

INLINE Floats every(float x) { return _mm256_set1_ps(x); }
INLINE Floats load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store(float *to, Floats x) { _mm256_storeu_ps(to, x); }
INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
INLINE Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
INLINE Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
INLINE Floats absolute(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
INLINE Floats times_add(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
INLINE Floats whole(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/* In two steps, because 2^n alone may be too large or too small for a float. */
INLINE Floats times_power(Floats x, Floats n) {
    const Ints all = _mm256_cvtps_epi32(_mm256_min_ps(n, _mm256_set1_ps(252.0f))), half = _mm256_srai_epi32(all, 1);
    const Ints rest = _mm256_sub_epi32(all, half), bias = _mm256_set1_epi32(127);
    x = times(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return times(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

/* The first `count` of `yes`, the others of `no`. */
INLINE Floats first_of(int count, Floats yes, Floats no) {
    const Ints places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), places)));
}

INLINE float sum_of(const Floats x[SIXTEEN / LANES]) {
    const __m256 eight = _mm256_add_ps(x[0], x[1]);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(two) + _mm_cvtss_f32(_mm_movehdup_ps(two));
}

INLINE float largest_of(Floats x) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE Ints load_ints(const int32_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }

/* 8 numbers in 16 bits, from 32: what lies above is lost. */
INLINE __m128i halves(Ints x) {
    const __m256i low = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12,
                                         13, -1, -1, -1, -1, -1, -1, -1, -1);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_shuffle_epi8(x, low), 0x08));
}

/* The compiler would keep the sums in memory if it saw through `dot` and `add_products`. */
#ifdef BYTES
enum { STEP = 4, OFFSET = 128 }; /* inputs that one instruction adds up; they are bytes from 128 - 127 */
typedef uint8_t Rounded;
#ifdef __AVX512VNNI__
#define VEX ""
#else
#define VEX "%{vex%} "
#endif

INLINE Ints load_weights(const int8_t *from) { return _mm256_load_si256((const __m256i *)from); }

INLINE Ints dot(Ints sum, Ints inputs, Ints weights) {
    __asm__(VEX "vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(inputs), "x"(weights));
    return sum;
}

INLINE void store_rounded(Rounded *to, Floats x) {
    const __m128i steps = halves(_mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(OFFSET)));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(steps, steps));
}
#else
enum { STEP = 2, OFFSET = 0 };
typedef int16_t Rounded;

INLINE Ints load_weights(const int8_t *from) { return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)from)); }

INLINE Ints dot(Ints sum, Ints inputs, Ints weights) {
    Ints two;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(two) : "x"(inputs), "x"(weights));
    return sum;
}

INLINE void store_rounded(Rounded *to, Floats x) { _mm_storeu_si128((__m128i *)to, halves(_mm256_cvtps_epi32(x))); }
#endif

/* STEP inputs, in every lane. */
INLINE Ints repeat(const Rounded *from) {
    int32_t some;
    memcpy(&some, from, 4);
    return _mm256_set1_epi32(some);
}

/* Rounded to bfloat16, the nearest, ties to even, as the upper half of 32 bits. */
INLINE Ints to_bf16(Floats x) {
    const Ints bits = _mm256_castps_si256(x);
    const Ints odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}

INLINE void store_bf16(bf16 *to, Floats x) {
    _mm_storeu_si128((__m128i *)to, halves(_mm256_srli_epi32(to_bf16(x), 16)));
}

enum { PARTS = 2 }; /* instructions for a pair of products: its first, its second */
typedef float Factor;
typedef Floats Pairs;

INLINE void store_factors(Factor *to, Floats x) {
    store(to, _mm256_castsi256_ps(_mm256_and_si256(to_bf16(x), _mm256_set1_epi32((int)0xffff0000))));
}

INLINE Pairs load_pairs(const bf16 *from, int part) {
    const Ints both = _mm256_load_si256((const __m256i *)from);
    return _mm256_castsi256_ps(part ? _mm256_and_si256(both, _mm256_set1_epi32((int)0xffff0000))
                                    : _mm256_slli_epi32(both, 16));
}

INLINE Pairs repeat_factor(const Factor *from, int part) { return every(from[part]); }

INLINE Floats add_products(Floats sum, Pairs a, Pairs b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}

INLINE Floats load_f16(const uint16_t *from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }

/* `shuffled` and x with the signs of `negative` turned, added. */
INLINE Floats butterfly(Floats shuffled, Floats x, Floats negative) {
    return add(shuffled, _mm256_xor_ps(x, negative));
}

/* A vector times the Hadamard matrix of its length. */
INLINE Floats spread_within(Floats y) {
    const float p = 0.0f, m = -0.0f;
    y = butterfly(_mm256_permute2f128_ps(y, y, 0x01), y, _mm256_setr_ps(p, p, p, p, m, m, m, m));
    y = butterfly(_mm256_permute_ps(y, 0x4e), y, _mm256_setr_ps(p, p, m, m, p, p, m, m));
    return butterfly(_mm256_permute_ps(y, 0xb1), y, _mm256_setr_ps(p, m, p, m, p, m, p, m));
}
