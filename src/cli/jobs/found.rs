//! What an id stands for.

use crate::cli::remote::{Ask, Refused, Remote, percent};
use anyhow::{Error, Result};
use http::{Method, StatusCode};
use serde_json::Value;

/// A job or an array.
pub(super) struct Found {
    /// Its document.
    pub(super) document: Value,
    /// Its path in the API.
    pub(super) path: String,
}

// === impl Found ===

impl Found {
    /// The job of this id, else the array.
    ///
    /// Errors: there is neither, or the gateway cannot be asked.
    pub(super) fn by_id(remote: &Remote, id: &str) -> Result<Found> {
        let look = |what: &str| {
            let path = format!("/api/v1/{what}/{}", segment(id));
            let document = remote.json(&Ask::new(Method::GET, &path))?;
            Ok(Found { document, path })
        };
        match look("jobs") {
            Err(no_job) if is_missing(&no_job) => match look("arrays") {
                Err(no_array) if is_missing(&no_array) => Err(no_job),
                found => found,
            },
            found => found,
        }
    }

    /// Whether it is many jobs.
    pub(super) fn is_array(&self) -> bool {
        self.document["array"] == true
    }
}

/// Whether the gateway says that there is no such thing, or not any more.
pub(super) fn is_missing(error: &Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused
        .is_some_and(|refused| matches!(refused.status, StatusCode::NOT_FOUND | StatusCode::GONE))
}

/// Whether it may go better soon: the gateway is not there, or has no time.
pub(super) fn is_passing(error: &Error) -> bool {
    match error.downcast_ref::<Refused>() {
        Some(refused) => matches!(
            refused.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        None => error.is::<ureq::Error>() || error.is::<std::io::Error>(),
    }
}

/// An id as one part of a path.
pub(super) fn segment(id: &str) -> String {
    percent(id).replace('/', "%2F")
}
