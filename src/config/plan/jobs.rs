//! What is accepted for later, and who hears of it.

use super::{Priority, Secret};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::Urgency;

/// Whether requests of a service or route become jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobsMode {
    /// None does.
    Off,
    /// Those that say `Prefer: respond-async`.
    OptIn,
    /// All that the kind would forward, but for those that take no slot.
    Always,
}

/// Requests that are accepted for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobsPlan {
    /// Which requests.
    pub mode: JobsMode,
    /// How many may wait at once; past it, 429.
    pub max: usize,
    /// How many of one tenant; past it, 429.
    pub max_per_tenant: usize,
    /// Where a job's urgency comes from; `None`: from where the service's does.
    pub priority: Option<Priority>,
    /// The most urgent that a `Priority` header may ask for.
    pub priority_cap: Urgency,
    /// How many attempts may fail until it is dead, 1.. .
    pub attempts: u32,
    /// How long until the second attempt, the third, …; the last is for all further ones.
    pub backoff: Vec<Duration>,
    /// How long one attempt may take, unless the job says less.
    pub timeout: Duration,
    /// Whether an attempt that took too long is followed by another.
    pub retry_on_timeout: bool,
    /// A job that has not started by then expires, unless it says less; `None`: it waits for ever.
    pub start_by: Option<Duration>,
    /// How long a result is kept.
    pub keep: Duration,
    /// How long a job that ended dead is kept.
    pub keep_dead: Duration,
    /// What becomes of work of which nobody can say whether a node took it.
    pub on_unknown: OnUnknown,
    /// What becomes of a job whose client waited for it (`Prefer: wait`) and left.
    pub on_disconnect: OnDisconnect,
}

/// What becomes of work of which nobody can say whether a node took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// The job is dead; somebody has to look.
    Fail,
    /// It is handed over once more.
    Resubmit,
}

/// What becomes of a job whose client waited for it and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It goes on.
    Continue,
    /// It is canceled.
    Cancel,
}

/// Which web pages may ask, of what browsers enforce (the Fetch standard).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsPlan {
    /// Origins such as `https://studio.example`; empty: the gateway says nothing of it, and nodes may.
    pub origins: Vec<Arc<str>>,
    /// Any origin (`*`).
    pub any: bool,
}

/// Where letters about jobs may go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebhooksPlan {
    /// Hosts that letters may go to: `hooks.example.com`, `*.example.com`, or an address range (`10.0.0.0/8`) where private
    /// addresses are meant. Empty: none may.
    pub allow: Vec<Arc<str>>,
    /// Sign letters (`whsec_…`), all of them; none: one is made at the first start and kept in the store.
    pub secrets: Vec<Secret>,
}

impl Default for JobsPlan {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        JobsPlan {
            mode: JobsMode::OptIn,
            max: 100_000,
            max_per_tenant: 100_000,
            priority: None,
            priority_cap: Urgency::FIRST,
            attempts: 3,
            backoff: [1, 10, 60].map(Duration::from_secs).to_vec(),
            timeout: 7 * 24 * HOUR,
            retry_on_timeout: false,
            start_by: None,
            keep: 24 * HOUR,
            keep_dead: 7 * 24 * HOUR,
            on_unknown: OnUnknown::Fail,
            on_disconnect: OnDisconnect::Continue,
        }
    }
}
