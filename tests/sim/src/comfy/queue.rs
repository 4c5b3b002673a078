//! What waits, what runs, and what was. No IO, no clock.
//!
//! The queue is a heap in the order that Python's `heapq` leaves it in, since `GET /queue` shows it so.

use super::json::{Json, Object, object};
use indexmap::IndexMap;
use serde_json::Number;
use std::cmp::Ordering;

/// What is kept of a key that clients hand over with a prompt goes nowhere but to its nodes.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// As many as the real server keeps.
const MOST_HISTORY: usize = 10_000;

/// A prompt that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) number: Number,
    pub(crate) prompt_id: String,
    pub(crate) prompt: Object,
    pub(crate) extra_data: Object,
    pub(crate) outputs: Vec<String>,
}

/// How a prompt ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) messages: Vec<Json>,
    pub(crate) outputs: Object,
    pub(crate) meta: Object,
}

#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) item: Item,
    pub(crate) ended: Ended,
}

#[derive(Default)]
pub(crate) struct Queue {
    pending: Vec<Item>,
    running: Option<Item>,
    history: IndexMap<String, Past>,
    /// The number of the next prompt.
    pub(crate) number: i64,
}

// === impl Item ===

impl Item {
    fn order(&self, other: &Item) -> Ordering {
        let numbers = [self, other].map(|item| item.number.as_f64().unwrap_or(0.0));
        let by_number = numbers[0].total_cmp(&numbers[1]);
        by_number.then_with(|| self.prompt_id.cmp(&other.prompt_id))
    }

    pub(crate) fn client(&self) -> Option<&str> {
        self.extra_data.get("client_id").and_then(Json::text)
    }

    /// The five of them, as `/queue` and `/history` show them.
    pub(crate) fn json(&self, with_secrets: bool) -> Json {
        let mut extra_data = self.extra_data.clone();
        if !with_secrets {
            extra_data.retain(|key, _| !SECRETS.contains(&key.as_str()));
        }
        Json::List(vec![
            Json::Number(self.number.clone()),
            self.prompt_id.as_str().into(),
            self.prompt.clone().into(),
            extra_data.into(),
            self.outputs.iter().map(String::as_str).collect(),
        ])
    }
}

// === impl Past ===

impl Past {
    pub(crate) fn status(&self) -> Json {
        object! {
            "status_str": if self.ended.success { "success" } else { "error" },
            "completed": self.ended.success,
            "messages": self.ended.messages.clone(),
        }
    }

    fn json(&self) -> Json {
        object! {
            "prompt": self.item.json(false),
            "outputs": self.ended.outputs.clone(),
            "status": self.status(),
            "meta": self.ended.meta.clone(),
        }
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) fn put(&mut self, item: Item) {
        self.pending.push(item);
        self.rise(0, self.pending.len() - 1);
    }

    /// Takes the first one, which runs from now on.
    pub(crate) fn take(&mut self) -> Option<Item> {
        let last = self.pending.pop()?;
        let first = match self.pending.first_mut() {
            Some(first) => {
                let taken = std::mem::replace(first, last);
                self.sink(0);
                taken
            }
            None => last,
        };
        self.running = Some(first.clone());
        Some(first)
    }

    /// What ran has ended.
    pub(crate) fn done(&mut self, ended: Ended) {
        let Some(item) = self.running.take() else {
            return;
        };
        if self.history.len() > MOST_HISTORY {
            self.history.shift_remove_index(0);
        }
        self.history
            .insert(item.prompt_id.clone(), Past { item, ended });
    }

    pub(crate) fn remaining(&self) -> usize {
        self.pending.len() + usize::from(self.running.is_some())
    }

    pub(crate) fn running(&self) -> Option<&Item> {
        self.running.as_ref()
    }

    pub(crate) fn pending(&self) -> &[Item] {
        &self.pending
    }

    pub(crate) fn past(&self) -> impl Iterator<Item = &Past> {
        self.history.values()
    }

    pub(crate) fn past_of(&self, prompt_id: &str) -> Option<&Past> {
        self.history.get(prompt_id)
    }

    pub(crate) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Takes a prompt out that waits. How often clients are told of it: never, if none was there; twice, if it was the only one.
    pub(crate) fn delete(&mut self, prompt_id: &str) -> usize {
        let Some(at) = self
            .pending
            .iter()
            .position(|item| item.prompt_id == prompt_id)
        else {
            return 0;
        };
        self.pending.remove(at);
        for at in (0..self.pending.len() / 2).rev() {
            self.sink(at);
        }
        if self.pending.is_empty() { 2 } else { 1 }
    }

    pub(crate) fn json(&self, with_secrets: bool) -> Json {
        let json = |item: &Item| item.json(with_secrets);
        object! {
            "queue_running": self.running.iter().map(json).collect::<Json>(),
            "queue_pending": self.pending.iter().map(json).collect::<Json>(),
        }
    }

    /// The last `max` ones; with an offset, from there on. What makes no sense gives what Python's loop makes of it: one that
    /// has an offset looks at `max` only after the first.
    pub(crate) fn history_json(&self, max: Option<i64>, offset: Option<i64>) -> Json {
        let length = self.history.len() as i64;
        let offset = match (offset.filter(|offset| *offset >= 0), max) {
            (Some(offset), _) => offset,
            (None, Some(max)) => length - max,
            (None, None) => 0,
        };
        let offset = usize::try_from(offset).unwrap_or(0);
        let most = max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(0).max(1));
        let shown = self.history.iter().skip(offset).take(most);
        let shown: Object = shown.map(|(id, past)| (id.clone(), past.json())).collect();
        shown.into()
    }

    pub(crate) fn history_json_of(&self, prompt_id: &str) -> Json {
        let found = self.history.get(prompt_id);
        let found: Object = found
            .map(|past| (prompt_id.to_owned(), past.json()))
            .into_iter()
            .collect();
        found.into()
    }

    pub(crate) fn forget(&mut self, prompt_id: &str) {
        self.history.shift_remove(prompt_id);
    }

    pub(crate) fn forget_all(&mut self) {
        self.history.clear();
    }

    /// Moves what stands at `at` up, as long as it comes before its parent.
    fn rise(&mut self, start: usize, mut at: usize) {
        while at > start {
            let parent = (at - 1) / 2;
            if self.pending[at].order(&self.pending[parent]).is_ge() {
                break;
            }
            self.pending.swap(at, parent);
            at = parent;
        }
    }

    /// Moves what stands at `at` all the way down, always past the smaller child, and then up to its place: so does `heapq`.
    fn sink(&mut self, start: usize) {
        let mut at = start;
        while 2 * at + 1 < self.pending.len() {
            let mut child = 2 * at + 1;
            let right = child + 1;
            if right < self.pending.len() && self.pending[child].order(&self.pending[right]).is_ge()
            {
                child = right;
            }
            self.pending.swap(at, child);
            at = child;
        }
        self.rise(start, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(numbers: &[i64]) -> Queue {
        let mut queue = Queue::default();
        for number in numbers {
            queue.put(Item {
                number: (*number).into(),
                prompt_id: format!("p{number}"),
                prompt: Object::new(),
                extra_data: Object::new(),
                outputs: Vec::new(),
            });
        }
        queue
    }

    fn numbers(queue: &Queue) -> Vec<i64> {
        let pending = queue.pending.iter();
        pending.filter_map(|item| item.number.as_i64()).collect()
    }

    // What Python 3.11's `heapq` made of the same numbers.
    #[test]
    fn what_waits_is_shown_in_the_order_of_its_heap() {
        let mut queue = queue(&[5, 3, 8, 1, 9, 2, 7]);
        assert_eq!(numbers(&queue), [1, 3, 2, 5, 9, 8, 7]);
        queue.take();
        assert_eq!(numbers(&queue), [2, 3, 7, 5, 9, 8]);
        queue.delete("p3");
        assert_eq!(numbers(&queue), [2, 7, 5, 9, 8]);
    }

    #[test]
    fn the_lowest_number_is_taken_first() {
        let mut queue = queue(&[4, -2, 3, 1]);
        let taken: Vec<_> = std::iter::from_fn(|| queue.take())
            .filter_map(|item| item.number.as_i64())
            .collect();
        assert_eq!(taken, [-2, 1, 3, 4]);
    }
}
