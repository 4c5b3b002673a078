//! Where a job goes when an attempt has ended. Pure.
//!
//! | what came | what follows |
//! |---|---|
//! | an answer below 400, or the kind's word that it is good | succeeded |
//! | an answer that the service's `retry.statuses` names, no connection, a connection that broke, a node that lost it, was removed or froze, too little GPU memory, no room for the result | another attempt, on another node first; dead when they are used up |
//! | an answer that `retry.busy` names | another attempt; it does not count |
//! | any other answer, or the kind's word that it is bad | failed, with that answer as the result |
//! | it took too long | dead, or another attempt where `retry_on_timeout` says so |
//! | nobody can say whether the node took it | `on_unknown`: dead, or another attempt |
//! | it was taken back, here or at its backend | canceled |

use crate::config::plan::{JobsPlan, OnUnknown, Priority, RetryPlan};
use crate::store::{Ended, JobRecord, Kept, Moment, Next, ResultHead};
use http::{HeaderMap, StatusCode};
use std::time::Duration;
use tabane_api::{JobState, NodeError, RunError, Stop, Urgency, Verdict};

/// How long a job waits after a node was busy with something else; each time twice as long, to about a minute.
const BUSY: Duration = Duration::from_secs(1);
const BUSY_DOUBLES: u32 = 6;

/// How long at least until a result for which there was no room is made again: room takes somebody to make it.
const NO_ROOM: Duration = Duration::from_secs(60);

/// What the file says of it.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// How often, how long, and what then.
    pub jobs: &'a JobsPlan,
    /// Which answers count as a node's failure.
    pub retry: &'a RetryPlan,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Came {
    /// A result, kept.
    Result(Verdict, ResultHead, Kept),
    /// It came to nothing.
    Error(RunError),
    /// It was broken off.
    Stopped(Stop),
    /// Its node froze or was removed.
    Revoked,
    /// The result came and there is no room for it.
    NoRoom(String),
    /// The kind panicked.
    Panicked,
}

/// How the attempt's end looks to whoever judges nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The node did its work.
    None,
    /// It was not asked, or did nothing.
    Unused,
    /// No connection came about.
    Connect,
    /// It broke off, or forgot.
    Broke,
    /// It answered with a status that counts as failure.
    Status,
    /// It went silent.
    Silent,
    /// It was broken off from our side: it may work on.
    BrokenOff,
}

/// What follows from an attempt.
#[derive(Debug)]
pub struct After {
    /// Where the job goes; `None`: the attempt ends without a word.
    pub ended: Option<Ended>,
    /// How the node comes out of it.
    pub blame: Blame,
    /// A body that was kept and is nobody's result.
    pub leftover: Option<Kept>,
}

/// Where a job goes when an attempt at it came to this.
pub fn after(came: Came, job: &JobRecord, rules: Rules<'_>, now: Moment) -> After {
    let again = |outcome, error: String, result, blame| {
        let (ended, leftover) = another(outcome, error, result, job, rules, now);
        After {
            ended: Some(ended),
            blame,
            leftover,
        }
    };
    let over = |state, outcome, error, result, blame| After {
        ended: Some(Ended {
            outcome,
            error,
            next: Next::Over(state, result),
        }),
        blame,
        leftover: None,
    };
    let busy = |leftover| After {
        ended: Some(busy(job, now)),
        blame: Blame::Unused,
        leftover,
    };
    let status = match &came {
        Came::Result(_, head, _) => head.status,
        _ => StatusCode::OK,
    };
    match came {
        Came::Result(Verdict::ByStatus, _, kept) if rules.retry.busy.contains(&status) => {
            busy(Some(kept))
        }
        Came::Result(Verdict::ByStatus, head, kept) if rules.retry.statuses.contains(&status) => {
            let error = format!("the node answered {status}");
            again("status", error, Some((head, kept)), Blame::Status)
        }
        Came::Result(Verdict::Canceled, head, kept) => {
            let result = Some((head, kept));
            over(JobState::Canceled, "canceled", None, result, Blame::None)
        }
        Came::Result(verdict, head, kept) => {
            let good = match verdict {
                Verdict::Succeeded => true,
                Verdict::Failed | Verdict::Canceled => false,
                Verdict::ByStatus => status.as_u16() < 400,
            };
            let result = Some((head, kept));
            match good {
                true => over(JobState::Succeeded, "succeeded", None, result, Blame::None),
                false => {
                    let error = match verdict {
                        Verdict::ByStatus => format!("the node answered {status}"),
                        _ => "the node gave it up; its answer is the result".into(),
                    };
                    over(JobState::Failed, "failed", Some(error), result, Blame::None)
                }
            }
        }
        Came::Stopped(Stop::Cancel) => {
            over(JobState::Canceled, "canceled", None, None, Blame::BrokenOff)
        }
        Came::Stopped(Stop::Timeout) => {
            let limit = job.timeout_ms.map_or(rules.jobs.timeout, |ms| {
                Duration::from_millis(ms.unsigned_abs())
            });
            let error = format!("it took longer than {}", humantime::format_duration(limit));
            match rules.jobs.retry_on_timeout {
                true => again("timeout", error, None, Blame::BrokenOff),
                false => over(
                    JobState::Dead,
                    "timeout",
                    Some(error),
                    None,
                    Blame::BrokenOff,
                ),
            }
        }
        Came::Revoked => {
            let error = "its node is frozen, or was removed".into();
            again("lost", error, None, Blame::Silent)
        }
        Came::NoRoom(why) => {
            let mut after = again("no_room", why, None, Blame::None);
            if let Some(Ended {
                next: Next::Again { not_before, .. },
                ..
            }) = &mut after.ended
            {
                let room = now.after(NO_ROOM);
                *not_before = Some(not_before.map_or(room, |step| step.max(room)));
            }
            after
        }
        Came::Panicked => {
            let error = "the kind failed on this job".into();
            again("internal", error, None, Blame::BrokenOff)
        }
        Came::Error(error) => {
            let text = error.to_string();
            match error {
                RunError::Busy => busy(None),
                RunError::Impossible(_) => over(
                    JobState::Failed,
                    "impossible",
                    Some(text),
                    None,
                    Blame::Unused,
                ),
                // One that is not the latest is refused by the store; of one whose report could not be kept, nobody knows.
                RunError::Unknown(_) | RunError::Superseded => match rules.jobs.on_unknown {
                    OnUnknown::Fail => over(
                        JobState::Dead,
                        "unknown",
                        Some(text),
                        None,
                        Blame::BrokenOff,
                    ),
                    OnUnknown::Resubmit => again("unknown", text, None, Blame::BrokenOff),
                },
                RunError::Lost(_) => again("lost", text, None, Blame::Broke),
                RunError::OutOfMemory(_) => again("out_of_memory", text, None, Blame::None),
                RunError::Node(NodeError::Unreachable(_)) => {
                    again("unreachable", text, None, Blame::Connect)
                }
                RunError::Node(NodeError::Timeout) => again("lost", text, None, Blame::Silent),
                RunError::Node(NodeError::BadRequest(_)) => {
                    again("internal", text, None, Blame::Unused)
                }
                RunError::Node(_) => again("lost", text, None, Blame::Broke),
            }
        }
    }
}

/// The node was busy with something else: it did nothing, and that does not count.
fn busy(job: &JobRecord, now: Moment) -> Ended {
    // Each attempt is on record: a node that is busy for a day must not fill the store.
    let often = job
        .attempt
        .saturating_sub(job.failures + 1)
        .min(BUSY_DOUBLES);
    let wait = BUSY * 2_u32.pow(often);
    Ended {
        outcome: "busy",
        error: Some("the node is busy with something else".into()),
        next: Next::Again {
            not_before: Some(now.after(wait)),
            counts: false,
        },
    }
}

fn another(
    outcome: &'static str,
    error: String,
    result: Option<(ResultHead, Kept)>,
    job: &JobRecord,
    rules: Rules<'_>,
    now: Moment,
) -> (Ended, Option<Kept>) {
    let failures = job.failures + 1;
    let (next, leftover) = if failures >= rules.jobs.attempts {
        (Next::Over(JobState::Dead, result), None)
    } else {
        let backoff = &rules.jobs.backoff;
        let step = backoff.get(failures as usize - 1).or(backoff.last());
        let again = Next::Again {
            not_before: step.map(|step| now.after(*step)),
            counts: true,
        };
        (again, result.map(|(_, kept)| kept))
    };
    let ended = Ended {
        outcome,
        error: Some(error),
        next,
    };
    (ended, leftover)
}

/// The urgency of a job, as its service says, and as its `Priority` header asks (RFC 9218) where the service listens to it.
pub fn priority(plan: &JobsPlan, service: Priority, asked: Urgency) -> Urgency {
    match plan.priority.unwrap_or(service) {
        Priority::Fixed(urgency) => urgency,
        Priority::Header => asked.max(plan.priority_cap),
    }
}

impl Moment {
    /// So much later.
    pub fn after(self, wait: Duration) -> Moment {
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Moment(self.0.saturating_add(wait))
    }
}

impl ResultHead {
    /// The head of an answer whose body is this long.
    pub fn new(status: StatusCode, headers: HeaderMap, length: u64) -> Self {
        ResultHead {
            status,
            headers,
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ATTEMPT_OUTCOMES;
    use bytes::Bytes;
    use http::{Method, Uri};
    use std::collections::BTreeSet;
    use tabane_api::Need;

    fn job() -> JobRecord {
        JobRecord {
            seq: 1,
            id: "01J0000000000000000000000A".into(),
            client_id: None,
            parent: None,
            service: "render".into(),
            tenant: "studio".into(),
            need: Need::of_class("still"),
            state: JobState::Running,
            version: 2,
            attempt: 1,
            failures: 0,
            canceling: false,
            method: Method::POST,
            uri: Uri::from_static("/render"),
            body_length: 0,
            accepted: Moment(0),
            started: Some(Moment(1)),
            ended: None,
            start_by: None,
            timeout_ms: None,
            not_before: None,
            keep_until: None,
            tags: Vec::new(),
            webhook: None,
            result: None,
            error: None,
            progress: None,
            progress_text: None,
            failed_on: Vec::new(),
        }
    }

    #[test]
    fn every_end_of_an_attempt_is_counted_and_no_other_is_shown() {
        let retry = RetryPlan {
            statuses: vec![StatusCode::BAD_GATEWAY],
            busy: vec![StatusCode::CONFLICT],
            attempts: 1,
            within: Duration::ZERO,
            budget: 0,
            repeat_unsafe: false,
        };
        let answer = |status| {
            let head = ResultHead::new(status, HeaderMap::new(), 0);
            Came::Result(Verdict::ByStatus, head, Kept::Row(Bytes::new()))
        };
        let why = || "of something".to_owned();
        let all = [
            answer(StatusCode::OK),
            answer(StatusCode::IM_A_TEAPOT),
            answer(StatusCode::BAD_GATEWAY),
            answer(StatusCode::CONFLICT),
            Came::Stopped(Stop::Cancel),
            Came::Stopped(Stop::Timeout),
            Came::Revoked,
            Came::NoRoom(why()),
            Came::Panicked,
            Came::Error(RunError::Busy),
            Came::Error(RunError::Lost(why())),
            Came::Error(RunError::OutOfMemory(why())),
            Came::Error(RunError::Unknown(why())),
            Came::Error(RunError::Impossible(why())),
            Came::Error(RunError::Superseded),
            Came::Error(RunError::Node(NodeError::Unreachable(why()))),
            Came::Error(RunError::Node(NodeError::Timeout)),
            Came::Error(RunError::Node(NodeError::Broken(why()))),
            Came::Error(RunError::Node(NodeError::TooLarge { max: 1 })),
            Came::Error(RunError::Node(NodeError::BadRequest(why()))),
        ];
        let jobs = JobsPlan::default();
        let rules = Rules {
            jobs: &jobs,
            retry: &retry,
        };
        let ends = all.map(|came| after(came, &job(), rules, Moment(2)).ended);
        let said: BTreeSet<&str> = ends
            .iter()
            .flatten()
            .map(|ended| ended.outcome)
            // What a restart leaves behind is nobody's end.
            .chain(["gateway_restarted"])
            .collect();
        assert_eq!(said, ATTEMPT_OUTCOMES.into_iter().collect());
    }
}
