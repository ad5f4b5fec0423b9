#!/usr/bin/env bash
# Says what to do if there is no Rust toolchain that can build us. Debian's own is too old.
set -euo pipefail
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
found=$(rustc --version 2>/dev/null | cut -d" " -f2) || found=none
[ "$found" != none ] && [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" = "$needed" ] && exit 0
echo "Rust $needed or newer is needed, found: $found. Install it from https://rustup.rs, then run this again." >&2
exit 1
