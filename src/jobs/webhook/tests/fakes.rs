//! A store of letters in memory, a receiver that answers as told, and a clock that is turned by hand.

use super::super::{Deliverer, Guard, Outcome, Post, Signer};
use crate::jobs::Clock;
use crate::store::*;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tabane_api::JobState;

pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A store that keeps letters and nothing else.
#[derive(Default)]
pub(super) struct Outbox {
    letters: Mutex<Vec<LetterRecord>>,
    /// Whether it refuses to keep what became of letters.
    pub(super) full: AtomicBool,
}

/// What a receiver got.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) url: String,
    pub(super) id: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

type Answer = Box<dyn Fn(&Got) -> Outcome + Send + Sync>;

/// Takes letters in, and answers as told.
pub(super) struct Receiver {
    answer: Answer,
    pub(super) got: Mutex<Vec<Got>>,
}

/// A deliverer with all its surroundings.
pub(super) struct Scene {
    pub(super) outbox: Arc<Outbox>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) deliverer: Deliverer,
    pub(super) counted: Arc<Mutex<Vec<Delivery>>>,
    now: Arc<AtomicI64>,
}

// === impl Scene ===

impl Scene {
    pub(super) fn new(answer: impl Fn(&Got) -> Outcome + Send + Sync + 'static) -> Scene {
        let receiver = Arc::new(Receiver {
            answer: Box::new(answer),
            got: Mutex::default(),
        });
        let outbox = Arc::new(Outbox::default());
        let counted: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let (time, count) = (now.clone(), counted.clone());
        let clock: Clock = Arc::new(move || Moment(time.load(Ordering::Relaxed)));
        let deliverer = Deliverer {
            store: outbox.clone(),
            clock,
            signer: swap(Signer::new([SECRET]).unwrap()),
            guard: swap(Guard::new(["*.example"]).unwrap()),
            post: receiver.clone(),
            chance: Arc::new(|| 0.5),
            counted: Arc::new(move |fate| count.lock().push(fate.clone())),
        };
        Scene {
            outbox,
            receiver,
            deliverer,
            counted,
            now,
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.now.load(Ordering::Relaxed))
    }

    pub(super) fn pass_ms(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn write(&self, id: &str, about: &str, url: &str) {
        self.outbox.write(letter(id, about, url), self.now());
    }

    /// Passes until nothing is due.
    pub(super) async fn run_out(&self) {
        while self.deliverer.run_due().await > 0 {}
    }

    /// The ids that the receiver got, in order.
    pub(super) fn ids(&self) -> Vec<String> {
        let got = self.receiver.got.lock();
        got.iter().map(|got| got.id.clone()).collect()
    }

    pub(super) fn fate(&self, id: &str) -> LetterRecord {
        let letters = self.outbox.all();
        letters
            .into_iter()
            .find(|letter| letter.letter.id == id)
            .unwrap()
    }
}

pub(super) fn swap<T>(value: T) -> Arc<ArcSwap<T>> {
    Arc::new(ArcSwap::from_pointee(value))
}

pub(super) fn letter(id: &str, about: &str, url: &str) -> Letter {
    Letter {
        id: id.to_owned(),
        about: about.into(),
        tenant: "studio".into(),
        url: url.into(),
        payload: format!("{{\"id\":\"{id}\"}}"),
    }
}

pub(super) fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
    }
}

#[async_trait]
impl Post for Receiver {
    async fn post(&self, url: &Uri, headers: HeaderMap, body: String) -> Outcome {
        let got = Got {
            url: url.to_string(),
            id: headers["webhook-id"].to_str().unwrap().to_owned(),
            headers,
            body,
        };
        let outcome = (self.answer)(&got);
        self.got.lock().push(got);
        outcome
    }
}

// === impl Outbox ===

impl Outbox {
    pub(super) fn write(&self, letter: Letter, now: Moment) {
        let mut letters = self.letters.lock();
        let seq = letters.len() as i64;
        letters.push(LetterRecord {
            seq,
            letter,
            written: now,
            tries: 0,
            due: Some(now),
            delivered: None,
            last: None,
        });
    }

    pub(super) fn all(&self) -> Vec<LetterRecord> {
        self.letters.lock().clone()
    }

    /// When the next letter can be taken up: the oldest about each job or array holds up the others.
    pub(super) fn next_due(&self) -> Option<Moment> {
        oldest(&self.letters.lock())
            .filter_map(|letter| letter.due)
            .min()
    }
}

/// Of each job or array the oldest letter that waits.
fn oldest(letters: &[LetterRecord]) -> impl Iterator<Item = &LetterRecord> {
    let mut seen = BTreeSet::new();
    let waiting = letters.iter().filter(|letter| letter.due.is_some());
    waiting.filter(move |letter| seen.insert(letter.letter.about.clone()))
}

fn other<T>() -> Result<T, StoreError> {
    Err(StoreError::Unusable("only letters are kept here".into()))
}

#[async_trait]
impl JobStore for Outbox {
    async fn due_letters(
        &self,
        now: Moment,
        limit: usize,
    ) -> Result<Vec<LetterRecord>, StoreError> {
        let letters = self.letters.lock();
        let due = oldest(&letters).filter(|letter| letter.due <= Some(now));
        Ok(due.take(limit).cloned().collect())
    }

    async fn delivery(&self, letter: &str, fate: Delivery, now: Moment) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::Full("the disk is".into()));
        }
        let mut letters = self.letters.lock();
        let letter = letters.iter_mut().find(|l| l.letter.id == letter).unwrap();
        letter.tries += 1;
        (letter.due, letter.last) = match fate {
            Delivery::Delivered => (None, None),
            Delivery::Again { due, why } => (Some(due), Some(why)),
            Delivery::GivenUp { why } => (None, Some(why)),
        };
        if letter.last.is_none() {
            letter.delivered = Some(now);
        }
        Ok(())
    }

    async fn give_up_letters(&self, url: &str, why: &str) -> Result<usize, StoreError> {
        let mut letters = self.letters.lock();
        let mut count = 0;
        for letter in letters
            .iter_mut()
            .filter(|l| *l.letter.url == *url && l.due.is_some())
        {
            (letter.due, letter.last) = (None, Some(why.to_owned()));
            count += 1;
        }
        Ok(count)
    }

    async fn letters(&self, _: &str) -> Result<Vec<LetterRecord>, StoreError> {
        other()
    }
    async fn replay(&self, _: &str, _: Moment) -> Result<bool, StoreError> {
        other()
    }
    async fn repeated_array(&self, _: &NewArray) -> Result<Option<ArrayAccepted>, StoreError> {
        other()
    }

    async fn repeated(&self, _: &NewJob) -> Result<Option<Accepted>, StoreError> {
        other()
    }

    async fn accept(&self, _: NewJob) -> Result<Accepted, StoreError> {
        other()
    }
    async fn accept_array(&self, _: NewArray) -> Result<ArrayAccepted, StoreError> {
        other()
    }
    async fn start(&self, _: &str, _: &str, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn submitting(&self, _: &str, _: u32) -> Result<Changed, StoreError> {
        other()
    }
    async fn handle(&self, _: &str, _: u32, _: &str, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn running(&self, _: &str, _: u32, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn progress(
        &self,
        _: &str,
        _: u32,
        _: Option<f64>,
        _: Option<String>,
        _: Vec<String>,
        _: Moment,
    ) -> Result<Changed, StoreError> {
        other()
    }
    async fn end(&self, _: &str, _: u32, _: Ended, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn cancel(&self, _: &str, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn give_up(&self, _: &str, _: &str, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn retry(&self, _: &str, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn patch(&self, _: &str, _: Patch, _: Moment) -> Result<Changed, StoreError> {
        other()
    }
    async fn delete(&self, _: &str) -> Result<bool, StoreError> {
        other()
    }
    async fn find(&self, _: Option<&str>, _: &str) -> Result<Option<JobRecord>, StoreError> {
        other()
    }
    async fn request(&self, _: &str) -> Result<Option<StoredRequest>, StoreError> {
        other()
    }
    async fn result(&self, _: &str) -> Result<Option<Kept>, StoreError> {
        other()
    }
    async fn attempts(&self, _: &str) -> Result<Vec<AttemptRecord>, StoreError> {
        other()
    }
    async fn events(&self, _: &str, _: u64, _: usize) -> Result<Vec<JobEvent>, StoreError> {
        other()
    }
    async fn list(&self, _: Filter) -> Result<Vec<JobRecord>, StoreError> {
        other()
    }
    async fn unfinished(&self, _: i64, _: usize) -> Result<Vec<JobRecord>, StoreError> {
        other()
    }
    async fn census(&self) -> Result<Vec<(String, String, String, JobState, u64)>, StoreError> {
        other()
    }
    async fn array(&self, _: &str) -> Result<Option<ArrayRecord>, StoreError> {
        other()
    }
    async fn delete_array(&self, _: &str) -> Result<bool, StoreError> {
        other()
    }
    async fn expire(&self, _: Moment, _: usize) -> Result<Vec<JobRecord>, StoreError> {
        other()
    }
    async fn sweep(&self, _: Moment, _: usize) -> Result<usize, StoreError> {
        other()
    }
    async fn value(&self, _: &str, _: &str) -> Result<Option<Bytes>, StoreError> {
        other()
    }
    async fn put_value(&self, _: &str, _: &str, _: Option<Bytes>) -> Result<(), StoreError> {
        other()
    }
    async fn values(&self, _: &str, _: &str, _: usize) -> Result<Vec<(String, Bytes)>, StoreError> {
        other()
    }
    async fn learned(&self) -> Result<Vec<LearnedTime>, StoreError> {
        other()
    }
    async fn learn(&self, _: Vec<LearnedTime>) -> Result<(), StoreError> {
        other()
    }
    async fn add_usage(&self, _: Vec<UsageRow>) -> Result<(), StoreError> {
        other()
    }
    async fn usage(&self, _: String, _: String) -> Result<Vec<UsageRow>, StoreError> {
        other()
    }
    async fn orphans(&self, _: Vec<String>) -> Result<Vec<String>, StoreError> {
        other()
    }
    async fn gauge(&self) -> Result<StoreGauge, StoreError> {
        other()
    }
}
