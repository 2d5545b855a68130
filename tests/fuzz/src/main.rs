//! libFuzzer around the target that the environment variable FUZZ_TARGET names.

#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<String> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let name = TARGET.get_or_init(|| std::env::var("FUZZ_TARGET").unwrap_or_default());
    assert!(
        dockersave::fuzzing::run(name, data),
        "FUZZ_TARGET={name} is no target"
    );
});
