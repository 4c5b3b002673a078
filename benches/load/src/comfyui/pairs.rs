//! The same through the gateway and directly, in turn, and what the way through it adds.

use crate::client::Times;
use std::time::Duration;

/// How long it took, one time after the other.
#[derive(Default)]
pub struct Pairs {
    pub through: Vec<Duration>,
    pub direct: Vec<Duration>,
}

/// The head of the table that rows of [`Pairs::print`] make.
pub fn head() {
    println!("| p50 / p99 | through tabane | directly | added | budget (p99 added) |");
    println!("|---|---|---|---|---|");
}

// === impl Pairs ===

impl Pairs {
    pub fn print(self, what: &str, budget: &str) {
        let [through, direct] = [self.through, self.direct].map(|times| {
            let times = Times::of(vec![times]);
            [0.5, 0.99].map(|share| times.at(share) / 1e3)
        });
        let added = [through[0] - direct[0], through[1] - direct[1]];
        let [through, direct, added] =
            [through, direct, added].map(|[p50, p99]| format!("{p50:.2} / {p99:.2} ms"));
        println!("| {what} | {through} | {direct} | {added} | {budget} |");
    }
}
