/*
 * my-encoder: pixels [B, 3, S, S] to features [B, N, E]. The image is cut into a grid of cells, N = grid * grid,
 * row-major; the mean colour of a cell goes through a matrix [E, 3]. Put your model where `encode` computes.
 */
#include "limber_part.h"
#include <math.h>

#define SETTINGS 3

typedef struct Encoder {
    int64_t side, grid, width;
    float *weight; /* [E, 3] */
} Encoder;

static LimberStatus read_settings(const char *json, Encoder *s, LimberSetting list[SETTINGS], const LimberSink *error) {
    s->side = 224, s->grid = 14, s->width = 256;
    list[0] = (LimberSetting){"side", &s->side, 1, 4096};
    list[1] = (LimberSetting){"grid", &s->grid, 1, 256};
    list[2] = (LimberSetting){"width", &s->width, 1, 65536};
    LimberStatus status = limber_settings(json, list, SETTINGS, error);
    if (status == LIMBER_OK && s->side % s->grid != 0)
        return limber_fail(error, "side %lld is no multiple of grid %lld", (long long)s->side, (long long)s->grid);
    return status;
}

static LimberStatus prepare(const LimberPart *part, const char *settings, const LimberSource *source,
                            const LimberSink *resolved, LimberEncoderSpec *spec, const LimberSink *error) {
    (void)part, (void)source;
    Encoder s;
    LimberSetting list[SETTINGS];
    LimberStatus status = read_settings(settings, &s, list, error);
    if (status != LIMBER_OK)
        return status;
    limber_resolved(resolved, list, SETTINGS);
    spec->input = LIMBER_INPUT_IMAGE;
    spec->kind = LIMBER_FEATURES_PATCHES;
    spec->tokens = (uint64_t)(s.grid * s.grid);
    spec->width = (uint64_t)s.width;
    spec->side = (uint64_t)s.side;
    spec->resize = LIMBER_RESIZE_SHORTER_SIDE_CROP;
    spec->filter = LIMBER_FILTER_BICUBIC;
    for (int c = 0; c < 3; c++)
        spec->mean[c] = spec->std[c] = 0.5f;
    return LIMBER_OK;
}

static void release(LimberInstance *instance) {
    Encoder *s = (Encoder *)instance;
    free(s->weight);
    free(s);
}

static LimberStatus build(const LimberPart *part, const char *settings, const LimberSource *source,
                          const LimberBuild *options, LimberInstance **out, const LimberSink *error) {
    (void)part, (void)options;
    LimberSetting list[SETTINGS];
    Encoder *s = limber_zeros(1, sizeof *s);
    if (s == NULL)
        return limber_fail(error, "there is no memory left");
    LimberStatus status = read_settings(settings, s, list, error);
    if (status == LIMBER_OK) {
        int64_t shape[] = {s->width, 3};
        s->weight = limber_zeros((size_t)(s->width * 3), sizeof *s->weight);
        status = s->weight == NULL ? limber_fail(error, "there is no memory left")
                                   : limber_weight(source, "weight", 2, shape, 1.0f / sqrtf(3.0f), s->weight, error);
    }
    if (status != LIMBER_OK) {
        release((LimberInstance *)s);
        return status;
    }
    *out = (LimberInstance *)s;
    return LIMBER_OK;
}

static LimberStatus encode(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    const Encoder *s = (const Encoder *)instance;
    int64_t tokens = s->grid * s->grid, cell = s->side / s->grid, plane = s->side * s->side;
    int64_t pixels_shape[] = {-1, 3, s->side, s->side};
    const float *pixels = limber_floats(call->input, 4, pixels_shape, "pixels", error);
    if (pixels == NULL)
        return LIMBER_ERROR;
    int64_t features_shape[] = {call->input->shape[0], tokens, s->width};
    float *features = limber_floats(call->output, 3, features_shape, "features", error);
    if (features == NULL)
        return LIMBER_ERROR;
    for (int64_t b = 0; b < features_shape[0]; b++)
        for (int64_t token = 0; token < tokens; token++) {
            const float *corner =
                pixels + b * 3 * plane + token / s->grid * cell * s->side + token % s->grid * cell;
            double colour[3] = {0.0, 0.0, 0.0};
            for (int c = 0; c < 3; c++)
                for (int64_t i = 0; i < cell * cell; i++)
                    colour[c] += corner[c * plane + i / cell * s->side + i % cell] / (double)(cell * cell);
            for (int64_t e = 0; e < s->width; e++) {
                const float *row = s->weight + e * 3;
                features[(b * tokens + token) * s->width + e] =
                    (float)(row[0] * colour[0] + row[1] * colour[1] + row[2] * colour[2]);
            }
        }
    return LIMBER_OK;
}

static const LimberEncoder functions = {
    LIMBER_HEAD(LimberEncoder), .prepare = prepare, .build = build, .release = release, .encode = encode};

static const LimberPart part = {
    LIMBER_HEAD(LimberPart),
    .role = LIMBER_ENCODER,
    /* `encode` changes nothing of the instance. Without the flag one thread at a time calls it. */
    .flags = LIMBER_CONCURRENT,
    .kind = "my-encoder",
    .about = "mean colours of a grid of cells through a matrix",
    .schema = "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
              "\"side\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 4096, \"default\": 224, "
              "\"description\": \"Side S of the pixels.\"}, "
              "\"grid\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 256, \"default\": 14, "
              "\"description\": \"Cells a side; a divisor of the side.\"}, "
              "\"width\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 65536, \"default\": 256, "
              "\"description\": \"Encoder width E.\"}}}",
    .tiny = "{\"side\": 12, \"grid\": 3, \"width\": 8}",
    .encoder = &functions,
};

static const LimberPart *const parts[] = {&part};

static const LimberPlugin plugin = {
    LIMBER_HEAD(LimberPlugin), .abi_major = LIMBER_ABI_MAJOR, .n_parts = 1, .name = "my-encoder",
    .release = "0.1.0",        .built_with = "a C compiler",  .parts = parts,
};

LIMBER_EXPORT const LimberPlugin *limber_plugin_v1(const LimberHost *host, const LimberSink *error);

const LimberPlugin *limber_plugin_v1(const LimberHost *host, const LimberSink *error) {
    (void)host, (void)error;
    return &plugin;
}
