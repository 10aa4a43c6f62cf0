/*
 * What a component in C needs again and again: messages, settings, views of tensors, weights. Not part of the ABI: a plugin
 * may take it along, change it, or do without. C99, no library but the standard one.
 */
#ifndef LIMBER_PART_H
#define LIMBER_PART_H

#include "limber_plugin.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define LIMBER_MAYBE_UNUSED __attribute__((unused))
#define LIMBER_FORMAT(a, b) __attribute__((format(printf, a, b)))
#else
#define LIMBER_MAYBE_UNUSED
#define LIMBER_FORMAT(a, b)
#endif

/* The head of every struct that is given to the host. */
#define LIMBER_HEAD(type) .size = sizeof(struct type), .version = LIMBER_ABI_MINOR

/*
 * Exports a plugin of one component, whose table is `its_part`: the last line of its file. A plugin of several writes
 * its table and its entry itself.
 */
#define LIMBER_EXPORT_PART(its_part, its_name, its_release)                                             \
    static const LimberPart *const limber_exported[] = {&(its_part)};                                   \
    static const LimberPlugin limber_plugin = {                                                         \
        LIMBER_HEAD(LimberPlugin), .abi_major = LIMBER_ABI_MAJOR,    .n_parts = 1, .name = (its_name),  \
        .release = (its_release),  .built_with = "a C compiler", .parts = limber_exported};             \
    LIMBER_EXPORT const LimberPlugin *limber_plugin_v1(const LimberHost *host, const LimberSink *error); \
    const LimberPlugin *limber_plugin_v1(const LimberHost *host, const LimberSink *error) {             \
        (void)host, (void)error;                                                                        \
        return &limber_plugin;                                                                          \
    }                                                                                                   \
    struct LimberExported

/* Gives the message to the host; the return value is that of a function that failed. */
LIMBER_MAYBE_UNUSED LIMBER_FORMAT(2, 3)
static LimberStatus limber_fail(const LimberSink *error, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (error != NULL && error->text != NULL)
        error->text(error->context, message);
    return LIMBER_ERROR;
}

/* `count` zeroed elements, or null. Never of size 0, so that null always means that there is no memory. */
LIMBER_MAYBE_UNUSED
static void *limber_zeros(size_t count, size_t size) {
    return calloc(count > 0 ? count : 1, size > 0 ? size : 1);
}

/* A setting that is a whole number: its name, where it is kept, and its range. What is kept there is the default. */
typedef struct LimberSetting {
    const char *key;
    int64_t *value;
    int64_t least;
    int64_t most;
} LimberSetting;

LIMBER_MAYBE_UNUSED
static const char *limber_blank(const char *at) {
    return at + strspn(at, " \t\r\n");
}

/*
 * Reads a JSON object of whole numbers, such as {"side": 32}, into `settings`. A key that is not listed, a value that
 * is no whole number and one out of its range are errors that name it. Richer settings need a JSON library.
 */
LIMBER_MAYBE_UNUSED
static LimberStatus limber_settings(const char *json, const LimberSetting *settings, size_t n, const LimberSink *error) {
    const char *at = json == NULL ? "" : limber_blank(json);
    if (*at != '{')
        return limber_fail(error, "the settings are no JSON object");
    at = limber_blank(at + 1);
    while (*at != '}') {
        const char *key = at + 1;
        size_t length = *at == '"' ? strcspn(key, "\"\\") : 0, i = 0;
        if (*at != '"' || key[length] != '"')
            return limber_fail(error, "the settings are no JSON object of plain keys");
        while (i < n && (strlen(settings[i].key) != length || strncmp(settings[i].key, key, length) != 0))
            i++;
        if (i == n) {
            char expected[512] = "none";
            for (size_t k = 0, used = 0; k < n && used < sizeof expected; k++)
                used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s", k > 0 ? ", " : "", settings[k].key);
            return limber_fail(error, "unknown key \"%.*s\", expected are: %s", (int)length, key, expected);
        }
        at = limber_blank(key + length + 1);
        if (*at != ':')
            return limber_fail(error, "key \"%s\" has no value", settings[i].key);
        at = limber_blank(at + 1);
        char *end;
        long long value = strtoll(at, &end, 10);
        if (end == at || strchr(",} \t\r\n", *end) == NULL || value < settings[i].least || value > settings[i].most)
            return limber_fail(error, "key \"%s\" has the value %.*s, expected is a whole number from %lld to %lld",
                               settings[i].key, (int)strcspn(at, ",}"), at, (long long)settings[i].least,
                               (long long)settings[i].most);
        *settings[i].value = value;
        at = limber_blank(end);
        if (*at == ',')
            at = limber_blank(at + 1);
        else if (*at != '}')
            return limber_fail(error, "the settings are no JSON object");
    }
    return LIMBER_OK;
}

/* Gives the resolved settings to the host; nothing where `resolved` is null. */
LIMBER_MAYBE_UNUSED
static void limber_resolved(const LimberSink *resolved, const LimberSetting *settings, size_t n) {
    char json[1024] = "{";
    size_t used = 1;
    if (resolved == NULL)
        return;
    for (size_t i = 0; i < n && used < sizeof json; i++)
        used += (size_t)snprintf(json + used, sizeof json - used, "%s\"%s\": %lld", i > 0 ? ", " : "", settings[i].key,
                                 (long long)*settings[i].value);
    if (used < sizeof json - 1) {
        json[used] = '}';
        resolved->text(resolved->context, json);
    }
}

/*
 * Whether `tensor` is a view of `ndim` dimensions of this type and shape, where a size of -1 is any size above 0. If
 * not, the message says what it is.
 */
LIMBER_MAYBE_UNUSED
static int limber_is(const LimberTensor *tensor, uint8_t code, uint8_t bits, int32_t ndim, const int64_t *shape,
                     const char *what, const LimberSink *error) {
    if (tensor == NULL || tensor->device_type != LIMBER_CPU || tensor->dtype_code != code || tensor->dtype_bits != bits ||
        tensor->dtype_lanes != 1 || tensor->byte_offset != 0) {
        limber_fail(error, "%s: not a tensor of type code %d with %d bits on the CPU", what, code, bits);
        return 0;
    }
    int same = tensor->ndim == ndim;
    for (int32_t i = 0; same && i < ndim; i++)
        same = shape[i] < 0 ? tensor->shape[i] > 0 : tensor->shape[i] == shape[i];
    if (!same) {
        char found[256] = "";
        size_t used = 0;
        for (int32_t i = 0; i < tensor->ndim && used < sizeof found; i++)
            used += (size_t)snprintf(found + used, sizeof found - used, "%s%lld", i > 0 ? ", " : "",
                                     (long long)tensor->shape[i]);
        char expected[256] = "";
        used = 0;
        for (int32_t i = 0; i < ndim && used < sizeof expected; i++)
            used += shape[i] < 0 ? (size_t)snprintf(expected + used, sizeof expected - used, "%sany", i > 0 ? ", " : "")
                                 : (size_t)snprintf(expected + used, sizeof expected - used, "%s%lld", i > 0 ? ", " : "",
                                                    (long long)shape[i]);
        limber_fail(error, "%s: the shape is [%s], expected is [%s]", what, found, expected);
    }
    return same;
}

/* The elements of an f32 view, checked as above; null, and a message, where it is another. */
LIMBER_MAYBE_UNUSED
static float *limber_floats(const LimberTensor *tensor, int32_t ndim, const int64_t *shape, const char *what,
                            const LimberSink *error) {
    return limber_is(tensor, LIMBER_FLOAT, 32, ndim, shape, what, error) ? tensor->data : NULL;
}

/* An f16 number as f32. */
LIMBER_MAYBE_UNUSED
static float limber_half(uint16_t bits) {
    uint32_t exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent == 0) {
        float value = (float)fraction / 16777216.0f;
        return bits >> 15 ? -value : value;
    }
    uint32_t wide = (uint32_t)(bits >> 15) << 31 | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/*
 * Reads the weight `name` of this shape as f32 into `out`. From a random source it is normal with deviation
 * `deviation`. From a file it has the file's type: f32, f16 and bf16 are understood here, quantised formats are not.
 */
LIMBER_MAYBE_UNUSED
static LimberStatus limber_weight(const LimberSource *source, const char *name, int32_t ndim, const int64_t *shape,
                                  float deviation, float *out, const LimberSink *error) {
    LimberRequest request = {LIMBER_HEAD(LimberRequest), .name = name, .shape = shape, .ndim = ndim,
                             .init = LIMBER_INIT_NORMAL, .a = 0.0f, .b = deviation};
    LimberWeight weight = {LIMBER_HEAD(LimberWeight)};
    LimberStatus status = source->read(source->context, &request, &weight, error);
    if (status != LIMBER_OK)
        return status;
    size_t n = 1;
    for (int32_t i = 0; i < ndim; i++)
        n *= (size_t)shape[i];
    const uint16_t *halves = weight.tensor->data;
    if (strcmp(weight.format, "f32") == 0)
        memcpy(out, weight.tensor->data, n * sizeof *out);
    else if (strcmp(weight.format, "f16") == 0)
        for (size_t i = 0; i < n; i++)
            out[i] = limber_half(halves[i]);
    else if (strcmp(weight.format, "bf16") == 0)
        for (size_t i = 0; i < n; i++) {
            uint32_t wide = (uint32_t)halves[i] << 16;
            memcpy(out + i, &wide, sizeof wide);
        }
    else
        status = limber_fail(error, "weight %s is in the format %s, expected are f32, f16, bf16", name, weight.format);
    weight.release(weight.lease);
    return status;
}

/* The spec of an encoder of images: `side` pixels a side, cut out of the middle, bicubic, mean and deviation 0.5. */
LIMBER_MAYBE_UNUSED
static void limber_image_spec(LimberEncoderSpec *spec, int64_t side, int64_t tokens, int64_t width) {
    spec->input = LIMBER_INPUT_IMAGE;
    spec->kind = LIMBER_FEATURES_PATCHES;
    spec->tokens = (uint64_t)tokens;
    spec->width = (uint64_t)width;
    spec->side = (uint64_t)side;
    spec->resize = LIMBER_RESIZE_SHORTER_SIDE_CROP;
    spec->filter = LIMBER_FILTER_BICUBIC;
    for (int c = 0; c < 3; c++)
        spec->mean[c] = spec->std[c] = 0.5f;
}

/*
 * The memory of a call of such an encoder: pixels [B, 3, side, side] and features [B, tokens, width]. Gives B, or 0 and
 * a message where a shape is another.
 */
LIMBER_MAYBE_UNUSED
static int64_t limber_image_call(const LimberEncode *call, int64_t side, int64_t tokens, int64_t width,
                                 const float **pixels, float **features, const LimberSink *error) {
    int64_t pixels_shape[] = {-1, 3, side, side};
    *pixels = limber_floats(call->input, 4, pixels_shape, "pixels", error);
    if (*pixels == NULL)
        return 0;
    int64_t features_shape[] = {call->input->shape[0], tokens, width};
    *features = limber_floats(call->output, 3, features_shape, "features", error);
    return *features == NULL ? 0 : features_shape[0];
}

#endif /* LIMBER_PART_H */
