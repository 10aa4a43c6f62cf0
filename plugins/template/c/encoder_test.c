/* Plays the host: prepares, builds, encodes a batch and its images alone, refuses what does not fit, gives all back. */
#include "limber_test.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const LimberPart *part = test_open(argv[1])->parts[0];
    CHECK(part->role == LIMBER_ENCODER);
    const LimberEncoder *encoder = part->encoder;
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
    for (int64_t i = 0; i < b * n * e; i++)
        CHECK(isfinite(batch[i]));
    input_shape[0] = output_shape[0] = 1;
    for (int64_t row = 0; row < b; row++) {
        input.data = pixels + row * 3 * s * s;
        output.data = single;
        CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_OK);
        for (int64_t i = 0; i < n * e; i++)
            CHECK(fabsf(single[i] - batch[row * n * e + i]) <= 1e-5f);
    }

    input_shape[3] = s + 1;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_ERROR && strstr(test_message, "shape"));
    CHECK(encoder->prepare(part, "{\"no_such_key\": 1}", &test_source, &test_resolved, &spec, &test_error) == LIMBER_ERROR);
    CHECK(strstr(test_message, "no_such_key") != NULL);

    encoder->release(instance);
    free(pixels), free(batch), free(single);
    CHECK(test_leases == 0);
    printf("%s: encoder %s passes\n", argv[1], part->kind);
    return 0;
}
