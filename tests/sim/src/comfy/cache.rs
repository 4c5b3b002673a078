//! What was made before and is not made again: the same class with the same inputs, and the same for all that it was made from.

use super::disk::Disk;
use super::json::{Json, Object};
use super::library::Library;
use super::order::{class_of, inputs_of};
use super::picture::mark;
use super::value::Value;
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

/// How many signatures a server keeps that keeps more than the last prompt's.
const KEPT: usize = 4096;

#[derive(Default)]
pub(crate) struct Cache {
    /// What nodes made, by their signatures; the oldest first.
    made: IndexMap<String, Made>,
    /// The signatures of the prompt at hand.
    signatures: HashMap<String, String>,
    /// Which object each node of the prompt is, by node and class. It goes with the first prompt that has no such node.
    objects: HashMap<(String, String), u64>,
    made_objects: u64,
    /// So that what never is the same, is not.
    never: u64,
}

#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) values: Vec<Value>,
    /// What clients are shown of it, and whose it is.
    pub(crate) shown: Option<(Json, Json)>,
}

// === impl Cache ===

impl Cache {
    /// Signs all nodes of a prompt, and lets go of what none of them made, unless more is kept.
    pub(crate) fn begin(&mut self, prompt: &Object, library: &Library, disk: &Disk, keeps: bool) {
        self.signatures.clear();
        self.objects.retain(|(node, works_as), _| {
            class_of(prompt, node, library).is_some_and(|class| class.works_as == *works_as)
        });
        let mut own = HashMap::new();
        for node in prompt.keys() {
            let signed = self.sign_alone(prompt, node, library, disk);
            own.insert(node.as_str(), signed);
        }
        for node in prompt.keys() {
            let mut ancestors = IndexSet::new();
            ancestors_of(prompt, node, &mut ancestors);
            let mut signature = String::new();
            for of in std::iter::once(node.as_str()).chain(ancestors.iter().copied()) {
                // A link is signed by its place among the ancestors, so that ids do not matter.
                signature.push_str(own.get(of).map_or("?", String::as_str));
                for (name, value) in sorted(prompt, of) {
                    if let Some((from, slot)) = value.link() {
                        let place = ancestors.get_index_of(from);
                        signature.push_str(&format!("|{name}<{place:?}.{slot}"));
                    }
                }
            }
            let signature = format!("{:016x}{signature}", mark(&[signature.as_bytes()]));
            self.signatures.insert(node.clone(), signature);
        }
        if keeps {
            let over = self.made.len().saturating_sub(KEPT);
            self.made.drain(..over);
        } else {
            let used: IndexSet<&String> = self.signatures.values().collect();
            self.made.retain(|signature, _| used.contains(signature));
        }
    }

    pub(crate) fn object(&mut self, node: &str, class: &str) -> u64 {
        let made = &mut self.made_objects;
        let key = (node.to_owned(), class.to_owned());
        *self.objects.entry(key).or_insert_with(|| {
            *made += 1;
            *made
        })
    }

    pub(crate) fn get(&self, node: &str) -> Option<&Made> {
        self.made.get(self.signatures.get(node)?)
    }

    pub(crate) fn set(&mut self, node: &str, made: Made) {
        if let Some(signature) = self.signatures.get(node) {
            self.made.insert(signature.clone(), made);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.made.clear();
        self.objects.clear();
    }

    fn sign_alone(
        &mut self,
        prompt: &Object,
        node: &str,
        library: &Library,
        disk: &Disk,
    ) -> String {
        let Some(class) = class_of(prompt, node, library) else {
            return self.never();
        };
        let mut signed = class.works_as.clone();
        if let Some(name) = prompt.get(node).and_then(|node| node.get("class_type")) {
            signed.push_str(&name.to_string());
        }
        if class.knows_its_node() {
            signed.push_str(&format!("#{node}"));
        }
        match class.works_as.as_str() {
            "LoadImage" | "LoadImageMask" | "LoadImageOutput" => {
                let named = prompt[node]
                    .get("inputs")
                    .and_then(|inputs| inputs.get("image"));
                let path = named.and_then(Json::text).and_then(|name| disk.input(name));
                match path.and_then(|path| std::fs::read(path).ok()) {
                    Some(bytes) => signed.push_str(&format!("={:016x}", mark(&[&bytes]))),
                    None => signed.push_str(&self.never()),
                }
            }
            "SaveImageWebsocket" => signed.push_str(&self.never()),
            _ => {}
        }
        for (name, value) in sorted(prompt, node) {
            if value.link().is_none() {
                signed.push_str(&format!("|{name}={value}"));
            }
        }
        signed
    }

    fn never(&mut self) -> String {
        self.never += 1;
        format!("!{}", self.never)
    }
}

fn sorted<'a>(prompt: &'a Object, node: &str) -> Vec<(&'a String, &'a Json)> {
    let mut inputs: Vec<_> = inputs_of(prompt, node).collect();
    inputs.sort_by_key(|(name, _)| *name);
    inputs
}

fn ancestors_of<'a>(prompt: &'a Object, node: &str, found: &mut IndexSet<&'a str>) {
    for (_, value) in sorted(prompt, node) {
        if let Some((from, _)) = value.link()
            && found.insert(from)
        {
            ancestors_of(prompt, from, found);
        }
    }
}
