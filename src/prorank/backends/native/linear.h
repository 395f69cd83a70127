/* Linear layers: inputs are rounded to int8, and multiplied by panels of 64 outputs, a few tokens at a time. */
#pragma once
#include "model.h"

#ifdef PRORANK_AMX
#include "amx.h"
enum { TILE = TOKENS }; /* tokens at a time */
#else
enum { SPARE = 0, TILE = ROWS };
#endif

/* Root mean square over a row, its inverse: what a norm multiplies with. */
static float inverse_rms(const float *x, int width, float epsilon) {
    Floats sum[SUMS];
    UNROLL for (int v = 0; v < SUMS; v++) sum[v] = every(0.0f);
    for (int i = 0; i < width; i += SIXTEEN)
        UNROLL for (int v = 0; v < SUMS; v++) {
            const Floats one = load(x + i + v * LANES);
            sum[v] = times_add(one, one, sum[v]);
        }
    return 1.0f / sqrtf(sum_of(sum) / (float)width + epsilon);
}

/* One vector plus and minus another. */
INLINE void cross(Floats *a, Floats *b) {
    const Floats first = *a, second = *b;
    *a = add(first, second);
    *b = subtract(first, second);
}

/* A group times the Hadamard matrix (+1 and -1, Sylvester's order): what stood out in one place is spread over all. */
INLINE void spread(Floats x[VECTORS]) {
    UNROLL for (int v = 0; v < VECTORS; v++) if (!(v & SUMS)) cross(x + v, x + v + SUMS);
    UNROLL for (int v = 0; v < VECTORS; v++) if (!(v & 2 * SUMS)) cross(x + v, x + v + 2 * SUMS);
    UNROLL for (int half = SUMS / 2; half; half /= 2)
        UNROLL for (int v = 0; v < VECTORS; v++) if (!(v & half)) cross(x + v, x + v + half);
    UNROLL for (int v = 0; v < VECTORS; v++) x[v] = spread_within(x[v]);
}

/* A token's inputs, spread: the nearest of -127..127 steps, a step a 127th of the group's largest. */
static void round_row(const float *x, const float *norm, float epsilon, int width, Rounded *rounded, float *scales) {
    const Floats factor = every(norm ? inverse_rms(x, width, epsilon) : 1.0f);
    for (int start = 0; start < width; start += GROUP) {
        Floats value[VECTORS], largest = every(0.0f);
        UNROLL for (int v = 0; v < VECTORS; v++) {
            const int at = start + v * LANES;
            value[v] = load(x + at);
            if (norm) value[v] = times(times(value[v], factor), load(norm + at));
        }
        spread(value);
        UNROLL for (int v = 0; v < VECTORS; v++) largest = larger(largest, absolute(value[v]));
        const float most = largest_of(largest);
        const Floats inverse = every(most > 0 ? 127.0f / most : 0.0f);
        UNROLL for (int v = 0; v < VECTORS; v++)
            store_rounded(rounded + start + v * LANES, times(value[v], inverse));
        scales[start / GROUP] = most / (127.0f * 8.0f); /* 8: the root of 64, by which spreading lengthens */
    }
}

static void round_rows(const Linear *to, const float *x, const float *norm, float epsilon, int tokens,
                       const Space *space) {
    const Share mine = share_of(space->me, tokens);
    for (int t = mine.from; t < mine.to; t++)
        round_row(x + (size_t)t * to->inputs, norm, epsilon, to->inputs, space->rounded + (size_t)t * to->inputs,
                  space->scales + (size_t)t * (to->inputs / GROUP));
}

typedef enum { STORE, ADD, GATE } Ending;

#ifdef PRORANK_I8MM
#include "i8mm.h"
#else
/* `rows` tokens times ACROSS vectors of a panel, over the inputs of one group. */
INLINE void group_sums(const int rows, const Rounded *rounded, int inputs, const int8_t *weights, const int32_t *shift,
                       Ints sum[ROWS][ACROSS]) {
    UNROLL for (int v = 0; v < ACROSS; v++) {
        const Ints start = load_ints(shift + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) sum[r][v] = start;
    }
    for (int k = 0; k < GROUP; k += STEP) {
        Ints w[ACROSS];
        UNROLL for (int v = 0; v < ACROSS; v++) w[v] = load_weights(weights + (size_t)k * PANEL + v * LANES * STEP);
        UNROLL for (int r = 0; r < rows; r++) {
            const Ints some = repeat(rounded + (size_t)r * inputs + k);
            UNROLL for (int v = 0; v < ACROSS; v++) sum[r][v] = dot(sum[r][v], some, w[v]);
        }
    }
}
#endif

/* `rows` tokens times ACROSS vectors of a panel, from vector `first` of it: sums in floats. */
INLINE void sums(const int rows, const Linear *layer, int panel, int first, const Rounded *rounded, const float *scales,
                 Floats total[ROWS][ACROSS]) {
    const int inputs = layer->inputs, groups = inputs / GROUP;
    const int8_t *weights = layer->weights + (size_t)panel * PANEL * inputs + (size_t)first * LANES * STEP;
    const size_t at = (size_t)panel * PANEL * groups + first * LANES;
    const int32_t *shift = layer->shift + at;
    const float *steps = layer->scales + at;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < ACROSS; v++) total[r][v] = every(0.0f);
    for (int g = 0; g < groups; g++) {
        Ints sum[ROWS][ACROSS];
        group_sums(rows, rounded + g * GROUP, inputs, weights + (size_t)g * GROUP * PANEL, shift + g * PANEL, sum);
        UNROLL for (int r = 0; r < rows; r++) {
            const Floats step = every(scales[(size_t)r * groups + g]);
            UNROLL for (int v = 0; v < ACROSS; v++) {
                const Floats both = times(step, load(steps + g * PANEL + v * LANES));
                total[r][v] = times_add(both, to_floats(sum[r][v]), total[r][v]);
            }
        }
    }
    if (layer->bias)
        UNROLL for (int v = 0; v < ACROSS; v++) {
            const Floats bias = load(layer->bias + panel * PANEL + (first + v) * LANES);
            UNROLL for (int r = 0; r < rows; r++) total[r][v] = add(total[r][v], bias);
        }
}

/* What becomes of the sums of one token's outputs from `at` on in a panel. `gates`: room for the panel's first half. */
INLINE void finish(Ending ending, int panel, int at, Floats total, float gates[PANEL / 2], float *out) {
    if (ending == GATE && at < PANEL / 2) store(gates + at, total);
    else if (ending == GATE) {
        const Floats gate = load(gates + at - PANEL / 2);
        const Floats shut = exponential(subtract(every(0.0f), gate));
        const Floats open = divide(gate, add(every(1.0f), shut));
        store(out + panel * PANEL / 2 + at - PANEL / 2, times(open, total));
    } else {
        float *place = out + panel * PANEL + at;
        store(place, ending == ADD ? add(total, load(place)) : total);
    }
}

/* `rows` tokens times one panel of 64 outputs. */
INLINE void tile(const int rows, const Linear *layer, int panel, const Rounded *rounded, const float *scales,
                 Ending ending, float *out, size_t stride) {
    float gates[ROWS][PANEL / 2];
    for (int first = 0; first < VECTORS; first += ACROSS) {
        Floats total[ROWS][ACROSS];
        sums(rows, layer, panel, first, rounded, scales, total);
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < ACROSS; v++)
            finish(ending, panel, (first + v) * LANES, total[r][v], gates[r], out + r * stride);
    }
}

#ifdef PRORANK_AMX
/* Up to 16 tokens times one panel. */
INLINE void tiled(int rows, const Linear *layer, int panel, const Rounded *rounded, const float *scales, Ending ending,
                  float *out, size_t stride) {
    float total[TOKENS][PANEL], gates[PANEL / 2];
    tiled_sums(layer, panel, rounded, scales, total);
    for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS; v++)
        finish(ending, panel, v * LANES, load(total[r] + v * LANES), gates, out + r * stride);
}
#endif

/* Rounded inputs times the panels [from, to) of a layer: this member's share of them, by panels and tokens.
 * `stride`: floats between two tokens' outputs. */
INLINE void multiply(const Linear *layer, int from, int to, int tokens, const Space *space, Ending ending,
                     float *out, size_t stride) {
    const int groups = layer->inputs / GROUP, tiles = (tokens + TILE - 1) / TILE;
    const Share mine = share_of(space->me, (to - from) * tiles);
    for (int i = mine.from; i < mine.to; i++) {
        const int panel = from + i / tiles, t = i % tiles * TILE, rows = tokens - t < TILE ? tokens - t : TILE;
        const Rounded *rounded = space->rounded + (size_t)t * layer->inputs;
        const float *scales = space->scales + (size_t)t * groups;
        float *place = out + t * stride;
#ifdef PRORANK_AMX
        if (rows > ROWS) {
            tiled(rows, layer, panel, rounded, scales, ending, place, stride);
            continue;
        }
#endif
        switch (rows) {
            case 1: tile(1, layer, panel, rounded, scales, ending, place, stride); break;
            case 2: tile(2, layer, panel, rounded, scales, ending, place, stride); break;
            case 3: tile(3, layer, panel, rounded, scales, ending, place, stride); break;
            case 4: tile(4, layer, panel, rounded, scales, ending, place, stride); break;
            case 5: tile(5, layer, panel, rounded, scales, ending, place, stride); break;
            default: tile(ROWS, layer, panel, rounded, scales, ending, place, stride);
        }
    }
}

static void multiply_store(const Linear *layer, int from, int to, int tokens, const Space *space, float *out) {
    multiply(layer, from, to, tokens, space, STORE, out, layer->outputs);
}

static void multiply_add(const Linear *layer, int tokens, const Space *space, float *out) {
    multiply(layer, 0, layer->outputs / PANEL, tokens, space, ADD, out, layer->outputs);
}

static void multiply_gate(const Linear *layer, int tokens, const Space *space, float *out) {
    multiply(layer, 0, layer->outputs / PANEL, tokens, space, GATE, out, layer->outputs / 2);
}
