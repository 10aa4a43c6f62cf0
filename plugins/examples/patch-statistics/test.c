/*
 * Plays the host: loads the library that is named, prepares, builds, encodes, gives back, and looks at what came out.
 * `make sanitize` runs it under AddressSanitizer, which also says what was never given back.
 */
#include "limber_test.h"

/* 4 cells of 2 x 2 pixels: one colour each, then one edge. */
static void known_numbers(const LimberPart *part) {
    LimberEncoderSpec spec = {.size = sizeof spec, .version = LIMBER_ABI_MINOR};
    CHECK(part->encoder->prepare(part, "{\"side\": 4, \"grid\": 2, \"bins\": 2}", &test_source, &test_resolved, &spec,
                                 &test_error) == LIMBER_OK);
    CHECK(spec.tokens == 4 && spec.width == 8 && spec.side == 4);
    LimberInstance *instance = NULL;
    CHECK(part->encoder->build(part, test_settings, &test_source, &test_build, &instance, &test_error) == LIMBER_OK);
    /* The left half is 0 in every channel, the right half 1: a vertical edge, whose gradient points along x. */
    float pixels[3 * 4 * 4], features[4 * 8];
    for (int i = 0; i < 3 * 4 * 4; i++)
        pixels[i] = i % 4 >= 2 ? 1.0f : 0.0f;
    int64_t input_shape[] = {1, 3, 4, 4}, output_shape[] = {1, 4, 8};
    LimberTensor input = test_view(pixels, 4, input_shape), output = test_view(features, 3, output_shape);
    LimberEncode call = {.size = sizeof call, .version = LIMBER_ABI_MINOR, .input = &input, .output = &output};
    CHECK(part->encoder->encode(instance, &call, &test_error) == LIMBER_OK);
    for (int token = 0; token < 4; token++) {
        const float *cell = features + token * 8;
        for (int c = 0; c < 3; c++)
            CHECK(cell[c] == (token % 2 == 0 ? 0.0f : 1.0f) && cell[3 + c] == 0.0f);
        CHECK(fabsf(cell[6] - 1.0f) < 1e-5f && fabsf(cell[7]) < 1e-5f);
    }
    part->encoder->release(instance);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const LimberPlugin *plugin = test_open(argv[1]);
    CHECK(plugin->n_parts == 1 && plugin->parts[0]->role == LIMBER_ENCODER);
    const LimberPart *part = plugin->parts[0];
    const LimberEncoder *encoder = part->encoder;
    known_numbers(part);

    LimberEncoderSpec spec = {.size = sizeof spec, .version = LIMBER_ABI_MINOR};
    CHECK(encoder->prepare(part, part->tiny, &test_source, &test_resolved, &spec, &test_error) == LIMBER_OK);
    LimberInstance *instance = NULL;
    CHECK(encoder->build(part, test_settings, &test_source, &test_build, &instance, &test_error) == LIMBER_OK);
    int64_t s = (int64_t)spec.side, n = (int64_t)spec.tokens, e = (int64_t)spec.width, b = 3;
    float *pixels = test_numbers(2, (size_t)(b * 3 * s * s)), *batch = test_numbers(0, (size_t)(b * n * e));
    float *single = test_numbers(0, (size_t)(n * e));
    int64_t input_shape[] = {b, 3, s, s}, output_shape[] = {b, n, e};
    LimberTensor input = test_view(pixels, 4, input_shape), output = test_view(batch, 3, output_shape);
    LimberEncode call = {.size = sizeof call, .version = LIMBER_ABI_MINOR, .input = &input, .output = &output};
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_OK);
    /* An image gives the same features alone. */
    input_shape[0] = output_shape[0] = 1;
    for (int64_t row = 0; row < b; row++) {
        input.data = pixels + row * 3 * s * s;
        output.data = single;
        CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_OK);
        CHECK(memcmp(single, batch + row * n * e, (size_t)(n * e) * sizeof *single) == 0);
    }
    for (int64_t i = 0; i < b * n * e; i++)
        CHECK(isfinite(batch[i]));

    /* What does not fit is refused with a message, and the instance works afterwards. */
    input_shape[3] = s + 1;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_ERROR && strstr(test_message, "pixels: the shape is"));
    input_shape[3] = s;
    output_shape[1] = n + 1;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_ERROR && strstr(test_message, "features: the shape"));
    output_shape[1] = n;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_OK);
    static const char *const wrong[][2] = {
        {"{\"sdie\": 4}", "unknown key \"sdie\""}, {"{\"side\": \"four\"}", "key \"side\" has the value \"four\""},
        {"{\"side\": 0}", "allowed are the whole"}, {"{\"side\": 7, \"grid\": 2}", "side 7 is no multiple of grid 2"},
        {"[]", "no JSON object"},                   {"{\"side\": 4", "no JSON object"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        LimberInstance *none = NULL;
        CHECK(encoder->prepare(part, wrong[i][0], &test_source, &test_resolved, &spec, &test_error) == LIMBER_ERROR);
        CHECK(strstr(test_message, wrong[i][1]) != NULL);
        CHECK(encoder->build(part, wrong[i][0], &test_source, &test_build, &none, &test_error) == LIMBER_ERROR);
        CHECK(none == NULL);
    }
    encoder->release(instance);
    free(pixels), free(batch), free(single);
    CHECK(test_leases == 0);
    printf("%s: %s passes\n", argv[1], part->kind);
    return 0;
}
