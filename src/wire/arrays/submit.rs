//! A request for an array becomes its jobs: all of them are on disk before it is answered, or none.
//!
//! What that costs. An array is held in memory whole while it is taken in, one at a time: at most [`MOST_BYTES`] of what
//! its jobs send, and some 2 KiB more for each job.

use super::mould::{Cast, Mould};
use super::{arrays_base, document};
use crate::dispatch::{LiveService, World};
use crate::jobs::{
    self, FRAME_TAG, Frames, FramesError, Jobs, NamedFrames, frame_tag, new_id, not_accepted,
};
use crate::store::{ArrayAccepted, ArrayRecord, Idempotency, JobId, Kept, NewArray, NewJob};
use crate::wire::answer::Answer;
use crate::wire::ask::{Wishes, check_tags, idempotency_key, span, webhook};
use crate::wire::change::allowed;
use crate::wire::{Call, Who, Wire, small, unavailable};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Ask, Caller, Need, Refusal, Urgency};
use tokio::task::yield_now;

/// How much the jobs of one array may send together: paths, headers and bodies.
const MOST_BYTES: usize = 128 << 20;

/// What its name's tag begins with.
const NAME_TAG: &str = "name=";

/// So many jobs are made, or given their tickets, until others have their turn.
const STEP: usize = 64;

/// A request for an array.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    service: String,
    path: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Box<RawValue>>,
    frames: NamedFrames,
    priority: Option<u8>,
    #[serde(default)]
    tags: Vec<String>,
    webhook: Option<String>,
    start_by: Option<String>,
    timeout: Option<String>,
    name: Option<String>,
}

/// An array that is taken in.
struct Order {
    id: JobId,
    caller: Caller,
    service: Arc<LiveService>,
    mould: Mould,
    frames: Frames,
    urgency: Option<Urgency>,
    /// What its jobs have in common; the end of each is nobody's news, so they have no webhook.
    wishes: Wishes,
    webhook: Option<Arc<str>>,
    idempotency: Option<Idempotency>,
}

impl Wire {
    /// `POST /_tabane/arrays`.
    pub(super) async fn submit_array(
        &self,
        jobs: &Jobs,
        call: &Call<'_>,
    ) -> Result<Answer, Refusal> {
        let order = self.order(jobs, call).await?;
        let (wire, jobs, world) = (self.clone(), jobs.clone(), call.world.clone());
        // Its client may leave: jobs that are on disk have to get their tickets all the same.
        let taken = tokio::spawn(async move { wire.take_in(&jobs, &world, order).await });
        let array = taken.await.map_err(|error| {
            Refusal::Internal(format!("the array could not be taken in: {error}"))
        })??;
        let mut answer = document(call.world, StatusCode::ACCEPTED, &array);
        let place = format!("{}/{}", arrays_base(call.world), array.id);
        answer.set(header::LOCATION, &place);
        answer.set(header::CONTENT_LOCATION, &place);
        answer.set(header::RETRY_AFTER, "5");
        Ok(answer)
    }

    async fn order(&self, jobs: &Jobs, call: &Call<'_>) -> Result<Order, Refusal> {
        let Who::Tenant(caller) = &call.who else {
            return Err(match &call.who {
                Who::Nobody(why) => why.clone(),
                _ => Refusal::Forbidden("arrays are submitted by tenants".into()),
            });
        };
        if self.dispatch.is_closing() {
            return Err(Refusal::ShuttingDown);
        }
        let body = small(&call.body).await?;
        let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
            bad(format!(
                "send `{{\"service\": …, \"path\": …, \"body\": …, \"frames\": \"1-240\"}}`: {error}"
            ))
        })?;
        let named = &wanted.service;
        let service = call.world.service(named).cloned();
        let service =
            service.ok_or_else(|| Refusal::NoSuch(format!("there is no service `{named}`")))?;
        let frames = Frames::read(&wanted.frames).map_err(|why| match why {
            FramesError::TooMany => Refusal::Unprocessable(why.to_string()),
            _ => bad(why.to_string()),
        })?;
        let urgency = match wanted.priority {
            None => None,
            Some(urgency @ 0..=7) => Some(allowed(call, named, Urgency::new(urgency))),
            Some(other) => return Err(bad(format!("`priority` is 0 to 7, got {other}"))),
        };
        let idempotency = match idempotency_key(call.headers)? {
            None => None,
            Some(key) => {
                let content = call.body.content();
                let print = jobs::fingerprint("POST", call.path, &content).await;
                let fingerprint = print.map_err(|error| {
                    Refusal::Internal(format!("the body cannot be read back: {error}"))
                })?;
                let key = format!("{named} {key}");
                Some(Idempotency { key, fingerprint })
            }
        };
        let start_by = duration("start_by", wanted.start_by.as_deref())?;
        let timeout = duration("timeout", wanted.timeout.as_deref())?;
        Ok(Order {
            id: new_id(jobs.now()),
            caller: caller.clone(),
            mould: Mould::new(
                wanted.method.as_deref(),
                &wanted.path,
                &wanted.headers,
                wanted.body.as_deref(),
            )?,
            service,
            frames,
            urgency,
            wishes: Wishes {
                start_by: start_by.map(|wait| jobs.now().after(wait)),
                timeout_ms: timeout.map(|most| i64::try_from(most.as_millis()).unwrap_or(i64::MAX)),
                tags: tags(wanted.tags, wanted.name)?,
                ..Wishes::default()
            },
            webhook: webhook(wanted.webhook.as_deref(), jobs)?,
            idempotency,
        })
    }

    /// Takes an array in: its jobs are on disk, and wait, when this returns.
    async fn take_in(
        &self,
        jobs: &Jobs,
        world: &Arc<World>,
        order: Order,
    ) -> Result<ArrayRecord, Refusal> {
        // One at a time: each may need hundreds of megabytes.
        let _turn = self.one_array.lock().await;
        let mut children = Vec::with_capacity(order.frames.count());
        let made = self.make(jobs, world, &order, &mut children).await;
        let long: Vec<Kept> = children
            .iter()
            .map(|job| &job.body)
            .filter(is_long)
            .cloned()
            .collect();
        let accepted = match made {
            Err(why) => Err(why),
            Ok(()) => {
                let array = NewArray {
                    id: order.id.clone(),
                    tenant: order.caller.tenant.clone(),
                    service: order.service.plan.name.clone(),
                    accepted: jobs.now(),
                    tags: order.wishes.tags.clone(),
                    webhook: order.webhook.clone(),
                    idempotency: order.idempotency.clone(),
                    jobs: children,
                };
                let accepted = jobs.accept_array(array, &order.service.plan.jobs).await;
                accepted.map_err(|error| {
                    not_accepted(error, &order.service.plan.name, &order.caller.tenant)
                })
            }
        };
        if !matches!(accepted, Ok(ArrayAccepted::New(..))) {
            for body in &long {
                jobs.discard(body).await;
            }
        }
        match accepted? {
            ArrayAccepted::New(array, children) => {
                for (i, job) in children.into_iter().enumerate() {
                    self.dispatch.enqueue(&job);
                    if i.is_multiple_of(STEP) {
                        yield_now().await;
                    }
                }
                Ok(array)
            }
            ArrayAccepted::Again(array) => Ok(array),
            ArrayAccepted::OtherRequest => Err(Refusal::Unprocessable(
                "this `Idempotency-Key` was used for another request".into(),
            )),
        }
    }

    /// Makes the jobs of an array, in the order of its frames. Those that were made before an error are there after it.
    async fn make(
        &self,
        jobs: &Jobs,
        world: &World,
        order: &Order,
        children: &mut Vec<NewJob>,
    ) -> Result<(), Refusal> {
        let (mut bytes, mut fits) = (0, None::<Need>);
        for (item, frame) in (0_u32..).zip(order.frames.iter()) {
            let cast = order.mould.cast(frame)?;
            bytes += cast.length();
            if bytes > MOST_BYTES {
                return Err(too_long(&order.frames));
            }
            let max = order.service.plan.body.max;
            if let Some(max) = max.filter(|max| cast.body.len() as u64 > *max) {
                return Err(Refusal::BodyTooLarge { max });
            }
            let Cast {
                method,
                uri,
                headers,
                body,
            } = cast;
            let ask = Ask {
                method: &method,
                path: uri.path(),
                query: uri.query(),
                headers: &headers,
                caller: &order.caller,
            };
            let name = &order.service.plan.name;
            let journey = self.dispatch.journey_to(world, name, &ask, &body)?;
            // Most frames need what the one before needs.
            if fits.as_ref() != Some(journey.need()) {
                self.dispatch.could_ever(&journey)?;
                fits = Some(journey.need().clone());
            }
            let wishes = &order.wishes;
            let mut new = self.draft(jobs, &journey, method, uri, headers, wishes);
            new.parent = Some((order.id.clone(), item));
            new.tags.push(frame_tag(frame));
            if let Some(urgency) = order.urgency {
                new.need.urgency = urgency;
            }
            new.body = jobs.keep(body).await.map_err(unavailable)?;
            children.push(new);
            if children.len().is_multiple_of(STEP) {
                yield_now().await;
            }
        }
        Ok(())
    }
}

/// Tags in order, each once, with the array's name.
fn tags(mut tags: Vec<String>, name: Option<String>) -> Result<Vec<String>, Refusal> {
    if let Some(tag) = tags.iter().find(|tag| tag.starts_with(FRAME_TAG)) {
        let why = "is given to each job by its frame; leave it out";
        return Err(bad(format!("`tags`: `{tag}` {why}")));
    }
    tags.extend(name.map(|name| format!("{NAME_TAG}{name}")));
    check_tags(tags)
}

fn duration(name: &str, text: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    match span(text) {
        Some(span) if !span.is_zero() => Ok(Some(span)),
        _ => Err(bad(format!(
            "`{name}`: `{text}` is no duration; write `90s`, `10m` or `2h`"
        ))),
    }
}

fn is_long(body: &&Kept) -> bool {
    matches!(body, Kept::Blob(_))
}

fn too_long(frames: &Frames) -> Refusal {
    Refusal::Unprocessable(format!(
        "the requests of these {} frames are longer than {} MiB together; put what they share where the nodes can \
         read it, or submit several arrays",
        frames.count(),
        MOST_BYTES >> 20
    ))
}

fn bad(why: String) -> Refusal {
    Refusal::BadRequest(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_its_name_among_its_tags_and_no_frame() {
        let read = |list: &[&str], name: Option<&str>| {
            let list = list.iter().map(|tag| tag.to_string()).collect();
            tags(list, name.map(str::to_owned))
        };
        let all = read(&["shot=010", "b", "b"], Some("Beauty pass")).unwrap();
        assert_eq!(all, ["b", "name=Beauty pass", "shot=010"]);
        assert!(read(&["frame=1"], None).is_err());
        assert!(read(&[], Some(&"x".repeat(200))).is_err());
    }

    #[test]
    fn a_request_for_an_array_is_read_and_what_is_misspelt_is_said() {
        let read = |json: &str| serde_json::from_str::<Wanted>(json);
        let least = r#"{"service": "render", "path": "/{frame}", "frames": "1-3"}"#;
        let wanted = read(least).unwrap();
        assert!(wanted.body.is_none() && wanted.headers.is_empty());
        for (json, wants) in [
            (r#"{"service": "render", "path": "/", "frame": 1}"#, "frame"),
            (r#"{"service": "render", "path": "/"}"#, "frames"),
            (r#"{"service": "r", "path": "/", "frames": {}}"#, "1-240x2"),
            (
                r#"{"service": "r", "path": "/", "frames": 1, "headers": {"a": 1}}"#,
                "string",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(wants), "{json}: {error}");
        }
        let wanted = read(r#"{"service": "r", "path": "/", "frames": 1, "body": null}"#);
        assert!(wanted.unwrap().body.is_none());
    }
}
