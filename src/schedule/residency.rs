//! Which models lie in a node's memory, by what was sent there: the last ones, as long as they fit together.

use rustc_hash::FxHashMap;
use std::sync::Arc;
use tabane_api::EndpointId;

/// What is taken to be loaded on each endpoint.
///
/// A node's server keeps what it used last (ComfyUI, Ollama and most others do). Where nobody says how much memory a
/// model takes, or a card has, only the last is taken to be there. What a probe says goes before all guesses.
#[derive(Debug, Default)]
pub struct Residency {
    on: FxHashMap<EndpointId, Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    /// The models, least recently used first, each with its memory in MiB (0: nobody said).
    models: Vec<(Arc<str>, u64)>,
    /// Whether a probe names them: then what was sent there changes nothing until the next probe.
    told: bool,
}

// === impl Residency ===

impl Residency {
    /// Whether an endpoint need not load a model before it can serve it.
    pub fn has(&self, endpoint: EndpointId, model: &str) -> bool {
        let on = self.on.get(&endpoint);
        on.is_some_and(|on| on.models.iter().any(|(loaded, _)| **loaded == *model))
    }

    /// Work with a model begins on an endpoint. Units: MiB, 0 where nobody says.
    pub fn uses(&mut self, endpoint: EndpointId, model: &Arc<str>, takes_mib: u64, card_mib: u64) {
        let on = self.on.entry(endpoint).or_default();
        // Most often the one of before, at the end.
        if let Some(last) = on.models.last_mut()
            && last.0 == *model
        {
            last.1 = takes_mib;
            return;
        }
        on.models.retain(|(loaded, _)| loaded != model);
        on.models.push((model.clone(), takes_mib));
        if on.told {
            return;
        }
        let known = card_mib > 0 && on.models.iter().all(|(_, mib)| *mib > 0);
        let mut first = 0;
        let mut sum: u64 = on.models.iter().map(|(_, mib)| mib).sum();
        while first + 1 < on.models.len() && (!known || sum > card_mib) {
            sum -= on.models[first].1;
            first += 1;
        }
        on.models.drain(..first);
    }

    /// A probe names the models in an endpoint's memory.
    pub fn told(&mut self, endpoint: EndpointId, loaded: &[String]) {
        let on = self.on.entry(endpoint).or_default();
        on.told = true;
        on.models
            .retain(|(known, _)| loaded.iter().any(|l| **l == **known));
        for model in loaded {
            if !on.models.iter().any(|(known, _)| **known == **model) {
                on.models.push((model.as_str().into(), 0));
            }
        }
    }

    /// An endpoint's memory is empty, or nobody knows what is in it: it was restarted, or another service had the card.
    pub fn forget(&mut self, endpoint: EndpointId) {
        self.on.remove(&endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: EndpointId = EndpointId(1);

    fn used(models: &[(&str, u64)], card_mib: u64) -> Residency {
        let mut residency = Residency::default();
        for (model, mib) in models {
            residency.uses(NODE, &(*model).into(), *mib, card_mib);
        }
        residency
    }

    fn among<'a>(residency: &Residency, models: &[&'a str]) -> Vec<&'a str> {
        let loaded = models.iter().filter(|model| residency.has(NODE, model));
        loaded.copied().collect()
    }

    #[test]
    fn the_last_that_fit_together_stay() {
        let all = ["a", "b", "c"];
        for (uses, card_mib, wants) in [
            (
                &[("a", 8), ("b", 8), ("c", 8)][..],
                24,
                &["a", "b", "c"][..],
            ),
            (&[("a", 8), ("b", 8), ("c", 9)], 24, &["b", "c"]),
            (&[("a", 8), ("b", 8), ("a", 8), ("c", 9)], 24, &["a", "c"]),
            (&[("a", 8), ("c", 99)], 24, &["c"]),
            // Nobody said how large one is, or the card.
            (&[("a", 0), ("b", 8)], 24, &["b"]),
            (&[("a", 8), ("b", 8)], 0, &["b"]),
        ] {
            assert_eq!(among(&used(uses, card_mib), &all), wants, "{uses:?}");
        }
    }

    #[test]
    fn what_a_probe_says_goes_before_what_was_sent_there() {
        let mut residency = used(&[("a", 8), ("b", 8)], 24);
        residency.told(NODE, &["b".into(), "z".into()]);
        assert_eq!(among(&residency, &["a", "b", "z"]), ["b", "z"]);
        residency.uses(NODE, &"c".into(), 24, 24);
        assert_eq!(among(&residency, &["b", "c", "z"]), ["b", "c", "z"]);
        residency.told(NODE, &["c".into()]);
        assert_eq!(among(&residency, &["b", "c", "z"]), ["c"]);
        residency.forget(NODE);
        assert!(!residency.has(NODE, "c"));
    }
}
