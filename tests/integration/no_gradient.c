/* The template's decoder without its vector-Jacobian product. */
#define limber_plugin_v1 whole_entry
#include "decoder.c"
#undef limber_plugin_v1

LIMBER_EXPORT const LimberPlugin *limber_plugin_v1(const LimberHost *host, const LimberSink *error);

const LimberPlugin *limber_plugin_v1(const LimberHost *host, const LimberSink *error) {
    static LimberPlugin my_plugin;
    static LimberPart my_part;
    static LimberDecoder my_functions;
    static const LimberPart *const my_parts[] = {&my_part};
    my_plugin = *whole_entry(host, error);
    my_part = *my_plugin.parts[0];
    my_functions = *my_part.decoder;
    my_functions.vjp = NULL;
    my_part.decoder = &my_functions;
    my_plugin.parts = my_parts;
    return &my_plugin;
}
