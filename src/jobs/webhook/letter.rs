//! What letters say: little, and where to find the rest (Standard Webhooks 1.0, "thin" payloads).

use crate::jobs::moment;
use crate::store::{ArrayRecord, JobRecord, Letter, Letters};
use serde_json::{Value, json};
use std::sync::Arc;
use tabane_api::JobState;

/// How much of an error, and of tags, a letter repeats. Six times as much when every byte has to be escaped: a letter stays
/// below the 20 kB that the standard asks for.
const MOST: usize = 1024;

/// Makes the address of a path of ours (`/_tabane/jobs/{id}`) as receivers reach it.
pub type Address = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Writes a letter for each end of a job or array that names an address for it.
///
/// A child of an array has one of its own only if it names an address itself.
pub struct Secretary {
    address: Address,
}

// === impl Secretary ===

impl Secretary {
    /// Letters with links of this form.
    pub fn new(address: Address) -> Self {
        Secretary { address }
    }
}

impl Letters for Secretary {
    fn of_job(&self, job: &JobRecord) -> Vec<Letter> {
        let Some(url) = job.webhook.as_ref().filter(|_| job.state.is_over()) else {
            return Vec::new();
        };
        // By the gateway's own id: a link that is signed names nothing that a client could have chosen.
        let path = format!("/_tabane/jobs/{}", job.id);
        let payload = json!({
            "type": format!("job.{}", job.state),
            "timestamp": job.ended.map(moment),
            "data": {
                "id": job.id,
                "client_id": job.client_id,
                "state": job.state.word(),
                "service": job.service,
                "tags": few(&job.tags),
                "attempt": job.attempt,
                "error": job.error.as_deref().map(short),
                "links": {
                    "self": (self.address)(&path),
                    "result": job.result.as_ref().map(|_| (self.address)(&format!("{path}/result"))),
                },
            },
        });
        vec![Letter {
            id: format!("msg_{}_{}", job.id, job.version),
            about: job.id.clone(),
            tenant: job.tenant.clone(),
            url: url.clone(),
            payload: payload.to_string(),
        }]
    }

    fn of_array(&self, array: &ArrayRecord) -> Vec<Letter> {
        let Some(url) = array.webhook.as_ref().filter(|_| array.ended.is_some()) else {
            return Vec::new();
        };
        let counts = JobState::ALL.into_iter().zip(array.counts);
        let over = counts.filter(|(state, _)| state.is_over());
        let counts: serde_json::Map<String, Value> = over
            .map(|(state, count)| (state.word().to_owned(), count.into()))
            .collect();
        let path = format!("/_tabane/arrays/{}", array.id);
        let payload = json!({
            "type": "array.finished",
            "timestamp": array.ended.map(moment),
            "data": {
                "id": array.id,
                "service": array.service,
                "tags": few(&array.tags),
                "total": array.counts.iter().sum::<u32>(),
                "counts": counts,
                "links": {
                    "self": (self.address)(&path),
                    "results": (self.address)(&format!("{path}/results.zip")),
                },
            },
        });
        vec![Letter {
            id: format!("msg_{}_{}", array.id, array.endings),
            about: array.id.clone(),
            tenant: array.tenant.clone(),
            url: url.clone(),
            payload: payload.to_string(),
        }]
    }
}

/// The first tags that fit.
fn few(tags: &[String]) -> Vec<&str> {
    let mut left = MOST;
    let fits = |tag: &&str| {
        // Its quotes and comma count.
        let left_after = left.checked_sub(tag.len() + 3);
        left = left_after.unwrap_or_default();
        left_after.is_some()
    };
    tags.iter().map(String::as_str).take_while(fits).collect()
}

/// The beginning of a text.
fn short(text: &str) -> String {
    match text.len() {
        0..=MOST => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(MOST)]),
    }
}
