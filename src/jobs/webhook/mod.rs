//! Letters: what is told to whoever asked to be told of a job's end, and how it gets there.
//!
//! Rules.
//! - A letter is written in the transaction of the change it tells, and sent from the outbox: what is on disk is told, at
//!   least once, and what was rolled back is not.
//! - Letters about one job or array go out in their order: a later one waits until the one before it was taken or given up.
//! - The gateway connects only to where the operator lets it, see `guard`.

mod deliver;
mod guard;
mod ladder;
mod letter;
mod post;
mod sign;
#[cfg(test)]
mod tests;

pub use deliver::Deliverer;
pub use guard::Guard;
pub use ladder::{Outcome, after};
pub use letter::{Address, Secretary};
pub use post::{HttpPost, Post};
pub use sign::{BadSecret, Signer, new_secret};
