//! The list of kinds that ship with tabane. Explicit: what is here is what `main.rs` knows.

use tabane_api::Registry;

/// Every shipped kind.
pub fn registry() -> Registry {
    Registry::default()
        .kind::<tabane_http::Http>()
        .kind::<tabane_batch::Batch>()
        .kind::<tabane_comfyui::Comfyui>()
        .kind::<tabane_llm::Llm>()
}
