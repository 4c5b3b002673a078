//! Configuration files: whatever they hold, each problem has a place and words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tabane::{App, app};

static APP: LazyLock<App> = LazyLock::new(|| app().with(tabane_standard::registry()));

fuzz_target!(|text: &str| {
    // What lies on this machine is none of a fuzzer's business: no other file is read.
    let text = text
        .replace("include", "exclude")
        .replace("${file", "${fill");
    let text = text.replace("ca:", "cb:");
    let _ = tabane::fuzzing::config(&text, APP.registry());
});
