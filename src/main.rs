//! The gateway as it ships: the one place that names the shipped kinds.

use std::process::ExitCode;

fn main() -> ExitCode {
    tabane::app().with(tabane_standard::registry()).main()
}
