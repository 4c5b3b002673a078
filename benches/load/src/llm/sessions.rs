//! The sessions of a seed: when they come, what is asked, how much is answered.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use std::time::Duration;

/// A chat.
pub struct Session {
    pub at: Duration,
    pub name: String,
    /// What all chats of its kind begin with.
    pub system: String,
    pub turns: Vec<Turn>,
}

/// A question, and how long its answer is.
pub struct Turn {
    /// After the answer before.
    pub after: Duration,
    pub asks: String,
    pub tokens: u32,
}

/// Prompts that many sessions share.
const SYSTEMS: u64 = 8;

/// Draws the sessions that come within a time.
pub fn draw(seed: u64, rate: f64, within: Duration) -> Vec<Session> {
    let mut draw = StdRng::seed_from_u64(seed);
    let systems: Vec<String> = (0..SYSTEMS)
        .map(|n| text(&mut StdRng::seed_from_u64(1000 + n), 6000))
        .collect();
    let mut sessions = Vec::new();
    let mut at = 0.0;
    loop {
        at += -draw.random::<f64>().max(1e-12).ln() / rate;
        if at >= within.as_secs_f64() {
            return sessions;
        }
        // One prompt is half of the traffic, as one product is.
        let which = match draw.random::<f64>() {
            x if x < 0.5 => 0,
            _ => draw.random_range(1..systems.len()),
        };
        let turns = draw.random_range(2..=5);
        let turns = (0..turns).map(|n| Turn {
            after: Duration::from_secs_f64(if n == 0 {
                0.0
            } else {
                draw.random_range(0.5..3.0)
            }),
            asks: {
                let long = draw.random::<f64>().powi(3);
                let bytes = (200.0 + 6000.0 * long) as usize;
                text(&mut draw, bytes)
            },
            tokens: (20.0 + 280.0 * draw.random::<f64>().powi(2)) as u32,
        });
        let turns = turns.collect();
        sessions.push(Session {
            at: Duration::from_secs_f64(at),
            name: format!("s{seed}-{}", sessions.len()),
            system: systems[which].clone(),
            turns,
        });
    }
}

/// Words, about so many bytes.
pub fn text(draw: &mut impl Rng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        for _ in 0..draw.random_range(2..9) {
            text.push(char::from(draw.random_range(b'a'..=b'z')));
        }
        text.push(' ');
    }
    text
}
