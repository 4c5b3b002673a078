//! What is counted of jobs. None of it is by tenant or class: those come and go, and a counter would stay.

use super::job_gauges::{self, JobsGauge};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::JobState;

/// How attempts at jobs end, all the words (`jobs/rules.rs` says which means what).
pub const ATTEMPT_OUTCOMES: [&str; 14] = [
    "succeeded",
    "failed",
    "status",
    "busy",
    "canceled",
    "timeout",
    "lost",
    "unreachable",
    "unknown",
    "out_of_memory",
    "no_room",
    "impossible",
    "internal",
    "gateway_restarted",
];

/// All that is counted of jobs.
pub struct JobMetrics {
    families: Families,
    /// Of the file's services. What is still at work for one that left is not counted: it would bring its series back.
    services: Mutex<HashMap<String, Arc<ServiceJobs>>>,
    /// What the store said when it was last asked; `None` where there is no store.
    gauge: Mutex<Option<Arc<JobsGauge>>>,
}

/// What is counted of one service's jobs. All series are there from the beginning, so that the first of anything is
/// seen as a rise.
struct ServiceJobs {
    accepted: Counter,
    finished: HashMap<&'static str, Counter>,
    attempts: HashMap<&'static str, Counter>,
    wait: Histogram,
    run: Histogram,
}

/// What a try at a letter came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterOutcome {
    /// It was taken.
    Delivered,
    /// It is tried again.
    Again,
    /// It is given up.
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    service: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    service: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LetterLabels {
    outcome: &'static str,
}

struct Families {
    accepted: Family<ServiceLabels, Counter>,
    finished: Family<StateLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    wait: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    run: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    letters: Family<LetterLabels, Counter>,
}

/// From a second to six days.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 20))
}

/// The states that a job ends in.
fn ends() -> impl Iterator<Item = &'static str> {
    let over = JobState::ALL.into_iter().filter(|state| state.is_over());
    over.map(JobState::word)
}

// === impl JobMetrics ===

impl JobMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let times: fn() -> Histogram = times;
        let families = Families {
            accepted: Family::default(),
            finished: Family::default(),
            attempts: Family::default(),
            wait: Family::new_with_constructor(times),
            run: Family::new_with_constructor(times),
            letters: Family::default(),
        };
        let f = &families;
        registry.register(
            "jobs_accepted",
            "Requests accepted for later",
            f.accepted.clone(),
        );
        registry.register(
            "jobs_finished",
            "Jobs by the state they ended in",
            f.finished.clone(),
        );
        registry.register(
            "job_attempts",
            "Attempts at jobs by how they ended",
            f.attempts.clone(),
        );
        registry.register(
            "job_wait_seconds",
            "From a job's acceptance to its first attempt",
            f.wait.clone(),
        );
        registry.register(
            "job_run_seconds",
            "How long the attempts ran that brought a result",
            f.run.clone(),
        );
        registry.register(
            "letters",
            "Tries at letters to webhooks by what they came to",
            f.letters.clone(),
        );
        JobMetrics {
            families,
            services: Mutex::default(),
            gauge: Mutex::default(),
        }
    }

    /// A service of the file, whose jobs are counted from now on.
    pub fn add_service(&self, name: &str) {
        let f = &self.families;
        let made = || {
            let service = || name.to_owned();
            let labels = ServiceLabels { service: service() };
            let finished = |state| {
                let labels = StateLabels {
                    service: service(),
                    state,
                };
                (state, f.finished.get_or_create(&labels).clone())
            };
            let attempts = |outcome| {
                let labels = AttemptLabels {
                    service: service(),
                    outcome,
                };
                (outcome, f.attempts.get_or_create(&labels).clone())
            };
            Arc::new(ServiceJobs {
                accepted: f.accepted.get_or_create(&labels).clone(),
                finished: ends().map(finished).collect(),
                attempts: ATTEMPT_OUTCOMES.into_iter().map(attempts).collect(),
                wait: f.wait.get_or_create(&labels).clone(),
                run: f.run.get_or_create(&labels).clone(),
            })
        };
        self.services
            .lock()
            .entry(name.to_owned())
            .or_insert_with(made);
    }

    /// Drops the series of a service that is gone.
    pub(super) fn forget_service(&self, name: &str) {
        if self.services.lock().remove(name).is_none() {
            return;
        }
        let f = &self.families;
        let service = || name.to_owned();
        let labels = ServiceLabels { service: service() };
        f.accepted.remove(&labels);
        f.wait.remove(&labels);
        f.run.remove(&labels);
        for state in ends() {
            f.finished.remove(&StateLabels {
                service: service(),
                state,
            });
        }
        for outcome in ATTEMPT_OUTCOMES {
            f.attempts.remove(&AttemptLabels {
                service: service(),
                outcome,
            });
        }
    }

    /// So many jobs were taken in.
    pub fn accepted(&self, service: &str, jobs: usize) {
        self.of(service, |of| of.accepted.inc_by(jobs as u64));
    }

    /// A job's first attempt began after it had waited so long.
    pub fn waited(&self, service: &str, time: Duration) {
        self.of(service, |of| of.wait.observe(time.as_secs_f64()));
    }

    /// An attempt ended, with one of [`ATTEMPT_OUTCOMES`].
    pub fn attempt(&self, service: &str, outcome: &str) {
        self.of(service, |of| of.attempts.get(outcome).map(Counter::inc));
    }

    /// An attempt brought a result after it had run so long.
    pub fn ran(&self, service: &str, time: Duration) {
        self.of(service, |of| of.run.observe(time.as_secs_f64()));
    }

    /// A job is over.
    pub fn finished(&self, service: &str, state: JobState) {
        self.of(service, |of| {
            of.finished.get(state.word()).map(Counter::inc)
        });
    }

    /// A letter was tried.
    pub fn letter(&self, outcome: LetterOutcome) {
        let labels = LetterLabels {
            outcome: outcome.word(),
        };
        self.families.letters.get_or_create(&labels).inc();
    }

    /// The store was asked how it fares. What it does not say any more is not shown any more.
    pub fn measured(&self, gauge: JobsGauge) {
        *self.gauge.lock() = Some(Arc::new(gauge));
    }

    /// Appends what the store said, in OpenMetrics' form.
    pub(super) fn render(&self, text: &mut String) {
        let gauge = self.gauge.lock().clone();
        job_gauges::render(text, gauge.as_deref());
    }

    fn of<T>(&self, service: &str, count: impl FnOnce(&ServiceJobs) -> T) {
        let of = self.services.lock().get(service).cloned();
        if let Some(of) = of {
            count(&of);
        }
    }
}

// === impl LetterOutcome ===

impl LetterOutcome {
    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            LetterOutcome::Delivered => "delivered",
            LetterOutcome::Again => "again",
            LetterOutcome::GivenUp => "given_up",
        }
    }
}
