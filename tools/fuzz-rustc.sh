#!/usr/bin/env bash
# rustc for our own crates with libFuzzer's coverage; the flags are stable ones. What runs at build time has none.
case " $* " in
  *' --crate-name build_script_'* | *' --crate-type proc-macro '*) exec "$@" ;;
esac
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
