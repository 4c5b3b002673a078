//! Simulated engines for language models: vLLM, llama.cpp and Ollama, in their own words, without a model, and with knobs.
//!
//! A node reads prompts at a speed, writes one token of each answer at a step, works on as many requests as it has slots and
//! lets the others wait, keeps what it read as its engine does, and loads models when they are asked for, if its engine does
//! that. Answers are decided by what was asked; how long they are, by the request (`max_tokens`), or else by a length that is
//! drawn from what was asked.
//!
//! What it says follows recordings of vLLM 0.32 and of llama.cpp's server of October 2026, and of Ollama what it publishes
//! (August 2026). llama.cpp's and Ollama's heads come with the first token, vLLM's at once.
//!
//! What it does not do: more than one answer to a request (`n`, several prompts: they are read as one), log probabilities,
//! stop words, reasoning, pictures, grammars, embeddings in base64, preemption, llama.cpp's cache in the machine's memory, and
//! everything that downloads or makes models.

mod ask;
mod batch;
mod cache;
mod control;
mod embed;
mod fault;
mod gotime;
mod histogram;
mod info;
mod knobs;
mod metrics;
mod node;
mod reply;
mod routes;
mod runner;
mod seen;
mod server;
mod shelf;
mod spec;
mod stream;
mod token;
mod voice;

pub use knobs::LlmKnobs;
pub use node::LlmNode;
pub use seen::{Asked, End, Seen};
pub use spec::{Engine, Model, Spec};
