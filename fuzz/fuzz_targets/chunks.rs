//! Chunked bodies: they end where the rules and another parser see their end, in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The first byte says where the others are cut.
fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    tabane::fuzzing::chunks(bytes, &[cut.into(), usize::from(cut) * 7]);
});
