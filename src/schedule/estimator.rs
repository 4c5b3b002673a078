//! How long work takes: learned from runs that ended well, per class and endpoint, and guessed where nothing ran.
//!
//! Pure: what ran, where, and how long is told; nothing is measured here. The first run of a class on an endpoint
//! after one of another class, or when nobody knows what ran there before, counts as cold.
//!
//! A pair that never ran is guessed from what did, the nearest first:
//! 1. the class's times on other endpoints, times how much slower this one was with classes that ran on both;
//! 2. the class's times on other endpoints, by the weights of the pool;
//! 3. the times of the service's other classes, here, or elsewhere by weights.

use super::learned::{Learned, spread};
use super::span::Span;
use crate::store::LearnedTime;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How many pairs of class and endpoint are kept: some 100 classes on 100 endpoints, in a few MiB.
const MOST: usize = 10_000;
/// After so many runs a single one moves an average by a tenth at most, and there are many of them.
const FAMILIAR: u64 = 64;
/// Sizes beyond these say nothing about work: someone's joke, or a bad extractor.
const SIZES: (f64, f64) = (1e-9, 1e15);
/// Times are taken to lie between a microsecond and a year.
const TIMES_S: (f64, f64) = (1e-6, 3.2e7);

/// Requests whose times are alike: a class within its service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey {
    /// The service.
    pub service: Arc<str>,
    /// What its kind calls such requests.
    pub class: Arc<str>,
}

/// How long a run of some size is expected to take on one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds, when the endpoint is ready for the class.
    pub warm_s: f64,
    /// The standard deviation of that, seconds.
    pub sd_s: f64,
    /// What it takes on top when the endpoint has to get ready first, seconds.
    pub cold_s: f64,
    /// How many runs of the class on this endpoint say so.
    pub runs: u64,
    /// Whether it is a guess from other classes or endpoints.
    pub prior: bool,
}

/// Learned times of all classes on all endpoints.
#[derive(Debug)]
pub struct Estimator {
    classes: BTreeMap<ClassKey, BTreeMap<Arc<str>, Entry>>,
    endpoints: ByEndpoint<Known>,
    /// Pairs by when they last learned: the first is the next to be forgotten.
    by_age: BTreeMap<u64, Pair>,
    /// Counts what is learned.
    learned: u64,
    /// What is not exported yet.
    changed: BTreeSet<Pair>,
    /// Weights of endpoints, by service.
    weights: HashMap<Arc<str>, ByEndpoint<u32>>,
    /// Guesses made since the last run was learned.
    guesses: HashMap<Guessed, ByEndpoint<Option<f64>>>,
    most: usize,
}

type Pair = (ClassKey, Arc<str>);
/// A service and its class. One that ran nowhere is `None`: all such are guessed alike.
type Guessed = (Arc<str>, Option<Arc<str>>);
type ByEndpoint<T> = HashMap<Arc<str>, T>;

#[derive(Debug)]
struct Entry {
    learned: Learned,
    age: u64,
}

/// An endpoint where something ran.
#[derive(Debug, Default)]
struct Known {
    classes: BTreeSet<ClassKey>,
    /// What ran there last; `None` after a start.
    last: Option<ClassKey>,
}

// === impl Estimate ===

impl Estimate {
    /// How long it takes where the endpoint is ready, or where it is not.
    pub fn span(&self, cold: bool) -> Span {
        let extra_s = if cold { self.cold_s } else { 0.0 };
        Span::new(self.warm_s + extra_s, self.sd_s)
    }
}

// === impl Estimator ===

impl Default for Estimator {
    fn default() -> Self {
        Estimator::bounded(MOST)
    }
}

impl Estimator {
    /// Knows nothing yet, and at most so many pairs of class and endpoint ever: those that learned last.
    pub fn bounded(most: usize) -> Self {
        Estimator {
            classes: BTreeMap::new(),
            endpoints: HashMap::new(),
            by_age: BTreeMap::new(),
            learned: 0,
            changed: BTreeSet::new(),
            weights: HashMap::new(),
            guesses: HashMap::new(),
            most,
        }
    }

    /// The weights of a plan, replacing all: service, endpoint, weight.
    pub fn weigh(&mut self, weights: impl IntoIterator<Item = (Arc<str>, Arc<str>, u32)>) {
        self.weights.clear();
        self.guesses.clear();
        for (service, endpoint, weight) in weights {
            self.weights
                .entry(service)
                .or_default()
                .insert(endpoint, weight);
        }
    }

    /// A run that ended well. One that failed says nothing of how long it takes, and is not told.
    ///
    /// Units: `size` in the unit of the class; what is no size (0, negative, not finite) counts as 1.0.
    pub fn learn(&mut self, class: &ClassKey, endpoint: &str, size: f64, took: Duration) {
        let cold = !self.is_ready(class, endpoint);
        let endpoint = self.keep(class, endpoint);
        let seconds = took.as_secs_f64().clamp(TIMES_S.0, TIMES_S.1);
        if let Some(entry) = self.entry(class, &endpoint) {
            entry.learned.learn(sound(size), seconds, cold);
        }
        if let Some(known) = self.endpoints.get_mut(&endpoint) {
            known.last = Some(class.clone());
        }
        self.changed.insert((class.clone(), endpoint));
        self.forget();
    }

    /// Whether one more run of this class would tell next to nothing: it runs there all the time, and was seen often.
    pub fn is_familiar(&self, class: &ClassKey, endpoint: &str) -> bool {
        let own = self.classes.get(class).and_then(|on| on.get(endpoint));
        let often = own.is_some_and(|own| own.learned.runs() >= FAMILIAR);
        often && self.is_ready(class, endpoint)
    }

    /// Whether an endpoint last ran this class, and so need not get ready for it.
    pub fn is_ready(&self, class: &ClassKey, endpoint: &str) -> bool {
        let known = self.endpoints.get(endpoint);
        known.is_some_and(|known| known.last.as_ref() == Some(class))
    }

    /// How long a run is expected to take on an endpoint; `None` when nothing comparable ever ran.
    ///
    /// What a guess took to work out is kept until something is learned.
    pub fn estimate(&mut self, class: &ClassKey, endpoint: &str, size: f64) -> Option<Estimate> {
        let size = sound(size);
        let own = self.classes.get(class).and_then(|on| on.get(endpoint));
        let (warm, cold_s, runs, prior) = match own {
            Some(Entry { learned, .. }) => {
                let warm = learned.warm(size);
                (warm, learned.cold_extra_s(), learned.runs(), false)
            }
            None => (
                spread(self.guess(class, endpoint)? * size, 0.0, 0),
                0.0,
                0,
                true,
            ),
        };
        Some(Estimate {
            warm_s: warm.mean_s(),
            sd_s: warm.sd_s(),
            cold_s,
            runs,
            prior,
        })
    }

    /// The endpoint where a run would be over first if all were free, by its index, getting ready included.
    pub fn best<'a>(
        &mut self,
        class: &ClassKey,
        size: f64,
        endpoints: impl IntoIterator<Item = &'a str>,
    ) -> Option<(usize, Estimate)> {
        let mut best: Option<(usize, Estimate, f64)> = None;
        for (i, endpoint) in endpoints.into_iter().enumerate() {
            let Some(estimate) = self.estimate(class, endpoint, size) else {
                continue;
            };
            let takes_s = estimate.span(!self.is_ready(class, endpoint)).mean_s();
            if best.is_none_or(|(_, _, least_s)| takes_s < least_s) {
                best = Some((i, estimate, takes_s));
            }
        }
        best.map(|(i, estimate, _)| (i, estimate))
    }

    /// How long a run holds a slot when any endpoint of a pool may get it, each as often as it has room.
    ///
    /// Fast endpoints come free more often: the mean is that of speeds, weighted by slots, so that the sum over
    /// a backlog divided by all slots is the time in which the pool works it off. Getting ready counts as often
    /// as it was needed before.
    /// Shapes: name and slots of each usable endpoint. `None` when nothing comparable ever ran.
    pub fn expected<'a>(
        &mut self,
        class: &ClassKey,
        size: f64,
        endpoints: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Option<Span> {
        // Runs a second, slots that do them, and the spread of their times relative to the mean.
        let (mut speed, mut slots, mut relative) = (0.0, 0.0, 0.0);
        for (endpoint, of_endpoint) in endpoints {
            let Some(estimate) = self.estimate(class, endpoint, size) else {
                continue;
            };
            let often = self.classes.get(class).and_then(|on| on.get(endpoint));
            let often = often.map_or(0.0, |entry| entry.learned.cold_share());
            let takes_s = (estimate.warm_s + estimate.cold_s * often).max(TIMES_S.0);
            let of_endpoint = f64::from(of_endpoint);
            speed += of_endpoint / takes_s;
            slots += of_endpoint;
            relative += of_endpoint * (estimate.sd_s / takes_s);
        }
        if slots == 0.0 {
            return None;
        }
        let mean_s = slots / speed;
        Some(Span::new(mean_s, mean_s * relative / slots))
    }

    /// What was learned since the last call, as the store keeps it.
    pub fn changed_since_export(&mut self) -> Vec<LearnedTime> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|(class, endpoint)| self.kept(&class, &endpoint))
            .collect()
    }

    /// All that was learned, as the store keeps it.
    pub fn export(&self) -> Vec<LearnedTime> {
        let pairs = self.by_age.values();
        pairs
            .filter_map(|(class, endpoint)| self.kept(class, endpoint))
            .collect()
    }

    /// Takes up what was kept. Answers how many could not be read: they are left out, and learned anew.
    pub fn import(&mut self, times: impl IntoIterator<Item = LearnedTime>) -> usize {
        let mut unread = 0;
        for LearnedTime { key, value } in times {
            let learned = serde_json::from_str::<Learned>(&value);
            let Some(learned) = learned.ok().filter(Learned::is_sound) else {
                unread += 1;
                continue;
            };
            let (service, class, endpoint) = key;
            let class = ClassKey {
                service: service.into(),
                class: class.into(),
            };
            let endpoint = self.keep(&class, &endpoint);
            if let Some(entry) = self.entry(&class, &endpoint) {
                entry.learned = learned;
            }
            self.forget();
        }
        unread
    }

    fn entry(&mut self, class: &ClassKey, endpoint: &str) -> Option<&mut Entry> {
        self.classes.get_mut(class)?.get_mut(endpoint)
    }

    fn kept(&self, class: &ClassKey, endpoint: &Arc<str>) -> Option<LearnedTime> {
        let entry = self.classes.get(class)?.get(endpoint)?;
        Some(LearnedTime {
            key: (
                class.service.to_string(),
                class.class.to_string(),
                endpoint.to_string(),
            ),
            value: serde_json::to_string(&entry.learned).ok()?,
        })
    }

    /// Gives a pair its entry, as the youngest.
    fn keep(&mut self, class: &ClassKey, endpoint: &str) -> Arc<str> {
        self.guesses.clear();
        self.learned += 1;
        let endpoint = match self.endpoints.get_key_value(endpoint) {
            Some((name, _)) => name.clone(),
            None => endpoint.into(),
        };
        let known = self.endpoints.entry(endpoint.clone()).or_default();
        known.classes.insert(class.clone());
        let on = self.classes.entry(class.clone()).or_default();
        let entry = on.entry(endpoint.clone()).or_insert_with(|| Entry {
            learned: Learned::default(),
            age: self.learned,
        });
        self.by_age.remove(&entry.age);
        entry.age = self.learned;
        self.by_age
            .insert(self.learned, (class.clone(), endpoint.clone()));
        endpoint
    }

    /// Forgets the pairs that learned longest ago, down to the bound.
    fn forget(&mut self) {
        while self.by_age.len() > self.most
            && let Some((_, pair)) = self.by_age.pop_first()
        {
            self.changed.remove(&pair);
            let (class, endpoint) = pair;
            if let Some(on) = self.classes.get_mut(&class) {
                on.remove(&endpoint);
                if on.is_empty() {
                    self.classes.remove(&class);
                }
            }
            if let Some(known) = self.endpoints.get_mut(&endpoint) {
                known.classes.remove(&class);
                if known.classes.is_empty() {
                    self.endpoints.remove(&endpoint);
                }
            }
        }
    }

    /// Seconds per unit of size, for a pair that never ran.
    fn guess(&mut self, class: &ClassKey, endpoint: &str) -> Option<f64> {
        let ran = self.classes.contains_key(class);
        let key = (class.service.clone(), ran.then(|| class.class.clone()));
        if let Some(guess) = self.guesses.get(&key).and_then(|on| on.get(endpoint)) {
            return *guess;
        }
        let guess = if ran {
            self.by_other_endpoints(class, endpoint)
        } else {
            self.by_other_classes(&class.service, endpoint)
        };
        let on = self.guesses.entry(key).or_default();
        on.insert(endpoint.into(), guess);
        guess
    }

    fn by_other_endpoints(&self, class: &ClassKey, endpoint: &str) -> Option<f64> {
        let elsewhere = self.classes.get(class)?;
        let mut by_speed = LogMean::default();
        // Every class that ran here and on another endpoint where this one ran says how the two compare.
        for shared in self
            .endpoints
            .get(endpoint)
            .into_iter()
            .flat_map(|known| &known.classes)
        {
            let Some(on) = self.classes.get(shared) else {
                continue;
            };
            let Some(here) = on.get(endpoint) else {
                continue;
            };
            for (other, entry) in elsewhere {
                if let Some(there) = on.get(other) {
                    let slower = here.learned.rate_s() / there.learned.rate_s();
                    by_speed.add(entry.learned.rate_s() * slower);
                }
            }
        }
        by_speed
            .mean()
            .or_else(|| self.by_weights(&class.service, endpoint, elsewhere))
    }

    fn by_other_classes(&self, service: &Arc<str>, endpoint: &str) -> Option<f64> {
        let first = ClassKey {
            service: service.clone(),
            class: "".into(),
        };
        let of_service = || {
            let from_first = self.classes.range(&first..);
            from_first.take_while(|(class, _)| class.service == *service)
        };
        let mut here = LogMean::default();
        for (_, on) in of_service() {
            if let Some(entry) = on.get(endpoint) {
                here.add(entry.learned.rate_s());
            }
        }
        here.mean().or_else(|| {
            let mut anywhere = LogMean::default();
            for (_, on) in of_service() {
                if let Some(rate_s) = self.by_weights(service, endpoint, on) {
                    anywhere.add(rate_s);
                }
            }
            anywhere.mean()
        })
    }

    /// What others took, as if speed were what weights say.
    fn by_weights(
        &self,
        service: &Arc<str>,
        endpoint: &str,
        elsewhere: &BTreeMap<Arc<str>, Entry>,
    ) -> Option<f64> {
        let weight = |endpoint: &str| {
            let weights = self.weights.get(service);
            let weight = weights.and_then(|weights| weights.get(endpoint));
            f64::from(weight.copied().unwrap_or(1).max(1))
        };
        let mut mean = LogMean::default();
        for (other, entry) in elsewhere {
            mean.add(entry.learned.rate_s() * weight(other) / weight(endpoint));
        }
        mean.mean()
    }
}

/// A geometric mean under way: of numbers above 0.
#[derive(Default)]
struct LogMean {
    sum: f64,
    count: f64,
}

impl LogMean {
    fn add(&mut self, value: f64) {
        self.sum += value.ln();
        self.count += 1.0;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| (self.sum / self.count).exp())
    }
}

fn sound(size: f64) -> f64 {
    if size.is_finite() && size > 0.0 {
        size.clamp(SIZES.0, SIZES.1)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests;
