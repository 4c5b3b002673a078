//! From an output back to all that it is made from, node by node.

use super::input::{Looked, Prompt, Raised, of_input};
use super::{Dialect, problem};
use crate::json::{Json, Object, object};
use crate::object_info::{Class, Input};
use crate::python;
use indexmap::IndexMap;
use std::collections::HashMap;

/// An answer names each output at each wrong node, which grows with the square of a prompt: no more once it is this much.
const MOST_BLAMED: usize = 100_000;

/// Each node of a cycle tells all of it, up to so many; of a longer one only the first does.
const MOST_IN_CYCLE: usize = 64;

/// Whether nodes are right, and what is wrong with them themselves; in the order in which they were done.
type Seen = IndexMap<String, (bool, Vec<Json>)>;

pub(super) struct Validation<'a> {
    prompt: Prompt<'a>,
    seen: Seen,
    blamed: usize,
}

/// A node that is looked at, on the way from an output.
struct Step<'a> {
    id: &'a str,
    class: Class<'a>,
    inputs: Vec<Input<'a>>,
    /// How many of them are done.
    done: usize,
    is_valid: bool,
    errors: Vec<Json>,
}

// === impl Validation ===

impl<'a> Validation<'a> {
    pub(super) fn of(prompt: Prompt<'a>) -> Self {
        Validation {
            prompt,
            seen: Seen::new(),
            blamed: 0,
        }
    }

    /// What is wrong with a node itself.
    pub(super) fn reasons(&self, id: &str) -> &[Json] {
        self.seen.get(id).map_or(&[], |(_, reasons)| reasons)
    }

    /// Looks at an output, and at all that it is made from. Not by recursion: a prompt may be as deep as it is long.
    pub(super) fn output(&mut self, output: &'a str) -> Result<bool, Raised> {
        if let Some((is_valid, _)) = self.seen.get(output) {
            return Ok(*is_valid);
        }
        let mut way = vec![self.begin(output)?];
        // Where each node is on the way. Those that are done are in `seen`, which is asked first.
        let mut places = HashMap::from([(output, 0)]);
        loop {
            let top = way.len() - 1;
            let next = match self.advance(&mut way[top]) {
                Ok(None) => {
                    let Some(step) = way.pop() else {
                        return Ok(true);
                    };
                    let is_valid = self.finish(step.id, step.is_valid, step.errors);
                    let Some(before) = way.last_mut() else {
                        return Ok(is_valid);
                    };
                    before.passed(is_valid);
                    continue;
                }
                Ok(Some(from)) => match (self.seen.get(from), places.get(from)) {
                    (Some((is_valid, _)), _) => {
                        way[top].passed(*is_valid);
                        continue;
                    }
                    (None, Some(start)) => {
                        self.cycle(&way[*start..]);
                        way[top].passed(false);
                        continue;
                    }
                    (None, None) => self.begin(from).map_err(|raised| (from, raised)),
                },
                Err(raised) => {
                    let Some(step) = way.pop() else {
                        return Err(raised);
                    };
                    Err((step.id, raised))
                }
            };
            match (next, way.last_mut()) {
                (Ok(step), _) => {
                    places.insert(step.id, way.len());
                    way.push(step);
                }
                (Err((_, raised)), None) => return Err(raised),
                (Err((from, raised)), Some(before)) => {
                    let reason = self.inner(before, &raised);
                    before.passed(false);
                    self.note(from, (false, vec![reason]));
                }
            }
        }
    }

    fn begin(&self, id: &'a str) -> Result<Step<'a>, Raised> {
        let class = self
            .prompt
            .class(id)
            .ok_or_else(|| Raised::key(&id.into()))?;
        if self.prompt.inputs(id).is_none() {
            return Err(Raised::key(&"inputs".into()));
        }
        let inputs = class.inputs().collect();
        Ok(Step {
            id,
            class,
            inputs,
            done: 0,
            is_valid: true,
            errors: Vec::new(),
        })
    }

    /// Looks at inputs until one depends on another node, whose name is given.
    fn advance(&self, step: &mut Step<'a>) -> Result<Option<&'a str>, Raised> {
        while let Some(input) = step.inputs.get(step.done) {
            match self.prompt.look(step.id, *input)? {
                Looked::Link(from) => return Ok(Some(from)),
                Looked::Wrong(error) => step.errors.push(error),
                Looked::Right => {}
            }
            step.done += 1;
        }
        step.errors.extend(self.prompt.file(step.id, step.class)?);
        Ok(None)
    }

    /// What is told of an input whose other node could not be looked at.
    fn inner(&self, step: &Step<'_>, raised: &Raised) -> Json {
        let Some(input) = step.inputs.get(step.done) else {
            return Json::Null;
        };
        let link = self
            .prompt
            .inputs(step.id)
            .and_then(|inputs| inputs.get(input.name));
        let more = object! {
            "input_config": input.config(),
            "exception_message": raised.text.as_str(),
            "exception_type": raised.kind,
            "traceback": Json::List(Vec::new()),
            "linked_node": link.cloned(),
        };
        let message = "Exception when validating inner node";
        of_input(
            *input,
            "exception_during_inner_validation",
            message,
            &raised.text,
            more,
        )
    }

    /// Early servers recurse until Python stops them, and then forget why.
    fn cycle(&mut self, way: &[Step<'a>]) {
        if self.prompt.rules.dialect == Dialect::Early {
            return;
        }
        let nodes: Vec<&str> = way.iter().map(|step| step.id).collect();
        let told = nodes.iter().chain(nodes.first()).map(|node| {
            let class = self.prompt.class_type(node).map(python::str);
            format!("{node} ({})", class.unwrap_or_default())
        });
        let told = told.collect::<Vec<_>>().join(" -> ");
        let of_all = nodes.len() <= MOST_IN_CYCLE;
        for node in nodes.iter().take(if of_all { nodes.len() } else { 1 }) {
            let extra = object! {"node_id": *node, "cycle_nodes": nodes.clone()};
            let reason = problem(
                "dependency_cycle",
                "Dependency cycle detected",
                &told,
                extra,
            );
            self.note(node, (false, vec![reason]));
        }
    }

    /// A node is done, after what was said of it on the way.
    fn finish(&mut self, id: &str, is_valid: bool, errors: Vec<Json>) -> bool {
        let (before, mut reasons) = self.seen.shift_remove(id).unwrap_or((true, Vec::new()));
        let is_valid = before && is_valid && errors.is_empty();
        reasons.extend(errors);
        self.note(id, (is_valid, reasons));
        is_valid
    }

    pub(super) fn note(&mut self, id: &str, of: (bool, Vec<Json>)) {
        self.seen.insert(id.to_owned(), of);
    }

    /// Says of an output that it is not executed, at every node so far that something is wrong with.
    pub(super) fn blame(&mut self, output: &str, node_errors: &mut Object) {
        if self.blamed >= MOST_BLAMED {
            return;
        }
        for (id, (_, reasons)) in self
            .seen
            .iter()
            .filter(|(_, (valid, reasons))| !valid && !reasons.is_empty())
        {
            let entry = node_errors.entry(id.clone()).or_insert_with(|| {
                let class = self.prompt.class_type(id);
                object! {"errors": reasons.clone(), "dependent_outputs": Json::List(Vec::new()), "class_type": class.cloned()}
            });
            if let Json::Object(entry) = entry
                && let Some(Json::List(outputs)) = entry.get_mut("dependent_outputs")
            {
                outputs.push(output.into());
                self.blamed += 1;
            }
        }
    }
}

// === impl Step ===

impl Step<'_> {
    /// The node that an input depends on was looked at.
    fn passed(&mut self, is_valid: bool) {
        self.is_valid &= is_valid;
        self.done += 1;
    }
}
