/* Linear layers in AMX's tiles: 16 tokens by 64 outputs. A tile's row is 64 bytes, the inputs that share a scale. */
#pragma once
#include "model.h"

enum { TOKENS = 16 };       /* rows of a tile */
enum { SPARE = TOKENS - 1 }; /* tokens behind the last one that a tile reads; what comes of them is not used */

#ifdef PRORANK_EMULATED /* for a test on a processor without them: slow, by the manual's definition */
static _Thread_local union {
    uint8_t bytes[TOKENS][64];
    int8_t weights[TOKENS][64];
    int32_t sums[TOKENS][16];
} tiles[8];

#define TILE_ZERO(to) memset(&tiles[to], 0, sizeof tiles[to])
#define TILE_LOAD(to, from, stride) for (int i = 0; i < TOKENS; i++) \
    memcpy(tiles[to].bytes[i], (const char *)(from) + i * (stride), 64)
#define TILE_STORE(at, to, stride) for (int i = 0; i < TOKENS; i++) \
    memcpy((char *)(to) + i * (stride), tiles[at].bytes[i], 64)
#define TILE_DOT(to, a, b) for (int m = 0; m < TOKENS; m++) for (int n = 0; n < 16; n++) for (int k = 0; k < 64; k++) \
    tiles[to].sums[m][n] += tiles[a].bytes[m][k] * tiles[b].weights[k / 4][4 * n + k % 4]

static int ask_for_tiles(void) { return 0; }
static void take_tiles(void) {}
static void leave_tiles(void) {}
#else
#include <sys/syscall.h>
#include <unistd.h>

#define TILE_ZERO(to) _tile_zero(to)
#define TILE_LOAD(to, from, stride) _tile_loadd(to, from, stride)
#define TILE_STORE(at, to, stride) _tile_stored(at, to, stride)
#define TILE_DOT(to, a, b) _tile_dpbusd(to, a, b)

/* Linux gives a process the tiles' state when it asks for it (ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). */
static int ask_for_tiles(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

/* All eight of 16 rows of 64 bytes, in this thread. */
static void take_tiles(void) {
    struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.bytes[i] = 64;
        shape.rows[i] = TOKENS;
    }
    _tile_loadconfig(&shape);
}

static void leave_tiles(void) { _tile_release(); }
#endif

/* 16 tokens times one panel: sums in floats, in the order of `sums` in linear.h. */
static void tiled_sums(const Linear *layer, int panel, const Rounded *rounded, const float *scales,
                       float total[TOKENS][PANEL]) {
    const int inputs = layer->inputs, groups = inputs / GROUP;
    const int8_t *weights = layer->weights + (size_t)panel * PANEL * inputs;
    const size_t at = (size_t)panel * PANEL * groups;
    int32_t found[TOKENS][PANEL] __attribute__((aligned(64)));
    memset(total, 0, sizeof(float) * TOKENS * PANEL);
    for (int g = 0; g < groups; g++) {
        const int8_t *part = weights + (size_t)g * GROUP * PANEL;
        TILE_LOAD(4, rounded + g * GROUP, inputs);
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        TILE_LOAD(5, part, PANEL * STEP);
        TILE_DOT(0, 4, 5);
        TILE_LOAD(6, part + 64, PANEL * STEP);
        TILE_DOT(1, 4, 6);
        TILE_LOAD(5, part + 128, PANEL * STEP);
        TILE_DOT(2, 4, 5);
        TILE_LOAD(6, part + 192, PANEL * STEP);
        TILE_DOT(3, 4, 6);
        TILE_STORE(0, found[0], PANEL * 4);
        TILE_STORE(1, found[0] + 16, PANEL * 4);
        TILE_STORE(2, found[0] + 32, PANEL * 4);
        TILE_STORE(3, found[0] + 48, PANEL * 4);
        UNROLL for (int v = 0; v < VECTORS; v++) {
            const Ints start = load_ints(layer->shift + at + g * PANEL + v * LANES);
            const Floats steps = load(layer->scales + at + g * PANEL + v * LANES);
            for (int r = 0; r < TOKENS; r++) {
                const Floats both = times(every(scales[(size_t)r * groups + g]), steps);
                const Floats sum = to_floats(add_ints(start, load_ints(found[r] + v * LANES)));
                store(total[r] + v * LANES, times_add(both, sum, load(total[r] + v * LANES)));
            }
        }
    }
    if (layer->bias)
        for (int r = 0; r < TOKENS; r++) UNROLL for (int v = 0; v < VECTORS; v++) {
            const Floats bias = load(layer->bias + panel * PANEL + v * LANES);
            store(total[r] + v * LANES, add(load(total[r] + v * LANES), bias));
        }
}
