//! Heads of requests: read the same in any pieces, as the rules and another parser read them.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The first byte says where the others are cut.
fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    tabane::fuzzing::head(bytes, &[cut.into(), usize::from(cut) * 7]);
});
