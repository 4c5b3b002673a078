//! What answers used, by day, service, tenant, model and node.
//!
//! It is added up in memory and written with what is learned; where there is no store, it is known for as long as the gateway runs.

use super::{Dispatch, Shared};
use crate::store::UsageRow;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tabane_api::Usage;

/// So many rows are added up at most; what is more is counted under the model `other`.
const MOST: usize = 20_000;

/// What other models count as, where there are too many.
const OTHER: &str = "other";

/// What was used and is not written yet.
#[derive(Default)]
pub(super) struct Used(Mutex<BTreeMap<Key, Counts>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    day: Arc<str>,
    service: Arc<str>,
    tenant: Arc<str>,
    model: Arc<str>,
    node: Arc<str>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    requests: u64,
    read: u64,
    cached: u64,
    made: u64,
}

// === impl Used ===

impl Used {
    pub(super) fn add(
        &self,
        service: &Arc<str>,
        tenant: &Arc<str>,
        node: &str,
        usage: &Usage,
        now: SystemTime,
    ) {
        let mut all = self.0.lock();
        let mut key = Key {
            day: day(now).into(),
            service: service.clone(),
            tenant: tenant.clone(),
            model: usage.model.clone(),
            node: node.into(),
        };
        if all.len() >= MOST && !all.contains_key(&key) {
            key.model = OTHER.into();
        }
        let counts = all.entry(key).or_default();
        counts.requests += 1;
        counts.read += usage.read;
        counts.cached += usage.cached.unwrap_or(0);
        counts.made += usage.made;
    }

    fn rows(&self) -> Vec<UsageRow> {
        self.0.lock().iter().map(row).collect()
    }

    fn take(&self) -> Vec<UsageRow> {
        std::mem::take(&mut *self.0.lock())
            .iter()
            .map(row)
            .collect()
    }

    /// What could not be written is there still.
    fn put_back(&self, rows: Vec<UsageRow>) {
        let mut all = self.0.lock();
        for row in rows {
            let key = Key {
                day: row.day.into(),
                service: row.service.into(),
                tenant: row.tenant.into(),
                model: row.model.into(),
                node: row.node.into(),
            };
            let counts = all.entry(key).or_default();
            counts.requests += row.requests;
            counts.read += row.read;
            counts.cached += row.cached;
            counts.made += row.made;
        }
    }
}

fn row((key, counts): (&Key, &Counts)) -> UsageRow {
    UsageRow {
        day: key.day.to_string(),
        service: key.service.to_string(),
        tenant: key.tenant.to_string(),
        model: key.model.to_string(),
        node: key.node.to_string(),
        requests: counts.requests,
        read: counts.read,
        cached: counts.cached,
        made: counts.made,
    }
}

/// The day of a moment, in UTC: `2026-11-27`.
pub fn day(at: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(at).to_string();
    text.truncate(10);
    text
}

// === impl Dispatch ===

impl Dispatch {
    /// What was used from the first of these days to the last, a row for each that differs.
    ///
    /// Errors: it cannot be read.
    pub async fn usage(
        &self,
        from: &str,
        to: &str,
    ) -> Result<Vec<UsageRow>, crate::store::StoreError> {
        let written = match self.jobs() {
            Some(jobs) => jobs.store().usage(from.to_owned(), to.to_owned()).await?,
            None => Vec::new(),
        };
        let all = Used::default();
        all.put_back(written);
        let unwritten = self.0.used.rows().into_iter();
        all.put_back(
            unwritten
                .filter(|row| (from..=to).contains(&row.day.as_str()))
                .collect(),
        );
        Ok(all.rows())
    }

    /// Writes what was used since the last call.
    pub(super) async fn write_usage(&self) {
        let Some(jobs) = self.jobs() else { return };
        let rows = self.0.used.take();
        if rows.is_empty() {
            return;
        }
        if let Err(error) = jobs.store().add_usage(rows.clone()).await {
            tracing::warn!(%error, "what was used cannot be kept yet");
            self.0.used.put_back(rows);
        }
    }
}

impl Shared {
    /// An answer used this.
    pub(super) fn count_usage(
        &self,
        service: &Arc<str>,
        tenant: &Arc<str>,
        endpoint: &str,
        usage: &Usage,
    ) {
        let node = endpoint.split('/').next().unwrap_or_default();
        self.used
            .add(service, tenant, node, usage, SystemTime::now());
        self.means.metrics.usage().count(service, node, usage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn usage(model: &str) -> Usage {
        Usage {
            model: model.into(),
            read: 10,
            cached: Some(4),
            made: 3,
            ..Usage::default()
        }
    }

    #[test]
    fn what_is_used_is_added_up_by_day_and_by_who_and_where() {
        let used = Used::default();
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + 5);
        let (service, tenant) = (Arc::from("chat"), Arc::from("t"));
        used.add(&service, &tenant, "a", &usage("m"), at(0));
        used.add(&service, &tenant, "a", &usage("m"), at(0));
        used.add(&service, &tenant, "a", &usage("m"), at(1));
        used.add(&service, &tenant, "b", &usage("m"), at(1));
        let rows = used.rows();
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.day.as_str(),
                    row.node.as_str(),
                    row.requests,
                    row.read,
                    row.made,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("1970-01-01", "a", 2, 20, 6),
                ("1970-01-02", "a", 1, 10, 3),
                ("1970-01-02", "b", 1, 10, 3)
            ]
        );
        // What could not be written is counted once.
        let taken = used.take();
        assert!(used.rows().is_empty());
        used.add(&service, &tenant, "a", &usage("m"), at(0));
        used.put_back(taken);
        assert_eq!(used.rows()[0].requests, 3);
    }

    #[test]
    fn many_models_are_counted_as_one() {
        let used = Used::default();
        let (service, tenant) = (Arc::from("chat"), Arc::from("t"));
        for n in 0..MOST + 10 {
            let model = format!("m{n}");
            used.add(
                &service,
                &tenant,
                "a",
                &usage(&model),
                SystemTime::UNIX_EPOCH,
            );
        }
        let rows = used.rows();
        assert_eq!(rows.len(), MOST + 1);
        let other = rows.iter().find(|row| row.model == OTHER).unwrap();
        assert_eq!(other.requests, 10);
    }
}
