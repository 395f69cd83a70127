/* Our own engine on a machine without Python: `native_elsewhere CASE STATES` reads a model, a prefix and rows of tokens
 * (test_native_levels.py writes them), scores the rows on top of the prefix, and writes their states. */
#include "native.c"

#include <stdio.h>
#include <stdlib.h>

static FILE *from;

static void *aligned(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static void *part(void) { /* NULL for an empty one */
    int64_t length;
    if (fread(&length, 8, 1, from) != 1) exit(2);
    if (!length) return NULL;
    void *to = aligned(length);
    if (fread(to, length, 1, from) != 1) exit(2);
    return to;
}

static Linear linear(void) {
    const int32_t *shape = part();
    const int8_t *weights = part();
    Linear made = {.outputs = shape[0], .inputs = shape[1], .scales = part(), .bias = part()};
    int8_t *packed = aligned((size_t)shape[0] * shape[1]);
    int32_t *shift = aligned((size_t)shape[0] * shape[1] / GROUP * 4);
    prorank_pack(weights, shape[0], shape[1], packed, shift);
    made.weights = packed;
    made.shift = shift;
    return made;
}

static void run(const Model *model, const Batch *batch) {
    Team alone = {.members = 1};
    prorank_run(model, batch, aligned(prorank_space(model, batch, 0)), aligned(prorank_space(model, batch, 1)), &alone, 0);
}

int main(int count, char **names) {
    if (count != 3 || !(from = fopen(names[1], "rb"))) return 2;
    const int32_t *sizes = part();
    const float *scalars = part();
    Model model = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], scalars[0], scalars[1],
                   NULL, NULL, NULL, NULL};
    model.frequencies = part();
    model.embeddings = part();
    model.norm = part();
    const int64_t *prefix = part(), *ids = part(), *lengths = part(), before = sizes[6];
    Layer *layers = calloc(model.layers, sizeof(Layer));
    for (int i = 0; i < model.layers; i++) {
        layers[i].attention_norm = part();
        layers[i].block_norm = part();
        layers[i].query_norm = part();
        layers[i].key_norm = part();
        layers[i].qkv = linear();
        layers[i].out = linear();
        layers[i].gate_up = linear();
        layers[i].down = linear();
    }
    model.layer = layers;
    const int rows = sizes[7];
    float *states = malloc((size_t)rows * model.hidden * 4);
    bf16 *past = malloc((size_t)2 * model.layers * model.key_heads * before * model.size * 2);
    Batch first = {.ids = prefix, .lengths = &before, .rows = 1, .width = (int)before, .present = past,
                   .to = model.layers, .states = states};
    run(&model, &first);
    Batch batch = {.ids = ids, .lengths = lengths, .rows = rows, .width = sizes[8], .past = past, .before = (int)before,
                   .to = model.layers, .states = states};
    run(&model, &batch);
    FILE *to = fopen(names[2], "wb");
    return !to || fwrite(states, (size_t)model.hidden * 4, rows, to) != (size_t)rows || fclose(to);
}
