//! Which endpoint made what is asked for by an id: responses and conversations, which engines keep to themselves.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tabane_api::hash;

/// So many are remembered, some two megabytes; those are forgotten first that were made first.
const MOST: usize = 1 << 15;
/// An id is looked for in so much of an answer's beginning.
const LOOKED_AT: usize = 4096;

/// Ids, as they went by.
#[derive(Default)]
pub(crate) struct Ids(Mutex<Known>);

#[derive(Default)]
struct Known {
    owners: HashMap<u64, Arc<str>>,
    order: VecDeque<u64>,
}

/// Looks for the id in an answer that goes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sought(Vec<u8>);

// === impl Ids ===

impl Ids {
    /// An endpoint made something of this id.
    pub(crate) fn made(&self, id: &str, by: &Arc<str>) {
        let mut known = self.0.lock();
        let key = hash(id.as_bytes());
        if known.owners.insert(key, by.clone()).is_none() {
            known.order.push_back(key);
        }
        if known.order.len() > MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.owners.remove(&oldest);
        }
    }

    /// The endpoint that made it.
    pub(crate) fn owner(&self, id: &str) -> Option<Arc<str>> {
        self.0.lock().owners.get(&hash(id.as_bytes())).cloned()
    }
}

// === impl Sought ===

impl Sought {
    /// More of the answer. `Some`: there it is, or it is not to be found any more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Option<String>> {
        let room = LOOKED_AT.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(&bytes[..room]);
        let found = find(&self.0);
        (found.is_some() || self.0.len() >= LOOKED_AT).then_some(found)
    }
}

/// The first id of what is kept: in an event it stands within `response`, in an object at its top.
fn find(text: &[u8]) -> Option<String> {
    let finder = memchr::memmem::find_iter(text, b"\"id\"");
    finder.into_iter().find_map(|at| {
        let rest = text[at + 4..].trim_ascii_start().strip_prefix(b":")?;
        let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        let id = std::str::from_utf8(&rest[..end]).ok()?;
        (id.starts_with("resp") || id.starts_with("conv")).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_wherever_chunks_are_cut() {
        let event = br#"event: response.created
data: {"type":"response.created","response": {"object":"response", "id" : "resp_12ab","x":1}}"#;
        let object = br#"{"id":"conv_7","object":"conversation"}"#;
        for (text, wants) in [(event.as_slice(), "resp_12ab"), (object, "conv_7")] {
            for size in [1, 7, 1000] {
                let mut sought = Sought::default();
                let found = text.chunks(size).find_map(|chunk| sought.feed(chunk));
                assert_eq!(found, Some(Some(wants.to_owned())), "{size}");
            }
        }
        let mut sought = Sought::default();
        let other = br#"{"id":"chatcmpl-1","choices":[]}"#;
        assert_eq!(sought.feed(other), None);
        assert_eq!(
            sought.feed(&[b' '; 9000]),
            Some(None),
            "it is looked for no longer"
        );
    }

    #[test]
    fn those_that_were_made_first_are_forgotten_first() {
        let ids = Ids::default();
        for n in 0..=MOST {
            ids.made(&format!("resp_{n}"), &"a/llm".into());
        }
        ids.made("resp_1", &"b/llm".into());
        assert_eq!(ids.owner("resp_0"), None);
        assert_eq!(ids.owner("resp_1").as_deref(), Some("b/llm"));
        assert_eq!(ids.0.lock().owners.len(), MOST);
    }
}
