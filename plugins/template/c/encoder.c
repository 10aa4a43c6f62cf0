/*
 * my-encoder: pixels [B, 3, S, S] to features [B, N, E]. The image is cut into a grid of cells, N = grid * grid,
 * row-major; the mean colour of a cell goes through a matrix [E, 3]. Put your model where `encode` computes.
 */
#include "limber_part.h"
#include <math.h>

typedef struct Encoder {
    int64_t side, grid, width;
    float *weight; /* [E, 3] */
} Encoder;

/* The settings, with which `resolved` is told; it may be null. */
static LimberStatus read_settings(const char *json, Encoder *s, const LimberSink *resolved, const LimberSink *error) {
    s->side = 224, s->grid = 14, s->width = 256;
    const LimberSetting list[] = {
        {"side", &s->side, 1, 4096}, {"grid", &s->grid, 1, 256}, {"width", &s->width, 1, 65536}};
    LimberStatus status = limber_settings(json, list, 3, error);
    if (status == LIMBER_OK && s->side % s->grid != 0)
        status = limber_fail(error, "side %lld is no multiple of grid %lld", (long long)s->side, (long long)s->grid);
    if (status == LIMBER_OK)
        limber_resolved(resolved, list, 3);
    return status;
}

static LimberStatus prepare(const LimberPart *part, const char *settings, const LimberSource *source,
                            const LimberSink *resolved, LimberEncoderSpec *spec, const LimberSink *error) {
    (void)part, (void)source;
    Encoder s;
    LimberStatus status = read_settings(settings, &s, resolved, error);
    if (status == LIMBER_OK)
        limber_image_spec(spec, s.side, s.grid * s.grid, s.width);
    return status;
}

static void release(LimberInstance *instance) {
    Encoder *s = (Encoder *)instance;
    free(s->weight);
    free(s);
}

static LimberStatus build(const LimberPart *part, const char *settings, const LimberSource *source,
                          const LimberBuild *options, LimberInstance **out, const LimberSink *error) {
    (void)part, (void)options;
    Encoder *s = limber_zeros(1, sizeof *s);
    if (s == NULL)
        return limber_fail(error, "there is no memory left");
    LimberStatus status = read_settings(settings, s, NULL, error);
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
    const float *pixels;
    float *features;
    int64_t batch = limber_image_call(call, s->side, tokens, s->width, &pixels, &features, error);
    for (int64_t b = 0; b < batch; b++)
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
    return batch > 0 ? LIMBER_OK : LIMBER_ERROR;
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

LIMBER_EXPORT_PART(part, "my-encoder", "0.1.0");
