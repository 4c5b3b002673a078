//! What `/metrics` says of this moment: asked of the rooms at a scrape, counted nowhere.

use std::fmt::Write;
use std::sync::Arc;

/// An endpoint's state at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct EndpointGauge {
    /// Its node.
    pub node: Arc<str>,
    /// `node/endpoint`.
    pub endpoint: Arc<str>,
    /// Its state in a word.
    pub state: &'static str,
    /// How many requests at once.
    pub slots: u32,
    /// Slots taken, those that cool among them.
    pub used: u32,
    /// Slots that cool.
    pub cooling: u32,
    /// The card's free memory by its last probe.
    pub vram_free_mib: Option<u64>,
    /// Whether it holds the card that it shares; `None`: it shares none.
    pub holds_card: Option<bool>,
}

/// A service's queue at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct ServiceGauge {
    /// Its name.
    pub service: Arc<str>,
    /// How many wait with a connection.
    pub waiting: usize,
    /// Seconds until all that waits is expected to be worked off, with what is at work; 0 while nothing is learned.
    pub backlog_s: f64,
    /// What it has spent in the last hour on nodes that have a price, USD.
    pub spent_usd: f64,
}

/// How many nodes a pool should have, at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct PoolGauge {
    /// Its name.
    pub pool: String,
    /// How many.
    pub desired: u32,
}

/// What the edge holds at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct EdgeGauge {
    /// Client connections.
    pub connections: usize,
    /// Bytes of request bodies that are held in memory.
    pub held_bytes: u64,
    /// Bytes of request bodies that are held on disk.
    pub spooled_bytes: u64,
}

/// An endpoint's states, all of them.
const STATES: [&str; 7] = [
    "unproven", "up", "down", "ejected", "trial", "draining", "leaving",
];

/// Appends them to a text in OpenMetrics' form.
pub(super) fn render(
    text: &mut String,
    endpoints: &[EndpointGauge],
    services: &[ServiceGauge],
    pools: &[PoolGauge],
    edge: EdgeGauge,
    config_hash: &str,
) {
    let mut gauge = |name: &str, help: &str, series: &mut dyn Iterator<Item = (String, f64)>| {
        self::gauge(text, name, help, series);
    };
    let of = |e: &EndpointGauge| {
        format!(
            "{{node=\"{}\",endpoint=\"{}\"}}",
            escaped(&e.node),
            escaped(&e.endpoint)
        )
    };
    let service = |s: &ServiceGauge| format!("{{service=\"{}\"}}", escaped(&s.service));
    gauge(
        "waiting",
        "Requests that wait",
        &mut services.iter().map(|s| (service(s), s.waiting as f64)),
    );
    gauge(
        "backlog_seconds",
        "How long until all that waits is expected to be worked off",
        &mut services.iter().map(|s| (service(s), s.backlog_s)),
    );
    gauge(
        "spent_usd_last_hour",
        "What was spent in the last hour on nodes that have a price, USD",
        &mut services.iter().map(|s| (service(s), s.spent_usd)),
    );
    let pool = |p: &PoolGauge| format!("{{pool=\"{}\"}}", escaped(&p.pool));
    gauge(
        "desired_nodes",
        "How many nodes would work off what waits in the time that the file wants",
        &mut pools.iter().map(|p| (pool(p), f64::from(p.desired))),
    );
    gauge(
        "endpoint_slots",
        "How many requests at once",
        &mut endpoints.iter().map(|e| (of(e), f64::from(e.slots))),
    );
    gauge(
        "endpoint_slots_used",
        "Slots taken",
        &mut endpoints.iter().map(|e| (of(e), f64::from(e.used))),
    );
    gauge(
        "endpoint_slots_cooling",
        "Slots of requests that were broken off",
        &mut endpoints.iter().map(|e| (of(e), f64::from(e.cooling))),
    );
    gauge(
        "endpoint_vram_free_mib",
        "Free GPU memory by the last probe",
        &mut endpoints
            .iter()
            .filter_map(|e| Some((of(e), e.vram_free_mib? as f64))),
    );
    gauge(
        "gpu_holder",
        "1 for an endpoint that holds the card it shares",
        &mut endpoints
            .iter()
            .filter_map(|e| Some((of(e), f64::from(u8::from(e.holds_card?))))),
    );
    let states = endpoints.iter().flat_map(|e| {
        STATES.iter().map(move |state| {
            let labels = format!(
                "{{node=\"{}\",endpoint=\"{}\",state=\"{state}\"}}",
                escaped(&e.node),
                escaped(&e.endpoint)
            );
            (labels, f64::from(u8::from(*state == e.state)))
        })
    });
    gauge(
        "endpoint_state",
        "1 for the state an endpoint is in",
        &mut states.into_iter(),
    );
    gauge(
        "connections_open",
        "Client connections",
        &mut [(String::new(), edge.connections as f64)].into_iter(),
    );
    gauge(
        "held_bytes",
        "Bytes of request bodies held in memory",
        &mut [(String::new(), edge.held_bytes as f64)].into_iter(),
    );
    gauge(
        "spooled_bytes",
        "Bytes of request bodies held on disk",
        &mut [(String::new(), edge.spooled_bytes as f64)].into_iter(),
    );
    gauge(
        "config_info",
        "The hash of the files that serve",
        &mut [(format!("{{hash=\"{config_hash}\"}}"), 1.0)].into_iter(),
    );
    gauge(
        "build_info",
        "The version that runs",
        &mut [(
            format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")),
            1.0,
        )]
        .into_iter(),
    );
}

/// Appends a gauge with its series: their labels, in their brackets, and their values.
pub(super) fn gauge(
    text: &mut String,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (String, f64)>,
) {
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# HELP tabane_{name} {help}.\n# TYPE tabane_{name} gauge\n"
    );
    for (labels, value) in series {
        let _ = writeln!(text, "tabane_{name}{labels} {value}");
    }
}

/// A label's value (OpenMetrics 1.0, ABNF `escaped-char`).
pub(super) fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
