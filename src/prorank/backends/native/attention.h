/* Attention of a few neighbouring tokens of one head, in bfloat16 with float32 sums. */
#pragma once
#include "model.h"

/* Turn a head by its position, in place, after its norm where it has one. */
static void rotate(float *x, const float *norm, float epsilon, int size, const float *cosine, const float *sine) {
    const int half = size / 2;
    if (norm) {
        float sum = 0;
        for (int i = 0; i < size; i++) sum += x[i] * x[i];
        const float factor = 1.0f / sqrtf(sum / (float)size + epsilon);
        for (int i = 0; i < size; i++) x[i] = x[i] * factor * norm[i];
    }
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

static void narrow(const float *x, float factor, int count, bf16 *out) {
    const __m512 by = _mm512_set1_ps(factor);
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 some = first(count - i);
        _mm256_mask_storeu_epi16(out + i, some, to_bf16(_mm512_mul_ps(_mm512_maskz_loadu_ps(some, x + i), by)));
    }
}

/* Keys and values of positions from `at`, as panels: keys [positions / 64][size / 2][64][2], values
 * [size / 64][positions / 2][64][2]. */
static void pack(const bf16 *keys, const bf16 *values, int count, int at, int size, int capacity, bf16 *key_panels,
                 bf16 *value_panels) {
    const int pairs = size / 2;
    for (int i = 0; i < count; i++) {
        const int position = at + i;
        bf16 *key = key_panels + ((size_t)(position / PANEL) * pairs * PANEL + position % PANEL) * 2;
        for (int p = 0; p < pairs; p++) memcpy(key + (size_t)p * PANEL * 2, keys + (size_t)i * size + 2 * p, 4);
        for (int d = 0; d < size; d++) {
            const size_t pair = (size_t)(d / PANEL) * (capacity / 2) + position / 2;
            value_panels[(pair * PANEL + d % PANEL) * 2 + position % 2] = values[(size_t)i * size + d];
        }
    }
}

/* out[rows][64] = a[rows][2 pairs] times a panel [pairs][64][2]. */
INLINE void product(const int rows, const bf16 *a, size_t a_stride, int pairs, const bf16 *panel, float *out,
                    size_t out_stride) {
    __m512 sum[ROWS][VECTORS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = _mm512_setzero_ps();
    for (int p = 0; p < pairs; p++) {
        __m512i w[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) w[v] = _mm512_load_si512(panel + ((size_t)p * PANEL + v * LANES) * 2);
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t two;
            memcpy(&two, a + r * a_stride + 2 * p, 4);
            const __m512i x = _mm512_set1_epi32(two);
            UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = dot2(sum[r][v], x, w[v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS; v++)
        _mm512_storeu_ps(out + r * out_stride + v * LANES, sum[r][v]);
}

static void product_of(int rows, const bf16 *a, size_t a_stride, int pairs, const bf16 *panel, float *out,
                       size_t out_stride) {
    switch (rows) {
        case 1: product(1, a, a_stride, pairs, panel, out, out_stride); break;
        case 2: product(2, a, a_stride, pairs, panel, out, out_stride); break;
        case 3: product(3, a, a_stride, pairs, panel, out, out_stride); break;
        case 4: product(4, a, a_stride, pairs, panel, out, out_stride); break;
        case 5: product(5, a, a_stride, pairs, panel, out, out_stride); break;
        default: product(ROWS, a, a_stride, pairs, panel, out, out_stride);
    }
}

/* Scores to shares of 1, in bfloat16, and zeros up to `padded`; returns 1 / their sum before they were divided. */
static float soften(const float *scores, int visible, int padded, bf16 *shares) {
    __m512 largest = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < visible; i += LANES)
        largest = _mm512_mask_max_ps(largest, first(visible - i), largest, _mm512_loadu_ps(scores + i));
    const __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < padded; i += LANES) {
        const __mmask16 some = i < visible ? first(visible - i) : 0;
        const __m512 e = _mm512_maskz_mov_ps(some, exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + i), most)));
        sum = _mm512_add_ps(sum, e);
        _mm256_storeu_si256((__m256i *)(shares + i), to_bf16(e));
    }
    return 1.0f / _mm512_reduce_add_ps(sum);
}

/* `rows` neighbouring tokens of one head; the first sees `visible` positions, each one more. */
static void attend(int rows, int visible, int size, int capacity, const Space *space, float *out, size_t stride) {
    const int seen = visible + rows - 1, padded = (seen + LANES - 1) / LANES * LANES;
    for (int panel = 0; panel * PANEL < seen; panel++)
        product_of(rows, space->queries, size, size / 2, space->key_panels + (size_t)panel * size * PANEL,
                   space->scores + panel * PANEL, capacity);
    float factors[ROWS];
    for (int r = 0; r < rows; r++) {
        const size_t row = (size_t)r * capacity;
        factors[r] = soften(space->scores + row, visible + r, padded, space->shares + row);
    }
    for (int part = 0; part * PANEL < size; part++) {
        float found[ROWS * PANEL];
        product_of(rows, space->shares, capacity, (seen + 1) / 2, space->value_panels + (size_t)part * capacity * PANEL,
                   found, PANEL);
        const int width = size - part * PANEL < PANEL ? size - part * PANEL : PANEL;
        for (int r = 0; r < rows; r++)
            for (int d = 0; d < width; d++) out[r * stride + part * PANEL + d] = found[r * PANEL + d] * factors[r];
    }
}
