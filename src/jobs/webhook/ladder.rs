//! What follows a try at a letter: pure, from what happened and the time.

use crate::store::{Delivery, Moment};
use http::StatusCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const S: u64 = 1;
const M: u64 = 60 * S;
const H: u64 = 60 * M;

/// How long each try comes after the one before it, in seconds: ten tries in a bit more than three days, so that a receiver
/// that broke on a Friday evening hears of all by Monday.
///
/// Source: Standard Webhooks 1.0, "Deliverability and reliability".
const LADDER: [u64; 10] = [
    0,
    5 * S,
    5 * M,
    30 * M,
    2 * H,
    5 * H,
    10 * H,
    14 * H,
    20 * H,
    24 * H,
];

/// The longest wait that a receiver may ask for.
const LONGEST: Duration = Duration::from_secs(24 * H);

/// Each wait is longer by up to this part of it, so that letters that failed together do not come back together.
const JITTER: f64 = 0.2;

/// What happened at a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered.
    Answered {
        /// How.
        status: StatusCode,
        /// Its `Retry-After`, as it was sent.
        retry_after: Option<String>,
    },
    /// It did not answer in time.
    TimedOut,
    /// It was not reached, or broke off; why.
    Failed(String),
}

// === impl Outcome ===

impl Outcome {
    /// Whether the receiver said that it wants no more letters at this address.
    pub fn is_gone(&self) -> bool {
        matches!(self, Outcome::Answered { status, .. } if *status == StatusCode::GONE)
    }

    /// Whether it says more of the host than of the letter: another letter to it would fare the same now.
    pub fn is_of_host(&self) -> bool {
        match self {
            Outcome::Answered { status, .. } => throttles(*status),
            Outcome::TimedOut | Outcome::Failed(_) => true,
        }
    }
}

/// What becomes of a letter after its `tries`-th try, counted from 1.
///
/// A wait that the receiver asked for (429, 502, 503, 504 with `Retry-After`) is never cut short by the ladder, and does not
/// cut the ladder short: ten tries asked for within a minute would be none.
///
/// Units: `draw` 0.0..1.0, the chance behind the jitter.
pub fn after(tries: u32, outcome: &Outcome, now: Moment, draw: f64) -> Delivery {
    let (why, asked) = match outcome {
        Outcome::Answered { status, .. } if status.is_success() => return Delivery::Delivered,
        Outcome::Answered { .. } if outcome.is_gone() => {
            let why = "answered 410 Gone: no more letters are wanted at this address".to_owned();
            return Delivery::GivenUp { why };
        }
        Outcome::Answered { status, .. } if status.is_redirection() => (
            format!("answered {status}: redirects are not followed, name the final address"),
            None,
        ),
        Outcome::Answered {
            status,
            retry_after,
        } => {
            let asked = throttles(*status)
                .then(|| wait(retry_after.as_deref()?, now))
                .flatten();
            (format!("answered {status}"), asked)
        }
        Outcome::TimedOut => ("did not answer in time".to_owned(), None),
        Outcome::Failed(why) => (why.clone(), None),
    };
    let Some(step) = LADDER.get(tries as usize) else {
        let why = format!("{why}; that was try {tries}, the last");
        return Delivery::GivenUp { why };
    };
    let wait = Duration::from_secs(*step).max(asked.unwrap_or_default());
    let draw = if (0.0..=1.0).contains(&draw) {
        draw
    } else {
        0.0
    };
    let wait = wait.mul_f64(1.0 + JITTER * draw);
    let due = Moment(now.0.saturating_add(wait.as_millis() as i64));
    Delivery::Again { due, why }
}

/// Whether a receiver says by it that it cannot keep up.
fn throttles(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// How long a `Retry-After` asks to wait: seconds or a date (RFC 9110, 10.2.3).
fn wait(retry_after: &str, now: Moment) -> Option<Duration> {
    let text = retry_after.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number has are more than the longest wait too.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).ok()?);
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_700_000_000_000);

    fn answered(status: u16, retry_after: Option<&str>) -> Outcome {
        Outcome::Answered {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: retry_after.map(str::to_owned),
        }
    }

    /// Seconds until the next try.
    fn seconds(delivery: Delivery) -> f64 {
        match delivery {
            Delivery::Again { due, .. } => (due.0 - NOW.0) as f64 / 1000.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_status_has_its_consequence() {
        for (status, wants) in [
            (200, "taken"),
            (202, "taken"),
            (204, "taken"),
            (299, "taken"),
            (301, "redirects are not followed"),
            (302, "redirects are not followed"),
            (307, "redirects are not followed"),
            (400, "answered 400 Bad Request"),
            (404, "answered 404 Not Found"),
            (410, "given up: answered 410 Gone"),
            (429, "answered 429 Too Many Requests"),
            (500, "answered 500 Internal Server Error"),
            (599, "answered 599"),
        ] {
            let told = match after(1, &answered(status, None), NOW, 0.5) {
                Delivery::Delivered => "taken".to_owned(),
                Delivery::Again { why, .. } => why,
                Delivery::GivenUp { why } => format!("given up: {why}"),
            };
            assert!(told.contains(wants), "{status}: {told}");
        }
    }

    #[test]
    fn waits_climb_the_ladder_and_the_tenth_failure_is_the_last() {
        for failed in [
            answered(500, None),
            answered(302, None),
            Outcome::TimedOut,
            Outcome::Failed("cannot connect".into()),
        ] {
            for (tries, step) in (1..10).zip(&LADDER[1..]) {
                let step = *step as f64;
                assert_eq!(seconds(after(tries, &failed, NOW, 0.0)), step);
                let most = seconds(after(tries, &failed, NOW, 1.0));
                assert!((most - step * 1.2).abs() < 0.01, "{most}");
            }
            for tries in [10, 11, u32::MAX] {
                let last = after(tries, &failed, NOW, 0.5);
                assert!(matches!(last, Delivery::GivenUp { .. }), "{last:?}");
            }
        }
        assert_eq!(
            after(10, &answered(200, None), NOW, 0.5),
            Delivery::Delivered
        );
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait() {
        for (status, tries, retry_after, wants) in [
            // Longer than the ladder: as asked.
            (429, 1, Some("120"), 120.0),
            (502, 1, Some("120"), 120.0),
            (503, 1, Some(" 120 "), 120.0),
            (504, 1, Some("120"), 120.0),
            (503, 1, Some("Tue, 14 Nov 2023 22:15:20 GMT"), 120.0),
            // Shorter: the ladder.
            (429, 2, Some("1"), 300.0),
            (429, 1, Some("0"), 5.0),
            (503, 1, Some("Tue, 14 Nov 2023 22:13:00 GMT"), 5.0),
            // Bounded.
            (429, 1, Some("604800"), 86_400.0),
            (429, 1, Some("99999999999999999999999999"), 86_400.0),
            (429, 1, Some("Fri, 31 Dec 9999 23:59:59 GMT"), 86_400.0),
            // Not understood, or not for this status.
            (429, 1, Some("soon"), 5.0),
            (429, 1, Some("-5"), 5.0),
            (429, 1, Some(""), 5.0),
            (429, 1, None, 5.0),
            (500, 1, Some("120"), 5.0),
            (302, 1, Some("120"), 5.0),
        ] {
            let waits = seconds(after(tries, &answered(status, retry_after), NOW, 0.0));
            assert_eq!(waits, wants, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn odd_times_and_draws_do_no_harm() {
        for now in [i64::MIN, -1, 0, i64::MAX] {
            for draw in [f64::NAN, -1.0, 2.0, f64::INFINITY] {
                let date = answered(429, Some("Fri, 31 Dec 9999 23:59:59 GMT"));
                let Delivery::Again { due, .. } = after(1, &date, Moment(now), draw) else {
                    panic!("it was to be tried again");
                };
                assert!(due.0 >= now);
            }
        }
    }
}
