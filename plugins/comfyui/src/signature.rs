//! What a node has computed before: it does not compute it again, and need not load what that would take.
//!
//! ComfyUI keeps what a node of a prompt made under its class and inputs, and those of all that it was made from, whatever the
//! ids are. The same is signed here for every node of a prompt, and remembered of each server: the share of a prompt that one
//! has computed stands for the loaded model, the encoded texts, and "the same once more" alike. What it really kept is told
//! in `execution_cached`, so that the guess can be measured.

use crate::json::Json;
use crate::workflow::{Node, Workflow, add};
use std::collections::HashMap;

/// A node of a prompt, with all that it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signature(u64);

/// What a server has computed.
#[derive(Clone, Debug)]
pub struct Computed {
    keeps: Keeps,
    /// When each was last part of a prompt.
    seen: HashMap<Signature, u64>,
    prompts: u64,
}

/// How much a server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// What the last prompt made: up to 2025.
    LastPrompt,
    /// As much as memory has room for, and no more than this many: since 2026.
    Many(usize),
}

/// Signs all nodes of a workflow, as they stand in it.
///
/// `more` says what else makes a node another one: the content of the file that it loads, or its own id where its class asks
/// for it. `None`: nothing.
pub fn sign<'a>(
    workflow: &Workflow<'a>,
    more: impl Fn(&Node<'a>) -> Option<String>,
) -> Vec<Signature> {
    let marks = workflow.marks(|node, hash| {
        for (input, value) in &node.values {
            add(hash, input);
            add(hash, &written(value));
        }
        add(hash, "");
        if let Some(more) = more(node) {
            add(hash, &more);
        }
    });
    marks.into_iter().map(Signature).collect()
}

/// To the cache, `1` and `1.0` are the same; Rust writes both as `1`.
fn written(value: &Json) -> String {
    match value {
        Json::Number(number) if number.is_float() => number.value().to_string(),
        other => other.to_string(),
    }
}

// === impl Computed ===

impl Computed {
    /// Nothing yet.
    pub fn nothing(keeps: Keeps) -> Self {
        Computed {
            keeps,
            seen: HashMap::new(),
            prompts: 0,
        }
    }

    /// How much of a prompt it has computed, 0.0..=1.0.
    pub fn share(&self, prompt: &[Signature]) -> f64 {
        let known = prompt
            .iter()
            .filter(|of| self.seen.contains_key(of))
            .count();
        known as f64 / prompt.len().max(1) as f64
    }

    /// A prompt was computed.
    pub fn note(&mut self, prompt: &[Signature]) {
        self.prompts += 1;
        if self.keeps == Keeps::LastPrompt {
            self.seen.clear();
        }
        self.seen
            .extend(prompt.iter().map(|of| (*of, self.prompts)));
        if let Keeps::Many(most) = self.keeps {
            self.forget_over(most);
        }
    }

    /// It was restarted, or told to let go.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// Lets go of the prompts that were not seen for the longest time, down to half, so that it is seldom done.
    fn forget_over(&mut self, most: usize) {
        if self.seen.len() <= most {
            return;
        }
        let mut ages: Vec<u64> = self.seen.values().copied().collect();
        ages.sort_unstable();
        let first = ages.len() - (most / 2).min(ages.len() - 1);
        let oldest = ages.get(first).copied().unwrap_or(self.prompts);
        self.seen.retain(|_, seen| *seen >= oldest);
        // One prompt may be more than that.
        let mut left = most;
        self.seen.retain(|_, _| {
            let fits = left > 0;
            left = left.saturating_sub(1);
            fits
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(prompt: &str) -> Vec<Signature> {
        let prompt = Json::read(prompt.as_bytes()).unwrap();
        sign(&Workflow::of(prompt.object().unwrap()), |_| None)
    }

    fn prompt(model: &str, text: &str, seed: u32) -> String {
        format!(
            r#"{{"4": {{"class_type": "CheckpointLoaderSimple", "inputs": {{"ckpt_name": "{model}"}}}},
            "6": {{"class_type": "CLIPTextEncode", "inputs": {{"text": "{text}", "clip": ["4", 1]}}}},
            "3": {{"class_type": "KSampler", "inputs": {{"seed": {seed}, "model": ["4", 0], "positive": ["6", 0]}}}},
            "9": {{"class_type": "SaveImage", "inputs": {{"images": ["3", 0]}}}}}}"#
        )
    }

    #[test]
    fn the_share_is_of_what_need_not_be_computed_again() {
        let mut computed = Computed::nothing(Keeps::Many(100));
        computed.note(&signed(&prompt("a", "cat", 1)));
        for (model, text, seed, share) in [
            ("a", "cat", 1, 1.0),
            ("a", "cat", 2, 0.5),
            ("a", "dog", 1, 0.25),
            ("b", "cat", 1, 0.0),
        ] {
            assert_eq!(
                computed.share(&signed(&prompt(model, text, seed))),
                share,
                "{model} {text} {seed}"
            );
        }
        assert_eq!(computed.share(&[]), 0.0);
        computed.clear();
        assert_eq!(computed.share(&signed(&prompt("a", "cat", 1))), 0.0);
    }

    #[test]
    fn ids_and_ways_to_write_a_number_do_not_matter() {
        let one = prompt("a", "cat", 1);
        let other = one
            .replace("\"4\"", "\"x\"")
            .replace("\"seed\": 1", "\"seed\": 1.0");
        assert_ne!(one, other);
        assert_eq!(signed(&one), signed(&other));
        assert_ne!(
            signed(&one),
            signed(&one.replace("\"seed\": 1", "\"seed\": 1.5"))
        );
        assert_ne!(
            signed(&one),
            signed(&one.replace("\"seed\": 1", "\"seed\": \"1\""))
        );
    }

    #[test]
    fn what_else_makes_it_another_one_counts_for_all_behind_it() {
        let json = Json::read(prompt("a", "cat", 1).as_bytes()).unwrap();
        let workflow = Workflow::of(json.object().unwrap());
        let with = |content: &str| {
            sign(&workflow, |node| {
                (node.id == "6").then(|| content.to_owned())
            })
        };
        let (a, b) = (with("a"), with("b"));
        let same: Vec<bool> = a.iter().zip(&b).map(|(a, b)| a == b).collect();
        assert_eq!(same, [true, false, false, false]);
    }

    #[test]
    fn only_so_much_is_kept_and_the_latest_of_it() {
        let mut last = Computed::nothing(Keeps::LastPrompt);
        let mut many = Computed::nothing(Keeps::Many(40));
        let prompts: Vec<_> = (0..100)
            .map(|seed| signed(&prompt(&format!("m{seed}"), "cat", seed)))
            .collect();
        for signed in &prompts {
            last.note(signed);
            many.note(signed);
            assert!(many.seen.len() <= 40);
            assert_eq!((last.share(signed), many.share(signed)), (1.0, 1.0));
        }
        assert_eq!(
            (last.share(&prompts[98]), many.share(&prompts[98])),
            (0.0, 1.0)
        );
        assert_eq!(many.share(&prompts[0]), 0.0);
        let large: Vec<Signature> = (0..1000).map(Signature).collect();
        many.note(&large);
        assert_eq!(many.seen.len(), 40);
    }
}
