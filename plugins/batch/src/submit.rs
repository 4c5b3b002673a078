//! Work is handed over: once, or nobody knows, and then that is what is said.

use crate::config::IdAt;
use crate::node::{LONGEST, exchange, is_missing, read};
use crate::protocol::{Handing, Protocol, fill_headers};
use crate::splice;
use crate::template::{Words, on_this_node};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde_json::Value;
use std::sync::Arc;
use tabane_api::{Attempt, Content, Done, Found, NodeClient, NodeError, Report, RunError, Verdict};
use tokio::time::{Instant, sleep, timeout};

/// The longest answer to a submission.
const ANSWER: usize = 8 << 20;

/// The longest name that a server may give to work.
const HANDLE: usize = 1 << 10;

/// What became of a submission.
pub(crate) enum Submitted {
    /// The server took the work, and calls it so.
    Taken(Arc<str>),
    /// It said no, and why.
    Refused(Done),
}

/// Hands the work over.
pub(crate) async fn submit(
    protocol: &Protocol,
    attempt: &Attempt,
    node: &dyn NodeClient,
    report: &dyn Report,
) -> Result<Submitted, RunError> {
    let words = Words::new(attempt, None);
    let request = request(&protocol.submit, attempt, &words)
        .await
        .map_err(|why| RunError::Impossible(format!("{}.submit: {why}", protocol.key)))?;
    let asked = format!("{} {}", request.method(), request.uri().path());
    report.submitting().await?;
    let (name, patience) = (node.name(), protocol.submit.timeout);
    let unknown = match timeout(patience, hand_over(protocol, &words, node, request)).await {
        Ok(Ok(Handed::Taken(handle))) => return Ok(Submitted::Taken(handle)),
        Ok(Ok(Handed::Refused(done))) => return Ok(Submitted::Refused(done)),
        Ok(Ok(Handed::Busy)) => return Err(RunError::Busy),
        Ok(Ok(Handed::Nameless(why))) => format!("{asked} on {name} was answered, but {why}"),
        // Nothing was sent.
        Ok(Err(error @ (NodeError::Unreachable(_) | NodeError::BadRequest(_)))) => {
            return Err(error.into());
        }
        Ok(Err(error)) => format!("{asked} on {name}: {error}"),
        Err(_) => format!("{asked} on {name} was not answered within {patience:?}"),
    };
    match settle(protocol, &words, node).await {
        Found::Handle(handle) => Ok(Submitted::Taken(handle)),
        Found::Nothing => Err(RunError::Lost(format!(
            "{unknown}; it does not have the work"
        ))),
        Found::CannotTell => Err(RunError::Unknown(unknown)),
    }
}

/// Asks the server whether it has work that was sent along with the attempt's own id.
pub(crate) async fn find(
    protocol: &Protocol,
    words: &Words,
    node: &dyn NodeClient,
) -> Result<Found, NodeError> {
    let Some((question, id)) = &protocol.find else {
        return Ok(Found::CannotTell);
    };
    let request = question.request(words).map_err(NodeError::BadRequest)?;
    let answer = exchange(node, request).await?;
    if is_missing(answer.status()) {
        return Ok(Found::Nothing);
    }
    let broken = |why: String| NodeError::Broken(format!("{}.find: {why}", protocol.key));
    if !answer.status().is_success() {
        return Err(broken(format!("the server answered {}", answer.status())));
    }
    let json: Value = serde_json::from_slice(answer.body())
        .map_err(|error| broken(format!("the answer is not JSON: {error}")))?;
    Ok(match id.text(&json).and_then(|id| named(&id)) {
        Some(handle) => Found::Handle(handle),
        None => Found::Nothing,
    })
}

/// Asks until the server says whether it has the work, or as long as it makes sense.
async fn settle(protocol: &Protocol, words: &Words, node: &dyn NodeClient) -> Found {
    if protocol.find.is_none() {
        return Found::CannotTell;
    }
    let until = Instant::now() + protocol.lost_after;
    while Instant::now() < until {
        // A request that broke off may still be read by the server for a moment.
        sleep(protocol.every.0).await;
        if let Ok(found) = find(protocol, words, node).await {
            return found;
        }
    }
    Found::CannotTell
}

/// What the server said to a submission.
enum Handed {
    Taken(Arc<str>),
    Refused(Done),
    Busy,
    /// It took the work and does not say what it calls it.
    Nameless(String),
}

async fn hand_over(
    protocol: &Protocol,
    words: &Words,
    node: &dyn NodeClient,
    request: Request<Content>,
) -> Result<Handed, NodeError> {
    let answer = node.stream(request).await?;
    let status = answer.status();
    // 503 is the service's `retry` to judge, like any other status.
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Handed::Busy);
    }
    let named_by_header = matches!(protocol.id, Some(IdAt::Header(_)));
    if !(status.is_success() || status.is_redirection() && named_by_header) {
        let verdict = match status.is_redirection() {
            true => Verdict::Failed,
            false => Verdict::ByStatus,
        };
        return Ok(Handed::Refused(Done {
            verdict,
            response: answer,
        }));
    }
    let (head, pieces) = answer.into_parts();
    let handle = match &protocol.id {
        None => Some(words.attempt().into()),
        Some(IdAt::Header(name)) => head
            .headers
            .get(&name.0)
            .and_then(|value| named(value.to_str().ok()?)),
        Some(IdAt::Pointer(at)) => {
            let body = read(pieces, ANSWER).await?;
            let json: Value = serde_json::from_slice(&body).unwrap_or_default();
            at.text(&json).and_then(|id| named(&id))
        }
    };
    Ok(match (handle, &protocol.id) {
        (Some(handle), _) => Handed::Taken(handle),
        (None, Some(IdAt::Header(name))) => Handed::Nameless(format!(
            "header `{}` does not say what the work is called",
            name.0
        )),
        (None, Some(IdAt::Pointer(at))) => {
            Handed::Nameless(format!("nothing at `{at}` says what the work is called"))
        }
        (None, None) => Handed::Nameless("nothing says what the work is called".into()),
    })
}

/// What the server calls the work: of an address, only what leads there on this node.
fn named(id: &str) -> Option<Arc<str>> {
    let id = id.trim();
    let id = on_this_node(id).unwrap_or_else(|| id.to_owned());
    (!id.is_empty() && id.len() <= HANDLE).then(|| id.into())
}

/// The client's request, with what the file puts in place of its own.
async fn request(
    submit: &Handing,
    attempt: &Attempt,
    words: &Words,
) -> Result<Request<Content>, String> {
    let mut headers: HeaderMap = attempt.headers.clone();
    let mut body = attempt.body.clone();
    if !submit.set.is_empty() {
        let mut bytes: Bytes = body.to_bytes(LONGEST).await.map_err(|error| {
            format!("`set` cannot read the body: {error}; take `headers` in its place")
        })?;
        for (at, text) in &submit.set {
            bytes = splice::put(&bytes, at, &text.fill(words))?;
        }
        body = bytes.into();
        headers.remove(header::CONTENT_LENGTH);
    }
    fill_headers(&submit.headers, words, &mut headers)?;
    let mut request = Request::new(body);
    *request.method_mut() = submit.method.clone().unwrap_or(attempt.method.clone());
    *request.uri_mut() = match &submit.path {
        None => attempt.uri.clone(),
        Some(path) => {
            let path = path.fill(words);
            path.parse()
                .map_err(|error| format!("`{path}` cannot be asked for: {error}"))?
        }
    };
    *request.headers_mut() = headers;
    Ok(request)
}

/// An answer in one piece as a result.
pub(crate) fn whole(verdict: Verdict, answer: Response<Bytes>) -> Done {
    Done {
        verdict,
        response: answer.map(tabane_api::one_piece),
    }
}
