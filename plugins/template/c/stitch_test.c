/*
 * Plays the host: builds between two sides, takes the parameters over, projects, compares every gradient with finite
 * differences, gives all back.
 */
#include "limber_test.h"

#define MOST_PARAMETERS 64

/* The parameters, owned here as the host owns them. */
static struct {
    int n;
    int32_t ndim[MOST_PARAMETERS];
    int64_t shape[MOST_PARAMETERS][8];
    size_t elements[MOST_PARAMETERS];
} listed;

static void list(void *context, const char *name, const int64_t *shape, int32_t ndim) {
    (void)context;
    CHECK(listed.n < MOST_PARAMETERS && ndim <= 8 && name[0] != 0);
    listed.ndim[listed.n] = ndim;
    listed.elements[listed.n] = 1;
    for (int32_t i = 0; i < ndim; i++)
        listed.elements[listed.n] *= (size_t)(listed.shape[listed.n][i] = shape[i]);
    listed.n++;
}

typedef struct Pass {
    const LimberStitch *stitch;
    LimberInstance *instance;
    LimberProject call;
    const float *weights; /* what the outputs are multiplied with before they are summed */
    size_t n;
} Pass;

static double sum(void *context) {
    const Pass *pass = context;
    CHECK(pass->stitch->forward(pass->instance, &pass->call, &test_error) == LIMBER_OK);
    const float *out = pass->call.output->data;
    double total = 0.0;
    for (size_t i = 0; i < pass->n; i++)
        total += (double)out[i] * pass->weights[i];
    return total;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const LimberPart *part = test_open(argv[1])->parts[0];
    CHECK(part->role == LIMBER_STITCH);
    const LimberStitch *stitch = part->stitch;
    const int64_t b = 2, n = 5, e = 6, d = 8;
    LimberSides sides = {.size = sizeof sides, .version = LIMBER_ABI_MINOR, .tokens = (uint64_t)n, .features_width = (uint64_t)e,
                         .width = (uint64_t)d, .kind = LIMBER_FEATURES_PATCHES, .encoder = "an-encoder", .decoder = "a-decoder"};
    LimberPrefixSpec spec = {.size = sizeof spec, .version = LIMBER_ABI_MINOR};
    CHECK(stitch->prepare(part, part->tiny, &test_source, &sides, &test_resolved, &spec, &test_error) == LIMBER_OK);
    CHECK(spec.tokens > 0 && spec.width == (uint64_t)d);
    LimberInstance *instance = NULL;
    CHECK(stitch->build(part, test_settings, &test_source, &sides, &test_build, &instance, &test_error) == LIMBER_OK);

    LimberNames names = {.size = sizeof names, .version = LIMBER_ABI_MINOR, .name = list};
    CHECK(stitch->parameters(instance, &names, &test_error) == LIMBER_OK && listed.n > 0);
    float *values[MOST_PARAMETERS], *gradients[MOST_PARAMETERS];
    LimberTensor value_views[MOST_PARAMETERS], gradient_views[MOST_PARAMETERS];
    const LimberTensor *value_pointers[MOST_PARAMETERS], *gradient_pointers[MOST_PARAMETERS];
    for (int i = 0; i < listed.n; i++) {
        values[i] = test_numbers(0, listed.elements[i]), gradients[i] = test_numbers(0, listed.elements[i]);
        value_views[i] = test_view(values[i], listed.ndim[i], listed.shape[i]);
        gradient_views[i] = test_view(gradients[i], listed.ndim[i], listed.shape[i]);
        value_pointers[i] = &value_views[i], gradient_pointers[i] = &gradient_views[i];
        CHECK(stitch->parameter(instance, (uint32_t)i, &value_views[i], &test_error) == LIMBER_OK);
    }

    const int64_t k = (int64_t)spec.tokens;
    size_t outputs = (size_t)(b * k * d);
    float *features = test_numbers(2, (size_t)(b * n * e)), *prefix = test_numbers(0, outputs);
    float *weights = test_numbers(3, outputs), *of_features = test_numbers(0, (size_t)(b * n * e));
    int64_t features_shape[] = {b, n, e}, prefix_shape[] = {b, k, d};
    LimberTensor features_view = test_view(features, 3, features_shape), prefix_view = test_view(prefix, 3, prefix_shape);
    LimberTensor weights_view = test_view(weights, 3, prefix_shape), of_features_view = test_view(of_features, 3, features_shape);
    Pass pass = {stitch, instance,
                 {.size = sizeof(LimberProject), .version = LIMBER_ABI_MINOR, .n_parameters = (uint32_t)listed.n,
                  .features = &features_view, .parameters = value_pointers, .output = &prefix_view},
                 weights, outputs};
    CHECK(isfinite(sum(&pass)));
    CHECK(stitch->vjp(instance, &pass.call, NULL, &weights_view, &of_features_view, gradient_pointers, &test_error) == LIMBER_OK);
    test_gradient(sum, &pass, features, of_features, (size_t)(b * n * e));
    for (int i = 0; i < listed.n; i++)
        test_gradient(sum, &pass, values[i], gradients[i], listed.elements[i]);
    CHECK(stitch->vjp(instance, &pass.call, NULL, &weights_view, NULL, gradient_pointers, &test_error) == LIMBER_OK);

    features_shape[2] = e + 1;
    CHECK(stitch->forward(instance, &pass.call, &test_error) == LIMBER_ERROR && strstr(test_message, "shape"));
    CHECK(stitch->prepare(part, "{\"no_such_key\": 1}", &test_source, &sides, &test_resolved, &spec, &test_error) == LIMBER_ERROR);
    CHECK(strstr(test_message, "no_such_key") != NULL);

    stitch->release(instance);
    for (int i = 0; i < listed.n; i++)
        free(values[i]), free(gradients[i]);
    free(features), free(prefix), free(weights), free(of_features);
    CHECK(test_leases == 0);
    printf("%s: stitch %s passes\n", argv[1], part->kind);
    return 0;
}
