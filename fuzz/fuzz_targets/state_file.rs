//! Feeds `state_file` of fuzz-checks.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_checks::check_named("state_file")(input));
