//! What is wrong with a prompt, in ComfyUI's own words, before any node is asked: clients show them at the nodes concerned.
//!
//! A prompt is held against what all nodes can do together. From each output back through its inputs; outputs that are right
//! are executed, even where others are not. What a class says itself of its inputs (`VALIDATE_INPUTS`) only a node knows, but
//! for the few that look for a file. So a prompt that is let through may still be refused by the node that it goes to.

use crate::json::{Json, Object, object};
use crate::names::Names;
use crate::needs::{FilePath, has};
use crate::object_info::{Class, Input, ObjectInfo};
use crate::python;
use crate::submission::Submission;
use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

/// What a prompt is held against.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// What all nodes can do.
    pub info: &'a ObjectInfo,
    /// Names that mean the same file.
    pub names: &'a Names,
    /// In whose words it is told.
    pub dialect: Dialect,
    /// Whether a file is there, or may be.
    pub has_file: &'a dyn Fn(FilePath<'_>) -> bool,
}

/// Servers tell some things in other words since 2026.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Up to 2025: 0.3.
    Early,
    /// Since 2026: unknown classes and cycles have errors of their own, ids are UUIDs.
    Late,
}

/// A prompt that can be executed, at least in part.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// The outputs that are executed.
    pub outputs: Vec<String>,
    /// What is wrong with the others: it is told although the prompt is taken.
    pub node_errors: Object,
}

/// A prompt that cannot be executed.
#[derive(Clone, Debug, PartialEq)]
pub enum Invalid {
    /// 400, and why.
    Told(Box<Told>),
    /// What a server does not expect: 500.
    Unexpected,
}

/// Why a prompt is refused; shown, it is the answer's body.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What is wrong with the whole.
    pub error: Json,
    /// What is wrong with its nodes.
    pub node_errors: Object,
}

/// An exception on the way, in Python.
#[derive(Debug)]
struct Raised {
    kind: &'static str,
    text: String,
}

/// Classes that look for their file themselves: class, input, and what kind of file they call it.
const FILES: [(&str, &str, &str); 6] = [
    ("LoadImage", "image", "image"),
    ("LoadImageMask", "image", "image"),
    ("LoadImageOutput", "image", "image"),
    ("LoadAudio", "audio", "audio"),
    ("LoadVideo", "file", "video"),
    ("LoadLatent", "latent", "latent"),
];

/// Of lists that are longer, only the length is told.
const LONG: usize = 20;

/// An answer names each output at each wrong node, up to so often in all.
const MOST_BLAMED: usize = 100_000;

/// Looks at what was submitted.
pub fn check(submission: &Submission, rules: Rules<'_>) -> Result<Valid, Invalid> {
    let body = submission.body();
    if submission
        .number()
        .is_some_and(|number| python::convert("FLOAT", number).is_err())
    {
        return Err(Invalid::Unexpected);
    }
    let prompt = body.get("prompt").ok_or_else(|| {
        let told = "No prompt provided";
        Told::new(problem("no_prompt", told, told, object! {}))
    })?;
    if rules.dialect == Dialect::Late
        && submission
            .prompt_id()
            .is_some_and(|id| !id.text().is_some_and(is_canonical_uuid))
    {
        let message = "prompt_id must be a valid UUID";
        let details = "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one";
        return Err(Told::new(problem("invalid_prompt_id", message, details, object! {})).into());
    }
    match prompt {
        Json::Object(prompt) => validate(prompt, submission.targets(), rules),
        Json::List(nothing) if nothing.is_empty() => validate(&Object::new(), None, rules),
        _ => Err(Invalid::Unexpected),
    }
}

/// Looks at a prompt. `targets`: the only outputs that are wanted.
pub fn validate(
    prompt: &Object,
    targets: Option<&Json>,
    rules: Rules<'_>,
) -> Result<Valid, Invalid> {
    let outputs = outputs_of(prompt, targets, rules)?;
    let mut validation = Validation {
        rules,
        prompt,
        seen: Seen::new(),
        blamed: 0,
    };
    let (mut good, mut told, mut node_errors) = (Vec::new(), Vec::new(), Object::new());
    for output in outputs {
        let is_valid = validation.output(output).unwrap_or_else(|raised| {
            let extra =
                object! {"exception_type": raised.kind, "traceback": Json::List(Vec::new())};
            let message = "Exception when validating node";
            let reason = problem("exception_during_validation", message, &raised.text, extra);
            validation.note(output, (false, vec![reason]));
            false
        });
        if is_valid {
            good.push(output.to_owned());
            continue;
        }
        let reasons = validation
            .seen
            .get(output)
            .into_iter()
            .flat_map(|(_, reasons)| reasons);
        told.extend(reasons.map(|reason| {
            let text = |key| reason.get(key).map(python::str).unwrap_or_default();
            format!("{}: {}", text("message"), text("details"))
        }));
        validation.blame(output, &mut node_errors);
    }
    if good.is_empty() {
        let message = "Prompt outputs failed validation";
        let error = problem(
            "prompt_outputs_failed_validation",
            message,
            &told.join("\n"),
            object! {},
        );
        return Err(Invalid::Told(Box::new(Told { error, node_errors })));
    }
    Ok(Valid {
        outputs: good,
        node_errors,
    })
}

/// A problem, as all of them are told.
pub(crate) fn problem(kind: &str, message: &str, details: &str, extra_info: Json) -> Json {
    object! {"type": kind, "message": message, "details": details, "extra_info": extra_info}
}

fn outputs_of<'p>(
    prompt: &'p Object,
    targets: Option<&Json>,
    rules: Rules<'_>,
) -> Result<Vec<&'p str>, Invalid> {
    let mut outputs = Vec::new();
    for (id, node) in prompt {
        let node = node.object().ok_or(Invalid::Unexpected)?;
        let Some(class) = class_of(prompt, id, rules.info) else {
            let title = node.get("_meta").and_then(|meta| meta.get("title"));
            return Err(Told::new(unknown_class(
                id,
                node.get("class_type"),
                title,
                rules.dialect,
            ))
            .into());
        };
        let is_wanted = match targets {
            Some(targets) => {
                let targets = targets.list().ok_or(Invalid::Unexpected)?;
                targets.iter().any(|target| target.text() == Some(id))
            }
            None => true,
        };
        if class.is_output() && is_wanted {
            outputs.push(id.as_str());
        }
    }
    if outputs.is_empty() {
        let error = problem("prompt_no_outputs", "Prompt has no outputs", "", object! {});
        return Err(Told::new(error).into());
    }
    Ok(outputs)
}

fn class_of<'a>(prompt: &Object, node: &str, info: &'a ObjectInfo) -> Option<Class<'a>> {
    info.class(prompt.get(node)?.get("class_type")?.text()?)
}

fn unknown_class(
    id: &str,
    class_type: Option<&Json>,
    title: Option<&Json>,
    dialect: Dialect,
) -> Json {
    let class = class_type.map(python::str);
    let details = format!("Node ID '#{id}'");
    if dialect == Dialect::Early {
        let message = match class {
            Some(class) => format!("Cannot execute because node {class} does not exist."),
            None => "Cannot execute because a node is missing the class_type property.".to_owned(),
        };
        return problem("invalid_prompt", &message, &details, object! {});
    }
    let message = match class {
        Some(class) => {
            let title = title.map_or(class, python::str);
            format!("Node '{title}' not found. The custom node may not be installed.")
        }
        None => {
            let title = title.map_or(format!("ID #{id}"), python::str);
            format!(
                "Node '{title}' has no class_type. The workflow may be corrupted or a custom node is missing."
            )
        }
    };
    let title = title.or(class_type).cloned();
    let extra = object! {"node_id": id, "class_type": class_type.cloned(), "node_title": title};
    problem("missing_node_type", &message, &details, extra)
}

fn is_canonical_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(is_digit)
}

// === node by node ===

/// Whether nodes are right, and what is wrong with them themselves; in the order in which they were done.
type Seen = indexmap::IndexMap<String, (bool, Vec<Json>)>;

struct Validation<'a> {
    rules: Rules<'a>,
    prompt: &'a Object,
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

/// What comes of an input.
enum Looked<'a> {
    Right,
    Wrong(Json),
    /// It depends on another node.
    Link(&'a str),
}

impl<'a> Validation<'a> {
    /// Looks at an output, and at all that it is made from. Not by recursion: a prompt may be as deep as it is long.
    fn output(&mut self, output: &'a str) -> Result<bool, Raised> {
        if let Some((is_valid, _)) = self.seen.get(output) {
            return Ok(*is_valid);
        }
        let mut way = vec![self.begin(output)?];
        let mut places = HashMap::from([(output, 0)]);
        loop {
            let top = way.len() - 1;
            let next = match self.advance(&mut way[top]) {
                Ok(None) => {
                    let Some(step) = way.pop() else {
                        return Ok(true);
                    };
                    places.remove(step.id);
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
                    places.remove(step.id);
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
        let class =
            class_of(self.prompt, id, self.rules.info).ok_or_else(|| Raised::key(&id.into()))?;
        if self.inputs(id).is_none() {
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

    fn inputs(&self, id: &str) -> Option<&'a Json> {
        self.prompt.get(id)?.get("inputs")
    }

    /// Looks at inputs until one depends on another node, whose name is given.
    fn advance(&self, step: &mut Step<'a>) -> Result<Option<&'a str>, Raised> {
        while let Some(input) = step.inputs.get(step.done) {
            match self.input(step, *input)? {
                Looked::Link(from) => return Ok(Some(from)),
                Looked::Wrong(error) => step.errors.push(error),
                Looked::Right => {}
            }
            step.done += 1;
        }
        step.errors.extend(self.file(step)?);
        Ok(None)
    }

    fn input(&self, step: &Step<'a>, input: Input<'a>) -> Result<Looked<'a>, Raised> {
        let value = self
            .inputs(step.id)
            .and_then(|inputs| inputs.get(input.name));
        Ok(match value {
            None if input.is_required => {
                let message = "Required input is missing";
                Looked::Wrong(of_input(
                    input,
                    "required_input_missing",
                    message,
                    input.name,
                    object! {},
                ))
            }
            None => Looked::Right,
            Some(Json::List(link)) => self.link(input, link)?,
            Some(value) => match self.value(self.checks(step.id), input, value) {
                Ok(()) => Looked::Right,
                Err(error) => Looked::Wrong(error),
            },
        })
    }

    /// The input that a node's class looks at itself.
    fn checks(&self, id: &str) -> Option<(&'static str, &'static str)> {
        let class = self.prompt.get(id)?.get("class_type")?.text()?;
        let mut known = FILES.into_iter().filter(|(of, ..)| *of == class);
        known.next().map(|(_, input, what)| (input, what))
    }

    fn link(&self, input: Input<'a>, link: &'a [Json]) -> Result<Looked<'a>, Raised> {
        let whole = || Json::List(link.to_vec());
        let [from, slot] = link else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let more = object! {"input_config": input.config(), "received_value": whole()};
            return Ok(Looked::Wrong(of_input(
                input,
                "bad_linked_input",
                message,
                input.name,
                more,
            )));
        };
        let source = from
            .text()
            .and_then(|from| class_of(self.prompt, from, self.rules.info));
        let (Some(from), Some(source)) = (from.text(), source) else {
            return Err(Raised::key(from));
        };
        let given = output(source.outputs(), slot)?;
        if fits(given, input.kind()) {
            return Ok(Looked::Link(from));
        }
        let (name, kind) = (input.name, python::str(input.kind()));
        let details = format!(
            "{name}, received_type({}) mismatch input_type({kind})",
            python::str(given)
        );
        let more = object! {"input_config": input.config(), "received_type": given.clone(), "linked_node": whole()};
        let message = "Return type mismatch between linked nodes";
        Ok(Looked::Wrong(of_input(
            input,
            "return_type_mismatch",
            message,
            &details,
            more,
        )))
    }

    fn value(
        &self,
        checks: Option<(&str, &str)>,
        input: Input<'_>,
        value: &Json,
    ) -> Result<(), Json> {
        let value = value.get("__value__").unwrap_or(value);
        let kind = input.type_name();
        let value = python::convert(kind, value).map_err(|why| {
            let message = format!("Failed to convert an input value to a {kind} value");
            let details = format!("{}, {}, {why}", input.name, python::str(value));
            let more = object! {"input_config": input.config(), "received_value": value.clone(), "exception_message": why};
            of_input(input, "invalid_input_type", &message, &details, more)
        })?;
        if checks.is_some_and(|(name, _)| name == input.name) || input.is_upload() {
            return Ok(());
        }
        let limit = |key| input.more(key).unwrap_or(&Json::Null);
        let (min, max) = (limit("min"), limit("max"));
        let too = [
            (
                python::is_less(&value, min),
                min,
                "value_smaller_than_min",
                "smaller than min",
            ),
            (
                python::is_less(max, &value),
                max,
                "value_bigger_than_max",
                "bigger than max",
            ),
        ];
        if let Some((_, limit, kind, word)) = too.into_iter().find(|(is, ..)| *is == Some(true)) {
            let message = format!(
                "Value {} {word} of {}",
                python::str(&value),
                python::str(limit)
            );
            let more = object! {"input_config": input.config(), "received_value": value};
            return Err(of_input(input, kind, &message, input.name, more));
        }
        match input.options() {
            // Several at once: how they are looked at is the class's own.
            Some(options) if value.list().is_none() && !has(options, &value, self.rules.names) => {
                Err(not_in_list(input, value, options))
            }
            _ => Ok(()),
        }
    }

    /// What a class says itself of the file that it is to load.
    fn file(&self, step: &Step<'a>) -> Result<Option<Json>, Raised> {
        let Some((input, what)) = self
            .checks(step.id)
            .filter(|(input, _)| step.class.input(input).is_some())
        else {
            return Ok(None);
        };
        let text = match self.inputs(step.id).and_then(|inputs| inputs.get(input)) {
            Some(Json::Text(text)) => text,
            None | Some(Json::List(_)) => {
                let class = self.prompt[step.id]
                    .get("class_type")
                    .map(python::str)
                    .unwrap_or_default();
                // One of them has its check from another.
                let class = class.trim_end_matches("Output");
                let text = format!(
                    "{class}.VALIDATE_INPUTS() missing 1 required positional argument: '{input}'"
                );
                return Err(Raised {
                    kind: "TypeError",
                    text,
                });
            }
            Some(other) => {
                let text = format!(
                    "'{}' object has no attribute 'endswith'",
                    python::type_name(other)
                );
                return Err(Raised {
                    kind: "AttributeError",
                    text,
                });
            }
        };
        let is_missing = !(self.rules.has_file)(FilePath::of(text));
        Ok(is_missing.then(|| {
            let details = format!("{input} - Invalid {what} file: {text}");
            let message = "Custom validation failed for node";
            problem(
                "custom_validation_failed",
                message,
                &details,
                object! {"input_name": input},
            )
        }))
    }

    /// What is told of an input whose other node could not be looked at.
    fn inner(&self, step: &Step<'_>, raised: &Raised) -> Json {
        let Some(input) = step.inputs.get(step.done) else {
            return Json::Null;
        };
        let link = self
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
        if self.rules.dialect == Dialect::Early {
            return;
        }
        let nodes: Vec<&str> = way.iter().map(|step| step.id).collect();
        let told = nodes.iter().chain(nodes.first()).map(|node| {
            let class = self.prompt[*node].get("class_type").map(python::str);
            format!("{node} ({})", class.unwrap_or_default())
        });
        let told = told.collect::<Vec<_>>().join(" -> ");
        for node in &nodes {
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

    fn note(&mut self, id: &str, of: (bool, Vec<Json>)) {
        self.seen.insert(id.to_owned(), of);
    }

    /// Says of an output that it is not executed, at every node so far that something is wrong with.
    fn blame(&mut self, output: &str, node_errors: &mut Object) {
        for (id, (_, reasons)) in self
            .seen
            .iter()
            .filter(|(_, (valid, reasons))| !valid && !reasons.is_empty())
        {
            let entry = node_errors.entry(id.clone()).or_insert_with(|| {
                let class = self.prompt.get(id).and_then(|node| node.get("class_type"));
                object! {"errors": reasons.clone(), "dependent_outputs": Json::List(Vec::new()), "class_type": class.cloned()}
            });
            if let Json::Object(entry) = entry
                && let Some(Json::List(outputs)) = entry.get_mut("dependent_outputs")
                && self.blamed < MOST_BLAMED
            {
                outputs.push(output.into());
                self.blamed += 1;
            }
        }
    }
}

/// A problem with an input.
fn of_input(input: Input<'_>, kind: &str, message: &str, details: &str, more: Json) -> Json {
    let mut extra = Object::from_iter([("input_name".to_owned(), input.name.into())]);
    if let Json::Object(more) = more {
        extra.extend(more);
    }
    problem(kind, message, details, extra.into())
}

fn not_in_list(input: Input<'_>, value: Json, options: &[Json]) -> Json {
    let is_long = options.len() > LONG;
    let list = if is_long {
        format!("(list of length {})", options.len())
    } else {
        python::str(&Json::List(options.to_vec()))
    };
    let details = format!("{}: '{}' not in {list}", input.name, python::str(&value));
    let config = (!is_long).then(|| input.config());
    let more = object! {"input_config": config, "received_value": value};
    of_input(
        input,
        "value_not_in_list",
        "Value not in list",
        &details,
        more,
    )
}

/// `outputs[slot]`, as Python has it: the last one is -1.
fn output<'a>(outputs: &'a [Json], slot: &Json) -> Result<&'a Json, Raised> {
    let slot = match slot {
        Json::Bool(is) => i128::from(*is),
        Json::Number(slot) if !slot.is_float() => slot.integer().unwrap_or(i128::MAX),
        other => {
            let kind = python::type_name(other);
            let text = format!("tuple indices must be integers or slices, not {kind}");
            return Err(Raised {
                kind: "TypeError",
                text,
            });
        }
    };
    let slot = if slot < 0 {
        slot + outputs.len() as i128
    } else {
        slot
    };
    let given = usize::try_from(slot)
        .ok()
        .and_then(|slot| outputs.get(slot));
    given.ok_or_else(|| Raised {
        kind: "IndexError",
        text: "tuple index out of range".into(),
    })
}

/// Whether what one node gives can be taken where another wants it: one of the types of each has to be the same.
fn fits(given: &Json, wanted: &Json) -> bool {
    // Lists of options are types, too; which options is asked of the value.
    let any = |kind: &Json| matches!(kind.text(), Some("*" | "COMFY_MATCHTYPE_V3"));
    if given == wanted || any(given) || any(wanted) {
        return true;
    }
    match (given, wanted) {
        (Json::List(_), Json::List(_)) => true,
        (Json::List(_), Json::Text(wanted)) => wanted == "COMBO",
        (Json::Text(given), Json::Text(wanted)) => {
            let given = || given.split(',').map(str::trim);
            let mut wanted = wanted.split(',').map(str::trim);
            wanted
                .any(|wanted| wanted == "*" || given().any(|given| given == wanted || given == "*"))
        }
        _ => false,
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

// === impl Raised ===

impl Raised {
    fn key(key: &Json) -> Self {
        Raised {
            kind: "KeyError",
            text: python::repr(key),
        }
    }
}

// === impl Told ===

impl Told {
    pub(crate) fn new(error: Json) -> Self {
        Told {
            error,
            node_errors: Object::new(),
        }
    }
}

impl From<Told> for Invalid {
    fn from(told: Told) -> Self {
        Invalid::Told(Box::new(told))
    }
}

impl Display for Told {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (error, node_errors) = (self.error.clone(), self.node_errors.clone());
        write!(
            out,
            "{}",
            object! {"error": error, "node_errors": node_errors}
        )
    }
}
