//! What is wrong with a prompt, in ComfyUI's own words, before any node is asked: clients show them at the nodes concerned.
//!
//! A prompt is held against what all nodes can do together. From each output back through its inputs; outputs that are right
//! are executed, even where others are not. What a class says itself of its inputs (`VALIDATE_INPUTS`) only a node knows, but
//! for the few that look for a file. So a prompt that is let through may still be refused by the node that it goes to.

mod input;
mod nowhere;
#[cfg(test)]
mod tests;
mod way;

pub use nowhere::nowhere;

use crate::json::{Json, Object, object};
use crate::names::Names;
use crate::needs::FilePath;
use crate::object_info::ObjectInfo;
use crate::python;
use crate::submission::Submission;
use input::Prompt;
use std::fmt::{self, Display, Formatter};
use way::Validation;

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

/// More than anybody draws. What is told can grow with the square of it.
const MOST_NODES: usize = 10_000;

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
    if prompt.len() > MOST_NODES {
        let message = "Cannot execute because there are too many nodes.";
        let details = format!("{} nodes, of at most {MOST_NODES}", prompt.len());
        return Err(Told::new(problem("invalid_prompt", message, &details, object! {})).into());
    }
    let outputs = outputs_of(prompt, targets, rules)?;
    let mut validation = Validation::of(Prompt {
        nodes: prompt,
        rules,
    });
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
        let reasons = validation.reasons(output).iter();
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
    let nodes = Prompt {
        nodes: prompt,
        rules,
    };
    for (id, node) in prompt {
        let node = node.object().ok_or(Invalid::Unexpected)?;
        let Some(class) = nodes.class(id) else {
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
