/*
 * my-decoder: a language model of one layer. What position t holds is h_t = e_t + the mean of the embeddings e_s that
 * it sees (s <= t, not masked); logits are head h_t. No recurrent state is as simple: it shows how embeddings, logits,
 * masks, rows of different lengths, taps, a cache and the vector-Jacobian product go together. Put your model in its
 * place.
 *
 * ids [B, T] to embeddings [B, T, D]; embeddings to logits over V.
 */
#include "limber_part.h"
#include <math.h>

typedef struct Decoder {
    int64_t vocab, width, context;
    float *words; /* [V, D] */
    float *head;  /* [V, D] */
} Decoder;

/* The embeddings that were seen: rows of `capacity` positions, of which the first `lengths[row]` are there. */
typedef struct Cache {
    int64_t width;
    uint64_t rows, capacity;
    uint64_t *lengths;
    float *values; /* [rows, capacity, D] */
} Cache;

/* The settings, with which `resolved` is told; it may be null. */
static LimberStatus read_settings(const char *json, Decoder *s, const LimberSink *resolved, const LimberSink *error) {
    s->vocab = 50257, s->width = 256, s->context = 1024;
    const LimberSetting list[] = {
        {"vocab", &s->vocab, 2, 1 << 24}, {"width", &s->width, 1, 65536}, {"context", &s->context, 1, 1 << 20}};
    LimberStatus status = limber_settings(json, list, 3, error);
    if (status == LIMBER_OK)
        limber_resolved(resolved, list, 3);
    return status;
}

static LimberStatus prepare(const LimberPart *part, const char *settings, const LimberSource *source,
                            const LimberSink *resolved, LimberDecoderSpec *spec, const LimberSink *error) {
    (void)part, (void)source;
    Decoder s;
    if (read_settings(settings, &s, resolved, error) != LIMBER_OK)
        return LIMBER_ERROR;
    spec->width = spec->head_dim = (uint64_t)s.width;
    spec->vocab = (uint64_t)s.vocab;
    spec->layers = spec->kv_heads = 1;
    spec->context = (uint64_t)s.context;
    spec->n_eos = 1;
    spec->eos[0] = (uint32_t)(s.vocab - 1);
    return LIMBER_OK;
}

static void release(LimberInstance *instance) {
    Decoder *s = (Decoder *)instance;
    free(s->words);
    free(s->head);
    free(s);
}

static LimberStatus build(const LimberPart *part, const char *settings, const LimberSource *source,
                          const LimberBuild *options, LimberInstance **out, const LimberSink *error) {
    (void)part, (void)options;
    Decoder *s = limber_zeros(1, sizeof *s);
    if (s == NULL)
        return limber_fail(error, "there is no memory left");
    LimberStatus status = read_settings(settings, s, NULL, error);
    const int64_t shape[] = {s->vocab, s->width};
    const LimberTaken taken[] = {
        {"words.weight", 2, shape, 0.02f, &s->words}, {"head.weight", 2, shape, 0.02f, &s->head}};
    if (status == LIMBER_OK)
        status = limber_weights(source, taken, 2, error);
    if (status != LIMBER_OK) {
        release((LimberInstance *)s);
        return status;
    }
    *out = (LimberInstance *)s;
    return LIMBER_OK;
}

static LimberStatus embed(LimberInstance *instance, const LimberTensor *ids, const LimberTensor *output,
                          const LimberSink *error) {
    const Decoder *s = (const Decoder *)instance;
    int64_t ids_shape[] = {-1, -1};
    if (!limber_is(ids, LIMBER_INT, 64, 2, ids_shape, "ids", error))
        return LIMBER_ERROR;
    int64_t shape[] = {ids->shape[0], ids->shape[1], s->width};
    float *out = limber_floats(output, 3, shape, "embeddings", error);
    if (out == NULL)
        return LIMBER_ERROR;
    const int64_t *all = ids->data;
    for (int64_t i = 0; i < shape[0] * shape[1]; i++) {
        if (all[i] < 0 || all[i] >= s->vocab)
            return limber_fail(error, "id %lld is not in 0..%lld", (long long)all[i], (long long)s->vocab);
        memcpy(out + i * s->width, s->words + all[i] * s->width, (size_t)s->width * sizeof *out);
    }
    return LIMBER_OK;
}

/* One call of `forward` or `vjp`, checked. */
typedef struct Call {
    const LimberForward *table;
    const float *embeds;
    const Cache *cache;
    const uint8_t *mask;
    int64_t b, t, d, keys; /* keys = P + T, the row length of the mask */
} Call;

static LimberStatus read_call(const Decoder *s, const LimberForward *table, Call *call, const LimberSink *error) {
    int64_t shape[] = {-1, -1, s->width};
    call->table = table;
    call->embeds = limber_floats(table->embeds, 3, shape, "embeddings", error);
    if (call->embeds == NULL)
        return LIMBER_ERROR;
    call->cache = (const Cache *)table->cache;
    call->b = table->embeds->shape[0], call->t = table->embeds->shape[1], call->d = s->width;
    uint64_t longest = 0;
    for (int64_t b = 0; table->past != NULL && b < call->b; b++)
        longest = table->past[b] > longest ? table->past[b] : longest;
    call->keys = (int64_t)longest + call->t;
    if (call->keys > s->context)
        return limber_fail(error, "%lld positions, expected are at most %lld", (long long)call->keys, (long long)s->context);
    if (call->cache != NULL && (call->cache->rows != (uint64_t)call->b || (uint64_t)call->keys > call->cache->capacity))
        return limber_fail(error, "%lld rows of %lld positions do not fit the cache", (long long)call->b,
                           (long long)call->keys);
    call->mask = NULL;
    if (table->mask != NULL) {
        int64_t mask_shape[] = {call->b, call->keys};
        if (!limber_is(table->mask, LIMBER_UINT, 8, 2, mask_shape, "mask", error))
            return LIMBER_ERROR;
        call->mask = table->mask->data;
    }
    return LIMBER_OK;
}

static int64_t past_of(const Call *call, int64_t b) {
    return call->table->past == NULL ? 0 : (int64_t)call->table->past[b];
}

static int64_t length_of(const Call *call, int64_t b) {
    return call->table->lengths == NULL ? call->t : (int64_t)call->table->lengths[b];
}

static int seen(const Call *call, int64_t b, int64_t key) {
    return call->mask == NULL || call->mask[b * call->keys + key] != 0;
}

/* The embedding at `key` of row `b`: from the cache, or of this call. */
static const float *key_of(const Call *call, int64_t b, int64_t key) {
    int64_t past = past_of(call, b);
    if (key < past)
        return call->cache->values + (b * (int64_t)call->cache->capacity + key) * call->d;
    return call->embeds + (b * call->t + key - past) * call->d;
}

/* h [B, T, D]; `sums` holds D numbers. */
static void mix(const Call *call, double *sums, float *h) {
    int64_t d = call->d;
    for (int64_t b = 0; b < call->b; b++) {
        int64_t past = past_of(call, b), n = 0;
        memset(sums, 0, (size_t)d * sizeof *sums);
        for (int64_t key = 0; key < past + call->t; key++) {
            const float *e = key_of(call, b, key);
            if (seen(call, b, key)) {
                n++;
                for (int64_t i = 0; i < d; i++)
                    sums[i] += e[i];
            }
            for (int64_t i = 0; key >= past && i < d; i++)
                h[(b * call->t + key - past) * d + i] = (float)(e[i] + (n > 0 ? sums[i] / (double)n : 0.0));
        }
    }
}

/* How many positions have an output, and the index in [B, T] of output `i`. */
static int64_t outputs(const Call *call) {
    switch (call->table->logits) {
    case LIMBER_LOGITS_LAST: return call->b;
    case LIMBER_LOGITS_AT: return (int64_t)call->table->n_positions;
    default: return call->b * call->t;
    }
}

static int64_t output_at(const Call *call, int64_t i) {
    switch (call->table->logits) {
    case LIMBER_LOGITS_LAST: return i * call->t + length_of(call, i) - 1;
    case LIMBER_LOGITS_AT:
        return (int64_t)call->table->positions[2 * i] * call->t + (int64_t)call->table->positions[2 * i + 1];
    default: return i;
    }
}

/* The elements of an output, or of its gradient, checked to have the shape that the call asks for. */
static float *output_of(const Decoder *s, const Call *call, const LimberTensor *tensor, const char *what,
                        const LimberSink *error) {
    int64_t all[] = {call->b, call->t, s->vocab}, hidden[] = {call->b, call->t, s->width};
    int64_t some[] = {outputs(call), s->vocab};
    switch (call->table->logits) {
    case LIMBER_LOGITS_ALL: return limber_floats(tensor, 3, all, what, error);
    case LIMBER_LOGITS_HIDDEN: return limber_floats(tensor, 3, hidden, what, error);
    case LIMBER_LOGITS_LAST:
    case LIMBER_LOGITS_AT: return limber_floats(tensor, 2, some, what, error);
    default: limber_fail(error, "logits of kind %u", (unsigned)call->table->logits); return NULL;
    }
}

static LimberTensor view(float *data, int32_t ndim, const int64_t *shape) {
    LimberTensor tensor = {LIMBER_HEAD(LimberTensor), .data = data, .device_type = LIMBER_CPU, .ndim = ndim,
                           .dtype_code = LIMBER_FLOAT, .dtype_bits = 32, .dtype_lanes = 1, .shape = shape};
    return tensor;
}

/* Embeddings and `h` are the hidden states before and after the one layer; attention is 1 / n over what is seen. */
static LimberStatus give_taps(const Call *call, float *h, const LimberSink *error) {
    const LimberTaps *taps = call->table->taps;
    if (taps == NULL)
        return LIMBER_OK;
    LimberStatus status = LIMBER_OK;
    int64_t hidden_shape[] = {call->b, call->t, call->d}, attention_shape[] = {call->b, 1, call->t, call->keys};
    if (taps->want_hidden) {
        LimberTensor before = view((float *)call->embeds, 3, hidden_shape), after = view(h, 3, hidden_shape);
        status = taps->take(taps->context, LIMBER_TAP_HIDDEN, &before, error);
        if (status == LIMBER_OK)
            status = taps->take(taps->context, LIMBER_TAP_HIDDEN, &after, error);
    }
    if (status != LIMBER_OK || !taps->want_attention)
        return status;
    float *attention = limber_zeros((size_t)(call->b * call->t * call->keys), sizeof *attention);
    if (attention == NULL)
        return limber_fail(error, "there is no memory left");
    for (int64_t b = 0; b < call->b; b++)
        for (int64_t t = 0; t < call->t; t++) {
            int64_t last = past_of(call, b) + t, n = 0;
            for (int64_t key = 0; key <= last; key++)
                n += seen(call, b, key);
            for (int64_t key = 0; key <= last; key++)
                if (seen(call, b, key))
                    attention[(b * call->t + t) * call->keys + key] = 1.0f / (float)n;
        }
    LimberTensor tensor = view(attention, 4, attention_shape);
    status = taps->take(taps->context, LIMBER_TAP_ATTENTION, &tensor, error);
    free(attention);
    return status;
}

static LimberStatus forward(LimberInstance *instance, const LimberForward *table, const LimberSink *error) {
    const Decoder *s = (const Decoder *)instance;
    Call call;
    if (read_call(s, table, &call, error) != LIMBER_OK)
        return LIMBER_ERROR;
    float *out = output_of(s, &call, table->output, "output", error);
    if (out == NULL)
        return LIMBER_ERROR;
    float *h = limber_zeros((size_t)(call.b * call.t * call.d), sizeof *h);
    double *sums = limber_zeros((size_t)call.d, sizeof *sums);
    LimberStatus status = LIMBER_OK;
    if (h == NULL || sums == NULL)
        status = limber_fail(error, "there is no memory left");
    if (status == LIMBER_OK) {
        mix(&call, sums, h);
        status = give_taps(&call, h, error);
    }
    if (status == LIMBER_OK && table->logits == LIMBER_LOGITS_HIDDEN)
        memcpy(out, h, (size_t)(call.b * call.t * call.d) * sizeof *out);
    for (int64_t i = 0; status == LIMBER_OK && table->logits != LIMBER_LOGITS_HIDDEN && i < outputs(&call); i++) {
        const float *row = h + output_at(&call, i) * call.d;
        for (int64_t v = 0; v < s->vocab; v++) {
            double logit = 0.0;
            for (int64_t d = 0; d < call.d; d++)
                logit += (double)s->head[v * call.d + d] * row[d];
            out[i * s->vocab + v] = (float)logit;
        }
    }
    free(h);
    free(sums);
    if (status != LIMBER_OK || call.cache == NULL)
        return status;
    /* Last of all, so that a call that fails leaves the cache as it was. Padding is not kept. */
    Cache *cache = (Cache *)table->cache;
    for (int64_t b = 0; b < call.b; b++) {
        float *end = cache->values + (b * (int64_t)cache->capacity + past_of(&call, b)) * call.d;
        memcpy(end, call.embeds + b * call.t * call.d, (size_t)(length_of(&call, b) * call.d) * sizeof *end);
        cache->lengths[b] = (uint64_t)(past_of(&call, b) + length_of(&call, b));
    }
    return LIMBER_OK;
}

/* From gradients of h, those of the embeddings: e_s takes component in h_s, and in the mean of every later position. */
static LimberStatus vjp(LimberInstance *instance, const LimberForward *table, LimberTape *tape,
                        const LimberTensor *grad_output, const LimberTensor *grad_embeds, const LimberSink *error) {
    (void)tape;
    const Decoder *s = (const Decoder *)instance;
    Call call;
    if (read_call(s, table, &call, error) != LIMBER_OK)
        return LIMBER_ERROR;
    int64_t shape[] = {call.b, call.t, call.d};
    const float *g = output_of(s, &call, grad_output, "gradient of the output", error);
    float *out = g == NULL ? NULL : limber_floats(grad_embeds, 3, shape, "gradient of the embeddings", error);
    if (out == NULL)
        return LIMBER_ERROR;
    double *of_h = limber_zeros((size_t)(call.b * call.t * call.d), sizeof *of_h);
    double *sums = limber_zeros((size_t)call.d, sizeof *sums);
    if (of_h == NULL || sums == NULL) {
        free(of_h);
        free(sums);
        return limber_fail(error, "there is no memory left");
    }
    for (int64_t i = 0; i < outputs(&call); i++) {
        double *row = of_h + output_at(&call, i) * call.d;
        if (table->logits == LIMBER_LOGITS_HIDDEN) {
            for (int64_t d = 0; d < call.d; d++)
                row[d] += g[i * call.d + d];
            continue;
        }
        for (int64_t v = 0; v < s->vocab; v++)
            for (int64_t d = 0; d < call.d; d++)
                row[d] += (double)g[i * s->vocab + v] * s->head[v * call.d + d];
    }
    for (int64_t b = 0; b < call.b; b++) {
        int64_t n = 0;
        for (int64_t t = 0; t < call.t; t++)
            n += seen(&call, b, t);
        memset(sums, 0, (size_t)call.d * sizeof *sums);
        for (int64_t t = call.t - 1; t >= 0; t--) {
            int visible = seen(&call, b, t);
            for (int64_t d = 0; d < call.d; d++) {
                double own = of_h[(b * call.t + t) * call.d + d];
                sums[d] += n > 0 ? own / (double)n : 0.0;
                out[(b * call.t + t) * call.d + d] = (float)(own + (visible ? sums[d] : 0.0));
            }
            n -= visible;
        }
    }
    free(of_h);
    free(sums);
    return LIMBER_OK;
}

static void cache_release(LimberCache *handle) {
    Cache *cache = (Cache *)handle;
    if (cache != NULL) {
        free(cache->lengths);
        free(cache->values);
    }
    free(cache);
}

static Cache *cache_of(int64_t width, uint64_t rows, uint64_t capacity, const LimberSink *error) {
    Cache *cache = limber_zeros(1, sizeof *cache);
    if (cache != NULL) {
        cache->width = width, cache->rows = rows, cache->capacity = capacity;
        cache->lengths = limber_zeros(rows, sizeof *cache->lengths);
        cache->values = limber_zeros(rows * capacity, (size_t)width * sizeof *cache->values);
    }
    if (cache == NULL || cache->lengths == NULL || cache->values == NULL) {
        cache_release((LimberCache *)cache);
        limber_fail(error, "there is no memory left");
        return NULL;
    }
    return cache;
}

/* Row `from` of one cache becomes row `to` of another, of no smaller capacity. */
static void copy_row(Cache *cache, uint64_t to, const Cache *other, uint64_t from) {
    uint64_t width = (uint64_t)cache->width;
    cache->lengths[to] = other->lengths[from];
    memcpy(cache->values + to * cache->capacity * width, other->values + from * other->capacity * width,
           other->lengths[from] * width * sizeof *cache->values);
}

/* What is in `from` moves to `to`; `from` is gone. */
static void move(Cache *to, Cache *from) {
    free(to->lengths);
    free(to->values);
    *to = *from;
    free(from);
}

static LimberStatus cache_new(LimberInstance *instance, const LimberCacheOptions *options, LimberCache **out,
                              const LimberSink *error) {
    const Decoder *s = (const Decoder *)instance;
    Cache *cache = cache_of(s->width, options->batch, options->capacity, error);
    *out = (LimberCache *)cache;
    return cache == NULL ? LIMBER_ERROR : LIMBER_OK;
}

static LimberStatus cache_truncate(LimberCache *handle, uint64_t length, const LimberSink *error) {
    (void)error;
    Cache *cache = (Cache *)handle;
    for (uint64_t row = 0; row < cache->rows; row++)
        cache->lengths[row] = cache->lengths[row] < length ? cache->lengths[row] : length;
    return LIMBER_OK;
}

static LimberStatus cache_copy(const LimberCache *handle, const uint64_t *rows, uint64_t n_rows,
                               const LimberCacheOptions *options, LimberCache **out, const LimberSink *error) {
    const Cache *cache = (const Cache *)handle;
    for (uint64_t i = 0; i < n_rows; i++)
        if (rows[i] >= cache->rows || cache->lengths[rows[i]] > options->capacity)
            return limber_fail(error, "row %llu of %llu cannot be copied to %llu positions", (unsigned long long)rows[i],
                               (unsigned long long)cache->rows, (unsigned long long)options->capacity);
    Cache *copy = cache_of(cache->width, n_rows, options->capacity, error);
    if (copy == NULL)
        return LIMBER_ERROR;
    for (uint64_t i = 0; i < n_rows; i++)
        copy_row(copy, i, cache, rows[i]);
    *out = (LimberCache *)copy;
    return LIMBER_OK;
}

static LimberStatus cache_select(LimberCache *handle, const uint64_t *rows, uint64_t n_rows, const LimberSink *error) {
    Cache *cache = (Cache *)handle;
    LimberCacheOptions same = {LIMBER_HEAD(LimberCacheOptions), .batch = n_rows, .capacity = cache->capacity};
    LimberCache *kept = NULL;
    LimberStatus status = cache_copy(handle, rows, n_rows, &same, &kept, error);
    if (status == LIMBER_OK)
        move(cache, (Cache *)kept);
    return status;
}

static LimberStatus cache_append(LimberCache *handle, const LimberCache *other_handle, const LimberSink *error) {
    Cache *cache = (Cache *)handle;
    const Cache *other = (const Cache *)other_handle;
    uint64_t capacity = cache->capacity > other->capacity ? cache->capacity : other->capacity;
    Cache *both = cache_of(cache->width, cache->rows + other->rows, capacity, error);
    if (both == NULL)
        return LIMBER_ERROR;
    for (uint64_t row = 0; row < cache->rows; row++)
        copy_row(both, row, cache, row);
    for (uint64_t row = 0; row < other->rows; row++)
        copy_row(both, cache->rows + row, other, row);
    move(cache, both);
    return LIMBER_OK;
}

static const LimberDecoder functions = {
    LIMBER_HEAD(LimberDecoder),
    .prepare = prepare,
    .build = build,
    .release = release,
    .embed = embed,
    .forward = forward,
    .vjp = vjp,
    .cache_new = cache_new,
    .cache_truncate = cache_truncate,
    .cache_select = cache_select,
    .cache_copy = cache_copy,
    .cache_append = cache_append,
    .cache_release = cache_release,
};

static const LimberPart part = {
    LIMBER_HEAD(LimberPart),
    .role = LIMBER_DECODER,
    /* No function changes the instance. Without the flag one thread at a time calls it. */
    .flags = LIMBER_CONCURRENT,
    .kind = "my-decoder",
    .about = "a language model of one layer that averages what it has seen",
    .schema = "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
              "\"vocab\": {\"type\": \"integer\", \"minimum\": 2, \"default\": 50257, "
              "\"description\": \"Vocabulary size V; the last one ends a text.\"}, "
              "\"width\": {\"type\": \"integer\", \"minimum\": 1, \"default\": 256, \"description\": \"Width D.\"}, "
              "\"context\": {\"type\": \"integer\", \"minimum\": 1, \"default\": 1024, "
              "\"description\": \"Most positions.\"}}}",
    .tiny = "{\"vocab\": 31, \"width\": 12, \"context\": 24}",
    .decoder = &functions,
};

LIMBER_EXPORT_PART(part, "my-decoder", "0.1.0");
