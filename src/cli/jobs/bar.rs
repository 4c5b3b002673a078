//! The line that shows how far jobs are: drawn over itself on a terminal.

use super::words::{fraction, is_over, standing, state, text};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use tabane_api::JobState;

/// The narrowest and widest bar worth drawing.
const NARROWEST: usize = 10;
const WIDEST: usize = 40;

/// A terminal that does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// Where progress is shown.
pub(super) struct Screen {
    /// One line is drawn over and over, `None` where lines stay.
    width: Option<usize>,
    drawn: String,
}

/// A bar that is full at 1.0.
///
/// Units: `fraction` 0.0..=1.0; `width` characters between the brackets.
pub(super) fn bar(fraction: f64, width: usize) -> String {
    // Truncated: only what is whole looks whole.
    let full = ((fraction.clamp(0.0, 1.0) * width as f64) as usize).min(width);
    format!("[{}{}]", "#".repeat(full), "-".repeat(width - full))
}

/// How all of these stand, in one line of at most `width` characters.
pub(super) fn line(documents: &[&Value], width: usize) -> String {
    let said = match documents {
        [one] => {
            let said = format!("{}  {}", text(&one["state"]), standing(one));
            said.trim_end().to_owned()
        }
        many => {
            let count = |state| {
                many.iter()
                    .filter(|one| self::state(one) == Some(state))
                    .count()
            };
            let counts = JobState::ALL.map(|state| (state, count(state)));
            let some = counts.into_iter().filter(|(_, count)| *count > 0);
            let said: Vec<_> = some
                .map(|(state, count)| format!("{count} {state}"))
                .collect();
            said.join(", ")
        }
    };
    let whole = said.chars().count() + 3;
    let room = width.saturating_sub(whole).clamp(NARROWEST, WIDEST);
    let drawn = format!("{} {said}", bar(all(documents), room));
    drawn.chars().take(width).collect()
}

/// How far all of them are together.
fn all(documents: &[&Value]) -> f64 {
    let each = documents.iter().map(|one| match is_over(one) {
        true => 1.0,
        false => fraction(one).unwrap_or_default(),
    });
    each.sum::<f64>() / documents.len().max(1) as f64
}

// === impl Screen ===

impl Screen {
    /// The standard output, as it is.
    pub(super) fn new() -> Self {
        let out = io::stdout();
        Screen {
            width: out
                .is_terminal()
                .then(|| match rustix::termios::tcgetwinsize(&out) {
                    Ok(size) if size.ws_col > 0 => size.ws_col.into(),
                    _ => USUAL_WIDTH,
                }),
            drawn: String::new(),
        }
    }

    /// Whether somebody may be looking at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// Draws how they stand, where one line is drawn over and over.
    pub(super) fn draw(&mut self, documents: &[&Value]) {
        let Some(width) = self.width else { return };
        // A terminal breaks the line when its last place is filled.
        let line = line(documents, width.saturating_sub(1));
        if line != self.drawn {
            self.drawn = line;
            put(&format!("\r\x1b[K{}", self.drawn));
        }
    }

    /// Prints a line that stays.
    pub(super) fn say(&mut self, said: &str) {
        self.clear();
        put(&format!("{said}\n"));
    }

    /// Takes away what is drawn.
    pub(super) fn clear(&mut self) {
        if !self.drawn.is_empty() {
            self.drawn.clear();
            put("\r\x1b[K");
        }
    }
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever closed it does not want to see more; the exit code still says how it ended.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bar_is_full_only_when_all_is_done() {
        for (fraction, wants) in [
            (0.0, "[----------]"),
            (0.5, "[#####-----]"),
            (0.999, "[#########-]"),
            (1.0, "[##########]"),
            (7.0, "[##########]"),
            (f64::NAN, "[----------]"),
        ] {
            assert_eq!(bar(fraction, 10), wants, "{fraction}");
        }
    }

    #[test]
    fn one_job_is_drawn_with_its_words_and_many_with_their_counts() {
        let job = |state: &str, fraction: f64| json!({"state": state, "progress": {"fraction": fraction, "text": "frame 12"}});
        let (half, done, failed) = (
            job("running", 0.5),
            job("succeeded", 1.0),
            job("failed", 0.1),
        );
        assert_eq!(
            line(&[&half], 50),
            "[############------------] running  50 %, frame 12"
        );
        let waits = json!({"state": "queued"});
        assert_eq!(
            line(&[&half, &waits, &done, &failed], 200),
            format!(
                "{} 1 queued, 1 running, 1 succeeded, 1 failed",
                bar(0.625, 40)
            )
        );
    }

    #[test]
    fn a_narrow_terminal_gets_a_line_that_fits() {
        let long = json!({"state": "running", "progress": {"text": "x".repeat(500)}});
        for width in [0, 1, 11, 12, 79, 400] {
            assert!(line(&[&long], width).chars().count() <= width, "{width}");
        }
    }
}
