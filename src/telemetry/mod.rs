//! What is counted, what is logged, what is told. No globals: `app.rs` makes one of each and hands it down.

mod access_line;
mod events;
mod gauges;
mod job_gauges;
mod job_metrics;
mod json;
mod lines;
mod log;
mod metrics;
mod outcome;
mod process;
mod usage;

pub use access_line::AccessLine;
pub use events::{Event, Events, Told};
pub use gauges::{EdgeGauge, EndpointGauge, PoolGauge, ServiceGauge};
pub use job_gauges::{Filled, JobCounts, JobsGauge};
pub use job_metrics::{ATTEMPT_OUTCOMES, JobMetrics, LetterOutcome};
pub use lines::Lines;
pub use log::init as init_log;
pub use metrics::{EndpointMetrics, Metrics, ServiceMetrics};
pub use outcome::{Outcome, ProbeOutcome};
pub use usage::UsageMetrics;
