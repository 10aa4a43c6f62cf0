/*
 * patch-statistics: an encoder without weights, in C. An image is cut into a grid of cells, N = grid * grid, row-major.
 * A cell gives E = 6 + bins numbers: the mean of each channel, its standard deviation, and a histogram of the
 * directions of the brightness gradient, as HOG has it (Dalal and Triggs 2005): directions without sign, each pixel
 * weighted by the size of its gradient and shared by the two nearest bins, the histogram divided by its length.
 *
 *     cc -std=c99 -O2 -shared -fPIC -I ../../abi/include -o libpatch_statistics.so patch_statistics.c -lm
 *
 * Pixels [B, 3, S, S] to features [B, N, E].
 */
#include "limber_part.h"
#include <math.h>

#define PI 3.14159265358979323846

/* The settings, which are the instance as well: there is nothing else to keep. */
typedef struct Statistics {
    int64_t side, grid, bins;
} Statistics;

static LimberStatus read_settings(const char *json, Statistics *s, const LimberSink *resolved, const LimberSink *error) {
    s->side = 224, s->grid = 14, s->bins = 9;
    const LimberSetting all[] = {{"side", &s->side, 1, 4096}, {"grid", &s->grid, 1, 256}, {"bins", &s->bins, 2, 360}};
    if (limber_settings(json, all, 3, error) != LIMBER_OK)
        return LIMBER_ERROR;
    if (s->side % s->grid != 0)
        return limber_fail(error, "side %lld is no multiple of grid %lld", (long long)s->side, (long long)s->grid);
    limber_resolved(resolved, all, 3);
    return LIMBER_OK;
}

static LimberStatus prepare(const LimberPart *part, const char *settings, const LimberSource *source,
                            const LimberSink *resolved, LimberEncoderSpec *spec, const LimberSink *error) {
    (void)part, (void)source;
    Statistics s;
    if (read_settings(settings, &s, resolved, error) != LIMBER_OK)
        return LIMBER_ERROR;
    limber_image_spec(spec, s.side, s.grid * s.grid, 6 + s.bins);
    return LIMBER_OK;
}

static LimberStatus build(const LimberPart *part, const char *settings, const LimberSource *source,
                          const LimberBuild *options, LimberInstance **out, const LimberSink *error) {
    (void)part, (void)source, (void)options;
    Statistics *s = limber_zeros(1, sizeof *s);
    if (s == NULL)
        return limber_fail(error, "there is no memory left");
    LimberStatus status = read_settings(settings, s, NULL, error);
    if (status != LIMBER_OK) {
        free(s);
        return status;
    }
    *out = (LimberInstance *)s;
    return LIMBER_OK;
}

static void release(LimberInstance *instance) {
    free(instance);
}

/* The brightness at (y, x) by the weights of ITU-R BT.601, the border repeated outwards. */
static double brightness(const float *image, int64_t side, int64_t y, int64_t x) {
    y = y < 0 ? 0 : y >= side ? side - 1 : y;
    x = x < 0 ? 0 : x >= side ? side - 1 : x;
    const float *pixel = image + y * side + x;
    return 0.299 * pixel[0] + 0.587 * pixel[side * side] + 0.114 * pixel[2 * side * side];
}

/* One cell of one image; `histogram` holds `bins` numbers. */
static void describe(const Statistics *s, const float *image, int64_t row, int64_t column, double *histogram, float *out) {
    int64_t cell = s->side / s->grid, plane = s->side * s->side;
    double n = (double)(cell * cell);
    for (int c = 0; c < 3; c++) {
        double sum = 0.0, squares = 0.0;
        for (int64_t y = row * cell; y < (row + 1) * cell; y++)
            for (int64_t x = column * cell; x < (column + 1) * cell; x++) {
                double value = image[c * plane + y * s->side + x];
                sum += value;
                squares += value * value;
            }
        double mean = sum / n, variance = squares / n - mean * mean;
        out[c] = (float)mean;
        out[3 + c] = (float)sqrt(variance > 0.0 ? variance : 0.0);
    }
    for (int64_t bin = 0; bin < s->bins; bin++)
        histogram[bin] = 0.0;
    for (int64_t y = row * cell; y < (row + 1) * cell; y++)
        for (int64_t x = column * cell; x < (column + 1) * cell; x++) {
            double dx = brightness(image, s->side, y, x + 1) - brightness(image, s->side, y, x - 1);
            double dy = brightness(image, s->side, y + 1, x) - brightness(image, s->side, y - 1, x);
            double size = sqrt(dx * dx + dy * dy), angle = atan2(dy, dx);
            if (angle < 0.0)
                angle += PI;
            double at = angle / PI * (double)s->bins, below = floor(at), share = at - below;
            histogram[(int64_t)below % s->bins] += size * (1.0 - share);
            histogram[((int64_t)below + 1) % s->bins] += size * share;
        }
    double length = 0.0;
    for (int64_t bin = 0; bin < s->bins; bin++)
        length += histogram[bin] * histogram[bin];
    /* A cell of one colour has no direction: the histogram stays 0. */
    length = sqrt(length) + 1e-6;
    for (int64_t bin = 0; bin < s->bins; bin++)
        out[6 + bin] = (float)(histogram[bin] / length);
}

static LimberStatus encode(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    const Statistics *s = (const Statistics *)instance;
    int64_t tokens = s->grid * s->grid, width = 6 + s->bins;
    const float *pixels;
    float *features;
    int64_t batch = limber_image_call(call, s->side, tokens, width, &pixels, &features, error);
    if (batch == 0)
        return LIMBER_ERROR;
    /* Memory of this call alone, so that several threads may call one instance: LIMBER_CONCURRENT. */
    double *histogram = limber_zeros((size_t)s->bins, sizeof *histogram);
    if (histogram == NULL)
        return limber_fail(error, "there is no memory left");
    for (int64_t b = 0; b < batch; b++)
        for (int64_t token = 0; token < tokens; token++)
            describe(s, pixels + b * 3 * s->side * s->side, token / s->grid, token % s->grid, histogram,
                     features + (b * tokens + token) * width);
    free(histogram);
    return LIMBER_OK;
}

static const LimberEncoder functions = {
    LIMBER_HEAD(LimberEncoder), .prepare = prepare, .build = build, .release = release, .encode = encode};

static const LimberPart part = {
    LIMBER_HEAD(LimberPart),
    .role = LIMBER_ENCODER,
    .flags = LIMBER_CONCURRENT | LIMBER_NO_WEIGHTS,
    .kind = "patch-statistics",
    .about = "mean colours, their spread and directions of edges of a grid of cells",
    .schema = "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {"
              "\"side\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 4096, \"default\": 224, "
              "\"description\": \"Side S of the pixels.\"}, "
              "\"grid\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 256, \"default\": 14, "
              "\"description\": \"Cells a side; a divisor of the side.\"}, "
              "\"bins\": {\"type\": \"integer\", \"minimum\": 2, \"maximum\": 360, \"default\": 9, "
              "\"description\": \"Directions of edges that are told apart.\"}}}",
    .tiny = "{\"side\": 12, \"grid\": 3, \"bins\": 4}",
    .encoder = &functions,
};

LIMBER_EXPORT_PART(part, "patch-statistics", "1.0.0");
