//! What placing a prompt takes to know: what it is like, which models it loads, how much work it is, and what an endpoint lacks
//! for it.

use crate::json::{Json, Object};
use crate::names::Names;
use crate::needs::{FilePath, Lack, Needs};
use crate::object_info::ObjectInfo;
use crate::python;
use crate::signature::{Signature, sign};
use crate::workflow::Workflow;
use sha2::{Digest, Sha256};

/// A prompt as the schedule sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Prompts of one shape take alike long.
    pub class: String,
    /// The models it loads, the same for all prompts that load the same.
    pub model: Option<String>,
    /// Steps times megapixels, where it says so; else 1.
    pub size: f64,
    /// What of it a node may have computed before.
    pub signatures: Vec<Signature>,
}

/// Longer lists of models are told by their hash.
const LONGEST: usize = 160;

// === impl Facts ===

impl Facts {
    /// Of a prompt. `holds` says what a file holds, by its hash or whatever else changes with it.
    pub fn of(
        prompt: &Object,
        info: &ObjectInfo,
        holds: &dyn Fn(FilePath<'_>) -> Option<String>,
    ) -> Self {
        let workflow = Workflow::of(prompt);
        let needs = Needs::of(&workflow, info);
        let signatures = sign(&workflow, |node| {
            let is_own = info.class(node.class).is_some_and(|c| c.knows_its_node());
            let files = needs.files.iter().filter(|file| file.of.id == node.id);
            let mut more: Vec<String> = files.filter_map(|file| holds(file.path)).collect();
            more.extend(is_own.then(|| node.id.to_owned()));
            (!more.is_empty()).then(|| more.join("\n"))
        });
        Facts {
            class: workflow.shape().to_string(),
            model: model(&needs),
            size: size(&workflow),
            signatures,
        }
    }
}

/// The models, in an order of their own: a workflow that names them in another one loads the same.
fn model(needs: &Needs<'_>) -> Option<String> {
    let mut models: Vec<String> = needs
        .models()
        .filter_map(|choice| choice.value.text())
        .map(|name| crate::names::portable(name).into_owned())
        .collect();
    models.sort_unstable();
    models.dedup();
    if models.is_empty() {
        return None;
    }
    let all = models.join(" + ");
    if all.len() <= LONGEST {
        return Some(all);
    }
    let hash = Sha256::digest(&all);
    let hash: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let first = &models[0][..models[0].floor_char_boundary(LONGEST / 2)];
    Some(format!("{first} + {} more ({hash})", models.len() - 1))
}

/// Steps times megapixels. What is led in from another node counts as nothing said.
fn size(workflow: &Workflow<'_>) -> f64 {
    let number = |node: &crate::workflow::Node<'_>, name: &str| {
        let mut values = node.values.iter();
        let value = values.find_map(|(key, value)| (*key == name).then_some(value.number()?))?;
        Some(value.value()).filter(|value| value.is_finite() && *value > 0.0)
    };
    let nodes = workflow.nodes().iter();
    let steps: f64 = nodes.clone().filter_map(|node| number(node, "steps")).sum();
    let pixels = nodes.filter_map(|node| {
        let area = number(node, "width")? * number(node, "height")?;
        let many = number(node, "batch_size").unwrap_or(1.0);
        let long = number(node, "length").unwrap_or(1.0);
        Some(area * many * long)
    });
    let pixels: f64 = pixels.sum();
    match (steps > 0.0, pixels > 0.0) {
        (true, true) => steps * pixels / 1e6,
        (true, false) => steps,
        (false, true) => pixels / 1e6,
        (false, false) => 1.0,
    }
}

/// What a node lacks for a prompt, as what follows on "it"; `None`: nothing. `is_kept` says whether a file is kept by the
/// gateway, which can bring it there.
pub fn lacks(
    prompt: &Object,
    merged: &ObjectInfo,
    own: &ObjectInfo,
    names: &Names,
    is_kept: &dyn Fn(FilePath<'_>) -> bool,
) -> Option<String> {
    let workflow = Workflow::of(prompt);
    let needs = Needs::of(&workflow, merged);
    let lacks = needs.lacks(own, names);
    let told = lacks.iter().map(|lack| match lack {
        Lack::Class(of) => format!("the node type {}", of.class),
        Lack::Choice(choice) => format!("{} {}", choice.input, python::repr(choice.value)),
    });
    let files = needs.files.iter().filter(|file| {
        let input = own.class(file.of.class);
        let input = input.and_then(|class| class.input(file.input));
        let options = input.and_then(|input| input.options());
        // Where no list says what is there, the node says so itself.
        let there = options.is_none_or(|options| {
            let path = written(file.path);
            options.iter().filter_map(Json::text).any(|o| o == path)
        });
        !there && !is_kept(file.path)
    });
    let files = files.map(|file| format!("the file {}", written(file.path)));
    let mut all: Vec<String> = told.chain(files).collect();
    all.dedup();
    (!all.is_empty()).then(|| format!("lacks {}", all.join(", ")))
}

/// A path as lists of files have it.
fn written(path: FilePath<'_>) -> String {
    match path.subfolder {
        "" => path.name.to_owned(),
        folder => format!("{folder}/{}", path.name),
    }
}
