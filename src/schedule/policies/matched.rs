use super::fastest::fastest;
use schemars::JsonSchema;
use serde::Deserialize;
use tabane_api::{Candidate, Draw, Matching, Mode, Need, Policy, PolicyKind};

/// Matches all who wait to slots by learned times: the default for work that queues for whole nodes.
pub(super) struct Match(Matching);

/// How many are looked at together, and when there are too many for it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// How many of those who wait are matched at once, the oldest of each class in turn; 32.
    window: usize,
    /// When more than so many wait for each slot, a slot that comes free takes the class that loses most by waiting; 4.
    backlog: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            window: 32,
            backlog: 4.0,
        }
    }
}

impl PolicyKind for Match {
    const NAME: &'static str = "match";
    type Config = Config;

    fn new(Config { window, backlog }: Config) -> Result<Self, String> {
        if !(1..=256).contains(&window) {
            return Err(format!("window: must be 1 to 256, got {window}"));
        }
        if !(backlog.is_finite() && backlog >= 0.0) {
            return Err(format!("backlog: must be 0 or more, got {backlog}"));
        }
        Ok(Match(Matching { window, backlog }))
    }
}

impl Policy for Match {
    fn mode(&self) -> Mode {
        Mode::Match(self.0)
    }

    fn pick(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
        fastest(need, among, draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_makes_no_sense_says_why() {
        let made = |block: &str| Match::new(serde_json::from_str(block).unwrap()).err();
        assert_eq!(made("{}"), None);
        let why = made(r#"{"window": 0}"#);
        assert_eq!(why.as_deref(), Some("window: must be 1 to 256, got 0"));
        let why = made(r#"{"backlog": -1}"#);
        assert_eq!(why.as_deref(), Some("backlog: must be 0 or more, got -1"));
    }
}
