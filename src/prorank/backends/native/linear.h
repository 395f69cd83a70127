/* Linear layers: inputs are rounded to bytes, and multiplied 6 tokens by 64 outputs at a time. */
#pragma once
#include "model.h"

/* Root mean square over a row, its inverse: what a norm multiplies with. */
static float inverse_rms(const float *x, int width, float epsilon) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < width; i += LANES) {
        const __m512 v = _mm512_loadu_ps(x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    return 1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)width + epsilon);
}

/* A group times the Hadamard matrix (+1 and -1, Sylvester's order): what stood out in one place is spread over all. */
INLINE void spread(__m512 x[VECTORS]) {
    static const uint16_t negative[4] = {0xff00, 0xf0f0, 0xcccc, 0xaaaa};
    for (int half = 1; half < VECTORS; half *= 2)
        UNROLL for (int v = 0; v < VECTORS; v++)
            if (!(v & half)) {
                const __m512 a = x[v], b = x[v + half];
                x[v] = _mm512_add_ps(a, b);
                x[v + half] = _mm512_sub_ps(a, b);
            }
    UNROLL for (int v = 0; v < VECTORS; v++) {
        __m512 y = x[v];
        const __m512 zero = _mm512_setzero_ps();
        y = _mm512_add_ps(_mm512_shuffle_f32x4(y, y, 0x4e), _mm512_mask_sub_ps(y, negative[0], zero, y));
        y = _mm512_add_ps(_mm512_shuffle_f32x4(y, y, 0xb1), _mm512_mask_sub_ps(y, negative[1], zero, y));
        y = _mm512_add_ps(_mm512_permute_ps(y, 0x4e), _mm512_mask_sub_ps(y, negative[2], zero, y));
        x[v] = _mm512_add_ps(_mm512_permute_ps(y, 0xb1), _mm512_mask_sub_ps(y, negative[3], zero, y));
    }
}

/* A token's inputs, spread, as bytes: 128 + the nearest of -127..127 steps, a step a 127th of the group's largest. */
static void round_row(const float *x, const float *norm, float epsilon, int width, uint8_t *bytes, float *scales) {
    const __m512 factor = _mm512_set1_ps(norm ? inverse_rms(x, width, epsilon) : 1.0f);
    for (int start = 0; start < width; start += GROUP) {
        __m512 value[VECTORS], largest = _mm512_setzero_ps();
        UNROLL for (int v = 0; v < VECTORS; v++) {
            const int at = start + v * LANES;
            value[v] = _mm512_loadu_ps(x + at);
            if (norm) value[v] = _mm512_mul_ps(_mm512_mul_ps(value[v], factor), _mm512_loadu_ps(norm + at));
        }
        spread(value);
        UNROLL for (int v = 0; v < VECTORS; v++) largest = _mm512_max_ps(largest, _mm512_abs_ps(value[v]));
        const float most = _mm512_reduce_max_ps(largest);
        const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
        UNROLL for (int v = 0; v < VECTORS; v++) {
            const __m512i steps = _mm512_cvtps_epi32(_mm512_mul_ps(value[v], inverse));
            _mm_storeu_si128((__m128i *)(bytes + start + v * LANES),
                             _mm512_cvtepi32_epi8(_mm512_add_epi32(steps, _mm512_set1_epi32(128))));
        }
        scales[start / GROUP] = most / (127.0f * 8.0f); /* 8: the root of 64, by which spreading lengthens */
    }
}

static void round_rows(const Linear *to, const float *x, const float *norm, float epsilon, int tokens, Space *space) {
    for (int t = 0; t < tokens; t++)
        round_row(x + (size_t)t * to->inputs, norm, epsilon, to->inputs, space->rounded + (size_t)t * to->inputs,
                  space->scales + (size_t)t * (to->inputs / GROUP));
}

typedef enum { STORE, ADD, GATE } Ending;

/* `rows` tokens times one panel of 64 outputs. */
INLINE void tile(const int rows, const Linear *layer, int panel, const uint8_t *bytes, const float *scales,
                 Ending ending, float *out, size_t stride) {
    const int inputs = layer->inputs, groups = inputs / GROUP;
    const int8_t *weights = layer->weights + (size_t)panel * PANEL * inputs;
    const int32_t *shift = layer->shift + (size_t)panel * PANEL * groups;
    const float *steps = layer->scales + (size_t)panel * PANEL * groups;
    __m512 total[ROWS][VECTORS];
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS; v++) total[r][v] = _mm512_setzero_ps();
    for (int g = 0; g < groups; g++) {
        __m512i sum[ROWS][VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) {
            const __m512i start = _mm512_loadu_si512(shift + g * PANEL + v * LANES);
            UNROLL for (int r = 0; r < rows; r++) sum[r][v] = start;
        }
        for (int k = g * GROUP; k < (g + 1) * GROUP; k += 4) {
            __m512i w[VECTORS];
            UNROLL for (int v = 0; v < VECTORS; v++) w[v] = _mm512_load_si512(weights + (size_t)k * PANEL + v * 64);
            UNROLL for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, bytes + (size_t)r * inputs + k, 4);
                const __m512i a = _mm512_set1_epi32(four);
                UNROLL for (int v = 0; v < VECTORS; v++) sum[r][v] = dot4(sum[r][v], a, w[v]);
            }
        }
        UNROLL for (int r = 0; r < rows; r++) {
            const __m512 step = _mm512_set1_ps(scales[(size_t)r * groups + g]);
            UNROLL for (int v = 0; v < VECTORS; v++) {
                const __m512 both = _mm512_mul_ps(step, _mm512_loadu_ps(steps + g * PANEL + v * LANES));
                total[r][v] = _mm512_fmadd_ps(both, _mm512_cvtepi32_ps(sum[r][v]), total[r][v]);
            }
        }
    }
    if (layer->bias)
        UNROLL for (int v = 0; v < VECTORS; v++) {
            const __m512 bias = _mm512_loadu_ps(layer->bias + panel * PANEL + v * LANES);
            UNROLL for (int r = 0; r < rows; r++) total[r][v] = _mm512_add_ps(total[r][v], bias);
        }
    if (ending == GATE) {
        out += panel * PANEL / 2;
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS / 2; v++) {
            const __m512 gate = total[r][v], one = _mm512_set1_ps(1.0f);
            const __m512 shut = exponential(_mm512_sub_ps(_mm512_setzero_ps(), gate));
            const __m512 open = _mm512_div_ps(gate, _mm512_add_ps(one, shut));
            _mm512_storeu_ps(out + r * stride + v * LANES, _mm512_mul_ps(open, total[r][v + VECTORS / 2]));
        }
        return;
    }
    out += panel * PANEL;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < VECTORS; v++) {
        float *place = out + r * stride + v * LANES;
        if (ending == ADD) total[r][v] = _mm512_add_ps(total[r][v], _mm512_loadu_ps(place));
        _mm512_storeu_ps(place, total[r][v]);
    }
}

/* Rounded inputs times the panels [from, to) of a layer. `stride`: floats between two tokens' outputs. */
INLINE void multiply(const Linear *layer, int from, int to, int tokens, const Space *space, Ending ending,
                     float *out, size_t stride) {
    const int groups = layer->inputs / GROUP;
    for (int panel = from; panel < to; panel++)
        for (int t = 0; t < tokens; t += ROWS) {
            const uint8_t *bytes = space->rounded + (size_t)t * layer->inputs;
            const float *scales = space->scales + (size_t)t * groups;
            float *place = out + t * stride;
            switch (tokens - t) {
                case 1: tile(1, layer, panel, bytes, scales, ending, place, stride); break;
                case 2: tile(2, layer, panel, bytes, scales, ending, place, stride); break;
                case 3: tile(3, layer, panel, bytes, scales, ending, place, stride); break;
                case 4: tile(4, layer, panel, bytes, scales, ending, place, stride); break;
                case 5: tile(5, layer, panel, bytes, scales, ending, place, stride); break;
                default: tile(ROWS, layer, panel, bytes, scales, ending, place, stride);
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
