//! libFuzzer around the target that `FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<&str> = fuzz::TARGETS.iter().map(|t| t.0).collect();
    fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?}: one of {names:?}"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
