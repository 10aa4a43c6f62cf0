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

/* Settings that are refused, each with its message, by `prepare` and by `build`. */
static void refused_settings(const LimberPart *part) {
    static const char *const wrong[][2] = {
        {"{\"sdie\": 4}", "unknown key \"sdie\""}, {"{\"side\": \"four\"}", "key \"side\" has the value \"four\""},
        {"{\"side\": 0}", "expected is a whole"},  {"{\"side\": 7, \"grid\": 2}", "side 7 is no multiple of grid 2"},
        {"[]", "no JSON object"},                  {"{\"side\": 4", "no JSON object"}};
    const LimberEncoder *encoder = part->encoder;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        LimberEncoderSpec spec = {.size = sizeof spec, .version = LIMBER_ABI_MINOR};
        LimberInstance *none = NULL;
        CHECK(encoder->prepare(part, wrong[i][0], &test_source, &test_resolved, &spec, &test_error) == LIMBER_ERROR);
        CHECK(strstr(test_message, wrong[i][1]) != NULL);
        CHECK(encoder->build(part, wrong[i][0], &test_source, &test_build, &none, &test_error) == LIMBER_ERROR);
        CHECK(none == NULL);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const LimberPlugin *plugin = test_open(argv[1]);
    CHECK(plugin->n_parts == 1 && plugin->parts[0]->role == LIMBER_ENCODER);
    known_numbers(plugin->parts[0]);
    refused_settings(plugin->parts[0]);
    test_encoder(plugin->parts[0]);
    printf("%s: %s passes\n", argv[1], plugin->parts[0]->kind);
    return 0;
}
