//! Takes letters out of the outbox and to their receivers.

use super::{Guard, Outcome, Post, Signer, after};
use crate::jobs::Clock;
use crate::store::{Delivery, JobStore, LetterRecord};
use arc_swap::ArcSwap;
use futures::future::join_all;
use http::{HeaderValue, Uri, header};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// How many letters a pass takes up. Each is about another job, and the rest wait for the next pass.
const PASS: usize = 2048;

/// How many are on their way at once.
const AT_ONCE: usize = 64;

/// How many of these to one host: a slow receiver shall not keep the others waiting.
const PER_HOST: usize = 4;

/// How long a letter can be overdue when nothing rang: shorter than the ladder's first wait.
const POLL: Duration = Duration::from_secs(2);

/// Letters by the host they go to.
type ByHost = BTreeMap<String, Vec<(Uri, LetterRecord)>>;

/// The carrier of letters. One per store, and one pass at a time: two would send letters twice.
pub struct Deliverer {
    /// Where the outbox is.
    pub store: Arc<dyn JobStore>,
    /// What time it is.
    pub clock: Clock,
    /// Signs each try; another one counts from the next try on.
    pub signer: Arc<ArcSwap<Signer>>,
    /// Where letters may go; another one counts from the next try on.
    pub guard: Arc<ArcSwap<Guard>>,
    /// How they get there.
    pub post: Arc<dyn Post>,
    /// The chance behind the jitter, 0.0..1.0.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Told of each letter whose fate is on disk, for the counters.
    pub counted: Arc<dyn Fn(&Delivery) + Send + Sync>,
}

// === impl Deliverer ===

impl Deliverer {
    /// Sends what is due, and again whenever `written` rings or a letter becomes due. A host that is slow, or does not answer,
    /// keeps nobody's letters waiting but its own. Never returns; dropped at any point, letters that were on their way are
    /// sent once more by the next one.
    pub async fn run<W: Future<Output = ()>>(self, written: impl Fn() -> W) {
        let this = Arc::new(self);
        let busy = Arc::new(Mutex::new(HashSet::new()));
        let (free, places) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(AT_ONCE)));
        let mut sent = JoinSet::new();
        loop {
            let (by_host, _) = this.due().await;
            for (host, letters) in by_host {
                if !busy.lock().insert(host.clone()) {
                    continue;
                }
                let (this, busy, free, places) =
                    (this.clone(), busy.clone(), free.clone(), places.clone());
                sent.spawn(async move {
                    this.to_host(letters, &places).await;
                    busy.lock().remove(&host);
                    free.notify_one();
                });
            }
            tokio::select! {
                () = written() => {}
                () = free.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            while sent.try_join_next().is_some() {}
        }
    }

    /// Takes up what is due now, and says of how many letters the fate is on disk. 0: nothing is due, or the store does not
    /// work.
    pub async fn run_due(&self) -> usize {
        let (by_host, settled) = self.due().await;
        let places = Semaphore::new(AT_ONCE);
        let hosts = by_host.into_values();
        let sent = join_all(hosts.map(|letters| self.to_host(letters, &places))).await;
        settled + sent.into_iter().sum::<usize>()
    }

    /// What is due, by host; and how many letters were given up because they may not go where they want to.
    async fn due(&self) -> (ByHost, usize) {
        let mut by_host = ByHost::new();
        let due = match self.store.due_letters((self.clock)(), PASS).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "cannot read the letters that are due");
                return (by_host, 0);
            }
        };
        let mut settled = 0;
        for letter in due {
            match self.guard.load().target(&letter.letter.url) {
                Ok(url) => {
                    let host = url
                        .authority()
                        .map(|host| host.as_str().to_ascii_lowercase());
                    let to_host = by_host.entry(host.unwrap_or_default()).or_default();
                    to_host.push((url, letter));
                }
                Err(why) => settled += self.settle(&letter, Delivery::GivenUp { why }).await,
            }
        }
        (by_host, settled)
    }

    /// Letters to one host, a few at a time. Once all of a few fail by the host's fault, the others share their fate untried:
    /// hundreds of letters to a dead host must not take hundreds of timeouts.
    async fn to_host(&self, mut letters: Vec<(Uri, LetterRecord)>, places: &Semaphore) -> usize {
        let mut settled = 0;
        while !letters.is_empty() {
            let few: Vec<_> = letters.drain(..letters.len().min(PER_HOST)).collect();
            let tries = few
                .iter()
                .map(|(url, letter)| self.try_one(url, letter, places));
            let outcomes = join_all(tries).await;
            for ((_, letter), outcome) in few.iter().zip(&outcomes) {
                settled += self.settle(letter, self.after(letter, outcome)).await;
            }
            for ((_, letter), outcome) in few.iter().zip(&outcomes) {
                if outcome.is_gone() {
                    self.disable(&letter.letter.url).await;
                    letters.retain(|(_, other)| other.letter.url != letter.letter.url);
                }
            }
            if outcomes.iter().all(Outcome::is_of_host)
                && let Some(outcome) = outcomes.last()
            {
                for (_, letter) in letters.drain(..) {
                    settled += self.settle(&letter, self.after(&letter, outcome)).await;
                }
            }
        }
        settled
    }

    async fn try_one(&self, url: &Uri, record: &LetterRecord, places: &Semaphore) -> Outcome {
        let letter = &record.letter;
        // Held until the answer is there. It is never closed.
        let _place = places.acquire().await;
        let body = letter.payload.clone();
        let signed = self
            .signer
            .load()
            .headers(&letter.id, (self.clock)(), body.as_bytes());
        let mut headers = match signed {
            Ok(headers) => headers,
            Err(error) => return Outcome::Failed(format!("its id cannot be sent: {error}")),
        };
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        self.post.post(url, headers, body).await
    }

    fn after(&self, letter: &LetterRecord, outcome: &Outcome) -> Delivery {
        let tries = letter.tries.saturating_add(1);
        after(tries, outcome, (self.clock)(), (self.chance)())
    }

    /// Puts a letter's fate on disk. What cannot be put there did not happen: the letter is sent again.
    async fn settle(&self, record: &LetterRecord, fate: Delivery) -> usize {
        let (letter, about) = (&record.letter.id, &*record.letter.about);
        // The URL may hold the receiver's secrets.
        match &fate {
            Delivery::Delivered => tracing::debug!(letter, about, "a letter was taken"),
            Delivery::Again { why, .. } => {
                tracing::debug!(letter, about, why, "a letter waits for another try")
            }
            Delivery::GivenUp { why } => tracing::warn!(letter, about, why, "a letter is given up"),
        }
        match self
            .store
            .delivery(letter, fate.clone(), (self.clock)())
            .await
        {
            Ok(()) => {
                (self.counted)(&fate);
                1
            }
            Err(error) => {
                tracing::warn!(letter, %error, "cannot keep what became of a letter; it is sent again");
                0
            }
        }
    }

    async fn disable(&self, url: &str) {
        let why = "the receiver answered another letter with 410 Gone";
        match self.store.give_up_letters(url, why).await {
            Ok(0) => {}
            Ok(letters) => tracing::warn!(letters, "letters are given up: {why}"),
            Err(error) => tracing::warn!(%error, "cannot give up letters that nobody wants"),
        }
    }
}
