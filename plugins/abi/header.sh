#!/usr/bin/env bash
# Makes include/limber_plugin.h again from the Rust sources (cargo install cbindgen). A test compares the layouts.
set -euo pipefail
cd "$(dirname "$0")"
cbindgen --quiet --config cbindgen.toml . 2>/dev/null | sed -E 's/\[`(crate::)?([A-Za-z_:0-9]+)`\]/`\2`/g' >include/limber_plugin.h
