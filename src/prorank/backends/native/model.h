/* A model, a batch, and the memory that a batch needs. weights.py has the same structures, field by field. */
#pragma once
#include "arithmetic.h"
#include "team.h"

typedef struct {
    const int8_t *weights; /* [outputs / 64][inputs / STEP][64][STEP] */
    const int32_t *shift;  /* [outputs / 64][groups][64]: -OFFSET times the sum of a group's weights */
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
    Rounded *rounded;
    float *scales;
    float *cosines, *sines; /* [longest row][size / 2] */
    bf16 *keys, *values;    /* [key heads][tokens][size] */
    /* each member's own: */
    bf16 *key_panels, *value_panels;
    Factor *queries; /* [ROWS][size] */
    float *scores;   /* [ROWS][positions, padded] */
    Factor *shares;  /* likewise */
    Member me;
} Space;
