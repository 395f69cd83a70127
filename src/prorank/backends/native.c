/* A decoder of Llama's kind (Llama, Mistral, Qwen2, Qwen3) that scores documents on one core.
 *
 * Weights are int8 with a scale for every 64 of an output's inputs. The inputs are multiplied with a Hadamard matrix in
 * groups of 64, which the weights have been, too (QuaRot, arXiv 2404.00456), and rounded to int8 as they come, a scale
 * for the same 64 of a token. A group's sums are exact (int32), what lies between the products is float32, and
 * attention multiplies bfloat16 (with float32 sums). Tokens of different documents stand one after the other without
 * padding, and nothing a token goes through depends on its neighbours: its state is the same to the last bit in any
 * batch.
 *
 * Needs AVX-512 with VNNI. See native.py for how weights are laid out and who calls this.
 */
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

enum { ROWS = 6, VECTORS = 4, LANES = 16, PANEL = VECTORS * LANES }; /* a tile: 6 tokens, 64 outputs, 24 registers */
enum { GROUP = 64 }; /* neighbouring inputs that are spread together and share a scale */

typedef uint16_t bf16;

typedef struct {
    const int8_t *weights; /* [outputs / 64][inputs / 4][64][4] */
    const int32_t *shift;  /* [outputs / 64][groups][64]: -128 times the sum of a group's weights */
    const float *scales;   /* [outputs / 64][groups][64] */
    const float *bias;     /* [outputs], or NULL */
    int32_t inputs, outputs;
} Linear;

typedef struct {
    const float *attention_norm, *block_norm; /* [hidden] */
    const float *query_norm, *key_norm;       /* [size], or NULL */
    Linear qkv, out, gate_up, down;           /* gate_up: panels of 32 gates and the 32 values that they open */
} Layer;

typedef struct {
    int32_t layers, hidden, heads, key_heads, size, inner;
    float epsilon, rotary_scale;
    const float *frequencies;    /* [size / 2] */
    const uint16_t *embeddings;  /* [vocabulary][hidden], float16 */
    const float *norm;           /* [hidden] */
    const Layer *layer;
} Model;

typedef struct {
    const int64_t *ids;  /* [rows][width]; a row's first `lengths` are real */
    const int64_t *lengths;
    int32_t rows, width;
    const bf16 *past;    /* keys, then values: [2 layers][key heads][before][size] */
    int32_t before;
    bf16 *present;       /* likewise [2 layers][key heads][lengths[0]][size] of the first row, or NULL */
    int32_t from, to;    /* layers to run: from 0 tokens, else `stream`, go in; before the last `stream` comes out */
    float *stream;       /* [tokens][hidden], all rows' tokens one after the other, between two layers; else NULL */
    float *states;       /* [rows][hidden] after the last layer's norm, at each row's last token; else NULL */
} Batch;

/* What a batch needs besides; every part begins at a multiple of 64 bytes. */
typedef struct {
    float *stream;   /* [tokens][hidden] */
    float *wide;     /* [tokens][queries, keys and values] or [tokens][inner] */
    float *attended; /* [tokens][heads * size] */
    uint8_t *rounded;
    float *scales;
    float *cosines, *sines; /* [longest row][size / 2] */
    bf16 *keys, *values;    /* [key heads][tokens][size] */
    bf16 *key_panels, *value_panels;
    bf16 *queries;   /* [ROWS][size] */
    float *scores;   /* [ROWS][positions, padded] */
    bf16 *shares;    /* likewise */
} Space;

/* ---- arithmetic ---- */

/* The compiler would keep the sums in memory if it saw through these two. */
INLINE __m512i dot4(__m512i sum, __m512i bytes, __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
    return sum;
}

INLINE __m512 dot2(__m512 sum, __m512i a, __m512i b) {
#ifdef __AVX512BF16__
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                          _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                           _mm512_castsi512_ps(_mm512_and_si512(b, high)), sum);
#endif
}

/* 16 floats to bfloat16, the nearest, ties to even. */
INLINE __m256i to_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
}

/* e^x by 2^n times Taylor's series of 2^f, |f| <= 1/2; relative error below 2e-7. */
INLINE __m512 exponential(__m512 x) {
    const __m512 y = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504f));
    const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(y, n);
    __m512 p = _mm512_set1_ps(1.54035304e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.33335581e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.61812911e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55041087e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40226507e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147181e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

INLINE __mmask16 first(int count) { return count >= LANES ? 0xffff : (__mmask16)((1u << count) - 1); }

/* ---- linear layers ---- */

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

/* ---- attention ---- */

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

/* ---- the decoder ---- */

static int capacity_of(const Batch *batch) { /* positions of a packed row */
    int longest = 0;
    for (int r = 0; r < batch->rows; r++) longest = batch->lengths[r] > longest ? (int)batch->lengths[r] : longest;
    return (batch->before + longest + PANEL - 1) / PANEL * PANEL;
}

static int tokens_of(const Batch *batch) {
    int tokens = 0;
    for (int r = 0; r < batch->rows; r++) tokens += (int)batch->lengths[r];
    return tokens;
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static void *cut(char *base, size_t *used, size_t bytes) {
    void *part = base ? base + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return part;
}

/* Lay the parts out from `base` (NULL: only count); returns the bytes that they take. */
static size_t lay_out(const Model *model, const Batch *batch, char *base, Space *space) {
    const size_t tokens = tokens_of(batch), capacity = capacity_of(batch), queries = model->heads * model->size;
    const size_t wide = most(queries + 2 * model->key_heads * model->size + PANEL, model->inner);
    const size_t inputs = most(most(model->hidden, model->inner), queries);
    const size_t panels = (model->size + PANEL - 1) / PANEL;
    size_t used = 0;
    space->stream = cut(base, &used, tokens * model->hidden * 4);
    space->wide = cut(base, &used, tokens * wide * 4);
    space->attended = cut(base, &used, tokens * queries * 4);
    space->rounded = cut(base, &used, tokens * inputs);
    space->scales = cut(base, &used, tokens * inputs / GROUP * 4);
    space->cosines = cut(base, &used, capacity * model->size * 2);
    space->sines = cut(base, &used, capacity * model->size * 2);
    space->keys = cut(base, &used, model->key_heads * tokens * model->size * 2);
    space->values = cut(base, &used, model->key_heads * tokens * model->size * 2);
    space->key_panels = cut(base, &used, capacity * model->size * 2);
    space->value_panels = cut(base, &used, capacity * panels * PANEL * 2);
    space->queries = cut(base, &used, ROWS * model->size * 2);
    space->scores = cut(base, &used, ROWS * capacity * 4);
    space->shares = cut(base, &used, ROWS * capacity * 2);
    return used;
}

static void embed(const Model *model, const Batch *batch, float *stream) {
    for (int r = 0; r < batch->rows; r++)
        for (int t = 0; t < batch->lengths[r]; t++, stream += model->hidden) {
            const uint16_t *row = model->embeddings + (size_t)batch->ids[(size_t)r * batch->width + t] * model->hidden;
            for (int i = 0; i < model->hidden; i += LANES)
                _mm512_storeu_ps(stream + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + i))));
        }
}

static void prepare_positions(const Model *model, const Batch *batch, Space *space) {
    const int half = model->size / 2, count = capacity_of(batch) - batch->before;
    for (int t = 0; t < count; t++)
        for (int i = 0; i < half; i++) {
            const float angle = (float)(batch->before + t) * model->frequencies[i];
            space->cosines[(size_t)t * half + i] = cosf(angle) * model->rotary_scale;
            space->sines[(size_t)t * half + i] = sinf(angle) * model->rotary_scale;
        }
}

/* Turned keys, and values, of all tokens in bfloat16; those of the first row also into `present`. */
static void keep_keys(const Model *model, const Batch *batch, int index, int tokens, Space *space) {
    const int size = model->size, heads = model->key_heads, queries = model->heads * size;
    const Layer *layer = model->layer + index;
    for (int r = 0, t = 0; r < batch->rows; r++)
        for (int i = 0; i < batch->lengths[r]; i++, t++)
            for (int h = 0; h < heads; h++) {
                float *key = space->wide + (size_t)t * layer->qkv.outputs + queries + h * size;
                const size_t place = ((size_t)h * tokens + t) * size;
                rotate(key, layer->key_norm, model->epsilon, size, space->cosines + (size_t)i * size / 2,
                       space->sines + (size_t)i * size / 2);
                narrow(key, 1.0f, size, space->keys + place);
                narrow(key + heads * size, 1.0f, size, space->values + place);
            }
    if (!batch->present) return;
    const size_t length = batch->lengths[0], block = length * size;
    for (int h = 0; h < heads; h++) {
        const size_t to = ((size_t)index * heads + h) * block, from = (size_t)h * tokens * size;
        memcpy(batch->present + to, space->keys + from, block * 2);
        memcpy(batch->present + (size_t)model->layers * heads * block + to, space->values + from, block * 2);
    }
}

/* What every token (in the last layer: every row's last one) gathers from those before it, into `attended`. */
static void attention(const Model *model, const Batch *batch, int index, int tokens, int only_last, Space *space) {
    const int size = model->size, capacity = capacity_of(batch), shared = model->heads / model->key_heads;
    const Layer *layer = model->layer + index;
    const size_t stride = (size_t)model->heads * size, past = (size_t)batch->before * size;
    const float scale = 1.0f / sqrtf((float)size);
    for (int h = 0; h < model->key_heads; h++) {
        const size_t head = (size_t)index * model->key_heads + h;
        if (batch->before)
            pack(batch->past + head * past, batch->past + ((size_t)model->layers * model->key_heads + head) * past,
                 batch->before, 0, size, capacity, space->key_panels, space->value_panels);
        for (int r = 0, start = 0; r < batch->rows; start += (int)batch->lengths[r++]) {
            const int length = (int)batch->lengths[r], begin = only_last ? length - 1 : 0;
            const size_t own = ((size_t)h * tokens + start) * size;
            pack(space->keys + own, space->values + own, length, batch->before, size, capacity, space->key_panels,
                 space->value_panels);
            for (int q = h * shared; q < (h + 1) * shared; q++)
                for (int t = begin; t < length; t += ROWS) {
                    const int rows = length - t < ROWS ? length - t : ROWS;
                    for (int i = 0; i < rows; i++) {
                        const size_t token = only_last ? r : start + t + i, turn = (size_t)(t + i) * size / 2;
                        float *query = space->wide + token * layer->qkv.outputs + q * size;
                        rotate(query, layer->query_norm, model->epsilon, size, space->cosines + turn,
                               space->sines + turn);
                        narrow(query, scale, size, space->queries + (size_t)i * size);
                    }
                    float *out = space->attended + (size_t)(only_last ? r : start + t) * stride + q * size;
                    attend(rows, batch->before + t + 1, size, capacity, space, out, stride);
                }
        }
    }
}

/* Keep the last token of every row, at the beginning. */
static void gather_last(const Batch *batch, float *x, size_t width) {
    for (int r = 0, end = 0; r < batch->rows; r++) {
        end += (int)batch->lengths[r];
        memmove(x + r * width, x + (end - 1) * width, width * 4);
    }
}

static void run_layer(const Model *model, const Batch *batch, int index, int tokens, Space *space) {
    const Layer *layer = model->layer + index;
    const int last = index == model->layers - 1, panels = layer->qkv.outputs / PANEL;
    const int queries = model->heads * model->size / PANEL;
    round_rows(&layer->qkv, space->stream, layer->attention_norm, model->epsilon, tokens, space);
    multiply_store(&layer->qkv, last ? queries : 0, panels, tokens, space, space->wide);
    keep_keys(model, batch, index, tokens, space);
    int left = tokens;
    if (last) { /* nothing but each row's last token is read from here on */
        left = batch->rows;
        gather_last(batch, space->stream, model->hidden);
        round_rows(&layer->qkv, space->stream, layer->attention_norm, model->epsilon, left, space);
        multiply_store(&layer->qkv, 0, (model->heads * model->size + PANEL - 1) / PANEL, left, space, space->wide);
    }
    attention(model, batch, index, tokens, last, space);
    round_rows(&layer->out, space->attended, NULL, 0, left, space);
    multiply_add(&layer->out, left, space, space->stream);
    round_rows(&layer->gate_up, space->stream, layer->block_norm, model->epsilon, left, space);
    multiply_gate(&layer->gate_up, left, space, space->wide);
    round_rows(&layer->down, space->wide, NULL, 0, left, space);
    multiply_add(&layer->down, left, space, space->stream);
}

/* ---- what native.py calls ---- */

/* Bytes of working memory for a batch. */
size_t prorank_space(const Model *model, const Batch *batch) {
    Space space;
    return lay_out(model, batch, NULL, &space);
}

/* States (of some layers: all tokens') and, where wanted, keys and values.
 * `memory`: prorank_space() bytes from a multiple of 64. */
void prorank_run(const Model *model, const Batch *batch, void *memory) {
    Space space;
    const int tokens = tokens_of(batch);
    lay_out(model, batch, memory, &space);
    memset(space.value_panels, 0, (char *)space.queries - (char *)space.value_panels); /* nothing but zeros and values */
    prepare_positions(model, batch, &space);
    const size_t between = (size_t)tokens * model->hidden * 4;
    if (batch->from) memcpy(space.stream, batch->stream, between);
    else embed(model, batch, space.stream);
    for (int i = batch->from; i < batch->to; i++) run_layer(model, batch, i, tokens, &space);
    if (batch->to < model->layers) {
        memcpy(batch->stream, space.stream, between);
        return;
    }
    for (int r = 0; r < batch->rows; r++) {
        const float *x = space.stream + (size_t)r * model->hidden;
        const float factor = inverse_rms(x, model->hidden, model->epsilon);
        float *state = batch->states + (size_t)r * model->hidden;
        for (int i = 0; i < model->hidden; i++) state[i] = x[i] * factor * model->norm[i];
    }
}

/* Rows of int8 weights [outputs][inputs] into panels; see Linear. */
void prorank_pack(const int8_t *weights, int32_t outputs, int32_t inputs, int8_t *packed, int32_t *shift) {
    const int groups = inputs / GROUP;
    memset(shift, 0, (size_t)outputs * groups * 4);
    for (int o = 0; o < outputs; o++) {
        const int8_t *row = weights + (size_t)o * inputs;
        int8_t *to = packed + (size_t)(o / PANEL) * PANEL * inputs + (o % PANEL) * 4;
        int32_t *sums = shift + (size_t)(o / PANEL) * PANEL * groups + o % PANEL;
        for (int k = 0; k < inputs; k += 4) memcpy(to + (size_t)k * PANEL, row + k, 4);
        for (int k = 0; k < inputs; k++) sums[(size_t)(k / GROUP) * PANEL] -= 128 * row[k];
    }
}
