//! Which classes of requests ran out of GPU memory on which nodes. Pure.
//!
//! Rules.
//! - A class that ran out of memory twice on a node within a day gets no more of it there for a day: a card does not grow,
//!   and each try costs its time and perhaps the server.
//! - The first time counts for a day as well. A run that went well takes nothing back: requests of a class are not all of
//!   one size.
//! - It is the node's card that is too small, so all endpoints on it are passed over.

use super::fit::Lack;
use crate::store::Moment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::Need;

/// So often, and the class is not sent there.
const OFTEN: u32 = 2;

/// For so long.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many classes on nodes are remembered at most: classes come from requests.
const MOST: usize = 10_000;

/// Where what ran out of memory.
#[derive(Debug, Default)]
pub struct Shortages {
    /// By service and class, then by node.
    of: HashMap<Class, Nodes>,
    count: usize,
    /// Not later than the first of them is long enough ago.
    due: Option<Instant>,
    /// Whether it is not kept yet.
    changed: bool,
}

/// A service, and a class of its requests.
type Class = (Arc<str>, Arc<str>);

/// By name.
type Nodes = BTreeMap<Arc<str>, Ran>;

/// How often a class ran out of memory on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ran {
    times: u32,
    until: Instant,
}

/// The nodes on which one class ran out of memory.
#[derive(Clone, Copy, Debug)]
pub struct OfClass<'a>(&'a Nodes);

/// One of them, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    service: Arc<str>,
    class: Arc<str>,
    node: Arc<str>,
    times: u32,
    /// Milliseconds since 1970.
    until: i64,
}

// === impl Shortages ===

impl Shortages {
    /// A request of this class ran out of memory on this node. Whether it gets no more of them from now on, and did before.
    pub fn note(
        &mut self,
        service: &Arc<str>,
        class: &Arc<str>,
        node: &Arc<str>,
        now: Instant,
    ) -> bool {
        if self.count >= MOST {
            self.make_room(now);
        }
        let nodes = self.of.entry((service.clone(), class.clone())).or_default();
        let before = nodes.get(node).filter(|ran| ran.until > now);
        let times = before.map_or(1, |ran| ran.times.saturating_add(1));
        let until = now + DAY;
        self.changed = true;
        self.due.get_or_insert(until);
        if nodes.insert(node.clone(), Ran { times, until }).is_none() {
            self.count += 1;
        }
        times == OFTEN
    }

    /// Where such needs ran out of memory; `None`: nowhere, or it uses none.
    pub fn of(&self, service: &Arc<str>, need: &Need) -> Option<OfClass<'_>> {
        // Nearly always there is nothing to look for, and this is asked of each request.
        if self.count == 0 || need.slots == 0 {
            return None;
        }
        let key = (service.clone(), need.class.clone());
        self.of.get(&key).map(OfClass)
    }

    /// When there may be something to forget.
    pub fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Forgets what is long enough ago.
    pub fn lapse(&mut self, now: Instant) {
        self.retain(|ran| ran.until > now);
    }

    /// All of it, as it is kept over a restart; `None`: it has not changed since the last call.
    pub fn changed(&mut self, now: Instant, wall: Moment) -> Option<String> {
        std::mem::take(&mut self.changed).then(|| self.export(now, wall))
    }

    fn export(&self, now: Instant, wall: Moment) -> String {
        let all = self.of.iter().flat_map(|((service, class), nodes)| {
            nodes.iter().map(move |(node, ran)| Kept {
                service: service.clone(),
                class: class.clone(),
                node: node.clone(),
                times: ran.times,
                until: wall.after(ran.until.saturating_duration_since(now)).0,
            })
        });
        // Strings and numbers: this cannot fail.
        serde_json::to_string(&all.collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Takes up what was kept.
    ///
    /// Errors: it cannot be read; nothing is taken up then.
    pub fn import(&mut self, kept: &[u8], now: Instant, wall: Moment) -> Result<(), String> {
        let all: Vec<Kept> = serde_json::from_slice(kept).map_err(|error| error.to_string())?;
        for kept in all.into_iter().take(MOST) {
            let left = u64::try_from(kept.until.saturating_sub(wall.0)).unwrap_or_default();
            // Whatever the clock did meanwhile: never for longer than it would be now.
            let until = now + Duration::from_millis(left).min(DAY);
            let ran = Ran {
                times: kept.times,
                until,
            };
            let nodes = self.of.entry((kept.service, kept.class)).or_default();
            nodes.insert(kept.node, ran);
        }
        self.lapse(now);
        Ok(())
    }

    /// Those that are not kept away yet go first; if that is not enough, all do.
    fn make_room(&mut self, now: Instant) {
        self.retain(|ran| ran.times >= OFTEN && ran.until > now);
        if self.count >= MOST {
            self.retain(|_| false);
        }
    }

    fn retain(&mut self, stays: impl Fn(&Ran) -> bool) {
        for nodes in self.of.values_mut() {
            nodes.retain(|_, ran| stays(ran));
        }
        self.of.retain(|_, nodes| !nodes.is_empty());
        self.count = self.of.values().map(BTreeMap::len).sum();
        let all = self.of.values().flat_map(BTreeMap::values);
        self.due = all.map(|ran| ran.until).min();
    }
}

// === impl OfClass ===

impl OfClass<'_> {
    /// Whether the node gets requests of the class.
    pub fn spares(self, node: &str, now: Instant) -> bool {
        self.left(node, now).is_none()
    }

    /// What the node lacks for the class.
    pub fn lack(self, class: &Arc<str>, node: &str, now: Instant) -> Option<Lack> {
        self.left(node, now).map(|lasts| Lack::Memory {
            class: class.clone(),
            lasts,
        })
    }

    fn left(self, node: &str, now: Instant) -> Option<Duration> {
        let ran = self.0.get(node).filter(|ran| ran.times >= OFTEN)?;
        ran.until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [Arc<str>; 4] {
        ["render", "still", "small", "large"].map(Arc::from)
    }

    fn spares(shortages: &Shortages, node: &str, now: Instant) -> bool {
        let [render, ..] = names();
        let of = shortages.of(&render, &Need::of_class("still"));
        of.is_none_or(|of| of.spares(node, now))
    }

    #[test]
    fn a_class_that_ran_out_of_memory_twice_is_not_sent_there_for_a_day() {
        let [render, still, small, large] = names();
        let (mut shortages, start) = (Shortages::default(), Instant::now());
        let later = |hours: u64| start + Duration::from_secs(hours * 3600);
        assert!(!shortages.note(&render, &still, &small, start));
        assert!(spares(&shortages, "small", start), "once is no rule");
        assert!(!shortages.note(&render, &still, &large, later(1)));
        assert!(shortages.note(&render, &still, &small, later(2)));
        assert!(!spares(&shortages, "small", later(2)));
        assert!(!spares(&shortages, "small", later(25)));
        assert!(spares(&shortages, "small", later(26)));
        assert!(spares(&shortages, "large", later(2)));
        // Another class, or the same of another service, fits as before.
        assert!(shortages.of(&render, &Need::of_class("film")).is_none());
        let need = Need::of_class("still");
        assert!(shortages.of(&"other".into(), &need).is_none());
        assert!(shortages.of(&render, &need.without_slot()).is_none());
        assert!(shortages.next_due().is_some_and(|due| due <= later(25)));
        shortages.lapse(later(25));
        assert_eq!(
            (shortages.count, shortages.next_due()),
            (1, Some(later(26)))
        );
        shortages.lapse(later(26));
        assert_eq!((shortages.count, shortages.next_due()), (0, None));
    }

    #[test]
    fn two_times_more_than_a_day_apart_are_once_each() {
        let [render, still, small, _] = names();
        let (mut shortages, start) = (Shortages::default(), Instant::now());
        assert!(!shortages.note(&render, &still, &small, start));
        assert!(!shortages.note(&render, &still, &small, start + DAY));
        assert!(spares(&shortages, "small", start + DAY));
    }

    #[test]
    fn what_was_learned_of_memory_outlives_a_restart_by_the_clock_on_the_wall() {
        let [render, still, small, large] = names();
        let (mut before, start) = (Shortages::default(), Instant::now());
        for node in [&small, &small, &large] {
            before.note(&render, &still, node, start);
        }
        let kept = before.export(start, Moment(1_000));
        // An hour passes while nobody is there, on a machine that started anew.
        let (hour, again) = (Duration::from_secs(3600), start + Duration::from_secs(7));
        let mut after = Shortages::default();
        let wall = Moment(1_000).after(hour);
        after.import(kept.as_bytes(), again, wall).unwrap();
        assert!(!spares(&after, "small", again + DAY - hour - hour));
        assert!(spares(&after, "small", again + DAY - hour));
        assert!(
            after.note(&render, &still, &large, again),
            "the second time"
        );
        // A day later there is nothing to take up; what is no record of it is refused.
        let mut late = Shortages::default();
        let wall = Moment(1_000).after(DAY);
        late.import(kept.as_bytes(), again, wall).unwrap();
        assert_eq!(late.count, 0);
        assert!(late.import(b"{", again, wall).is_err());
        // A clock that was set back makes no day longer than a day.
        let mut back = Shortages::default();
        back.import(kept.as_bytes(), again, Moment(0)).unwrap();
        assert!(spares(&back, "small", again + DAY));
    }

    #[test]
    fn as_many_are_remembered_as_may_be_and_those_that_count_longest() {
        let [render, still, small, large] = names();
        let (mut shortages, now) = (Shortages::default(), Instant::now());
        for node in [&small, &small, &large] {
            shortages.note(&render, &still, node, now);
        }
        for i in 0..2 * MOST {
            shortages.note(&render, &format!("class-{i}").into(), &small, now);
            assert!(shortages.count <= MOST);
        }
        assert!(!spares(&shortages, "small", now));
        for i in 0..MOST {
            for _ in 0..OFTEN {
                shortages.note(&render, &format!("class-{i}").into(), &small, now);
            }
        }
        assert!(shortages.count <= MOST);
    }
}
