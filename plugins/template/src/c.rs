//! A plugin in C: the template of its role, its test, the headers and a Makefile.

use crate::{File, readme};
use limber_core::registry::Role;
use limber_plugin_abi::headers;

/// The template of a role: its component and its test.
macro_rules! template {
    ($role:literal) => {
        (include_str!(concat!("../c/", $role, ".c")), include_str!(concat!("../c/", $role, "_test.c")))
    };
}

const MAKEFILE: &str = r#"# make: the library; make test: its test; make sanitize: the same under AddressSanitizer.
CC ?= cc
CFLAGS ?= -O2
FLAGS = -std=c99 -Wall -Wextra -I .
CHECKS = -g -fsanitize=address,undefined -fno-sanitize-recover=all

all: NAME.so

NAME.so: part.c limber_plugin.h limber_part.h
	$(CC) $(FLAGS) $(CFLAGS) -shared -fPIC -o $@ part.c -lm

test: NAME.so test.c
	$(CC) $(FLAGS) $(CFLAGS) -o run-test test.c -ldl -lm
	./run-test ./NAME.so

sanitize: part.c test.c
	$(CC) $(FLAGS) $(CFLAGS) $(CHECKS) -shared -fPIC -o checked.so part.c -lm
	$(CC) $(FLAGS) $(CFLAGS) $(CHECKS) -o run-checked test.c -ldl -lm
	./run-checked ./checked.so

clean:
	rm -f NAME.so checked.so run-test run-checked

.PHONY: all test sanitize clean
"#;

pub(crate) fn files(name: &str, role: Role) -> Vec<File> {
    let (kind, (part, test)) = match role {
        Role::Encoder => ("my-encoder", template!("encoder")),
        Role::Decoder => ("my-decoder", template!("decoder")),
        Role::Stitch => ("my-stitch", template!("stitch")),
    };
    vec![
        ("part.c", part.replace(kind, name)),
        ("test.c", test.to_string()),
        ("limber_plugin.h", headers::PLUGIN.to_string()),
        ("limber_part.h", headers::PART.to_string()),
        ("limber_test.h", headers::TEST.to_string()),
        ("Makefile", MAKEFILE.replace("NAME", name)),
        (".gitignore", "*.so\nrun-test\nrun-checked\n".to_string()),
        readme(name, "make test", &format!("{name}.so")),
    ]
}
