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

/* A key or a value; `count` is a multiple of 16. */
static void narrow(const float *x, int count, bf16 *out) {
    for (int i = 0; i < count; i += LANES) store_bf16(out + i, load(x + i));
}

/* A query. */
static void narrow_query(const float *x, float factor, int count, Factor *out) {
    for (int i = 0; i < count; i += LANES) store_factors(out + i, times(load(x + i), every(factor)));
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
INLINE void product(const int rows, const Factor *a, size_t a_stride, int pairs, const bf16 *panel, float *out,
                    size_t out_stride) {
    for (int first = 0; first < VECTORS; first += ACROSS) {
        Floats sum[ROWS][ACROSS];
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < ACROSS; v++) sum[r][v] = every(0.0f);
        for (int p = 0; p < pairs; p++) UNROLL for (int part = 0; part < PARTS; part++) {
            Pairs w[ACROSS];
            UNROLL for (int v = 0; v < ACROSS; v++)
                w[v] = load_pairs(panel + ((size_t)p * PANEL + (first + v) * LANES) * 2, part);
            UNROLL for (int r = 0; r < rows; r++) {
                const Pairs x = repeat_factor(a + r * a_stride + 2 * p, part);
                UNROLL for (int v = 0; v < ACROSS; v++) sum[r][v] = add_products(sum[r][v], x, w[v]);
            }
        }
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < ACROSS; v++)
            store(out + r * out_stride + (first + v) * LANES, sum[r][v]);
    }
}

static void product_of(int rows, const Factor *a, size_t a_stride, int pairs, const bf16 *panel, float *out,
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
static float soften(const float *scores, int visible, int padded, Factor *shares) {
    Floats largest = every(-INFINITY), sum[SUMS];
    for (int i = 0; i < visible; i += LANES)
        largest = larger(largest, first_of(visible - i, load(scores + i), largest));
    const Floats most = every(largest_of(largest));
    UNROLL for (int v = 0; v < SUMS; v++) sum[v] = every(0.0f);
    for (int i = 0; i < padded; i += SIXTEEN)
        UNROLL for (int v = 0; v < SUMS; v++) {
            const int at = i + v * LANES;
            const Floats share = exponential(subtract(load(scores + at), most));
            const Floats e = first_of(visible - at, share, every(0.0f));
            sum[v] = add(sum[v], e);
            store_factors(shares + at, e);
        }
    return 1.0f / sum_of(sum);
}

/* `rows` neighbouring tokens of one head; the first sees `visible` positions, each one more. */
static void attend(int rows, int visible, int size, int capacity, const Space *space, float *out, size_t stride) {
    const int seen = visible + rows - 1, padded = (seen + SIXTEEN - 1) / SIXTEEN * SIXTEEN;
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
