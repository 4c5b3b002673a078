//! Entries of the history as they are shown, as text. Front ends ask for the same ones again and again, and one that is over
//! does not change; to read it back, and what it was taken in with, takes the store some hundred times as long.

use crate::entry::Summary;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How much is kept, bytes of text: some five thousand entries of small prompts, some hundred that have a whole drawing in them.
const MOST: usize = 16 << 20;

/// The texts that were made last.
#[derive(Default)]
pub struct Shown(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    texts: HashMap<Arc<str>, Text>,
    /// In the order in which they came.
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

struct Text {
    /// What came of the prompt then: one that was run again came to something else.
    of: Arc<Summary>,
    stamps: bool,
    text: Arc<str>,
}

// === impl Shown ===

impl Shown {
    /// The text for a prompt that came to this; `stamps`: with the time at which it was taken in.
    pub fn get(&self, id: &str, of: &Arc<Summary>, stamps: bool) -> Option<Arc<str>> {
        let inner = self.0.lock();
        let known = inner.texts.get(id)?;
        let is_it = Arc::ptr_eq(&known.of, of) && known.stamps == stamps;
        is_it.then(|| known.text.clone())
    }

    /// Keeps a text. The oldest go where there is more than may be.
    pub fn keep(&self, id: &Arc<str>, of: &Arc<Summary>, stamps: bool, text: &Arc<str>) {
        let kept = Text {
            of: of.clone(),
            stamps,
            text: text.clone(),
        };
        let mut inner = self.0.lock();
        inner.bytes += text.len();
        match inner.texts.insert(id.clone(), kept) {
            Some(before) => inner.bytes -= before.text.len(),
            None => inner.order.push_back(id.clone()),
        }
        while inner.bytes > MOST
            && let Some(oldest) = inner.order.pop_front()
        {
            if let Some(left_out) = inner.texts.remove(&oldest) {
                inner.bytes -= left_out.text.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;

    fn summary() -> Arc<Summary> {
        Arc::new(Entry::default().summary())
    }

    #[test]
    fn what_a_prompt_came_to_before_is_not_shown_for_what_it_came_to_now() {
        let (shown, id) = (Shown::default(), Arc::from("a"));
        let (before, now) = (summary(), summary());
        shown.keep(&id, &before, true, &"before".into());
        assert_eq!(shown.get("a", &before, true).as_deref(), Some("before"));
        assert_eq!(shown.get("a", &before, false), None);
        assert_eq!(shown.get("a", &now, true), None);
        shown.keep(&id, &now, true, &"now".into());
        assert_eq!(shown.get("a", &now, true).as_deref(), Some("now"));
        assert_eq!(shown.get("a", &before, true), None);
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_the_latest_is() {
        let (shown, of) = (Shown::default(), summary());
        let text: Arc<str> = "x".repeat(MOST / 4).into();
        for n in 0..100 {
            shown.keep(&n.to_string().into(), &of, true, &text);
            // Again, as two who ask at once do.
            shown.keep(&n.to_string().into(), &of, true, &text);
        }
        let kept = (0..100).filter(|n| shown.get(&n.to_string(), &of, true).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [96, 97, 98, 99]);
        let inner = shown.0.lock();
        assert_eq!((inner.order.len(), inner.bytes), (4, MOST));
    }
}
