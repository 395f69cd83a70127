/* 4 numbers at a time: 64-bit ARM with the dot product of int8 (Graviton 2 and later, Apple M1 and later). */
#pragma once
#include <arm_neon.h>

enum { LANES = 4, ROWS = 6, ACROSS = 4 }; /* a tile: 6 tokens, 4 vectors of outputs: 24 of 32 registers */
#ifdef PRORANK_I8MM
enum { STEP = 8, OFFSET = 0 }; /* see i8mm.h */
#else
enum { STEP = 4, OFFSET = 0 }; /* inputs that one instruction adds up; they have a sign */
#endif

typedef float32x4_t Floats;
typedef int32x4_t Ints;
typedef int8_t Rounded;

INLINE Floats every(float x) { return vdupq_n_f32(x); }
INLINE Floats load(const float *from) { return vld1q_f32(from); }
INLINE void store(float *to, Floats x) { vst1q_f32(to, x); }
INLINE Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return vsubq_f32(a, b); }
INLINE Floats times(Floats a, Floats b) { return vmulq_f32(a, b); }
INLINE Floats divide(Floats a, Floats b) { return vdivq_f32(a, b); }
INLINE Floats larger(Floats a, Floats b) { return vmaxq_f32(a, b); }
INLINE Floats absolute(Floats x) { return vabsq_f32(x); }
INLINE Floats times_add(Floats a, Floats b, Floats sum) { return vfmaq_f32(sum, a, b); }
INLINE Floats whole(Floats x) { return vrndnq_f32(x); }

/* In two steps, because 2^n alone may be too large or too small for a float. */
INLINE Floats times_power(Floats x, Floats n) {
    const Ints all = vcvtq_s32_f32(vminq_f32(n, every(252.0f))), half = vshrq_n_s32(all, 1);
    const Ints rest = vsubq_s32(all, half), bias = vdupq_n_s32(127);
    x = times(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23)));
    return times(x, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23)));
}

/* The first `count` of `yes`, the others of `no`. */
INLINE Floats first_of(int count, Floats yes, Floats no) {
    static const int32_t places[4] = {0, 1, 2, 3};
    return vbslq_f32(vcltq_s32(vld1q_s32(places), vdupq_n_s32(count)), yes, no);
}

/* In the order of the wider ones. */
INLINE float sum_of(const Floats x[SIXTEEN / LANES]) {
    const Floats four = add(add(x[0], x[2]), add(x[1], x[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE float largest_of(Floats x) { return vmaxvq_f32(x); }

INLINE Ints load_ints(const int32_t *from) { return vld1q_s32(from); }
INLINE Floats to_floats(Ints x) { return vcvtq_f32_s32(x); }
#ifndef PRORANK_I8MM
INLINE Ints load_weights(const int8_t *from) { return vreinterpretq_s32_s8(vld1q_s8(from)); }

/* STEP inputs, in every lane. */
INLINE Ints repeat(const Rounded *from) {
    int32_t four;
    memcpy(&four, from, 4);
    return vdupq_n_s32(four);
}

INLINE Ints dot(Ints sum, Ints inputs, Ints weights) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(inputs), vreinterpretq_s8_s32(weights));
}
#endif

INLINE void store_rounded(Rounded *to, Floats x) {
    const int16x4_t steps = vmovn_s32(vcvtnq_s32_f32(x));
    const int8x8_t bytes = vmovn_s16(vcombine_s16(steps, steps));
    vst1_lane_s32((int32_t *)(void *)to, vreinterpret_s32_s8(bytes), 0);
}

/* Rounded to bfloat16, the nearest, ties to even, as the upper half of 32 bits. */
INLINE uint32x4_t to_bf16(Floats x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
}

INLINE void store_bf16(bf16 *to, Floats x) { vst1_u16(to, vshrn_n_u32(to_bf16(x), 16)); }

enum { PARTS = 2 }; /* instructions for a pair of products: its first, its second */
typedef float Factor;
typedef Floats Pairs;

INLINE void store_factors(Factor *to, Floats x) {
    store(to, vreinterpretq_f32_u32(vandq_u32(to_bf16(x), vdupq_n_u32(0xffff0000))));
}

INLINE Pairs load_pairs(const bf16 *from, int part) {
    const uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(from));
    return vreinterpretq_f32_u32(part ? vandq_u32(both, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(both, 16));
}

INLINE Pairs repeat_factor(const Factor *from, int part) { return vld1q_dup_f32(from + part); }
INLINE Floats add_products(Floats sum, Pairs a, Pairs b) { return vfmaq_f32(sum, a, b); }

INLINE Floats load_f16(const uint16_t *from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }

/* `shuffled` and x with the signs of `negative` turned, added. */
INLINE Floats butterfly(Floats shuffled, Floats x, const uint32_t negative[4]) {
    return add(shuffled, vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), vld1q_u32(negative))));
}

/* A vector times the Hadamard matrix of its length. */
INLINE Floats spread_within(Floats y) {
    static const uint32_t upper[4] = {0, 0, 1u << 31, 1u << 31}, odd[4] = {0, 1u << 31, 0, 1u << 31};
    y = butterfly(vextq_f32(y, y, 2), y, upper);
    return butterfly(vrev64q_f32(y), y, odd);
}
