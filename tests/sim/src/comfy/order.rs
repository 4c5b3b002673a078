//! In which order the nodes of a prompt are executed. The real server dissolves the graph from its outputs, and of the nodes
//! that are ready takes the one that brings something to be seen the soonest. No IO.

use super::json::{Json, Object};
use super::library::{Class, Library};
use indexmap::{IndexMap, IndexSet};

pub(crate) struct Order<'a> {
    prompt: &'a Object,
    library: &'a Library,
    pending: IndexMap<String, Pending>,
}

#[derive(Default)]
struct Pending {
    /// How many nodes it waits for.
    waits: usize,
    /// Those who wait for it.
    blocks: IndexSet<String>,
}

/// The class of a node of a prompt.
pub(crate) fn class_of<'a>(prompt: &Object, node: &str, library: &'a Library) -> Option<&'a Class> {
    library.class(prompt.get(node)?.get("class_type")?.text()?)
}

/// The inputs of a node of a prompt.
pub(crate) fn inputs_of<'a>(
    prompt: &'a Object,
    node: &str,
) -> impl Iterator<Item = (&'a String, &'a Json)> {
    let inputs = prompt.get(node).and_then(|node| node.get("inputs"));
    inputs.and_then(Json::object).into_iter().flatten()
}

// === impl Order ===

impl<'a> Order<'a> {
    /// Of all that is needed for `outputs`. What is cached is not executed, unless it is such an output itself.
    pub(crate) fn of(
        prompt: &'a Object,
        library: &'a Library,
        outputs: &[String],
        is_cached: impl Fn(&str) -> bool,
    ) -> Self {
        let mut order = Order {
            prompt,
            library,
            pending: IndexMap::new(),
        };
        for output in outputs {
            order.add(output, &is_cached);
        }
        order
    }

    fn add(&mut self, node: &str, is_cached: impl Fn(&str) -> bool) {
        let mut nodes = vec![node.to_owned()];
        let mut links = Vec::new();
        while let Some(node) = nodes.pop() {
            if self.pending.contains_key(&node) {
                continue;
            }
            self.pending.insert(node.clone(), Pending::default());
            for (_, value) in inputs_of(self.prompt, &node) {
                if let Some((from, _)) = value.link()
                    && !is_cached(from)
                {
                    nodes.push(from.to_owned());
                    links.push((from.to_owned(), node.clone()));
                }
            }
        }
        for (from, to) in links {
            let new = self
                .pending
                .get_mut(&from)
                .map(|from| from.blocks.insert(to.clone()));
            if new == Some(true)
                && let Some(to) = self.pending.get_mut(&to)
            {
                to.waits += 1;
            }
        }
    }

    /// The next one. `None`: all were, or they wait for each other.
    pub(crate) fn next(&self) -> Option<String> {
        let ready = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.waits == 0);
        let ready: Vec<&String> = ready.map(|(node, _)| node).collect();
        let soonest = ready
            .iter()
            .find(|node| self.is_output(node) || self.is_async(node))
            .or_else(|| ready.iter().find(|node| self.leads_to_output(node, 1)))
            .or_else(|| ready.iter().find(|node| self.leads_to_output(node, 2)));
        soonest.or(ready.first()).map(|node| (*node).clone())
    }

    pub(crate) fn done(&mut self, node: &str) {
        let Some(done) = self.pending.shift_remove(node) else {
            return;
        };
        for blocked in done.blocks {
            if let Some(blocked) = self.pending.get_mut(&blocked) {
                blocked.waits -= 1;
            }
        }
    }

    /// One that waits although nothing can be executed any more: part of a cycle, or behind it.
    pub(crate) fn stuck(&self) -> Option<&str> {
        self.pending.keys().next_back().map(String::as_str)
    }

    fn is_output(&self, node: &str) -> bool {
        class_of(self.prompt, node, self.library).is_some_and(Class::is_output)
    }

    fn is_async(&self, node: &str) -> bool {
        class_of(self.prompt, node, self.library).is_some_and(Class::is_async)
    }

    fn leads_to_output(&self, node: &str, steps: usize) -> bool {
        let blocks = self
            .pending
            .get(node)
            .into_iter()
            .flat_map(|pending| &pending.blocks);
        let mut blocks = blocks;
        blocks.any(|blocked| {
            if steps == 1 {
                self.is_output(blocked)
            } else {
                self.leads_to_output(blocked, steps - 1)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Spec;
    use super::*;

    fn order(prompt: &str, outputs: &[&str], cached: &[&str]) -> Vec<String> {
        let prompt = Json::read(prompt.as_bytes()).unwrap_or_default();
        let prompt = prompt.object().cloned().unwrap_or_default();
        let library = Library::of(&Spec::named("a"));
        let outputs: Vec<String> = outputs.iter().map(ToString::to_string).collect();
        let mut order = Order::of(&prompt, &library, &outputs, |node| cached.contains(&node));
        let mut done = Vec::new();
        while let Some(node) = order.next() {
            order.done(&node);
            done.push(node);
        }
        done
    }

    // One way is longer than the other.
    const TWO: &str = r#"{
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
        "8": {"class_type": "ImageInvert", "inputs": {"image": ["7", 0]}},
        "7": {"class_type": "ImageInvert", "inputs": {"image": ["6", 0]}},
        "6": {"class_type": "EmptyImage", "inputs": {}},
        "1": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
        "3": {"class_type": "EmptyImage", "inputs": {}}
    }"#;

    #[test]
    fn what_is_seen_the_soonest_is_executed_first() {
        assert_eq!(
            order(TWO, &["9", "1"], &[]),
            ["3", "2", "1", "6", "7", "8", "9"]
        );
    }

    #[test]
    fn what_is_cached_is_left_out_unless_it_is_an_output() {
        assert_eq!(order(TWO, &["9"], &["7"]), ["8", "9"]);
        assert_eq!(order(TWO, &["9"], &["9", "8"]), ["9"]);
    }
}
