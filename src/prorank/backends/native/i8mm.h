/* Linear layers by 64-bit ARM's products of 2 by 8 and 8 by 2 int8 (Graviton 3 and later, Apple M2 and later). */
#pragma once
#include "model.h"

/* `sums` of linear.h, two tokens at a time; of an odd number the last is multiplied twice. */
INLINE void group_sums(const int rows, const Rounded *rounded, int inputs, const int8_t *weights, const int32_t *shift,
                       Ints sum[ROWS][ACROSS]) {
    enum { PAIRS = ROWS / 2, COLUMNS = 2 * ACROSS }; /* a register: 2 tokens, 2 outputs */
    Ints both[PAIRS][COLUMNS];
    UNROLL for (int p = 0; 2 * p < rows; p++) UNROLL for (int c = 0; c < COLUMNS; c++) {
        const int32x2_t start = vld1_s32(shift + 2 * c);
        both[p][c] = vcombine_s32(start, start);
    }
    for (int k = 0; k < GROUP; k += STEP) {
        int8x16_t some[PAIRS];
        UNROLL for (int p = 0; 2 * p < rows; p++) {
            const Rounded *first = rounded + (size_t)2 * p * inputs + k;
            some[p] = vcombine_s8(vld1_s8(first), vld1_s8(2 * p + 1 < rows ? first + inputs : first));
        }
        UNROLL for (int c = 0; c < COLUMNS; c++) {
            const int8x16_t w = vld1q_s8(weights + (size_t)k * PANEL + 2 * c * STEP);
            UNROLL for (int p = 0; 2 * p < rows; p++) both[p][c] = vmmlaq_s32(both[p][c], some[p], w);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < ACROSS; v++) {
        const Ints a = both[r / 2][2 * v], b = both[r / 2][2 * v + 1];
        sum[r][v] = r % 2 ? vcombine_s32(vget_high_s32(a), vget_high_s32(b))
                          : vcombine_s32(vget_low_s32(a), vget_low_s32(b));
    }
}
