#!/usr/bin/env bash
# Runs every fuzz target, or those named, for FUZZ_SECONDS each (60). The corpus grows under the target directory; a crash
# is written there too, and ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
out=$CARGO_TARGET_DIR/fuzz
mkdir -p "$out"
# Only our own crates are compiled with coverage: the wrapper is not asked for others, so those are the ones of `make build`.
# The orchestrator is named so that features are those of the whole; it is not built.
RUSTC_WORKSPACE_WRAPPER=$PWD/tools/fuzz-rustc.sh \
  cargo build --release -p fuzz -p orchestrator --features fuzz/libfuzzer --bin fuzz
cp "$CARGO_TARGET_DIR/release/fuzz" "$out/fuzz"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(ls fuzz/seeds))
for t in "${targets[@]}"; do
  mkdir -p "$out/corpus/$t" "$out/crashes/$t"
  echo "== $t, $seconds s" >&2
  FUZZ_TARGET=$t "$out/fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 \
    -artifact_prefix="$out/crashes/$t/" "$out/corpus/$t" "fuzz/seeds/$t" 2>"$out/$t.log" \
    || { tail -60 "$out/$t.log" >&2; exit 1; }
  grep -E 'cov:' "$out/$t.log" | tail -1 >&2
done
echo "no crash" >&2
