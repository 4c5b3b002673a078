//! How fast endpoints are, from what went by.
//!
//! Two lines for each model on each endpoint: the time to the first token over the tokens that had to be read for it, and the
//! time between tokens over the streams at work. With what a prompt is expected to lack there, and how much is expected to be
//! made, they say when a request would be over: the cost that did best by far where nodes are unequal.
//!
//! `(tokens ahead + max(1, prompt − hit)) / P + wait + out × (d0 + d1 × (running + 1))`, and the time to load the model where it
//! is not in memory.

use crate::line::{Belief, Line};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// So many pairs of an endpoint and a model are remembered, and as many of a tenant and a model: those that were not heard of for
/// longest are forgotten.
const PAIRS_MOST: usize = 2048;

/// What is said of one that nobody knows anything of: a middling card with a model of some eight billion weights.
const READS_PER_S: f64 = 2000.0;
const STEP_S: f64 = 0.03;
/// Tokens of an answer where nothing is known.
const OUT: f64 = 256.0;
/// How long a model takes to be loaded of which nobody knows it: it is to be worth something that one is in memory.
const LOAD_S: f64 = 10.0;
/// Bytes of text for each token, in English; less in other scripts.
const BYTES_PER_TOKEN: f64 = 4.0;

/// Reading is in proportion to what is read, as far as nobody knows better.
const READS: Belief = Belief::Proportional;
/// With each stream more, tokens come some 2 % more slowly, as far as nobody knows better.
const STEPS: Belief = Belief::Share(0.02);
/// What a first token counts for that had others' prompts before it: how far those were is a guess.
const BEHIND_OTHERS: f64 = 0.25;

/// An answer that is over, as it was measured. What is not known is `None`, or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample<'a> {
    /// The endpoint, `node/endpoint`.
    pub endpoint: &'a str,
    /// The model.
    pub model: &'a str,
    /// Who asked.
    pub tenant: &'a str,
    /// Tokens of the prompt.
    pub prompt: u64,
    /// How long the prompt was in bytes of text; 0: it is not to be learned from.
    pub prompt_bytes: usize,
    /// Tokens of it that were computed before: as the engine says, else as it was guessed.
    pub cached: u64,
    /// Tokens of other prompts that the endpoint still had to read when this one came.
    pub ahead: u64,
    /// Streams at work there beside this one.
    pub running: u32,
    /// It had to wait for a slot in the engine: then the time to its first token says nothing.
    pub queued: bool,
    /// Its model had to be loaded first.
    pub cold: bool,
    /// Until its first token, seconds.
    pub first_s: Option<f64>,
    /// Between tokens, seconds.
    pub step_s: Option<f64>,
    /// Until its end, seconds.
    pub total_s: Option<f64>,
    /// Tokens that were made.
    pub made: u64,
    /// It was whole: how much was made is how much is made of such.
    pub whole: bool,
}

/// A request that is weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asks {
    /// Tokens of its prompt.
    pub prompt: f64,
    /// Tokens of it that the endpoint has computed.
    pub hit: f64,
    /// Tokens that are expected to be made.
    pub out: f64,
}

/// What an endpoint has to do already.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Streams at work.
    pub running: u32,
    /// Requests that wait there, or go there before this one.
    pub waiting: u32,
    /// How many it works on at once; 0: as many as come.
    pub slots: u32,
    /// Tokens of prompts that it still has to read.
    pub ahead: f64,
    /// Whether the model is in memory.
    pub loaded: bool,
}

/// What a request would cost, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Until a slot is free.
    pub wait_s: f64,
    /// Loading the model.
    pub load_s: f64,
    /// Until the first token, from then on.
    pub prefill_s: f64,
    /// From the first token to the last.
    pub decode_s: f64,
    /// Whether this model was measured on this endpoint; else it is a guess from others.
    pub measured: bool,
}

/// All that was learned. It can be written down and read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// By endpoint, then by model.
    speeds: BTreeMap<String, BTreeMap<String, Speed>>,
    /// By tenant, then by model.
    outputs: BTreeMap<String, BTreeMap<String, Output>>,
    /// By model.
    models: BTreeMap<String, Text>,
    /// Counts up with each sample: what was not heard of for longest is forgotten.
    turn: u64,
}

/// A model on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Speed {
    /// Seconds to the first token, over tokens to be read.
    prefill: Line,
    /// Seconds between tokens, over streams.
    step: Line,
    /// Loading it.
    load: Mean,
    turn: u64,
}

/// What is made for a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Output {
    tokens: Mean,
    turn: u64,
}

/// A model's texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Text {
    bytes_per_token: Mean,
    /// Tokens of its answers, whoever asks.
    out: Mean,
    turn: u64,
}

/// A mean of what was measured lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Mean {
    value: f64,
    count: f64,
}

// === impl Learned ===

impl Learned {
    /// An answer is over.
    pub fn add(&mut self, sample: &Sample<'_>) {
        self.turn += 1;
        let turn = self.turn;
        if sample.prompt > 0 && sample.prompt_bytes > 0 {
            let text = self.text(sample.model);
            text.bytes_per_token
                .add(sample.prompt_bytes as f64 / sample.prompt as f64, 0.05);
        }
        if sample.whole && sample.made > 0 {
            let made = sample.made as f64;
            self.text(sample.model).out.add(made, 0.02);
            let output = pair(&mut self.outputs, sample.tenant, sample.model, |output| {
                output.turn
            });
            output.turn = turn;
            output.tokens.add(made, 0.1);
        }
        self.speed(sample, turn);
    }

    fn text(&mut self, model: &str) -> &mut Text {
        if !self.models.contains_key(model) && self.models.len() >= PAIRS_MOST {
            let oldest = self.models.iter().min_by_key(|(_, text)| text.turn);
            if let Some(oldest) = oldest.map(|(model, _)| model.clone()) {
                self.models.remove(&oldest);
            }
        }
        let text = self.models.entry(model.to_owned()).or_default();
        text.turn = self.turn;
        text
    }

    fn speed(&mut self, sample: &Sample<'_>, turn: u64) {
        let unread = sample.prompt.saturating_sub(sample.cached).max(1) as f64;
        // Of an answer that came at once, what reading took is taken off its time, as far as it is known.
        let reads_s = self.prefill(sample.endpoint, sample.model).0;
        let reads_s = reads_s.map_or(unread / READS_PER_S, |(base, each)| base + each * unread);
        let step_s = sample.step_s.or_else(|| {
            let total_s = sample
                .total_s
                .filter(|_| sample.made >= 4 && !sample.cold && !sample.queued)?;
            Some((total_s - reads_s).max(total_s / 4.0) / sample.made as f64)
        });
        if sample.first_s.is_none() && step_s.is_none() {
            return;
        }
        let speed = pair(&mut self.speeds, sample.endpoint, sample.model, |speed| {
            speed.turn
        });
        speed.turn = turn;
        if let Some(first_s) = sample.first_s.filter(|_| !sample.queued) {
            let ahead = sample.ahead as f64;
            if sample.cold {
                let reads_s = speed.prefill.at(ahead + unread, READS).unwrap_or(0.0);
                speed.load.add((first_s - reads_s).max(0.0), 0.3);
            } else {
                let weight = if sample.ahead == 0 {
                    1.0
                } else {
                    BEHIND_OTHERS
                };
                speed.prefill.add(ahead + unread, first_s, weight, READS);
            }
        }
        if let Some(step_s) = step_s {
            speed
                .step
                .add(f64::from(sample.running) + 1.0, step_s, 1.0, STEPS);
        }
    }

    /// What a request for a model would cost at an endpoint.
    pub fn estimate(&self, endpoint: &str, model: &str, asks: Asks, load: Load) -> Cost {
        let (prefill, measured) = self.prefill(endpoint, model);
        let (base, each) = prefill.unwrap_or((0.0, 1.0 / READS_PER_S));
        let (step, step_measured) = self.line(endpoint, model, |speed| speed.step, STEPS);
        let (d0, d1) = step.unwrap_or((STEP_S, STEP_S * 0.02));
        let slots = match load.slots {
            0 => u32::MAX,
            slots => slots,
        };
        let streams = f64::from(load.running.saturating_add(1).min(slots));
        let step_s = d0 + d1 * streams;
        let out = asks.out.max(1.0);
        // Each that is too many has to wait until one of the slots is through.
        let there = load.running.saturating_add(load.waiting).saturating_add(1);
        let short = f64::from(there.saturating_sub(slots));
        let unread = (asks.prompt - asks.hit).max(1.0);
        Cost {
            wait_s: short * out * step_s / f64::from(slots),
            load_s: if load.loaded {
                0.0
            } else {
                self.load_s(endpoint, model)
            },
            prefill_s: base + each * (load.ahead.max(0.0) + unread),
            decode_s: out * step_s,
            measured: measured && step_measured,
        }
    }

    /// How many tokens are expected to be made for a tenant, at most `max_tokens`.
    pub fn out(&self, tenant: &str, model: &str, max_tokens: Option<u64>) -> f64 {
        let all = self
            .models
            .get(model)
            .map(|text| text.out)
            .filter(|out| out.count > 0.0);
        let all = all.map_or(OUT, |out| out.value);
        let own = self
            .outputs
            .get(tenant)
            .and_then(|models| models.get(model));
        let own = own.map(|output| output.tokens).unwrap_or_default();
        // A tenant's own few say little beside what all are answered.
        let mixed = (own.count * own.value + 4.0 * all) / (own.count + 4.0);
        max_tokens
            .map_or(mixed, |most| mixed.min(most as f64))
            .max(1.0)
    }

    /// How many tokens a text of so many bytes has, for a model.
    pub fn tokens(&self, model: &str, bytes: usize) -> f64 {
        bytes as f64 / self.bytes_per_token(model)
    }

    /// How many bytes of text a token of a model stands for.
    pub fn bytes_per_token(&self, model: &str) -> f64 {
        let text = self.models.get(model).map(|text| text.bytes_per_token);
        let mean = text.filter(|mean| mean.count > 0.0);
        mean.map_or(BYTES_PER_TOKEN, |mean| mean.value.clamp(0.5, 64.0))
    }

    /// How fast an endpoint is beside others, as a weight for sessions: tokens a second that it can make, at `slots` streams.
    pub fn weight(&self, endpoint: &str, model: &str, slots: u32) -> f64 {
        let (step, _) = self.line(endpoint, model, |speed| speed.step, STEPS);
        let (d0, d1) = step.unwrap_or((STEP_S, STEP_S * 0.02));
        let streams = f64::from(slots.max(1));
        streams / (d0 + d1 * streams).max(1e-6)
    }

    /// An endpoint was changed: what was learned of it is not true any more.
    pub fn forget(&mut self, endpoint: &str) {
        self.speeds.remove(endpoint);
    }

    fn prefill(&self, endpoint: &str, model: &str) -> (Option<(f64, f64)>, bool) {
        self.line(endpoint, model, |speed| speed.prefill, READS)
    }

    fn load_s(&self, endpoint: &str, model: &str) -> f64 {
        let of = |speed: &Speed| (speed.load.count > 0.0).then_some(speed.load.value);
        let own = self
            .speeds
            .get(endpoint)
            .and_then(|models| of(models.get(model)?));
        own.unwrap_or_else(|| {
            let mut mean = Sum::default();
            self.others(endpoint, model, |speed| {
                mean.add(of(speed).map(|load_s| (load_s, 0.0)));
            });
            mean.value().map_or(LOAD_S, |(load_s, _)| load_s)
        })
    }

    /// A line, and whether it was measured here; else it is what others say.
    fn line(
        &self,
        endpoint: &str,
        model: &str,
        which: impl Fn(&Speed) -> Line,
        belief: Belief,
    ) -> (Option<(f64, f64)>, bool) {
        let of = |speed: &Speed| which(speed).fit(belief);
        let own = self
            .speeds
            .get(endpoint)
            .and_then(|models| of(models.get(model)?));
        if own.is_some() {
            return (own, true);
        }
        let mut mean = Sum::default();
        self.others(endpoint, model, |speed| mean.add(of(speed)));
        (mean.value(), false)
    }

    /// Other models on this endpoint: its card is what makes the most difference. Where there are none, the model elsewhere.
    fn others(&self, endpoint: &str, model: &str, mut each: impl FnMut(&Speed)) {
        let here = self.speeds.get(endpoint);
        match here.filter(|models| models.keys().any(|other| other != model)) {
            Some(models) => models.values().for_each(each),
            None => {
                let elsewhere = self.speeds.values();
                elsewhere
                    .filter_map(|models| models.get(model))
                    .for_each(&mut each);
            }
        }
    }
}

/// A mean of pairs.
#[derive(Default)]
struct Sum {
    both: (f64, f64),
    count: u32,
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, pair: Option<(f64, f64)>) {
        if let Some((first, second)) = pair {
            self.both = (self.both.0 + first, self.both.1 + second);
            self.count += 1;
        }
    }

    fn value(&self) -> Option<(f64, f64)> {
        let count = f64::from(self.count);
        (self.count > 0).then(|| (self.both.0 / count, self.both.1 / count))
    }
}

/// What is known of a pair; a new one takes the room of that which was not heard of for longest, where there is no other.
fn pair<'m, T: Default>(
    pairs: &'m mut BTreeMap<String, BTreeMap<String, T>>,
    first: &str,
    second: &str,
    turn: impl Fn(&T) -> u64,
) -> &'m mut T {
    let is_known = pairs
        .get(first)
        .is_some_and(|inner| inner.contains_key(second));
    if !is_known && pairs.values().map(BTreeMap::len).sum::<usize>() >= PAIRS_MOST {
        forget_oldest(pairs, turn);
    }
    let inner = pairs.entry(first.to_owned()).or_default();
    inner.entry(second.to_owned()).or_default()
}

fn forget_oldest<T>(pairs: &mut BTreeMap<String, BTreeMap<String, T>>, turn: impl Fn(&T) -> u64) {
    let all = pairs
        .iter()
        .flat_map(|(first, inner)| inner.iter().map(move |pair| (first, pair)));
    let oldest = all.min_by_key(|(_, (_, value))| turn(value));
    let Some((first, second)) = oldest.map(|(first, (second, _))| (first.clone(), second.clone()))
    else {
        return;
    };
    if let Some(inner) = pairs.get_mut(&first) {
        inner.remove(&second);
        if inner.is_empty() {
            pairs.remove(&first);
        }
    }
}

// === impl Mean ===

impl Mean {
    /// A measurement; the first few count alike, later ones `share` each. One that is eight times what is usual counts as that.
    fn add(&mut self, value: f64, share: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        let value = match self.count >= 8.0 {
            true => value.min(self.value * 8.0 + f64::MIN_POSITIVE),
            false => value,
        };
        self.count += 1.0;
        self.value += (value - self.value) * share.max(1.0 / self.count);
        self.count = self.count.min(1e6);
    }
}

// === impl Cost ===

impl Cost {
    /// All of it, seconds.
    pub fn total_s(&self) -> f64 {
        self.wait_s + self.load_s + self.prefill_s + self.decode_s
    }
}

#[cfg(test)]
mod tests;
