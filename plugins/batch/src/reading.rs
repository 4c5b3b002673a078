//! What a document about the work says: where it stands, how far it is, and what is new in its log.

use crate::config::ProgressAt;
use crate::protocol::Signs;
use serde_json::Value;
use tabane_api::Report;

/// Where work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits, or is at work.
    Going,
    /// It is done.
    Done,
    /// It came to nothing, or somebody else stopped it.
    Failed,
}

/// What was told of an attempt so far, so that it is told once.
#[derive(Debug, Default)]
pub(crate) struct Told {
    progress: Option<(Option<f64>, Option<String>)>,
    /// Bytes of a log that is a text, lines of one that is a list.
    log: usize,
}

// === impl Signs ===

impl Signs {
    /// Where the work stands; a state that the file does not name is one of work that goes on.
    ///
    /// Errors: a sentence; the document has no state.
    pub(crate) fn standing(&self, document: &Value) -> Result<Standing, String> {
        let Some(at) = &self.state else {
            return Ok(Standing::Done);
        };
        let state = at
            .plain(document)
            .ok_or_else(|| format!("it has no state at `{at}`"))?;
        let is_in = |values: &[_]| values.iter().any(|value| *value == *state);
        Ok(match () {
            () if is_in(&self.done) => Standing::Done,
            () if is_in(&self.failed) || is_in(&self.canceled) => Standing::Failed,
            () => Standing::Going,
        })
    }

    /// What the server says of a card's memory that was too small, if that is why it gave the work up.
    pub(crate) fn out_of_memory(&self, document: &Value) -> Option<String> {
        let said = [&self.error, &self.message].into_iter().flatten();
        said.filter_map(|at| at.text(document)).find(|text| {
            let text = text.to_lowercase();
            self.out_of_memory.iter().any(|sign| text.contains(sign))
        })
    }

    /// Tells how far the work is, and the log's new lines.
    pub(crate) fn tell(&self, document: &Value, told: &mut Told, report: &dyn Report) {
        let fraction = self.progress.as_ref().and_then(|at| fraction(at, document));
        let text = self.message.as_ref().and_then(|at| at.text(document));
        let now = (fraction, text);
        if (now.0.is_some() || now.1.is_some()) && told.progress.as_ref() != Some(&now) {
            report.progress(now.0, now.1.as_deref());
            told.progress = Some(now);
        }
        match self.log.as_ref().and_then(|at| at.get(document)) {
            Some(Value::String(text)) => {
                // A log that became shorter has begun anew.
                let from = if text.is_char_boundary(told.log) {
                    told.log
                } else {
                    0
                };
                // What has no end yet is a line that is being written.
                let to = text.rfind('\n').map_or(from, |end| end + 1).max(from);
                text[from..to].lines().for_each(|line| report.log(line));
                told.log = to;
            }
            Some(Value::Array(lines)) => {
                let from = if lines.len() < told.log { 0 } else { told.log };
                for line in &lines[from..] {
                    match line {
                        Value::String(line) => report.log(line),
                        other => report.log(&other.to_string()),
                    }
                }
                told.log = lines.len();
            }
            _ => {}
        }
    }
}

fn fraction(at: &ProgressAt, document: &Value) -> Option<f64> {
    let is = at.at.number(document)?;
    let all = match &at.of {
        Some(of) => of.number(document).filter(|all| *all > 0.0)?,
        None => at.max.unwrap_or(1.0),
    };
    Some((is / all).clamp(0.0, 1.0))
}
