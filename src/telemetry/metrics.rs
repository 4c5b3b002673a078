//! Every number, under one registry of its own. Names are promises: `metrics.golden.txt` lists them.

use super::gauges::{self, EdgeGauge, EndpointGauge, PoolGauge, ServiceGauge};
use super::job_metrics::JobMetrics;
use super::outcome::{Outcome, ProbeOutcome};
use super::process;
use super::usage::UsageMetrics;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{Duration, SystemTime};

/// All metrics of a gateway.
pub struct Metrics {
    registry: Registry,
    families: Families,
    services: Mutex<HashMap<String, Arc<ServiceMetrics>>>,
    endpoints: Mutex<HashMap<(String, String), Arc<EndpointMetrics>>>,
    jobs: JobMetrics,
    usage: UsageMetrics,
}

/// What is counted of one service: handles, looked up once per world.
pub struct ServiceMetrics {
    service: String,
    families: Families,
    outcomes: Mutex<HashMap<(&'static str, &'static str), Counter>>,
    seconds: Histogram,
    wait: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
    retries: Counter,
    retries_denied: Counter,
    sockets: Gauge,
}

/// What is counted of one endpoint within one service.
pub struct EndpointMetrics {
    ok: Counter,
    failed: Counter,
    aborted: Counter,
    seconds: Histogram,
    first_byte: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    service: String,
    outcome: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    service: String,
    node: String,
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    service: String,
    node: String,
    endpoint: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    endpoint: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: u32,
}

#[derive(Clone)]
struct Families {
    requests: Family<OutcomeLabels, Counter>,
    seconds: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    wait: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    bytes_in: Family<ServiceLabels, Counter>,
    bytes_out: Family<ServiceLabels, Counter>,
    retries: Family<ServiceLabels, Counter>,
    retries_denied: Family<ServiceLabels, Counter>,
    sockets: Family<ServiceLabels, Gauge>,
    upstream: Family<UpstreamLabels, Counter>,
    upstream_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    first_byte: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    probes: Family<ProbeLabels, Counter>,
    gpu_switches: Family<NodeLabels, Counter>,
    turned_away: Family<StatusLabels, Counter>,
    reload: Reload,
}

#[derive(Clone, Default)]
struct Reload {
    success: Gauge,
    seconds: Gauge<f64, AtomicU64>,
    last_success: Gauge<f64, AtomicU64>,
    generation: Gauge<i64, AtomicI64>,
    total: Family<ResultLabels, Counter>,
    hash: Arc<Mutex<String>>,
}

/// From a millisecond to some nine hours: GPU work spans them all.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 26))
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let times: fn() -> Histogram = times;
        let families = Families {
            requests: Family::default(),
            seconds: Family::new_with_constructor(times),
            wait: Family::new_with_constructor(times),
            bytes_in: Family::default(),
            bytes_out: Family::default(),
            retries: Family::default(),
            retries_denied: Family::default(),
            sockets: Family::default(),
            upstream: Family::default(),
            upstream_seconds: Family::new_with_constructor(times),
            first_byte: Family::new_with_constructor(times),
            probes: Family::default(),
            gpu_switches: Family::default(),
            turned_away: Family::default(),
            reload: Reload::default(),
        };
        let f = &families;
        registry.register("requests", "Requests by how they ended", f.requests.clone());
        registry.register(
            "request_seconds",
            "From a request's head to its end",
            f.seconds.clone(),
        );
        registry.register(
            "wait_seconds",
            "How long requests waited for slots",
            f.wait.clone(),
        );
        registry.register(
            "request_bytes",
            "Bytes of request bodies",
            f.bytes_in.clone(),
        );
        registry.register(
            "response_bytes",
            "Bytes of answers' bodies",
            f.bytes_out.clone(),
        );
        registry.register("retries", "Attempts after the first", f.retries.clone());
        registry.register(
            "retries_denied",
            "Attempts that the budget did not allow",
            f.retries_denied.clone(),
        );
        registry.register("sockets_open", "Open WebSockets", f.sockets.clone());
        registry.register(
            "upstream_requests",
            "Attempts at endpoints by how they ended",
            f.upstream.clone(),
        );
        registry.register(
            "upstream_seconds",
            "How long endpoints worked on attempts",
            f.upstream_seconds.clone(),
        );
        registry.register(
            "upstream_first_byte_seconds",
            "How long until an endpoint's first byte",
            f.first_byte.clone(),
        );
        registry.register("probes", "Probes by how they ended", f.probes.clone());
        registry.register(
            "gpu_switches",
            "How often a shared card changed hands",
            f.gpu_switches.clone(),
        );
        registry.register(
            "turned_away",
            "Clients turned away before their request was read",
            f.turned_away.clone(),
        );
        registry.register(
            "config_reload_success",
            "Whether the last reload was taken",
            f.reload.success.clone(),
        );
        registry.register(
            "config_reload_seconds",
            "How long the last reload took",
            f.reload.seconds.clone(),
        );
        registry.register(
            "config_last_success_timestamp_seconds",
            "When a configuration was last taken",
            f.reload.last_success.clone(),
        );
        registry.register(
            "config_generation",
            "Counts configurations taken",
            f.reload.generation.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads by how they ended",
            f.reload.total.clone(),
        );
        families
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing was counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tabane");
        let families = Families::register(&mut registry);
        let jobs = JobMetrics::register(&mut registry);
        let usage = UsageMetrics::register(&mut registry);
        Metrics {
            jobs,
            usage,
            registry,
            families,
            services: Mutex::default(),
            endpoints: Mutex::default(),
        }
    }

    /// What is counted of jobs.
    pub fn jobs(&self) -> &JobMetrics {
        &self.jobs
    }

    /// What is counted of what answers used.
    pub fn usage(&self) -> &UsageMetrics {
        &self.usage
    }

    /// The handles of a service; the same ones for the same name.
    pub fn service(&self, name: &str) -> Arc<ServiceMetrics> {
        let made = || {
            let labels = ServiceLabels {
                service: name.to_owned(),
            };
            let f = &self.families;
            Arc::new(ServiceMetrics {
                seconds: f.seconds.get_or_create(&labels).clone(),
                wait: f.wait.get_or_create(&labels).clone(),
                bytes_in: f.bytes_in.get_or_create(&labels).clone(),
                bytes_out: f.bytes_out.get_or_create(&labels).clone(),
                retries: f.retries.get_or_create(&labels).clone(),
                retries_denied: f.retries_denied.get_or_create(&labels).clone(),
                sockets: f.sockets.get_or_create(&labels).clone(),
                outcomes: Mutex::default(),
                families: f.clone(),
                service: name.to_owned(),
            })
        };
        self.services
            .lock()
            .entry(name.to_owned())
            .or_insert_with(made)
            .clone()
    }

    /// The handles of an endpoint within a service; the same ones for the same names.
    pub fn endpoint(&self, service: &str, endpoint: &str) -> Arc<EndpointMetrics> {
        let made = || {
            let node = endpoint.split('/').next().unwrap_or_default();
            let labels = EndpointLabels {
                service: service.to_owned(),
                node: node.to_owned(),
                endpoint: endpoint.to_owned(),
            };
            let count = |outcome| {
                let EndpointLabels {
                    service,
                    node,
                    endpoint,
                } = labels.clone();
                self.families
                    .upstream
                    .get_or_create(&UpstreamLabels {
                        service,
                        node,
                        endpoint,
                        outcome,
                    })
                    .clone()
            };
            Arc::new(EndpointMetrics {
                ok: count("ok"),
                failed: count("failed"),
                aborted: count("aborted"),
                seconds: self
                    .families
                    .upstream_seconds
                    .get_or_create(&labels)
                    .clone(),
                first_byte: self.families.first_byte.get_or_create(&labels).clone(),
            })
        };
        self.endpoints
            .lock()
            .entry((service.to_owned(), endpoint.to_owned()))
            .or_insert_with(made)
            .clone()
    }

    /// A probe ended.
    pub fn probe(&self, endpoint: &str, outcome: ProbeOutcome) {
        self.families
            .probes
            .get_or_create(&ProbeLabels {
                endpoint: endpoint.to_owned(),
                outcome: outcome.word(),
            })
            .inc();
    }

    /// A card that several services share changed hands.
    pub fn gpu_switched(&self, node: &str) {
        let node = node.to_owned();
        let labels = NodeLabels { node };
        self.families.gpu_switches.get_or_create(&labels).inc();
    }

    /// A configuration serves.
    pub fn reload_succeeded(&self, generation: u64, hash: &str, took: Duration) {
        let reload = &self.families.reload;
        reload.success.set(1);
        reload.seconds.set(took.as_secs_f64());
        reload.generation.set(generation as i64);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        reload.last_success.set(now.as_secs_f64());
        reload
            .total
            .get_or_create(&ResultLabels { result: "ok" })
            .inc();
        *reload.hash.lock() = hash.to_owned();
    }

    /// A configuration was not taken.
    pub fn reload_failed(&self) {
        self.families.reload.success.set(0);
        self.families
            .reload
            .total
            .get_or_create(&ResultLabels { result: "failed" })
            .inc();
    }

    /// Drops the series of an endpoint that is gone.
    pub fn forget_endpoint(&self, endpoint: &str) {
        let f = &self.families;
        self.endpoints.lock().retain(|(service, name), _| {
            if name != endpoint {
                return true;
            }
            let node = endpoint.split('/').next().unwrap_or_default().to_owned();
            let labels = EndpointLabels {
                service: service.clone(),
                node: node.clone(),
                endpoint: name.clone(),
            };
            f.upstream_seconds.remove(&labels);
            f.first_byte.remove(&labels);
            for outcome in ["ok", "failed", "aborted"] {
                f.upstream.remove(&UpstreamLabels {
                    service: service.clone(),
                    node: node.clone(),
                    endpoint: name.clone(),
                    outcome,
                });
            }
            false
        });
        let node = endpoint.split('/').next().unwrap_or_default().to_owned();
        f.gpu_switches.remove(&NodeLabels { node });
        for outcome in [
            ProbeOutcome::Ok,
            ProbeOutcome::Timeout,
            ProbeOutcome::Unreachable,
            ProbeOutcome::Unhealthy,
        ] {
            f.probes.remove(&ProbeLabels {
                endpoint: endpoint.to_owned(),
                outcome: outcome.word(),
            });
        }
    }

    /// Drops the series of a service that is gone.
    pub fn forget_service(&self, service: &str) {
        self.jobs.forget_service(service);
        self.usage.forget_service(service);
        let Some(gone) = self.services.lock().remove(service) else {
            return;
        };
        let f = &self.families;
        let labels = ServiceLabels {
            service: service.to_owned(),
        };
        f.seconds.remove(&labels);
        f.wait.remove(&labels);
        f.bytes_in.remove(&labels);
        f.bytes_out.remove(&labels);
        f.retries.remove(&labels);
        f.retries_denied.remove(&labels);
        f.sockets.remove(&labels);
        for (outcome, code) in gone.outcomes.lock().keys() {
            f.requests.remove(&OutcomeLabels {
                service: service.to_owned(),
                outcome,
                code,
            });
        }
    }

    /// A client was turned away with this status before its request was read.
    pub fn turned_away(&self, status: u16) {
        let labels = StatusLabels {
            status: status.into(),
        };
        self.families.turned_away.get_or_create(&labels).inc();
    }

    /// Everything as OpenMetrics text. What the rooms know better is asked of them at this moment.
    pub fn render(
        &self,
        endpoints: &[EndpointGauge],
        services: &[ServiceGauge],
        pools: &[PoolGauge],
        edge: EdgeGauge,
    ) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        let end = text
            .trim_end()
            .strip_suffix("# EOF")
            .map_or(text.len(), str::len);
        text.truncate(end);
        let hash = self.families.reload.hash.lock().clone();
        gauges::render(&mut text, endpoints, services, pools, edge, &hash);
        self.jobs.render(&mut text);
        process::render(&mut text);
        text.push_str("# EOF\n");
        text
    }
}

// === impl ServiceMetrics ===

impl ServiceMetrics {
    /// A request ended.
    pub fn request(&self, outcome: Outcome, took: Duration, bytes_in: u64, bytes_out: u64) {
        let key = (outcome.word(), outcome.code());
        let made = || {
            self.families
                .requests
                .get_or_create(&OutcomeLabels {
                    service: self.service.clone(),
                    outcome: key.0,
                    code: key.1,
                })
                .clone()
        };
        self.outcomes.lock().entry(key).or_insert_with(made).inc();
        self.seconds.observe(took.as_secs_f64());
        self.bytes_in.inc_by(bytes_in);
        self.bytes_out.inc_by(bytes_out);
    }

    /// A request got its slots after waiting so long.
    pub fn wait(&self, waited: Duration) {
        self.wait.observe(waited.as_secs_f64());
    }

    /// A request is tried again.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// A request is not tried again though it might be: the budget is used up.
    pub fn retry_denied(&self) {
        self.retries_denied.inc();
    }

    /// A WebSocket is open until the guard is dropped.
    pub fn socket(&self) -> OpenSocket {
        self.sockets.inc();
        OpenSocket(self.sockets.clone())
    }
}

/// An open WebSocket, counted.
pub struct OpenSocket(Gauge);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl EndpointMetrics ===

impl EndpointMetrics {
    /// An attempt's answer was whole.
    pub fn finished(&self, took: Duration) {
        self.ok.inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The endpoint failed an attempt.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// An attempt was broken off from our side.
    pub fn aborted(&self) {
        self.aborted.inc();
    }

    /// The first byte of an attempt's answer came.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte.observe(after.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::LetterOutcome;
    use tabane_api::JobState;
    use tabane_api::Usage;

    fn rendered() -> String {
        let metrics = Metrics::new();
        let service = metrics.service("any");
        service.request(
            Outcome::Refused("queue_full"),
            Duration::from_millis(3),
            1,
            2,
        );
        service.wait(Duration::ZERO);
        service.retry();
        let _open = service.socket();
        let endpoint = metrics.endpoint("any", "a/http");
        endpoint.finished(Duration::from_secs(1));
        endpoint.first_byte(Duration::from_secs(1));
        metrics.probe("a/http", ProbeOutcome::Timeout);
        metrics.gpu_switched("a");
        metrics.reload_succeeded(3, "abc", Duration::from_millis(1));
        let gauge = EndpointGauge {
            node: "a\"b".into(),
            endpoint: "a/http".into(),
            state: "up",
            slots: 2,
            used: 1,
            cooling: 0,
            vram_free_mib: Some(5),
            holds_card: Some(true),
        };
        let edge = EdgeGauge {
            connections: 7,
            held_bytes: 8,
            spooled_bytes: 9,
        };
        metrics.turned_away(400);
        let usage = Usage {
            model: "m".into(),
            read: 1,
            first: Some(Duration::from_millis(5)),
            each: Some(Duration::from_millis(5)),
            ..Usage::default()
        };
        metrics.usage().count("any", "a", &usage);
        let jobs = metrics.jobs();
        jobs.add_service("any");
        jobs.accepted("any", 2);
        jobs.finished("any", JobState::Dead);
        jobs.letter(LetterOutcome::Again);
        let waiting = ServiceGauge {
            service: "any".into(),
            waiting: 4,
            backlog_s: 1.5,
            spent_usd: 0.25,
        };
        let pool = PoolGauge {
            pool: "any".into(),
            desired: 3,
        };
        metrics.render(&[gauge], &[waiting], &[pool], edge)
    }

    #[test]
    fn the_names_are_those_that_were_promised() {
        let text = rendered();
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter(|name| !name.starts_with("process_"))
            .collect();
        names.sort_unstable();
        let golden = include_str!("metrics.golden.txt");
        assert_eq!(
            names.join("\n"),
            golden.trim_end(),
            "a metric's name or type changed: say so in CHANGELOG.md and metrics.golden.txt"
        );
    }

    #[test]
    fn the_text_says_what_was_counted() {
        let text = rendered();
        for line in [
            r#"tabane_requests_total{service="any",outcome="refused",code="queue_full"} 1"#,
            r#"tabane_waiting{service="any"} 4"#,
            r#"tabane_backlog_seconds{service="any"} 1.5"#,
            r#"tabane_spent_usd_last_hour{service="any"} 0.25"#,
            r#"tabane_desired_nodes{pool="any"} 3"#,
            r#"tabane_jobs_accepted_total{service="any"} 2"#,
            r#"tabane_jobs_finished_total{service="any",state="dead"} 1"#,
            r#"tabane_jobs_finished_total{service="any",state="expired"} 0"#,
            r#"tabane_job_attempts_total{service="any",outcome="lost"} 0"#,
            r#"tabane_letters_total{outcome="again"} 1"#,
            r#"tabane_endpoint_state{node="a\"b",endpoint="a/http",state="up"} 1"#,
            r#"tabane_endpoint_state{node="a\"b",endpoint="a/http",state="down"} 0"#,
            r#"tabane_config_info{hash="abc"} 1"#,
            "tabane_connections_open 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }

    #[test]
    fn who_left_leaves_no_series() {
        let metrics = Metrics::new();
        metrics
            .service("gone")
            .request(Outcome::Ok, Duration::ZERO, 0, 0);
        metrics.endpoint("gone", "n/x").finished(Duration::ZERO);
        metrics.probe("n/x", ProbeOutcome::Ok);
        metrics.gpu_switched("n");
        metrics.jobs().add_service("gone");
        metrics.forget_endpoint("n/x");
        metrics.forget_service("gone");
        // Its last attempt ends after it left.
        metrics.jobs().attempt("gone", "succeeded");
        metrics.jobs().ran("gone", Duration::ZERO);
        metrics.jobs().finished("gone", JobState::Succeeded);
        let text = metrics.render(&[], &[], &[], EdgeGauge::default());
        assert!(!text.contains("gone") && !text.contains("n/x"), "{text}");
    }
}
