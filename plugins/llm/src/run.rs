//! A job: the stored request, with what its alias changes for the model that it was leased for.

use crate::asks;
use crate::kind::Llm;
use crate::models::Models;
use crate::route::{ModelAt, Route};
use crate::{body, form};
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use tabane_api::{Attempt, Content, Done, Edit, NodeClient, RunError};

/// A longer body goes out as it is.
const MOST: usize = 64 << 20;

/// Runs one attempt.
pub(crate) async fn run(
    kind: &Llm,
    attempt: &Attempt,
    node: &dyn NodeClient,
) -> Result<Done, RunError> {
    let mut request = Request::new(attempt.body.clone());
    *request.method_mut() = attempt.method.clone();
    *request.uri_mut() = attempt.uri.clone();
    *request.headers_mut() = attempt.headers.clone();
    if attempt.body.length() <= MOST as u64 {
        let body = attempt.body.to_bytes(MOST).await;
        let body = body.map_err(|error| {
            RunError::Impossible(format!("its request cannot be read back: {error}"))
        })?;
        let (body, headers) = changed(&kind.setup.models.read(), attempt, &body, node.name());
        *request.body_mut() = Content::Bytes(body);
        request.headers_mut().remove(header::CONTENT_LENGTH);
        for name in headers.keys() {
            request.headers_mut().remove(name);
        }
        request.headers_mut().extend(headers);
    }
    Ok(Done::by_status(node.stream(request).await?))
}

/// What is sent: the body with another model in it, and headers of the file's.
fn changed(models: &Models, attempt: &Attempt, body: &Bytes, on: &str) -> (Bytes, HeaderMap) {
    let as_it_is = || (body.clone(), HeaderMap::new());
    let Some(model) = attempt.need.model.as_deref() else {
        return as_it_is();
    };
    let route = Route::of(&attempt.method, attempt.uri.path());
    let read = match route.model {
        ModelAt::Body | ModelAt::BodyOrName => body::read(body, route.model).ok(),
        ModelAt::Form => {
            let kind = attempt.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok());
            form::read(kind.unwrap_or_default(), body).ok()
        }
        _ => None,
    };
    let Some(asked) = read else {
        return as_it_is();
    };
    match asks::choice_for(models, asked.model.as_deref(), model, on) {
        Some(choice) => (
            Edit::apply(body, &asked.edits(model)),
            asks::headers(&choice),
        ),
        None => as_it_is(),
    }
}

#[cfg(test)]
mod tests;
