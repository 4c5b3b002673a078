//! `/api/jobs`: what waits, runs and was, in one list.

use super::json::{Json, Object, object};
use super::prompt::is_canonical_uuid;
use super::queue::{Item, Past, Queue};
use super::reply::{Reply, json, ok};
use super::routes::{Call, decoded, missing};
use super::server::Server;
use http::StatusCode;

const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];

/// What counts among a node's outputs as something to be seen.
const SEEN: [&str; 5] = ["images", "video", "audio", "3d", "text"];

/// Answers what stands behind `/api/jobs`.
pub(crate) fn answer(server: &Server, call: &Call, rest: &str) -> Reply {
    let version = server.spec.version;
    if !version.has_jobs() {
        return missing(call);
    }
    let parts: Vec<String> = rest.split('/').skip(1).map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (call.method.as_str(), parts.as_slice()) {
        ("GET", []) => list(&server.queue.lock(), call),
        ("GET", [id]) => one(&server.queue.lock(), id),
        ("POST", ["cancel"]) if version.is_strict() => cancel_many(server, call),
        ("POST", [id, "cancel"]) if version.is_strict() => {
            ok(&object! {"cancelled": cancel(server, id)})
        }
        _ => missing(call),
    }
}

fn wrong(why: &str) -> Reply {
    json(StatusCode::BAD_REQUEST, &object! {"error": why})
}

fn list(queue: &Queue, call: &Call) -> Reply {
    let lower = |name, default: &str| call.query(name).unwrap_or(default).to_lowercase();
    let statuses = lower("status", "");
    let statuses: Vec<&str> = statuses
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect();
    let unknown: Vec<&str> = statuses
        .iter()
        .copied()
        .filter(|s| !STATUSES.contains(s))
        .collect();
    if !unknown.is_empty() {
        let (unknown, all) = (unknown.join(", "), STATUSES.join(", "));
        return wrong(&format!(
            "Invalid status value(s): {unknown}. Valid values: {all}"
        ));
    }
    let (by, order) = (lower("sort_by", "created_at"), lower("sort_order", "desc"));
    if by != "created_at" && by != "execution_duration" {
        return wrong("sort_by must be 'created_at' or 'execution_duration'");
    }
    if order != "asc" && order != "desc" {
        return wrong("sort_order must be 'asc' or 'desc'");
    }
    let limit = match call.query("limit").map(str::parse::<i64>) {
        None => None,
        Some(Ok(limit)) if limit > 0 => Some(limit as usize),
        Some(Ok(_)) => return wrong("limit must be a positive integer"),
        Some(Err(_)) => return wrong("limit must be an integer"),
    };
    let offset = match call.query("offset").map_or(Ok(0), str::parse::<i64>) {
        Ok(offset) => offset.max(0) as usize,
        Err(_) => return wrong("offset must be an integer"),
    };
    let workflow = call.query("workflow_id").filter(|id| !id.is_empty());
    let mut jobs: Vec<Object> = all(queue)
        .filter(|job| {
            let text = |key| job.get(key).and_then(Json::text).unwrap_or("");
            (statuses.is_empty() || statuses.contains(&text("status")))
                && workflow.is_none_or(|id| text("workflow_id") == id)
        })
        .collect();
    let key = |job: &Object| {
        let number = |key| job.get(key).and_then(Json::number).unwrap_or(0.0);
        match by.as_str() {
            "created_at" => number("create_time"),
            _ => number("execution_end_time") - number("execution_start_time"),
        }
    };
    // Equal ones stay in their order both ways, as Python's `sorted(.., reverse=True)` leaves them.
    jobs.sort_by(|one, other| {
        let by_key = key(one).total_cmp(&key(other));
        if order == "desc" {
            by_key.reverse()
        } else {
            by_key
        }
    });
    let total = jobs.len();
    let shown: Vec<Object> = jobs
        .into_iter()
        .skip(offset)
        .take(limit.unwrap_or(usize::MAX))
        .collect();
    let has_more = offset + shown.len() < total;
    ok(&object! {
        "jobs": shown,
        "pagination": object! {
            "offset": offset,
            "limit": limit,
            "total": total,
            "has_more": has_more,
        },
    })
}

fn all(queue: &Queue) -> impl Iterator<Item = Object> {
    let running = queue
        .running()
        .into_iter()
        .map(|item| queued(item, "in_progress"));
    let pending = queue.pending().iter().map(|item| queued(item, "pending"));
    running.chain(pending).chain(queue.past().map(past))
}

fn one(queue: &Queue, id: &str) -> Reply {
    if let Some(found) = queue.past_of(id) {
        let mut job = past(found);
        job.insert("outputs".into(), found.ended.outputs.clone().into());
        job.insert("execution_status".into(), found.status());
        job.insert("workflow".into(), workflow(&found.item));
        return ok(&job.into());
    }
    let running = queue.running().map(|item| (item, "in_progress"));
    let all = running
        .into_iter()
        .chain(queue.pending().iter().map(|item| (item, "pending")));
    let mut all = all.filter(|(item, _)| item.prompt_id == id);
    match all.next() {
        Some((item, status)) => {
            let mut job = queued(item, status);
            job.insert("workflow".into(), workflow(item));
            ok(&job.into())
        }
        None => json(StatusCode::NOT_FOUND, &object! {"error": "Job not found"}),
    }
}

fn cancel_many(server: &Server, call: &Call) -> Reply {
    let Ok(asked) = call.json() else {
        return wrong("Request body must be valid JSON");
    };
    let Some(ids) = asked.get("job_ids").and_then(Json::list) else {
        return wrong("job_ids must be a list");
    };
    let invalid = ids
        .iter()
        .filter(|id| !id.text().is_some_and(is_canonical_uuid));
    let invalid: Vec<String> = invalid.map(Json::python).collect();
    if !invalid.is_empty() {
        let told = object! {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid};
        return json(StatusCode::BAD_REQUEST, &told);
    }
    let cancelled = ids
        .iter()
        .filter_map(Json::text)
        .filter(|id| cancel(server, id))
        .count();
    ok(&object! {"cancelled": cancelled > 0})
}

fn cancel(server: &Server, id: &str) -> bool {
    server.interrupt_if_running(id) || server.delete(id) || server.interrupt_if_running(id)
}

fn workflow(item: &Item) -> Json {
    let Json::List(item) = item.json(false) else {
        return Json::Null;
    };
    let mut item = item.into_iter().skip(2);
    object! {"prompt": item.next(), "extra_data": item.next()}
}

fn put(job: &mut Object, key: &str, value: impl Into<Json>) {
    let value = value.into();
    // What is not known is left out.
    if value != Json::Null {
        job.insert(key.into(), value);
    }
}

fn begin(item: &Item, status: &str) -> Object {
    let mut job = Object::new();
    put(&mut job, "id", item.prompt_id.as_str());
    put(&mut job, "status", status);
    put(&mut job, "priority", Json::Number(item.number.clone()));
    put(
        &mut job,
        "create_time",
        item.extra_data.get("create_time").cloned(),
    );
    job
}

fn workflow_id(item: &Item) -> Option<Json> {
    let info = item.extra_data.get("extra_pnginfo")?;
    info.get("workflow")?.get("id").cloned()
}

fn queued(item: &Item, status: &str) -> Object {
    let mut job = begin(item, status);
    put(&mut job, "outputs_count", 0_i64);
    put(&mut job, "previewable_outputs_count", 0_i64);
    put(&mut job, "workflow_id", workflow_id(item));
    job
}

fn past(past: &Past) -> Object {
    let message = |kind: &str| {
        let mut messages = past.ended.messages.iter().filter_map(Json::list);
        let mut found = messages
            .find(|message| message[0].text() == Some(kind))?
            .iter();
        found.nth(1)
    };
    let time = |kind| {
        message(kind)
            .and_then(|data| data.get("timestamp"))
            .cloned()
    };
    let interrupted = message("execution_interrupted").is_some();
    let status = match (past.ended.success, interrupted) {
        (true, _) => "completed",
        (false, true) => "cancelled",
        (false, false) => "failed",
    };
    let mut job = begin(&past.item, status);
    put(&mut job, "execution_start_time", time("execution_start"));
    let ends = [
        "execution_success",
        "execution_error",
        "execution_interrupted",
    ];
    put(
        &mut job,
        "execution_end_time",
        ends.into_iter().find_map(time),
    );
    put(
        &mut job,
        "execution_error",
        message("execution_error").cloned(),
    );
    let outputs = Outputs::of(&past.ended.outputs);
    put(&mut job, "outputs_count", outputs.count);
    put(&mut job, "previewable_outputs_count", outputs.seen);
    put(&mut job, "preview_output", outputs.preview);
    put(&mut job, "workflow_id", workflow_id(&past.item));
    job
}

struct Outputs {
    count: usize,
    seen: usize,
    /// The one that stands for the job: a saved one, or else any.
    preview: Option<Json>,
}

impl Outputs {
    fn of(outputs: &Object) -> Self {
        let mut found = Outputs {
            count: 0,
            seen: 0,
            preview: None,
        };
        let mut fallback = None;
        for (node, shown) in outputs {
            for (kind, items) in shown.object().into_iter().flatten() {
                for item in items.list().into_iter().flatten().filter_map(Json::object) {
                    found.count += 1;
                    if !SEEN.contains(&kind.as_str()) {
                        continue;
                    }
                    found.seen += 1;
                    let mut told = item.clone();
                    told.insert("nodeId".into(), node.as_str().into());
                    told.insert("mediaType".into(), kind.as_str().into());
                    let saved = item.get("type").and_then(Json::text) == Some("output");
                    let place = if saved {
                        &mut found.preview
                    } else {
                        &mut fallback
                    };
                    place.get_or_insert(told.into());
                }
            }
        }
        found.preview = found.preview.or(fallback);
        found
    }
}
