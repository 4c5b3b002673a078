//! The graph in a prompt, and its shape: prompts of one shape take alike long.

use crate::json::{Json, Object};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

/// The nodes of a prompt and their links. What is no node (not an object, or without a class) is left out.
#[derive(Clone, Debug)]
pub struct Workflow<'a> {
    nodes: Vec<Node<'a>>,
    /// So that each node comes after those that it is made from. What waits for itself is not among them.
    order: Vec<usize>,
}

/// A node of a prompt.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// What the prompt calls it.
    pub id: &'a str,
    /// Its class.
    pub class: &'a str,
    /// Its inputs that are no links, as the prompt has them.
    pub values: Vec<(&'a str, &'a Json)>,
    /// Its inputs that are other nodes' outputs, by name.
    pub links: Vec<Link<'a>>,
}

/// An input that another node's output is led to.
#[derive(Clone, Debug)]
pub struct Link<'a> {
    /// The input.
    pub input: &'a str,
    /// The other node, as its place in [`Workflow::nodes`]. `None`: there is none.
    pub from: Option<usize>,
    /// Which of its outputs.
    pub slot: i128,
}

/// The classes of a workflow's nodes and how they are linked; not the seeds, texts and sizes, not the nodes' ids, not the
/// order of any keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(u64);

// === impl Node ===

impl Node<'_> {
    /// Whether it works in steps: what takes longest, more often than not.
    pub fn is_sampler(&self) -> bool {
        self.values.iter().any(|(input, _)| *input == "steps")
    }
}

// === impl Workflow ===

impl<'a> Workflow<'a> {
    /// Reads a prompt.
    pub fn of(prompt: &'a Object) -> Self {
        let nodes = prompt.iter().filter_map(|(id, node)| {
            let class = node.get("class_type")?.text()?;
            Some((id.as_str(), class, node.get("inputs")?.object()?))
        });
        let nodes: Vec<_> = nodes.collect();
        let places = nodes
            .iter()
            .enumerate()
            .map(|(place, node)| (node.0, place));
        let places: HashMap<&str, usize> = places.collect();
        let nodes = nodes.into_iter().map(|(id, class, inputs)| {
            let mut node = Node {
                id,
                class,
                values: Vec::new(),
                links: Vec::new(),
            };
            for (input, value) in inputs {
                match link(value) {
                    Some((from, slot)) => node.links.push(Link {
                        input,
                        from: places.get(from).copied(),
                        slot,
                    }),
                    None => node.values.push((input, value)),
                }
            }
            node.values.sort_unstable_by_key(|(input, _)| *input);
            node.links.sort_unstable_by_key(|link| link.input);
            node
        });
        let nodes: Vec<Node<'a>> = nodes.collect();
        Workflow {
            order: order(&nodes),
            nodes,
        }
    }

    /// Its nodes, as they stand in the prompt.
    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        let mut marks = self.marks(|_, _| {});
        marks.sort_unstable();
        let mut hash = Sha256::new();
        for mark in marks {
            hash.update(mark.to_be_bytes());
        }
        Shape(first(hash))
    }

    /// A mark for each node, made from its class, from the marks of what it is linked to, and from what `own` adds of the node
    /// itself. Of nodes that wait for themselves, only from what is their own.
    ///
    /// Not by recursion: a chain may have as many nodes as a body has room for.
    pub(crate) fn marks(&self, own: impl Fn(&Node<'a>, &mut Sha256)) -> Vec<u64> {
        let alone = self.nodes.iter().map(|node| {
            let mut hash = Sha256::new();
            add(&mut hash, node.class);
            own(node, &mut hash);
            hash
        });
        let alone: Vec<Sha256> = alone.collect();
        let mut marks: Vec<u64> = alone.iter().cloned().map(first).collect();
        for &place in &self.order {
            let mut hash = alone[place].clone();
            for link in &self.nodes[place].links {
                add(&mut hash, link.input);
                hash.update(link.slot.to_be_bytes());
                hash.update(link.from.map_or(0, |from| marks[from]).to_be_bytes());
            }
            marks[place] = first(hash);
        }
        marks
    }
}

/// `[node, slot]`, if it is a link to another node's output.
pub(crate) fn link(value: &Json) -> Option<(&str, i128)> {
    match value.list()? {
        [Json::Text(node), Json::Number(slot)] => Some((node, slot.value() as i128)),
        _ => None,
    }
}

/// So that each node comes after those that it is made from.
fn order(nodes: &[Node<'_>]) -> Vec<usize> {
    let mut waits = vec![0_usize; nodes.len()];
    let mut leads = vec![Vec::new(); nodes.len()];
    for (place, node) in nodes.iter().enumerate() {
        for from in node.links.iter().filter_map(|link| link.from) {
            waits[place] += 1;
            leads[from].push(place);
        }
    }
    let ready = (0..nodes.len()).filter(|place| waits[*place] == 0);
    let mut order: Vec<usize> = ready.collect();
    let mut done = 0;
    while let Some(&place) = order.get(done) {
        done += 1;
        for &next in &leads[place] {
            waits[next] -= 1;
            if waits[next] == 0 {
                order.push(next);
            }
        }
    }
    order
}

/// A text, so that it cannot be taken for the end of the one before.
pub(crate) fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

/// As much of a hash as tells things apart that nobody makes alike on purpose.
fn first(hash: Sha256) -> u64 {
    let whole = hash.finalize();
    whole
        .iter()
        .take(8)
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}

impl Display for Shape {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(prompt: &str) -> Shape {
        let prompt = Json::read(prompt.as_bytes()).unwrap();
        Workflow::of(prompt.object().unwrap()).shape()
    }

    const TWO: &str = r#"{
        "1": {"class_type": "Load", "inputs": {"name": "a"}},
        "2": {"class_type": "Mix", "inputs": {"a": ["1", 0], "b": ["1", 1], "seed": 1}},
        "3": {"class_type": "Save", "inputs": {"images": ["2", 0], "prefix": "x"}}
    }"#;

    #[test]
    fn names_orders_and_values_are_no_part_of_a_shape() {
        let renamed = r#"{
            "s:3": {"inputs": {"prefix": "other", "images": ["m", 0.0]}, "class_type": "Save", "_meta": {"title": "t"}},
            "m": {"class_type": "Mix", "inputs": {"seed": 2, "more": true, "b": ["7", 1], "a": ["7", 0]}},
            "7": {"class_type": "Load", "inputs": {}}
        }"#;
        assert_eq!(shape(TWO), shape(renamed));
        assert_eq!(shape(TWO).to_string().len(), 16);
    }

    #[test]
    fn a_shape_means_the_same_in_every_build() {
        assert_eq!(shape(TWO).to_string(), "c28f52682985dc10");
    }

    #[test]
    fn classes_and_links_are_what_a_shape_is() {
        for (what, by) in [
            (r#""Mix""#, r#""Mix2""#),
            (r#""a": ["1", 0]"#, r#""a": ["1", 1]"#),
            (r#""a": ["1", 0]"#, r#""c": ["1", 0]"#),
            (r#""a": ["1", 0]"#, r#""a": ["9", 0]"#),
            (r#""a": ["1", 0]"#, r#""a": 1"#),
            // The same classes, one loaded twice.
            (
                r#""2": {"#,
                r#""4": {"class_type": "Load", "inputs": {}}, "2": {"#,
            ),
        ] {
            assert!(TWO.contains(what));
            assert_ne!(shape(TWO), shape(&TWO.replacen(what, by, 1)), "{by}");
        }
    }

    #[test]
    fn cycles_and_endless_chains_are_survived() {
        let cycle = r#"{"1": {"class_type": "A", "inputs": {"a": ["2", 0]}}, "2": {"class_type": "B", "inputs": {"a": ["1", 0]}}, "3": {"class_type": "C", "inputs": {"a": ["3", 0]}}}"#;
        let renamed = r#"{"y": {"class_type": "C", "inputs": {"a": ["y", 0]}}, "b": {"class_type": "B", "inputs": {"a": ["x", 0]}}, "x": {"class_type": "A", "inputs": {"a": ["b", 0]}}}"#;
        assert_eq!(shape(cycle), shape(renamed));
        let chain = (0..30_000).map(|i| {
            format!(
                r#""{i}": {{"class_type": "A", "inputs": {{"a": ["{}", 0]}}}}"#,
                i + 1
            )
        });
        let chain = format!("{{{}}}", chain.collect::<Vec<_>>().join(","));
        assert_ne!(shape(&chain), shape(cycle));
    }

    #[test]
    fn what_is_no_node_is_left_out() {
        for odd in [
            r#"3"#,
            r#"{}"#,
            r#"{"class_type": 3, "inputs": {}}"#,
            r#"{"class_type": "A"}"#,
            r#"{"class_type": "A", "inputs": []}"#,
        ] {
            let more = TWO.replacen('{', &format!(r#"{{"odd": {odd},"#), 1);
            assert_eq!(shape(&more), shape(TWO), "{odd}");
        }
    }
}
