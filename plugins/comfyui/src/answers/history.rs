//! What was: in the order in which it ended, whichever node executed it.

use super::Call;
use crate::ending;
use crate::entry::Entry;
use crate::json::{Json, Object};
use crate::ledger::Prompt;
use crate::open;
use crate::python;
use crate::reply::{Reply, broken, empty, ok};
use http::StatusCode;
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
        let mut all = Object::new();
        for prompt in past.into_iter().skip(offset).take(most) {
            if let Some(shown) = self.shown(&prompt).await? {
                all.insert(prompt.id.to_string(), shown);
            }
        }
        Ok(ok(&all.into()))
    }

    /// `GET /history/{id}`
    pub(super) async fn history_of(&self, id: &str) -> Reply {
        let mut all = Object::new();
        if let Some(prompt) = self.kind.desk.ledger.get(id)
            && let Some(shown) = self.shown(&prompt).await?
        {
            all.insert(prompt.id.to_string(), shown);
        }
        Ok(ok(&all.into()))
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
    async fn shown(&self, prompt: &Prompt) -> Result<Option<Json>, Refusal> {
        let Some(entry) = self.entry(prompt).await? else {
            return Ok(None);
        };
        let stored = match self.stored(prompt).await {
            Ok(stored) => stored,
            // Its time is over in this very moment.
            Err(Refusal::Gone(_)) => return Ok(None),
            Err(why) => return Err(why),
        };
        Ok(Some(entry.shown(self.tuple(&stored))))
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
