/* A decoder of Llama's kind (Llama, Mistral, Qwen2, Qwen3) that scores a batch of documents on one core or on several.
 *
 * Weights are int8 with a scale for every 64 of an output's inputs. The inputs are multiplied with a Hadamard matrix in
 * groups of 64, which the weights have been, too (QuaRot, arXiv 2404.00456), and rounded to int8 as they come, a scale
 * for the same 64 of a token. A group's sums are exact (int32), what lies between the products is float32, and
 * attention multiplies bfloat16 (with float32 sums). Tokens of different documents stand one after the other without
 * padding, and nothing a token goes through depends on its neighbours: its state is the same to the last bit in any
 * batch.
 *
 * Each instruction set has a header of its own (avx512.h with amx.h, avx2.h, neon.h with i8mm.h) and is compiled from
 * this file by itself; levels.py says which there are. Floats are added up in the same order in all of them. See
 * weights.py for how weights are laid out, and engine.py for who calls this.
 */
#include "attention.h"
#include "linear.h"

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

/* Lay the parts that all members share out from `base` (NULL: only count); returns the bytes that they take. */
static size_t lay_out(const Model *model, const Batch *batch, char *base, Space *space) {
    const size_t tokens = tokens_of(batch), capacity = capacity_of(batch), queries = model->heads * model->size;
    const size_t wide = most(queries + 2 * model->key_heads * model->size + PANEL, model->inner);
    const size_t inputs = most(most(model->hidden, model->inner), queries);
    size_t used = 0;
    space->stream = cut(base, &used, tokens * model->hidden * 4);
    space->wide = cut(base, &used, tokens * wide * 4);
    space->attended = cut(base, &used, tokens * queries * 4);
    space->rounded = cut(base, &used, (tokens + SPARE) * inputs * sizeof(Rounded));
    space->scales = cut(base, &used, (tokens + SPARE) * inputs / GROUP * 4);
    space->cosines = cut(base, &used, capacity * model->size * 2);
    space->sines = cut(base, &used, capacity * model->size * 2);
    space->keys = cut(base, &used, model->key_heads * tokens * model->size * 2);
    space->values = cut(base, &used, model->key_heads * tokens * model->size * 2);
    return used;
}

/* Likewise what a member has for itself. */
static size_t lay_out_own(const Model *model, const Batch *batch, char *base, Space *space) {
    const size_t capacity = capacity_of(batch), panels = (model->size + PANEL - 1) / PANEL;
    size_t used = 0;
    space->value_panels = cut(base, &used, capacity * panels * PANEL * 2);
    if (base) memset(base, 0, used); /* nothing but zeros and values */
    space->key_panels = cut(base, &used, capacity * model->size * 2);
    space->queries = cut(base, &used, ROWS * model->size * sizeof(Factor));
    space->scores = cut(base, &used, ROWS * capacity * 4);
    space->shares = cut(base, &used, ROWS * capacity * sizeof(Factor));
    return used;
}

/* What goes into the first of the layers to run. */
static void begin_stream(const Model *model, const Batch *batch, int tokens, const Space *space) {
    const Share mine = share_of(space->me, tokens);
    if (batch->from) {
        const size_t from = (size_t)mine.from * model->hidden;
        memcpy(space->stream + from, batch->stream + from, (size_t)(mine.to - mine.from) * model->hidden * 4);
        return;
    }
    for (int r = 0, token = 0; r < batch->rows; r++)
        for (int t = 0; t < batch->lengths[r]; t++, token++) {
            if (token < mine.from || token >= mine.to) continue;
            const uint16_t *row = model->embeddings + (size_t)batch->ids[(size_t)r * batch->width + t] * model->hidden;
            float *to = space->stream + (size_t)token * model->hidden;
            for (int i = 0; i < model->hidden; i += LANES) store(to + i, load_f16(row + i));
        }
}

static void prepare_positions(const Model *model, const Batch *batch, const Space *space) {
    const int half = model->size / 2;
    const Share mine = share_of(space->me, capacity_of(batch) - batch->before);
    for (int t = mine.from; t < mine.to; t++)
        for (int i = 0; i < half; i++) {
            const float angle = (float)(batch->before + t) * model->frequencies[i];
            space->cosines[(size_t)t * half + i] = cosf(angle) * model->rotary_scale;
            space->sines[(size_t)t * half + i] = sinf(angle) * model->rotary_scale;
        }
}

/* Turned keys, and values, of all tokens in bfloat16; those of the first row also into `present`. */
static void keep_keys(const Model *model, const Batch *batch, int index, int tokens, const Space *space) {
    const int size = model->size, heads = model->key_heads, queries = model->heads * size;
    const size_t length = batch->lengths[0], others = (size_t)model->layers * heads * length * size;
    const Layer *layer = model->layer + index;
    const Share mine = share_of(space->me, tokens);
    for (int r = 0, t = 0; r < batch->rows; r++)
        for (int i = 0; i < batch->lengths[r]; i++, t++)
            for (int h = 0; h < heads && t >= mine.from && t < mine.to; h++) {
                float *key = space->wide + (size_t)t * layer->qkv.outputs + queries + h * size;
                const size_t place = ((size_t)h * tokens + t) * size;
                rotate(key, layer->key_norm, model->epsilon, size, space->cosines + (size_t)i * size / 2,
                       space->sines + (size_t)i * size / 2);
                narrow(key, size, space->keys + place);
                narrow(key + heads * size, size, space->values + place);
                if (!batch->present || r) continue;
                bf16 *to = batch->present + (((size_t)index * heads + h) * length + i) * size;
                memcpy(to, space->keys + place, size * 2);
                memcpy(to + others, space->values + place, size * 2);
            }
}

/* What every token (in the last layer: every row's last one) gathers from those before it, into `attended`. Work is
 * shared out in blocks of ROWS tokens of one head; panels are made by whoever has one that needs them. */
static void attention(const Model *model, const Batch *batch, int index, int tokens, int only_last,
                      const Space *space) {
    const int size = model->size, capacity = capacity_of(batch), shared = model->heads / model->key_heads;
    const Layer *layer = model->layer + index;
    const size_t stride = (size_t)model->heads * size, past = (size_t)batch->before * size;
    const float scale = 1.0f / sqrtf((float)size);
    int blocks = 0, block = 0;
    for (int r = 0; r < batch->rows; r++) blocks += only_last ? 1 : ((int)batch->lengths[r] + ROWS - 1) / ROWS;
    const Share mine = share_of(space->me, blocks * model->heads);
    for (int h = 0; h < model->key_heads; h++) {
        const size_t head = (size_t)index * model->key_heads + h;
        if (batch->before && block < mine.to && block + blocks * shared > mine.from)
            pack(batch->past + head * past, batch->past + ((size_t)model->layers * model->key_heads + head) * past,
                 batch->before, 0, size, capacity, space->key_panels, space->value_panels);
        for (int r = 0, start = 0; r < batch->rows; start += (int)batch->lengths[r++]) {
            const int length = (int)batch->lengths[r], begin = only_last ? length - 1 : 0;
            const int own_blocks = (length - begin + ROWS - 1) / ROWS * shared;
            if (block >= mine.to || block + own_blocks <= mine.from) {
                block += own_blocks;
                continue;
            }
            const size_t own = ((size_t)h * tokens + start) * size;
            pack(space->keys + own, space->values + own, length, batch->before, size, capacity, space->key_panels,
                 space->value_panels);
            for (int q = h * shared; q < (h + 1) * shared; q++)
                for (int t = begin; t < length; t += ROWS, block++) {
                    if (block < mine.from || block >= mine.to) continue;
                    const int rows = length - t < ROWS ? length - t : ROWS;
                    for (int i = 0; i < rows; i++) {
                        const size_t token = only_last ? r : start + t + i, turn = (size_t)(t + i) * size / 2;
                        float *query = space->wide + token * layer->qkv.outputs + q * size;
                        rotate(query, layer->query_norm, model->epsilon, size, space->cosines + turn,
                               space->sines + turn);
                        narrow_query(query, scale, size, space->queries + (size_t)i * size);
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

static void run_layer(const Model *model, const Batch *batch, int index, int tokens, const Space *space) {
    const Layer *layer = model->layer + index;
    const Member me = space->me;
    const int last = index == model->layers - 1, panels = layer->qkv.outputs / PANEL;
    const int queries = model->heads * model->size / PANEL;
    round_rows(&layer->qkv, space->stream, layer->attention_norm, model->epsilon, tokens, space);
    meet(me);
    multiply_store(&layer->qkv, last ? queries : 0, panels, tokens, space, space->wide);
    meet(me);
    keep_keys(model, batch, index, tokens, space);
    int left = tokens;
    if (last) { /* nothing but each row's last token is read from here on */
        left = batch->rows;
        if (me.number == 0) gather_last(batch, space->stream, model->hidden);
        meet(me);
        round_rows(&layer->qkv, space->stream, layer->attention_norm, model->epsilon, left, space);
        meet(me);
        multiply_store(&layer->qkv, 0, queries, left, space, space->wide);
    }
    meet(me);
    attention(model, batch, index, tokens, last, space);
    meet(me);
    round_rows(&layer->out, space->attended, NULL, 0, left, space);
    meet(me);
    multiply_add(&layer->out, left, space, space->stream);
    meet(me);
    round_rows(&layer->gate_up, space->stream, layer->block_norm, model->epsilon, left, space);
    meet(me);
    multiply_gate(&layer->gate_up, left, space, space->wide);
    meet(me);
    round_rows(&layer->down, space->wide, NULL, 0, left, space);
    meet(me);
    multiply_add(&layer->down, left, space, space->stream);
    meet(me);
}

/* ---- what engine.py calls ---- */

/* Once a process, before anything else: 0, or the system refuses what the processor has. */
int prorank_begin(void) {
#ifdef PRORANK_AMX
    return ask_for_tiles();
#else
    return 0;
#endif
}

/* Bytes of working memory for a batch: what its threads share, or (`own`) what each has for itself. */
size_t prorank_space(const Model *model, const Batch *batch, int32_t own) {
    Space space;
    return own ? lay_out_own(model, batch, NULL, &space) : lay_out(model, batch, NULL, &space);
}

/* States (of some layers: all tokens') and, where wanted, keys and values. Every member of the team calls it once, in a
 * thread of its own; the numbers are the same for any team.
 * `memory`, `own`: prorank_space() bytes from multiples of 64. */
void prorank_run(const Model *model, const Batch *batch, void *memory, void *own, Team *team, int32_t number) {
    Space space = {.me = {team, number}};
    const Member me = space.me;
    const int tokens = tokens_of(batch), hidden = model->hidden;
    if (!meet(me)) return; /* from here on all will come to every meeting */
    lay_out(model, batch, memory, &space);
    lay_out_own(model, batch, own, &space);
    prepare_positions(model, batch, &space);
    begin_stream(model, batch, tokens, &space);
    meet(me);
#ifdef PRORANK_AMX
    take_tiles();
#endif
    for (int i = batch->from; i < batch->to; i++) run_layer(model, batch, i, tokens, &space);
#ifdef PRORANK_AMX
    leave_tiles();
#endif
    const int whole = batch->to == model->layers;
    const Share mine = share_of(me, whole ? batch->rows : tokens);
    if (!whole) {
        const size_t from = (size_t)mine.from * hidden;
        memcpy(batch->stream + from, space.stream + from, (size_t)(mine.to - mine.from) * hidden * 4);
    }
    for (int r = mine.from; whole && r < mine.to; r++) {
        const float *x = space.stream + (size_t)r * hidden;
        const float factor = inverse_rms(x, hidden, model->epsilon);
        float *state = batch->states + (size_t)r * hidden;
        for (int i = 0; i < hidden; i++) state[i] = x[i] * factor * model->norm[i];
    }
    meet(me);
}

/* Rows of int8 weights [outputs][inputs] into panels; see Linear. */
void prorank_pack(const int8_t *weights, int32_t outputs, int32_t inputs, int8_t *packed, int32_t *shift) {
    const int groups = inputs / GROUP;
    memset(shift, 0, (size_t)outputs * groups * 4);
    for (int o = 0; o < outputs; o++) {
        const int8_t *row = weights + (size_t)o * inputs;
        int8_t *to = packed + (size_t)(o / PANEL) * PANEL * inputs + (o % PANEL) * STEP;
        int32_t *sums = shift + (size_t)(o / PANEL) * PANEL * groups + o % PANEL;
        for (int k = 0; k < inputs; k += STEP) memcpy(to + (size_t)k * PANEL, row + k, STEP);
        for (int k = 0; k < inputs; k++) sums[(size_t)(k / GROUP) * PANEL] -= OFFSET * row[k];
    }
}
