//! `POST /prompt`.

use super::json::{Json, Object, object};
use super::queue::Item;
use super::reply::{Reply, broken, json, ok};
use super::routes::Call;
use super::seen::Saw;
use super::server::Server;
use super::validate::{Invalid, Rules, problem, validate};
use crate::knobs::Submission;
use http::StatusCode;
use rand::RngExt;
use serde_json::Number;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Accepts a prompt, or says why not. An error drops the connection, as the knobs say.
pub(crate) async fn post(server: &Arc<Server>, call: &Call) -> io::Result<Reply> {
    let knobs = server.knobs();
    if knobs.submission == Submission::DropBefore {
        return Err(io::Error::other("dropped before the prompt was taken"));
    }
    if knobs.take_ms > 0 {
        sleep(Duration::from_millis(knobs.take_ms)).await;
    }
    server.until_knobs(|knobs| !knobs.undecided).await;
    if knobs
        .queue_limit
        .is_some_and(|limit| server.queue.lock().remaining() >= limit)
    {
        let full = problem("QUEUE_LIMIT", "Queue limit reached", "", object! {});
        return Ok(refused(
            server,
            StatusCode::TOO_MANY_REQUESTS,
            full,
            Object::new(),
        ));
    }
    let asked = match call.json() {
        Ok(Json::Object(asked)) => asked,
        // In a list, there is no prompt either.
        Ok(Json::List(_)) => Object::new(),
        _ => return Ok(broken()),
    };
    let reply = accept(server, call, asked).unwrap_or_else(broken);
    match knobs.submission {
        Submission::DropAfter => Err(io::Error::other("dropped after the prompt was taken")),
        Submission::Hang => std::future::pending().await,
        _ => Ok(reply),
    }
}

/// `None`: the server did not expect what it got.
fn accept(server: &Server, call: &Call, mut asked: Object) -> Option<Reply> {
    let version = server.spec.version;
    let number = number(server, &asked)?;
    let Some(prompt) = asked.shift_remove("prompt") else {
        let told = "No prompt provided";
        let error = problem("no_prompt", told, told, object! {});
        return Some(refused(
            server,
            StatusCode::BAD_REQUEST,
            error,
            Object::new(),
        ));
    };
    let prompt_id = match asked.get("prompt_id") {
        Some(id) if version.is_strict() && *id != Json::Null => match id.text() {
            Some(id) if is_canonical_uuid(id) => id.to_owned(),
            _ => {
                let details = "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one";
                let error = problem(
                    "invalid_prompt_id",
                    "prompt_id must be a valid UUID",
                    details,
                    object! {},
                );
                return Some(refused(
                    server,
                    StatusCode::BAD_REQUEST,
                    error,
                    Object::new(),
                ));
            }
        },
        Some(id) if version.takes_prompt_id() && !version.is_strict() => id.python(),
        _ => uuid(),
    };
    let mut prompt = match prompt {
        Json::Object(prompt) => prompt,
        Json::List(nothing) if nothing.is_empty() => Object::new(),
        _ => return None,
    };
    let rules = Rules {
        library: &server.library,
        spec: &server.spec,
        disk: &server.disk,
    };
    let valid = match validate(&mut prompt, asked.get("partial_execution_targets"), rules) {
        Ok(valid) => valid,
        Err(Invalid::Told(told)) => {
            let status = StatusCode::BAD_REQUEST;
            return Some(refused(server, status, told.error, told.node_errors));
        }
        Err(Invalid::Unexpected) => return None,
    };
    let item = Item {
        number: number.clone(),
        prompt_id: prompt_id.clone(),
        prompt,
        extra_data: extra_data(server, call, &mut asked)?,
        outputs: valid.outputs,
    };
    server.record.note(Saw::Accepted {
        prompt_id: prompt_id.clone(),
        client_id: item.client().map(str::to_owned),
    });
    server.put(item);
    Some(ok(&object! {
        "prompt_id": prompt_id,
        "number": Json::Number(number),
        "node_errors": valid.node_errors,
    }))
}

/// The client's own number, or the next one, which is lower than all others for who wants to be in front.
fn number(server: &Server, asked: &Object) -> Option<Number> {
    if let Some(number) = asked.get("number") {
        let number = match number {
            Json::Text(text) => text.trim().parse().ok()?,
            number => number.number()?,
        };
        return Number::from_f64(number);
    }
    let mut queue = server.queue.lock();
    let next = queue.number;
    queue.number += 1;
    let front = asked.get("front").is_some_and(Json::is_true);
    Some(if front { -next } else { next }.into())
}

fn extra_data(server: &Server, call: &Call, asked: &mut Object) -> Option<Object> {
    let mut extra = match asked.shift_remove("extra_data") {
        Some(Json::Object(extra)) => extra,
        Some(_) => return None,
        None => Object::new(),
    };
    if let Some(client) = asked.shift_remove("client_id") {
        extra.insert("client_id".into(), client);
    }
    if server.spec.version.stamps_create_time() {
        if let Some(source) = call.header("comfy-usage-source")
            && !extra.contains_key("comfy_usage_source")
        {
            extra.insert("comfy_usage_source".into(), source.into());
        }
        extra.insert("create_time".into(), server.clock().into());
    }
    Some(extra)
}

fn refused(server: &Server, status: StatusCode, error: Json, node_errors: Object) -> Reply {
    let why = error.get("type").map(Json::python).unwrap_or_default();
    server.record.note(Saw::Refused { why });
    json(
        status,
        &object! {"error": error, "node_errors": node_errors},
    )
}

/// A random one.
pub(crate) fn uuid() -> String {
    let mut bits: u128 = rand::rng().random();
    bits = bits & !(0xf << 76) | 4 << 76;
    bits = bits & !(3 << 62) | 2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

pub(crate) fn is_canonical_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let digits = text
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    lengths == [8, 4, 4, 4, 12] && digits
}
