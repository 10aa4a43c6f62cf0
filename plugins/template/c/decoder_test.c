/*
 * Plays the host: embeds, computes with and without a cache, cuts, copies and joins caches, compares the gradient with
 * finite differences, gives all back.
 */
#include "limber_test.h"

#define B 2
#define T 6

static const LimberDecoder *decoder;
static LimberInstance *instance;
static int64_t width, vocab;

/* Logits of every position of `rows` rows of `t` embeddings into `out`; over a cache whose rows hold `past`. */
static LimberStatus run(float *embeds, int64_t rows, int64_t t, LimberCache *cache, const uint64_t *past, float *out) {
    int64_t embeds_shape[] = {rows, t, width}, out_shape[] = {rows, t, vocab};
    LimberTensor input = test_view(embeds, 3, embeds_shape), output = test_view(out, 3, out_shape);
    LimberForward call = {.size = sizeof call, .version = LIMBER_ABI_MINOR, .logits = LIMBER_LOGITS_ALL, .embeds = &input,
                          .output = &output, .past = past, .cache = cache};
    return decoder->forward(instance, &call, &test_error);
}

static void same(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        CHECK(isfinite(a[i]) && fabsf(a[i] - b[i]) <= 1e-5f);
}

typedef struct Pass {
    float *embeds, *out;
    const float *weights;
} Pass;

static double sum(void *context) {
    const Pass *pass = context;
    CHECK(run(pass->embeds, B, T, NULL, NULL, pass->out) == LIMBER_OK);
    double total = 0.0;
    for (int64_t i = 0; i < B * T * vocab; i++)
        total += (double)pass->out[i] * pass->weights[i];
    return total;
}

/* Position by position, and rows that are copied, selected and appended, against the whole at once. */
static void caches(float *embeds, const float *whole) {
    LimberCacheOptions options = {.size = sizeof options, .version = LIMBER_ABI_MINOR, .batch = B, .capacity = T + 2,
                                  .slots = B, .format = "f32"};
    LimberCache *cache = NULL, *copy = NULL;
    CHECK(decoder->cache_new(instance, &options, &cache, &test_error) == LIMBER_OK && cache != NULL);
    float *step = test_numbers(0, (size_t)(B * width)), *out = test_numbers(0, (size_t)(3 * vocab));
    for (uint64_t t = 0; t < T; t++) {
        uint64_t past[] = {t, t};
        for (int64_t b = 0; b < B; b++)
            memcpy(step + b * width, embeds + (b * T + (int64_t)t) * width, (size_t)width * sizeof *step);
        CHECK(run(step, B, 1, cache, past, out) == LIMBER_OK);
        for (int64_t b = 0; b < B; b++)
            same(out + b * vocab, whole + (b * T + (int64_t)t) * vocab, vocab);
    }
    /* The last position again, of rows 1, 1 and 0: from a copy of both rows that row 1 was taken out of and added to. */
    const uint64_t both[] = {1, 0}, first[] = {1}, past[] = {T - 1, T - 1, T - 1};
    CHECK(decoder->cache_truncate(cache, T - 1, &test_error) == LIMBER_OK);
    CHECK(decoder->cache_copy(cache, both, 2, &options, &copy, &test_error) == LIMBER_OK && copy != NULL);
    CHECK(decoder->cache_select(cache, first, 1, &test_error) == LIMBER_OK);
    CHECK(decoder->cache_append(cache, copy, &test_error) == LIMBER_OK);
    decoder->cache_release(copy);
    const int64_t order[] = {1, 1, 0};
    float *three = test_numbers(0, (size_t)(3 * width));
    for (int i = 0; i < 3; i++)
        memcpy(three + i * width, embeds + (order[i] * T + T - 1) * width, (size_t)width * sizeof *three);
    CHECK(run(three, 3, 1, cache, past, out) == LIMBER_OK);
    for (int i = 0; i < 3; i++)
        same(out + i * vocab, whole + (order[i] * T + T - 1) * vocab, vocab);
    CHECK(run(three, 2, 1, cache, past, out) == LIMBER_ERROR);
    decoder->cache_release(cache);
    free(step), free(out), free(three);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const LimberPart *part = test_open(argv[1])->parts[0];
    CHECK(part->role == LIMBER_DECODER);
    decoder = part->decoder;
    LimberDecoderSpec spec = {.size = sizeof spec, .version = LIMBER_ABI_MINOR};
    CHECK(decoder->prepare(part, part->tiny, &test_source, &test_resolved, &spec, &test_error) == LIMBER_OK);
    CHECK(decoder->build(part, test_settings, &test_source, &test_build, &instance, &test_error) == LIMBER_OK);
    width = (int64_t)spec.width, vocab = (int64_t)spec.vocab;
    CHECK(spec.context >= T + 2);

    float *embeds = test_numbers(0, (size_t)(B * T * width)), *whole = test_numbers(0, (size_t)(B * T * vocab));
    int64_t ids[B * T], ids_shape[] = {B, T}, embeds_shape[] = {B, T, width}, out_shape[] = {B, T, vocab};
    for (int64_t i = 0; i < B * T; i++)
        ids[i] = (7 * i + 1) % vocab;
    LimberTensor ids_view = {.size = sizeof(LimberTensor), .version = LIMBER_ABI_MINOR, .data = ids, .device_type = LIMBER_CPU,
                             .ndim = 2, .dtype_code = LIMBER_INT, .dtype_bits = 64, .dtype_lanes = 1, .shape = ids_shape};
    LimberTensor embeds_view = test_view(embeds, 3, embeds_shape);
    CHECK(decoder->embed(instance, &ids_view, &embeds_view, &test_error) == LIMBER_OK);
    CHECK(run(embeds, B, T, NULL, NULL, whole) == LIMBER_OK);
    for (int64_t i = 0; i < B * T * vocab; i++)
        CHECK(isfinite(whole[i]));
    caches(embeds, whole);

    if (decoder->vjp != NULL) {
        float *weights = test_numbers(3, (size_t)(B * T * vocab)), *gradient = test_numbers(0, (size_t)(B * T * width));
        LimberTensor weights_view = test_view(weights, 3, out_shape), gradient_view = test_view(gradient, 3, embeds_shape);
        LimberForward call = {.size = sizeof call, .version = LIMBER_ABI_MINOR, .logits = LIMBER_LOGITS_ALL, .embeds = &embeds_view};
        CHECK(decoder->vjp(instance, &call, NULL, &weights_view, &gradient_view, &test_error) == LIMBER_OK);
        Pass pass = {embeds, whole, weights};
        test_gradient(sum, &pass, embeds, gradient, (size_t)(B * T * width));
        free(weights), free(gradient);
    }

    ids[1] = vocab;
    CHECK(decoder->embed(instance, &ids_view, &embeds_view, &test_error) == LIMBER_ERROR);
    CHECK(decoder->prepare(part, "{\"no_such_key\": 1}", &test_source, &test_resolved, &spec, &test_error) == LIMBER_ERROR);
    CHECK(strstr(test_message, "no_such_key") != NULL);

    decoder->release(instance);
    free(embeds), free(whole);
    CHECK(test_leases == 0);
    printf("%s: decoder %s passes\n", argv[1], part->kind);
    return 0;
}
