//! What `/metrics` says of the jobs that are kept. The store is asked in the background and never at a scrape, which may
//! come as often as it likes.

use super::gauges::{escaped, gauge};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tabane_api::JobState;

/// Classes come from requests: so many of a service have a series of their own, those with most jobs waiting.
const MOST_CLASSES: usize = 100;

/// Where the others are counted.
const OTHER: &str = "other";

/// How the store of jobs fares.
#[derive(Clone, Debug, Default)]
pub struct JobsGauge {
    /// Its jobs.
    pub jobs: JobCounts,
    /// Letters that wait to be sent.
    pub letters: u64,
    /// How long the oldest of them waits.
    pub oldest_letter: Duration,
    /// Bytes of bodies on disk.
    pub job_bytes: Filled,
    /// Bytes of the database.
    pub database_bytes: Filled,
}

/// How many jobs are kept.
#[derive(Clone, Debug, Default)]
pub struct JobCounts {
    /// By service, tenant and state.
    states: BTreeMap<(String, String, &'static str), u64>,
    /// How many wait, by service and class.
    classes: BTreeMap<(String, String), u64>,
}

/// How full something is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filled {
    /// So much is in it.
    pub used: u64,
    /// So much may be.
    pub most: u64,
}

// === impl JobCounts ===

impl JobCounts {
    /// The counts of a census: service, tenant, class, state, and how many jobs.
    pub fn of(census: impl IntoIterator<Item = (String, String, String, JobState, u64)>) -> Self {
        let mut states = BTreeMap::new();
        let mut waiting: HashMap<String, BTreeMap<String, u64>> = HashMap::new();
        for (service, tenant, class, state, count) in census {
            if state == JobState::Queued {
                let of_service = waiting.entry(service.clone()).or_default();
                *of_service.entry(class).or_default() += count;
            }
            *states.entry((service, tenant, state.word())).or_default() += count;
        }
        let mut classes = BTreeMap::new();
        for (service, of_service) in waiting {
            let mut of_service: Vec<_> = of_service.into_iter().collect();
            // Stable: of equals those stay that come first in the alphabet.
            of_service.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            for (i, (class, count)) in of_service.into_iter().enumerate() {
                let class = if i < MOST_CLASSES {
                    class
                } else {
                    OTHER.into()
                };
                *classes.entry((service.clone(), class)).or_default() += count;
            }
        }
        JobCounts { states, classes }
    }
}

/// Appends it to a text in OpenMetrics' form; names without numbers where there is no store.
pub(super) fn render(text: &mut String, of: Option<&JobsGauge>) {
    let states = of.iter().flat_map(|of| &of.jobs.states);
    gauge(
        text,
        "jobs",
        "Jobs that are kept, by their state",
        states.map(|((service, tenant, state), count)| {
            let (service, tenant) = (escaped(service), escaped(tenant));
            let labels = format!("{{service=\"{service}\",tenant=\"{tenant}\",state=\"{state}\"}}");
            (labels, *count as f64)
        }),
    );
    let classes = of.iter().flat_map(|of| &of.jobs.classes);
    gauge(
        text,
        "job_class_waiting",
        "Jobs that wait, by their class",
        classes.map(|((service, class), count)| {
            let (service, class) = (escaped(service), escaped(class));
            let labels = format!("{{service=\"{service}\",class=\"{class}\"}}");
            (labels, *count as f64)
        }),
    );
    let mut one = |name, help, value: fn(&JobsGauge) -> f64| {
        let series = of.map(|of| (String::new(), value(of)));
        gauge(text, name, help, series.into_iter());
    };
    one("letters_waiting", "Letters that wait to be sent", |of| {
        of.letters as f64
    });
    one(
        "letters_oldest_seconds",
        "How long the oldest letter waits",
        |of| of.oldest_letter.as_secs_f64(),
    );
    one("job_bytes", "Bytes of jobs' bodies on disk", |of| {
        of.job_bytes.used as f64
    });
    one("job_bytes_limit", "How many there may be", |of| {
        of.job_bytes.most as f64
    });
    one("database_bytes", "Bytes of the database of jobs", |of| {
        of.database_bytes.used as f64
    });
    one("database_bytes_limit", "How many there may be", |of| {
        of.database_bytes.most as f64
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(of: &JobsGauge) -> Vec<String> {
        let mut text = String::new();
        render(&mut text, Some(of));
        let series = text.lines().filter(|line| !line.starts_with('#'));
        series.map(str::to_owned).collect()
    }

    #[test]
    fn however_many_classes_there_are_their_series_are_bounded_and_no_job_is_left_out() {
        let class = |service: &str, class: usize, state, count| {
            let (tenant, class) = (format!("t{}", class % 2), format!("c{class:05}"));
            (service.to_owned(), tenant, class, state, count)
        };
        let census = (0..5_000)
            .map(|i| {
                class(
                    "render",
                    i,
                    JobState::Queued,
                    if i >= 4_990 { 7 } else { 1 },
                )
            })
            .chain((0..3).map(|i| class("any", i, JobState::Queued, 1)))
            .chain((0..5_000).map(|i| class("any", i, JobState::Dead, 1)));
        let gauge = JobsGauge {
            jobs: JobCounts::of(census),
            ..JobsGauge::default()
        };
        let lines = shown(&gauge);
        let of_class = |service: &str| {
            let begin = format!("tabane_job_class_waiting{{service=\"{service}\"");
            let lines = lines.iter().filter(move |line| line.starts_with(&begin));
            lines.cloned().collect::<Vec<_>>()
        };
        // Only what waits, and of that the most.
        assert_eq!(of_class("any").len(), 3);
        let render = of_class("render");
        assert_eq!(render.len(), MOST_CLASSES + 1);
        for line in [
            r#"tabane_job_class_waiting{service="render",class="c04990"} 7"#,
            r#"tabane_job_class_waiting{service="render",class="c00089"} 1"#,
            r#"tabane_job_class_waiting{service="render",class="other"} 4900"#,
            r#"tabane_jobs{service="render",tenant="t0",state="queued"} 2530"#,
            r#"tabane_jobs{service="any",tenant="t1",state="dead"} 2500"#,
        ] {
            assert!(lines.iter().any(|l| l == line), "{line}");
        }
        let states = lines.iter().filter(|l| l.starts_with("tabane_jobs{"));
        assert_eq!(states.count(), 6);
    }

    #[test]
    fn without_a_store_there_are_names_and_no_numbers() {
        let mut text = String::new();
        render(&mut text, None);
        assert!(text.contains("# TYPE tabane_jobs gauge"));
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    }
}
