/*
 * The template's encoder with one lie, for tests of what the host says to it.
 * -DLIE='statements' changes copies of its tables, -DENTRY=name renames its entry.
 */
#define limber_plugin_v1 honest_entry
#include "encoder.c"
#undef limber_plugin_v1

#ifndef ENTRY
#define ENTRY limber_plugin_v1
#endif
#ifndef LIE
#define LIE (void)0
#endif

static LimberPlugin my_plugin;
static LimberPart my_part;
static LimberEncoder my_functions;
static const LimberPart *my_parts[2] = {&my_part, &my_part};
static const char *const travel[] = {"time-travel", NULL};

/* One feature is not a number. */
static LimberStatus not_finite(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    LimberStatus status = encode(instance, call, error);
    ((float *)call->output->data)[3] = NAN;
    return status;
}

/* One feature too many. */
static LimberStatus too_long(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    LimberStatus status = encode(instance, call, error);
    const int64_t *shape = call->output->shape;
    ((float *)call->output->data)[shape[0] * shape[1] * shape[2]] = 1.0f;
    return status;
}

/* Features of 16 bits, where 32 are asked for. */
static LimberStatus half_as_wide(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    (void)instance, (void)error;
    const int64_t *shape = call->output->shape;
    for (int64_t i = 0; i < shape[0] * shape[1] * shape[2]; i++)
        ((uint16_t *)call->output->data)[i] = 0x3f80;
    return LIMBER_OK;
}

/* An error of its own. */
static LimberStatus full(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    (void)instance, (void)call;
    return limber_fail(error, "the disk of the plugin is full");
}

/* An error without a word. */
static LimberStatus silent(LimberInstance *instance, const LimberEncode *call, const LimberSink *error) {
    (void)instance, (void)call, (void)error;
    return 77;
}

/* Features that no settings name. */
static LimberStatus no_tokens(const LimberPart *p, const char *settings, const LimberSource *source,
                              const LimberSink *said, LimberEncoderSpec *spec, const LimberSink *error) {
    LimberStatus status = prepare(p, settings, source, said, spec, error);
    spec->tokens = 0;
    return status;
}

LIMBER_EXPORT const LimberPlugin *ENTRY(const LimberHost *host, const LimberSink *error);

const LimberPlugin *ENTRY(const LimberHost *host, const LimberSink *error) {
    const LimberPlugin *answer = &my_plugin;
    my_plugin = *honest_entry(host, error);
    my_part = *my_plugin.parts[0];
    my_functions = *my_part.encoder;
    my_part.encoder = &my_functions;
    my_plugin.parts = my_parts;
    (void)not_finite, (void)too_long, (void)half_as_wide, (void)full, (void)silent, (void)no_tokens, (void)travel;
    LIE;
    return answer;
}
