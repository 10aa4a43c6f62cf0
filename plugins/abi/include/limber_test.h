/*
 * A host small enough for the tests of a plugin: opens the library, lends random weights, counts what is given back.
 * POSIX (dlopen). Not part of the ABI.
 */
#ifndef LIMBER_TEST_H
#define LIMBER_TEST_H

#include "limber_plugin.h"
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define TEST_MAYBE_UNUSED __attribute__((unused))
#else
#define TEST_MAYBE_UNUSED
#endif

/* Ends the test where `condition` does not hold, with the last message of the plugin. */
#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: %s does not hold; last message: %s\n", __FILE__, __LINE__, #condition, \
                    test_message);                                                                          \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

/* The last message, and the last settings that a `prepare` resolved. */
static char test_message[2048] = "none";
static char test_settings[2048] = "";
/* Weights that are lent and not given back yet. */
static long test_leases = 0;

static void test_keep(void *context, const char *text) {
    snprintf(context, sizeof test_message, "%s", text);
}

static const LimberSink test_error = {sizeof(LimberSink), LIMBER_ABI_MINOR, test_message, test_keep};
TEST_MAYBE_UNUSED
static const LimberSink test_resolved = {sizeof(LimberSink), LIMBER_ABI_MINOR, test_settings, test_keep};

static void test_log(const void *context, uint32_t level, const char *target, const char *message) {
    (void)context;
    fprintf(stderr, "log %u %s: %s\n", (unsigned)level, target == NULL ? "" : target, message);
}

/* Opens the library and shakes hands; the table says what this host can read. */
TEST_MAYBE_UNUSED
static const LimberPlugin *test_open(const char *path) {
    static const char *const features[] = {NULL};
    static const LimberHost host = {.size = sizeof(LimberHost), .version = LIMBER_ABI_MINOR, .name = "a test",
                                    .features = features, .threads = 1, .log_level = LIMBER_LOG_DEBUG, .log = test_log};
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    void *symbol = dlsym(library, "limber_plugin_v1");
    CHECK(symbol != NULL);
    LimberEntry entry;
    memcpy(&entry, &symbol, sizeof entry);
    const LimberPlugin *plugin = entry(&host, &test_error);
    CHECK(plugin != NULL && plugin->size >= sizeof(LimberPlugin) && plugin->abi_major == LIMBER_ABI_MAJOR);
    CHECK(plugin->version <= LIMBER_ABI_MINOR && plugin->n_parts > 0);
    return plugin;
}

/* Numbers that look random, between -1 and 1, the same on every machine. */
static float test_number(uint64_t seed, uint64_t index) {
    uint64_t x = seed * 0x9e3779b97f4a7c15u + index + 1;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (float)((double)(x >> 40) / 8388608.0 - 1.0);
}

/* `n` of them, to be freed. */
TEST_MAYBE_UNUSED
static float *test_numbers(uint64_t seed, size_t n) {
    float *numbers = malloc((n > 0 ? n : 1) * sizeof *numbers);
    CHECK(numbers != NULL);
    for (size_t i = 0; i < n; i++)
        numbers[i] = test_number(seed, i);
    return numbers;
}

/* A view of f32 elements; `shape` and `data` stay the caller's. */
TEST_MAYBE_UNUSED
static LimberTensor test_view(float *data, int32_t ndim, const int64_t *shape) {
    LimberTensor view = {.size = sizeof(LimberTensor), .version = LIMBER_ABI_MINOR, .data = data,
                         .device_type = LIMBER_CPU, .ndim = ndim, .dtype_code = LIMBER_FLOAT, .dtype_bits = 32,
                         .dtype_lanes = 1, .shape = shape};
    return view;
}

typedef struct TestLease {
    LimberTensor tensor;
    int64_t shape[8];
    float data[];
} TestLease;

static void test_release(void *lease) {
    test_leases--;
    free(lease);
}

static void test_label(const void *context, const LimberSink *text) {
    (void)context;
    text->text(text->context, "random:1");
}

static LimberStatus test_tensors(const void *context, const LimberNames *names, int32_t *known) {
    (void)context, (void)names;
    *known = 0;
    return LIMBER_OK;
}

static LimberStatus test_read(const void *context, const LimberRequest *request, LimberWeight *out,
                              const LimberSink *error) {
    (void)context, (void)error;
    CHECK(request->ndim >= 0 && request->ndim <= 8);
    size_t n = 1;
    for (int32_t i = 0; i < request->ndim; i++)
        n *= (size_t)request->shape[i];
    TestLease *lease = malloc(sizeof *lease + n * sizeof lease->data[0]);
    CHECK(lease != NULL);
    uint64_t seed = 1;
    for (const char *c = request->name; *c != 0; c++)
        seed = seed * 31 + (unsigned char)*c;
    for (size_t i = 0; i < n; i++)
        lease->data[i] = test_number(seed, i);
    memcpy(lease->shape, request->shape, (size_t)request->ndim * sizeof lease->shape[0]);
    lease->tensor = test_view(lease->data, request->ndim, lease->shape);
    out->tensor = &lease->tensor;
    out->format = "f32";
    out->lease = lease;
    out->release = test_release;
    test_leases++;
    return LIMBER_OK;
}

static LimberStatus test_document(const void *context, const char *name, const LimberSink *text, int32_t *found,
                                  const LimberSink *error) {
    (void)context, (void)name, (void)text, (void)error;
    *found = 0;
    return LIMBER_OK;
}

/* Random weights. */
TEST_MAYBE_UNUSED
static const LimberSource test_source = {.size = sizeof(LimberSource), .version = LIMBER_ABI_MINOR,
                                         .label = test_label, .tensors = test_tensors, .read = test_read,
                                         .document = test_document};

TEST_MAYBE_UNUSED
static const LimberBuild test_build = {sizeof(LimberBuild), LIMBER_ABI_MINOR, NULL};

/*
 * Prepares and builds the encoder of `part` at its tiny settings, encodes a batch, its images alone, and what does not
 * fit, and gives all back.
 */
TEST_MAYBE_UNUSED
static void test_encoder(const LimberPart *part) {
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

    /* What does not fit is refused with a message, and the instance works afterwards. */
    input_shape[3] = s + 1;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_ERROR && strstr(test_message, "shape"));
    input_shape[3] = s;
    output_shape[1] = n + 1;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_ERROR && strstr(test_message, "shape"));
    output_shape[1] = n;
    CHECK(encoder->encode(instance, &call, &test_error) == LIMBER_OK);
    CHECK(encoder->prepare(part, "{\"no_such_key\": 1}", &test_source, &test_resolved, &spec, &test_error) == LIMBER_ERROR);
    CHECK(strstr(test_message, "no_such_key") != NULL);

    encoder->release(instance);
    free(pixels), free(batch), free(single);
    CHECK(test_leases == 0);
}

/*
 * The vector-Jacobian product against finite differences along the gradient: `value(context)` is the sum of outputs
 * times fixed numbers, `gradient` the plugin's derivative of it for the `n` numbers at `x`. 1 in 100 is allowed.
 */
TEST_MAYBE_UNUSED
static void test_gradient(double (*value)(void *context), void *context, float *x, const float *gradient, size_t n) {
    double size = 0.0;
    for (size_t i = 0; i < n; i++)
        size += (double)gradient[i] * gradient[i];
    CHECK(size > 0.0);
    double step = 1e-2 / sqrt(size / (double)n), sides[2];
    float *start = malloc(n * sizeof *start);
    CHECK(start != NULL);
    memcpy(start, x, n * sizeof *start);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            x[i] = start[i] + (float)((side == 0 ? step : -step) * gradient[i]);
        sides[side] = value(context);
    }
    memcpy(x, start, n * sizeof *start);
    free(start);
    double measured = (sides[0] - sides[1]) / (2.0 * step);
    CHECK(fabs(measured - size) <= 0.01 * size);
}

#endif /* LIMBER_TEST_H */
