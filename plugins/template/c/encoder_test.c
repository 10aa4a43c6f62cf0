/* Plays the host: encodes a batch and its images alone, refuses what does not fit, gives all back. */
#include "limber_test.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    const LimberPart *part = test_open(argv[1])->parts[0];
    CHECK(part->role == LIMBER_ENCODER);
    test_encoder(part);
    printf("%s: encoder %s passes\n", argv[1], part->kind);
    return 0;
}
