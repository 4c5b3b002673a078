use crate::Need;
use bytes::Bytes;
use http::HeaderMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// One way to serve a request that is relayed ([`Intent::Relay`](crate::Intent::Relay)).
#[derive(Clone)]
pub struct Choice {
    /// What it needs, served so.
    pub need: Need,
    /// What is changed in its body: disjoint, in their order. Everything else goes out byte for byte.
    pub edits: Vec<Edit>,
    /// Headers that it is sent with, instead of the client's of their names: a cloud's key, say.
    pub headers: HeaderMap,
    /// For how long a node is waited for before the next choice is tried; `None`: for as long as the service lets anyone wait.
    pub max_wait: Option<Duration>,
}

/// A change of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which bytes are replaced.
    pub range: Range<usize>,
    /// What comes in their place.
    pub with: Bytes,
}

/// What can be said in an answer while a node is silent, so that nobody on the way takes it for dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long it may be silent.
    pub every: Duration,
    /// The `Content-Type` of the answer, where it has to begin before a node's has.
    pub content_type: &'static str,
    /// The bytes that mean nothing to whoever reads it.
    pub says: Bytes,
}

/// What an answer used, as far as it says so: a note of `Service::observe`, counted by tenant, model and node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The model.
    pub model: std::sync::Arc<str>,
    /// Tokens that were read.
    pub read: u64,
    /// Those of them that had been computed before; `None`: nobody says.
    pub cached: Option<u64>,
    /// Tokens that were made.
    pub made: u64,
    /// Until the first of them, from when the node was handed the request.
    pub first: Option<Duration>,
    /// Between two of them.
    pub each: Option<Duration>,
}

// === impl Choice ===

impl Choice {
    /// The request as it is, on any node that fits.
    pub fn plain(need: Need) -> Self {
        Choice {
            need,
            edits: Vec::new(),
            headers: HeaderMap::new(),
            max_wait: None,
        }
    }
}

impl fmt::Debug for Choice {
    /// Without what stands in its headers: keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("need", &self.need)
            .field("edits", &self.edits)
            .field("headers", &self.headers.keys())
            .field("max_wait", &self.max_wait)
            .finish()
    }
}

// === impl Edit ===

impl Edit {
    /// A body with these changes; itself where there are none. One that does not lie within the body, behind the one before,
    /// is left out.
    pub fn apply(body: &Bytes, edits: &[Edit]) -> Bytes {
        if edits.is_empty() {
            return body.clone();
        }
        let more: usize = edits.iter().map(|edit| edit.with.len()).sum();
        let mut changed = Vec::with_capacity(body.len() + more);
        let mut at = 0;
        for Edit { range, with } in edits {
            if range.start < at || range.end < range.start || range.end > body.len() {
                continue;
            }
            changed.extend_from_slice(&body[at..range.start]);
            changed.extend_from_slice(with);
            at = range.end;
        }
        changed.extend_from_slice(&body[at..]);
        changed.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_goes_out_byte_for_byte() {
        let body = Bytes::from_static(b"{\"model\": \"fast\", \"model\":\"x\"}");
        let edit = |range, with: &'static str| Edit {
            range,
            with: Bytes::from_static(with.as_bytes()),
        };
        assert_eq!(Edit::apply(&body, &[]), body);
        let both = [edit(10..16, "\"qwen3:8b\""), edit(26..29, "\"y\"")];
        assert_eq!(
            Edit::apply(&body, &both),
            "{\"model\": \"qwen3:8b\", \"model\":\"y\"}"
        );
        // Nothing outside, nothing twice.
        let odd = [edit(10..16, "1"), edit(12..14, "2"), edit(20..400, "3")];
        assert_eq!(Edit::apply(&body, &odd), "{\"model\": 1, \"model\":\"x\"}");
    }
}
