//! How long work takes: learned from runs that ended well, per class and endpoint, and guessed where nothing ran.
//!
//! Pure: what ran, where, how long, and whether the endpoint had to get ready for it is told; nothing is measured here.
//!
//! A pair that never ran is guessed from all that did, as the product of how much work the class is and how slow the
//! endpoint ([`Speeds`]); a class that ran nowhere, as the mean of its service's.

use super::learned::{Learned, spread};
use super::span::Span;
use super::speeds::Speeds;
use crate::store::LearnedTime;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How many pairs of class and endpoint are kept: some 100 classes on 100 endpoints, in a few MiB.
const MOST: usize = 10_000;
/// After so many runs a single one moves an average by a tenth at most, and there are many of them.
const FAMILIAR: u64 = 64;
/// Up to so many pairs, guesses are worked out anew after each run: in some ten microseconds.
const FEW: usize = 128;
/// How much shorter a run is taken to be where the endpoint is ready, while none was: as a share of its time.
const HOPE: f64 = 0.2;
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
    classes: HashMap<ClassKey, Class>,
    /// Names of endpoints, by number.
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, usize>,
    /// Pairs by when they last learned: the first is the next to be forgotten.
    by_age: BTreeMap<u64, Pair>,
    /// Counts what is learned.
    learned: u64,
    /// What is not exported yet.
    changed: BTreeSet<Pair>,
    /// By endpoint: 1 where nobody said.
    weights: HashMap<Arc<str>, u32>,
    /// What is guessed by, and when it was worked out.
    guesses: Option<Guesses>,
    most: usize,
}

type Pair = (ClassKey, Arc<str>);

/// What is known of a class.
#[derive(Debug, Default)]
struct Class {
    /// By the endpoint's number.
    on: FxHashMap<usize, Entry>,
    /// How many of its runs were learned from.
    runs: u64,
}

#[derive(Debug)]
struct Entry {
    learned: Learned,
    age: u64,
    /// The class's count of runs when this one last grew.
    at_run: u64,
}

#[derive(Debug)]
struct Guesses {
    speeds: Speeds,
    /// The number of each class in it.
    classes: HashMap<ClassKey, usize>,
    /// The mean level of each service's classes.
    services: HashMap<Arc<str>, f64>,
    /// What was learned by then.
    at: u64,
}

/// What is known of one class, for asking of many endpoints.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    class: Option<&'a Class>,
    /// ln of its seconds per unit of size where nothing slows it.
    level: Option<f64>,
    slowness: &'a [f64],
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
            classes: HashMap::new(),
            names: Vec::new(),
            numbers: HashMap::new(),
            by_age: BTreeMap::new(),
            learned: 0,
            changed: BTreeSet::new(),
            weights: HashMap::new(),
            guesses: None,
            most,
        }
    }

    /// The weights of a plan, replacing all: endpoint, weight. Numbers are given anew.
    pub fn weigh(&mut self, weights: impl IntoIterator<Item = (Arc<str>, u32)>) {
        self.weights = weights.into_iter().collect();
        self.renumber();
    }

    /// The number that stands for an endpoint's name, until the next [`Estimator::weigh`].
    pub fn number(&mut self, endpoint: &str) -> usize {
        if let Some(number) = self.numbers.get(endpoint) {
            return *number;
        }
        let name: Arc<str> = endpoint.into();
        self.names.push(name.clone());
        self.numbers.insert(name, self.names.len() - 1);
        // Its slowness is not in what was worked out.
        self.guesses = None;
        self.names.len() - 1
    }

    /// A run that ended well; `cold`: the endpoint had to get ready for it. One that failed says nothing of how long it
    /// takes, and is not told.
    ///
    /// Units: `size` in the unit of the class; what is no size (0, negative, not finite) counts as 1.0.
    pub fn learn(
        &mut self,
        class: &ClassKey,
        endpoint: &str,
        size: f64,
        took: Duration,
        cold: bool,
    ) {
        let entry = self.keep(class, endpoint);
        let seconds = took.as_secs_f64().clamp(TIMES_S.0, TIMES_S.1);
        entry.learned.learn(sound(size), seconds, cold);
        let endpoint = self.names[self.numbers[endpoint]].clone();
        self.changed.insert((class.clone(), endpoint));
        self.forget();
    }

    /// Whether one more run of this class would tell next to nothing: it was seen often there.
    pub fn is_familiar(&self, class: &ClassKey, endpoint: &str) -> bool {
        let own = self.entry(class, endpoint);
        own.is_some_and(|own| own.learned.runs() >= FAMILIAR)
    }

    /// What is known of a class, for asking of many endpoints by their numbers. Guesses are those of the last
    /// [`Estimator::refresh`].
    pub fn row(&self, class: &ClassKey) -> Row<'_> {
        let empty: &[f64] = &[];
        let guesses = self.guesses.as_ref();
        let own = guesses.and_then(|g| Some(g.speeds.levels[*g.classes.get(class)?]));
        let of_service = || guesses.and_then(|g| g.services.get(&class.service).copied());
        Row {
            class: self.classes.get(class),
            level: own.or_else(of_service),
            slowness: guesses.map_or(empty, |g| &g.speeds.slowness),
        }
    }

    /// How long a run is expected to take on an endpoint; `None` when nothing comparable ever ran.
    pub fn estimate(&mut self, class: &ClassKey, endpoint: &str, size: f64) -> Option<Estimate> {
        let number = self.number(endpoint);
        self.refresh();
        self.row(class).estimate(number, size)
    }

    /// How long a run holds a slot when any endpoint of a pool may get it, each as often as it has room.
    ///
    /// Fast endpoints come free more often: the mean is that of speeds, weighted by slots, so that the sum over
    /// a backlog divided by all slots is the time in which the pool works it off. Getting ready counts as often
    /// as it was needed before.
    /// Shapes: number and slots of each usable endpoint. `None` when nothing comparable ever ran.
    pub fn expected(
        &mut self,
        class: &ClassKey,
        size: f64,
        endpoints: impl IntoIterator<Item = (usize, u32)>,
    ) -> Option<Span> {
        self.refresh();
        let row = self.row(class);
        // Runs a second, slots that do them, and the spread of their times relative to the mean.
        let (mut speed, mut slots, mut relative) = (0.0, 0.0, 0.0);
        for (endpoint, of_endpoint) in endpoints {
            let Some(estimate) = row.estimate(endpoint, size) else {
                continue;
            };
            let often = row.own(endpoint);
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
            self.keep(&class, &endpoint).learned = learned;
            self.forget();
        }
        unread
    }

    fn entry(&self, class: &ClassKey, endpoint: &str) -> Option<&Entry> {
        let number = self.numbers.get(endpoint)?;
        self.classes.get(class)?.on.get(number)
    }

    fn kept(&self, class: &ClassKey, endpoint: &Arc<str>) -> Option<LearnedTime> {
        let entry = self.entry(class, endpoint)?;
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
    fn keep(&mut self, class: &ClassKey, endpoint: &str) -> &mut Entry {
        self.learned += 1;
        let number = self.number(endpoint);
        let known = self.classes.entry(class.clone()).or_default();
        known.runs += 1;
        let entry = known.on.entry(number).or_insert_with(|| Entry {
            learned: Learned::default(),
            age: self.learned,
            at_run: 0,
        });
        self.by_age.remove(&entry.age);
        entry.age = self.learned;
        entry.at_run = known.runs;
        let pair = (class.clone(), self.names[number].clone());
        self.by_age.insert(self.learned, pair);
        entry
    }

    /// Forgets the pairs that learned longest ago, down to the bound.
    fn forget(&mut self) {
        while self.by_age.len() > self.most
            && let Some((_, pair)) = self.by_age.pop_first()
        {
            self.changed.remove(&pair);
            let (class, endpoint) = pair;
            let number = self.numbers[&endpoint];
            if let Some(known) = self.classes.get_mut(&class) {
                known.on.remove(&number);
                if known.on.is_empty() {
                    self.classes.remove(&class);
                }
            }
        }
    }

    /// Gives numbers to those that are there or were learned of, and to nobody else: endpoints come and go for years.
    fn renumber(&mut self) {
        let before = std::mem::take(&mut self.names);
        self.numbers.clear();
        self.guesses = None;
        let mut classes = std::mem::take(&mut self.classes);
        let weighed: Vec<Arc<str>> = self.weights.keys().cloned().collect();
        for name in &weighed {
            self.number(name);
        }
        for class in classes.values_mut() {
            let on = std::mem::take(&mut class.on);
            let anew = on.into_iter();
            class.on = anew
                .map(|(number, entry)| (self.number(&before[number]), entry))
                .collect();
        }
        self.classes = classes;
    }

    /// Works out what is guessed by, where enough was learned since it last was: all of it where little is known, and
    /// else one part in eight, so that it costs next to nothing for each run.
    pub fn refresh(&mut self) {
        let patience = match self.by_age.len() {
            few if few <= FEW => 0,
            many => many as u64 / 8,
        };
        let fresh = |guesses: &Guesses| self.learned - guesses.at <= patience;
        if self.guesses.as_ref().is_some_and(fresh) {
            return;
        }
        let mut classes = HashMap::new();
        let mut cells = Vec::with_capacity(self.by_age.len());
        // By age: what is summed in the same order comes to the same.
        for (class, endpoint) in self.by_age.values() {
            let Some(entry) = self.entry(class, endpoint) else {
                continue;
            };
            let next = classes.len();
            let number = *classes.entry(class.clone()).or_insert(next);
            cells.push((number, self.numbers[endpoint], entry.learned.rate_s().ln()));
        }
        let weight = |name: &Arc<str>| self.weights.get(name).copied().unwrap_or(1);
        let weights: Vec<u32> = self.names.iter().map(weight).collect();
        let speeds = Speeds::fit(&cells, classes.len(), &weights);
        let mut sums: HashMap<Arc<str>, (f64, f64)> = HashMap::new();
        let mut ordered: Vec<(&ClassKey, usize)> = classes.iter().map(|(k, n)| (k, *n)).collect();
        ordered.sort_by_key(|(_, number)| *number);
        for (class, number) in ordered {
            let sum = sums.entry(class.service.clone()).or_default();
            sum.0 += speeds.levels[number];
            sum.1 += 1.0;
        }
        let means = sums.into_iter();
        self.guesses = Some(Guesses {
            speeds,
            classes,
            services: means
                .map(|(service, (sum, n))| (service, sum / n))
                .collect(),
            at: self.learned,
        });
    }
}

// === impl Row ===

impl Row<'_> {
    /// How long a run of some size is expected to take on an endpoint; `None` when nothing comparable ever ran.
    pub fn estimate(&self, endpoint: usize, size: f64) -> Option<Estimate> {
        let size = sound(size);
        if let Some(Entry { learned, .. }) = self.own(endpoint) {
            let warm = learned.warm(size);
            // Where no run was warm yet, one is hoped to be shorter: else two models that take turns would load for ever, and
            // nobody would learn that it need not be.
            let hoped_s = match learned.was_warm() {
                true => 0.0,
                false => HOPE * warm.mean_s(),
            };
            return Some(Estimate {
                warm_s: warm.mean_s() - hoped_s,
                sd_s: warm.sd_s(),
                cold_s: learned.cold_extra_s() + hoped_s,
                runs: learned.runs(),
                prior: false,
            });
        }
        let slowness = self.slowness.get(endpoint).copied().unwrap_or(0.0);
        let rate_s = (self.level? + slowness).exp();
        let warm = spread(rate_s.clamp(TIMES_S.0, TIMES_S.1) * size, 0.0, 0);
        Some(Estimate {
            warm_s: warm.mean_s(),
            sd_s: warm.sd_s(),
            cold_s: 0.0,
            runs: 0,
            prior: true,
        })
    }

    /// Whether the class never ran anywhere.
    pub fn is_new(&self) -> bool {
        self.class.is_none_or(|class| class.runs == 0)
    }

    /// How many runs of the class were learned from since the last one on this endpoint; all of them where none was.
    pub fn stale(&self, endpoint: usize) -> u64 {
        let runs = self.class.map_or(0, |class| class.runs);
        runs - self.own(endpoint).map_or(0, |own| own.at_run)
    }

    fn own(&self, endpoint: usize) -> Option<&Entry> {
        self.class?.on.get(&endpoint)
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
