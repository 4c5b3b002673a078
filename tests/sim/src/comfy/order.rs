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
