//! The version that a server says it has, and what differs between them.

use crate::validate::Dialect;
use std::fmt::{self, Display, Formatter};

/// Three numbers. What follows on them (`-dev`, `+abc`) does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

// === impl Version ===

impl Version {
    /// The first in which whoever submits a prompt chooses its id (July 2025). With an older one, nobody could find a prompt
    /// again.
    pub const OLDEST: Version = Version(0, 3, 45);

    /// Reads it; `None`: it is none.
    pub fn of(text: &str) -> Option<Self> {
        let mut numbers = text
            .trim()
            .trim_start_matches('v')
            .splitn(3, '.')
            .map(|part| {
                let digits = part.find(|c: char| !c.is_ascii_digit());
                part[..digits.unwrap_or(part.len())].parse().ok()
            });
        let mut next = || numbers.next().unwrap_or(Some(0));
        Some(Version(next()?, next()?, next()?))
    }

    /// In whose words what is wrong with a prompt is told.
    pub fn dialect(self) -> Dialect {
        match self >= Version(0, 20, 0) {
            true => Dialect::Late,
            false => Dialect::Early,
        }
    }

    /// `/interrupt` can name a prompt (September 2025).
    pub fn interrupts_one(self) -> bool {
        self >= Version(0, 3, 57)
    }

    /// A prompt's time is stamped on it (November 2025).
    pub fn stamps_create_time(self) -> bool {
        self >= Version(0, 3, 69)
    }

    /// A prompt is cancelled by its id, whether it waits or runs, and no other is hit (June 2026).
    pub fn cancels_one(self) -> bool {
        self >= Version(0, 26, 0)
    }

    /// What earlier prompts made is kept for later ones, not only for the next (2026).
    pub fn keeps_more_than_one_prompt(self) -> bool {
        self >= Version(0, 20, 0)
    }
}

impl Display for Version {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_on_the_numbers_does_not_count() {
        for (text, wants) in [
            ("0.3.64", Some(Version(0, 3, 64))),
            ("v0.38.1", Some(Version(0, 38, 1))),
            ("0.26", Some(Version(0, 26, 0))),
            ("0.3.45-dev+abc", Some(Version(0, 3, 45))),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(Version::of(text), wants, "{text}");
        }
    }
}
