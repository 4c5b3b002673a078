//! What answers used, for `/metrics`.

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashSet;
use tabane_api::Usage;

/// So many series of a service, a model and a node each; what is more counts as the model `other` of its node.
const MOST: usize = 500;

/// What is counted of what answers used.
pub struct UsageMetrics {
    tokens: Family<TokenLabels, Counter>,
    first: Family<Labels, Histogram, fn() -> Histogram>,
    each: Family<Labels, Histogram, fn() -> Histogram>,
    known: Mutex<HashSet<Labels>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
    model: String,
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    service: String,
    model: String,
    node: String,
    what: &'static str,
}

// === impl UsageMetrics ===

impl UsageMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let first: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 14)));
        let each: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 12)));
        let tokens = Family::default();
        registry.register(
            "tokens",
            "Tokens read, of those computed before (cached), and made",
            tokens.clone(),
        );
        registry.register_with_unit(
            "first_token",
            "Until the first token, from when the node was handed the request",
            Unit::Seconds,
            first.clone(),
        );
        registry.register_with_unit(
            "token_time",
            "Between two tokens",
            Unit::Seconds,
            each.clone(),
        );
        UsageMetrics {
            tokens,
            first,
            each,
            known: Mutex::default(),
        }
    }

    /// An answer used this.
    pub fn count(&self, service: &str, node: &str, usage: &Usage) {
        let labels = self.labels(service, node, &usage.model);
        let tokens = [
            ("read", usage.read),
            ("cached", usage.cached.unwrap_or(0)),
            ("made", usage.made),
        ];
        for (what, count) in tokens {
            let Labels {
                service,
                model,
                node,
            } = labels.clone();
            let labels = TokenLabels {
                service,
                model,
                node,
                what,
            };
            self.tokens.get_or_create(&labels).inc_by(count);
        }
        if let Some(first) = usage.first {
            self.first
                .get_or_create(&labels)
                .observe(first.as_secs_f64());
        }
        if let Some(each) = usage.each {
            self.each.get_or_create(&labels).observe(each.as_secs_f64());
        }
    }

    /// A client may name any model: their series are bounded.
    fn labels(&self, service: &str, node: &str, model: &str) -> Labels {
        let mut labels = Labels {
            service: service.to_owned(),
            model: model.to_owned(),
            node: node.to_owned(),
        };
        let mut known = self.known.lock();
        if !known.contains(&labels) {
            if known.len() >= MOST {
                labels.model = "other".to_owned();
            }
            known.insert(labels.clone());
        }
        labels
    }

    pub(super) fn forget_service(&self, service: &str) {
        self.known.lock().retain(|labels| {
            if labels.service != service {
                return true;
            }
            self.drop_series(labels);
            false
        });
    }

    fn drop_series(&self, labels: &Labels) {
        self.first.remove(labels);
        self.each.remove(labels);
        for what in ["read", "cached", "made"] {
            let Labels {
                service,
                model,
                node,
            } = labels.clone();
            self.tokens.remove(&TokenLabels {
                service,
                model,
                node,
                what,
            });
        }
    }
}
