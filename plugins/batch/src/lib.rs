//! The kind `batch`: servers whose work takes long, such as renderers, simulations, chemistry codes and serverless
//! endpoints.
//!
//! A slot is the GPU's, so the gateway has to know when the work ends, and that is not always when the answer to a
//! request does. The file says which of three shapes a server has: its answer is the result (`sync`), it is asked how
//! far it is (`poll`), or it calls the gateway when it is done (`callback`). Of the last two, work goes on while the
//! gateway restarts: what the server calls it is kept, and it is taken up again by that.

mod config;
mod follow;
mod node;
mod pointer;
mod protocol;
mod reading;
mod short;
mod splice;
mod submit;
mod template;
#[cfg(test)]
mod tests;

pub use config::{
    Ask, Callback, Config, Find, Headers, IdAt, Name, Poll, ProgressAt, Submit, Sync, Verb,
};
pub use pointer::{Plain, Pointer};
pub use short::{FromText, Short, Span};
pub use template::Path;

use async_trait::async_trait;
use bytes::Bytes;
use follow::Work;
use http::{Extensions, HeaderMap, HeaderValue};
use node::WithHeaders;
use protocol::Protocol;
use std::sync::Arc;
use std::time::Duration;
use submit::Submitted;
use tabane_api::{
    Ask as Asked, Attempt, Done, Found, Intent, Kind, Need, NodeClient, NodeError, ProbeError,
    Refusal, Released, Report, RunError, Seen, Service, Stop, Stopped, Vitals,
};
use tabane_http::Http;
use template::Words;

/// How long a server may take until it has stopped; the gateway waits a little longer.
const STOPPING: Duration = Duration::from_secs(15);

/// Any service whose work takes long.
pub struct Batch {
    /// What a request needs, and whether a node is well, is as for any HTTP service.
    http: Http,
    headers: HeaderMap,
    /// `None`: the answer is the result.
    protocol: Option<Protocol>,
}

impl Kind for Batch {
    const NAME: &'static str = "batch";
    const POLICY: &'static str = "match";
    type Config = Config;

    fn new(config: Config, _prior: Option<Arc<Self>>) -> Result<Self, String> {
        let http = tabane_http::Config {
            probe: config.probe.clone(),
            vram_mib: config.vram_mib,
            labels: config.labels.clone(),
            class: config.class.clone(),
            size: config.size.clone(),
            release: config.release.clone(),
            model: config.model.clone(),
            out_of_memory: (config.sync.iter())
                .flat_map(|sync| sync.out_of_memory.clone())
                .collect(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers.0 {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("headers.{name}: is one line of visible characters"))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(Batch {
            http: Http::new(http, None).map_err(|why| match why.starts_with("out_of_memory:") {
                true => format!("sync.{why}"),
                false => why,
            })?,
            headers,
            protocol: Protocol::of(config)?,
        })
    }
}

#[async_trait]
impl Service for Batch {
    fn classify(&self, ask: &Asked<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal> {
        self.http.classify(ask, body)
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        self.http.probe(&self.with_headers(node)).await
    }

    async fn release(&self, node: &dyn NodeClient) -> Result<Released, NodeError> {
        self.http.release(&self.with_headers(node)).await
    }

    fn observe(&self, need: &Need, seen: Seen<'_>, notes: &mut Extensions) {
        self.http.observe(need, seen, notes);
    }

    async fn run(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        report: &dyn Report,
    ) -> Result<Done, RunError> {
        let node = self.with_headers(node);
        let Some(protocol) = &self.protocol else {
            return self.http.run(attempt, &node, report).await;
        };
        if protocol.calls
            && attempt.callback.is_none()
            && (attempt.handle.is_none() || protocol.status.is_none())
        {
            return Err(RunError::Impossible(
                "`callback` needs an address by which nodes reach the gateway; say it in `nodes_reach_us_at`".into(),
            ));
        }
        if let Some(handle) = &attempt.handle {
            let work = Work::new(protocol, attempt, handle, &node);
            return work.to_its_end(Duration::ZERO, report).await;
        }
        match submit::submit(protocol, attempt, &node, report).await? {
            Submitted::Refused(done) => Ok(done),
            Submitted::Taken(handle) => {
                report.handle(&handle).await?;
                let work = Work::new(protocol, attempt, &handle, &node);
                work.to_its_end(protocol.every.0, report).await
            }
        }
    }

    async fn find(&self, attempt: &Attempt, node: &dyn NodeClient) -> Result<Found, NodeError> {
        match &self.protocol {
            Some(protocol) => {
                let words = Words::new(attempt, None);
                submit::find(protocol, &words, &self.with_headers(node)).await
            }
            None => Ok(Found::CannotTell),
        }
    }

    async fn cancel(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        _why: Stop,
    ) -> Result<Stopped, NodeError> {
        let Some(protocol) = &self.protocol else {
            return Ok(Stopped::Unknown);
        };
        let node = self.with_headers(node);
        let handle = match &attempt.handle {
            Some(handle) => handle.clone(),
            // It was broken off before anybody heard what the work is called.
            None => match submit::find(protocol, &Words::new(attempt, None), &node).await? {
                Found::Handle(handle) => handle,
                Found::Nothing | Found::CannotTell => return Ok(Stopped::Unknown),
            },
        };
        match Work::new(protocol, attempt, &handle, &node)
            .stop(STOPPING)
            .await?
        {
            true => Ok(Stopped::Idle),
            false => Ok(Stopped::Unknown),
        }
    }
}

// === impl Batch ===

impl Batch {
    fn with_headers<'a>(&'a self, node: &'a dyn NodeClient) -> WithHeaders<'a> {
        WithHeaders {
            node,
            headers: &self.headers,
        }
    }
}
