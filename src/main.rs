//! The gateway as it ships: the one place that names the shipped kinds.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tabane::app().with(tabane_standard::registry()).main()
}
