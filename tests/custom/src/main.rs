//! The gateway that knows them: a main of one line.

use custom_gateway::{Cheapest, Renderer};

fn main() -> std::process::ExitCode {
    tabane::app()
        .with(tabane_standard::registry())
        .kind::<Renderer>()
        .policy::<Cheapest>()
        .main()
}
