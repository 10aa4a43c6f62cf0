/*
 * my-stitch: features [B, N, E] to a prefix [B, K, D], K = N: a linear layer with a bias. The host owns the parameters:
 * it gives them with every call, trains them, saves them. The functions here compute, forwards and backwards.
 */
#include "limber_part.h"
#include <math.h>

typedef struct Stitch {
    int64_t e, d;
    float *bias;   /* [D], as built */
    float *weight; /* [D, E], as built */
} Stitch;

/* What is looked for among the tensors of a checkpoint. */
typedef struct Fit {
    int64_t e, d;
    int bias, weight;
} Fit;

static void compare(void *context, const char *name, const int64_t *shape, int32_t ndim) {
    Fit *fit = context;
    if (strcmp(name, "bias") == 0)
        fit->bias = ndim == 1 && shape[0] == fit->d;
    if (strcmp(name, "weight") == 0)
        fit->weight = ndim == 2 && shape[0] == fit->d && shape[1] == fit->e;
}

static LimberStatus prepare(const LimberPart *part, const char *settings, const LimberSource *source,
                            const LimberSides *sides, const LimberSink *resolved, LimberPrefixSpec *spec,
                            const LimberSink *error) {
    (void)part;
    LimberStatus status = limber_settings(settings, NULL, 0, error);
    if (status != LIMBER_OK)
        return status;
    Fit fit = {(int64_t)sides->features_width, (int64_t)sides->width, 0, 0};
    LimberNames names = {LIMBER_HEAD(LimberNames), .context = &fit, .name = compare};
    int32_t known = 0;
    status = source->tensors(source->context, &names, &known);
    if (status != LIMBER_OK)
        return limber_fail(error, "the checkpoint cannot be listed");
    if (known && !(fit.bias && fit.weight))
        return limber_fail(error,
                           "the checkpoint does not fit: weight [%lld, %lld] and bias [%lld] are what goes from "
                           "encoder %s (width %lld) to decoder %s (width %lld)",
                           (long long)fit.d, (long long)fit.e, (long long)fit.d, sides->encoder, (long long)fit.e,
                           sides->decoder, (long long)fit.d);
    limber_resolved(resolved, NULL, 0);
    spec->tokens = sides->tokens;
    spec->width = sides->width;
    return LIMBER_OK;
}

static void release(LimberInstance *instance) {
    Stitch *s = (Stitch *)instance;
    free(s->bias);
    free(s->weight);
    free(s);
}

static LimberStatus build(const LimberPart *part, const char *settings, const LimberSource *source,
                          const LimberSides *sides, const LimberBuild *options, LimberInstance **out,
                          const LimberSink *error) {
    (void)part, (void)settings, (void)options;
    Stitch *s = limber_zeros(1, sizeof *s);
    if (s == NULL)
        return limber_fail(error, "there is no memory left");
    s->e = (int64_t)sides->features_width, s->d = (int64_t)sides->width;
    const int64_t shape[] = {s->d, s->e};
    const LimberTaken taken[] = {
        {"bias", 1, shape, 0.0f, &s->bias}, {"weight", 2, shape, 1.0f / sqrtf((float)s->e), &s->weight}};
    LimberStatus status = limber_weights(source, taken, 2, error);
    if (status != LIMBER_OK) {
        release((LimberInstance *)s);
        return status;
    }
    *out = (LimberInstance *)s;
    return LIMBER_OK;
}

static LimberStatus prefix(LimberInstance *instance, uint64_t tokens, LimberPrefixSpec *spec, const LimberSink *error) {
    (void)error;
    spec->tokens = tokens;
    spec->width = (uint64_t)((const Stitch *)instance)->d;
    return LIMBER_OK;
}

/* The parameters, sorted by name: 0 is the bias, 1 the weight. */
static LimberStatus parameters(LimberInstance *instance, const LimberNames *names, const LimberSink *error) {
    (void)error;
    const Stitch *s = (const Stitch *)instance;
    int64_t shape[] = {s->d, s->e};
    names->name(names->context, "bias", shape, 1);
    names->name(names->context, "weight", shape, 2);
    return LIMBER_OK;
}

static LimberStatus parameter(LimberInstance *instance, uint32_t index, const LimberTensor *output,
                              const LimberSink *error) {
    const Stitch *s = (const Stitch *)instance;
    int64_t shape[] = {s->d, s->e};
    if (index > 1)
        return limber_fail(error, "there is no parameter %u", (unsigned)index);
    float *out = limber_floats(output, index == 0 ? 1 : 2, shape, "parameter", error);
    if (out == NULL)
        return LIMBER_ERROR;
    if (index == 0)
        memcpy(out, s->bias, (size_t)s->d * sizeof *out);
    else
        memcpy(out, s->weight, (size_t)(s->d * s->e) * sizeof *out);
    return LIMBER_OK;
}

/* The inputs of a call, checked. */
static LimberStatus inputs(const Stitch *s, const LimberProject *call, const float **features, const float **bias,
                           const float **weight, const LimberSink *error) {
    int64_t features_shape[] = {-1, -1, s->e}, shape[] = {s->d, s->e};
    if (call->n_parameters != 2)
        return limber_fail(error, "%u parameters are given, expected are 2", (unsigned)call->n_parameters);
    *features = limber_floats(call->features, 3, features_shape, "features", error);
    *bias = *features == NULL ? NULL : limber_floats(call->parameters[0], 1, shape, "bias", error);
    *weight = *bias == NULL ? NULL : limber_floats(call->parameters[1], 2, shape, "weight", error);
    return *weight == NULL ? LIMBER_ERROR : LIMBER_OK;
}

static LimberStatus forward(LimberInstance *instance, const LimberProject *call, const LimberSink *error) {
    const Stitch *s = (const Stitch *)instance;
    const float *features, *bias, *weight;
    if (inputs(s, call, &features, &bias, &weight, error) != LIMBER_OK)
        return LIMBER_ERROR;
    int64_t shape[] = {call->features->shape[0], call->features->shape[1], s->d};
    float *out = limber_floats(call->output, 3, shape, "prefix", error);
    if (out == NULL)
        return LIMBER_ERROR;
    for (int64_t row = 0; row < shape[0] * shape[1]; row++)
        for (int64_t d = 0; d < s->d; d++) {
            double sum = bias[d];
            for (int64_t e = 0; e < s->e; e++)
                sum += (double)weight[d * s->e + e] * features[row * s->e + e];
            out[row * s->d + d] = (float)sum;
        }
    return LIMBER_OK;
}

/* d bias = sum of rows of g; d weight = g^T features; d features = g weight. */
static LimberStatus vjp(LimberInstance *instance, const LimberProject *call, LimberTape *tape,
                        const LimberTensor *grad_output, const LimberTensor *grad_features,
                        const LimberTensor *const *grad_parameters, const LimberSink *error) {
    (void)tape;
    const Stitch *s = (const Stitch *)instance;
    const float *features, *bias, *weight;
    if (inputs(s, call, &features, &bias, &weight, error) != LIMBER_OK)
        return LIMBER_ERROR;
    int64_t b = call->features->shape[0], n = call->features->shape[1];
    int64_t output_shape[] = {b, n, s->d}, features_shape[] = {b, n, s->e}, shape[] = {s->d, s->e};
    const float *g = limber_floats(grad_output, 3, output_shape, "gradient of the prefix", error);
    float *of_bias = g == NULL ? NULL : limber_floats(grad_parameters[0], 1, shape, "gradient of the bias", error);
    float *of_weight =
        of_bias == NULL ? NULL : limber_floats(grad_parameters[1], 2, shape, "gradient of the weight", error);
    if (of_weight == NULL)
        return LIMBER_ERROR;
    for (int64_t d = 0; d < s->d; d++) {
        double sum = 0.0;
        for (int64_t row = 0; row < b * n; row++)
            sum += g[row * s->d + d];
        of_bias[d] = (float)sum;
        for (int64_t e = 0; e < s->e; e++) {
            sum = 0.0;
            for (int64_t row = 0; row < b * n; row++)
                sum += (double)g[row * s->d + d] * features[row * s->e + e];
            of_weight[d * s->e + e] = (float)sum;
        }
    }
    /* Null where nobody asks for it. */
    if (grad_features == NULL)
        return LIMBER_OK;
    float *of_features = limber_floats(grad_features, 3, features_shape, "gradient of the features", error);
    if (of_features == NULL)
        return LIMBER_ERROR;
    for (int64_t row = 0; row < b * n; row++)
        for (int64_t e = 0; e < s->e; e++) {
            double sum = 0.0;
            for (int64_t d = 0; d < s->d; d++)
                sum += (double)g[row * s->d + d] * weight[d * s->e + e];
            of_features[row * s->e + e] = (float)sum;
        }
    return LIMBER_OK;
}

static const LimberStitch functions = {
    LIMBER_HEAD(LimberStitch), .prepare = prepare,       .build = build,         .release = release,
    .prefix = prefix,          .parameters = parameters, .parameter = parameter, .forward = forward,
    .vjp = vjp,
};

static const char *const files[] = {"stitch.safetensors", "model.safetensors", NULL};

static const LimberPart part = {
    LIMBER_HEAD(LimberPart),
    .role = LIMBER_STITCH,
    /* No function changes the instance. Without the flag one thread at a time calls it. */
    .flags = LIMBER_CONCURRENT,
    .kind = "my-stitch",
    .about = "a linear layer, one prefix token a visual token",
    .schema = "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {}}",
    .tiny = "{}",
    .files = files,
    .stitch = &functions,
};

LIMBER_EXPORT_PART(part, "my-stitch", "0.1.0");
