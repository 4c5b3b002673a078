//! What was: in the order in which it ended, whichever node executed it.

use super::Call;
use super::queue::stamps;
use crate::ending;
use crate::entry::Entry;
use crate::json::Json;
use crate::ledger::Prompt;
use crate::open;
use crate::python;
use crate::reply::{JSON, Reply, broken, empty, with};
use http::StatusCode;
use std::fmt::Write;
use std::sync::Arc;
use tabane_api::Refusal;

impl Call<'_> {
    /// `GET /history`: the last `max_items`; with an `offset`, from there on. What makes no sense gives what Python's loop
    /// makes of it: one that has an offset looks at `max_items` only after the first.
    pub(super) async fn history(&self) -> Reply {
        let number = |name| self.value(name).map(str::parse::<i64>).transpose();
        let (Ok(max), Ok(offset)) = (number("max_items"), number("offset")) else {
            return Ok(broken());
        };
        let past = self.kind.desk.ledger.past();
        let length = i64::try_from(past.len()).unwrap_or(i64::MAX);
        let offset = match (offset.filter(|offset| *offset >= 0), max) {
            (Some(offset), _) => offset,
            (None, Some(max)) => length - max,
            (None, None) => 0,
        };
        let offset = usize::try_from(offset).unwrap_or(0);
        let most = max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(0).max(1));
        self.entries(past.into_iter().skip(offset).take(most)).await
    }

    /// `GET /history/{id}`
    pub(super) async fn history_of(&self, id: &str) -> Reply {
        self.entries(self.kind.desk.ledger.get(id)).await
    }

    /// Those of these prompts that are over, by their ids.
    async fn entries(&self, prompts: impl IntoIterator<Item = Arc<Prompt>>) -> Reply {
        let stamps = stamps(self.kind);
        let mut all = String::from("{");
        for prompt in prompts {
            if let Some(shown) = self.shown(&prompt, stamps).await? {
                let id = Json::from(&*prompt.id);
                let comma = if all.len() > 1 { ", " } else { "" };
                let _ = write!(all, "{comma}{id}: {shown}");
            }
        }
        all.push('}');
        Ok(with(StatusCode::OK, JSON, all))
    }

    /// `POST /history`
    pub(super) async fn edit_history(&self) -> Reply {
        let Some(asked) = self.document().await else {
            return Ok(broken());
        };
        let ledger = &self.kind.desk.ledger;
        let mut gone: Vec<Arc<Prompt>> = Vec::new();
        if asked.get("clear").is_some_and(python::is_true) {
            gone.extend(ledger.past());
        }
        let ids = asked.get("delete").and_then(Json::list).unwrap_or(&[]);
        gone.extend(ids.iter().filter_map(|id| ledger.get(id.text()?)));
        for prompt in gone {
            if let (Some(_), Some(job)) = (ending::summary(&prompt), prompt.job()) {
                ending::forget(self.kind, &prompt, &job);
            }
        }
        Ok(empty(StatusCode::OK))
    }

    /// A prompt that is over, as a server shows it; `None`: it is not over, or not kept any more.
    async fn shown(&self, prompt: &Prompt, stamps: bool) -> Result<Option<Arc<str>>, Refusal> {
        let Some(summary) = ending::summary(prompt) else {
            return Ok(None);
        };
        let texts = &self.kind.desk.shown;
        if let Some(known) = texts.get(&prompt.id, &summary, stamps) {
            return Ok(Some(known));
        }
        let Some(entry) = self.entry(prompt).await? else {
            return Ok(None);
        };
        let stored = match self.stored(prompt).await {
            Ok(stored) => stored,
            // Its time is over in this very moment.
            Err(Refusal::Gone(_)) => return Ok(None),
            Err(why) => return Err(why),
        };
        let text = entry.shown(stored.tuple(stamps)).to_string().into();
        texts.keep(&prompt.id, &summary, stamps, &text);
        Ok(Some(text))
    }

    /// What came of a prompt; `None`: it is not over, or not kept any more.
    pub(super) async fn entry(&self, prompt: &Prompt) -> Result<Option<Entry>, Refusal> {
        let (Some(summary), Some(job)) = (ending::summary(prompt), prompt.job()) else {
            return Ok(None);
        };
        if let Some(made) = &summary.made {
            return Ok(Some((**made).clone()));
        }
        match open::entry(self.host, &job).await {
            Ok(entry) => Ok(Some(entry)),
            Err(Refusal::Gone(_)) => Ok(None),
            Err(why) => Err(why),
        }
    }
}
