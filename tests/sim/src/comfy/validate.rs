//! What is wrong with a prompt, in the words of the real server. From each output node back through its inputs; outputs that
//! are right are executed, even where others are not.

use super::disk::Disk;
use super::json::{Json, Object, object};
use super::library::{Input, Library};
use super::order::class_of;
use super::spec::Spec;
use indexmap::IndexMap;
use serde_json::Number;

/// What a prompt is held against.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) library: &'a Library,
    pub(crate) spec: &'a Spec,
    pub(crate) disk: &'a Disk,
}

/// A prompt that can be executed, at least in part.
pub(crate) struct Valid {
    pub(crate) outputs: Vec<String>,
    pub(crate) node_errors: Object,
}

pub(crate) enum Invalid {
    /// It is told so.
    Told(Box<Told>),
    /// The server did not expect it, and answers 500.
    Unexpected,
}

pub(crate) struct Told {
    pub(crate) error: Json,
    pub(crate) node_errors: Object,
}

/// An exception on the way.
struct Raised {
    kind: &'static str,
    text: String,
}

struct Validation<'a> {
    rules: Rules<'a>,
    prompt: &'a mut Object,
    /// Nodes that were looked at, whether they are right, and what is wrong with them themselves.
    seen: IndexMap<String, (bool, Vec<Json>)>,
    /// From an output to the node that is looked at.
    way: Vec<String>,
}

/// Looks at a prompt, and turns its values into the types that they are to have.
pub(crate) fn validate(
    prompt: &mut Object,
    targets: Option<&Json>,
    rules: Rules<'_>,
) -> Result<Valid, Invalid> {
    let outputs = outputs_of(prompt, targets, rules)?;
    let mut validation = Validation {
        rules,
        prompt,
        seen: IndexMap::new(),
        way: Vec::new(),
    };
    let mut good = Vec::new();
    let mut told = Vec::new();
    let mut node_errors = Object::new();
    for output in outputs {
        let valid = match validation.node(&output) {
            Ok(valid) => valid,
            Err(raised) => {
                let reason = object! {
                    "type": "exception_during_validation",
                    "message": "Exception when validating node",
                    "details": raised.text,
                    "extra_info": object! {"exception_type": raised.kind, "traceback": traceback()},
                };
                validation
                    .seen
                    .insert(output.clone(), (false, vec![reason]));
                validation.way.clear();
                false
            }
        };
        if valid {
            good.push(output);
            continue;
        }
        let reasons = validation
            .seen
            .get(&output)
            .into_iter()
            .flat_map(|(_, reasons)| reasons);
        told.extend(reasons.map(|reason| {
            let text = |key| reason.get(key).map(Json::python).unwrap_or_default();
            format!("{}: {}", text("message"), text("details"))
        }));
        validation.blame(&output, &mut node_errors);
    }
    if good.is_empty() {
        let kind = "prompt_outputs_failed_validation";
        let error = problem(
            kind,
            "Prompt outputs failed validation",
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

fn outputs_of(
    prompt: &Object,
    targets: Option<&Json>,
    rules: Rules<'_>,
) -> Result<Vec<String>, Invalid> {
    let told = |error| {
        let node_errors = Object::new();
        Invalid::Told(Box::new(Told { error, node_errors }))
    };
    let mut outputs = Vec::new();
    for (id, node) in prompt {
        let node = node.object().ok_or(Invalid::Unexpected)?;
        let class_type = node.get("class_type");
        let class = class_of(prompt, id, rules.library);
        let (Some(class_type), Some(class)) = (class_type, class) else {
            let title = node.get("_meta").and_then(|meta| meta.get("title"));
            return Err(told(unknown_class(id, class_type, title, rules.spec)));
        };
        let is_wanted = match targets {
            Some(targets) if *targets != Json::Null => {
                let targets = targets.list().ok_or(Invalid::Unexpected)?;
                targets.iter().any(|target| target.text() == Some(id))
            }
            _ => true,
        };
        debug_assert!(class_type.text().is_some());
        if class.is_output() && is_wanted {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Err(told(problem(
            "prompt_no_outputs",
            "Prompt has no outputs",
            "",
            object! {},
        )));
    }
    Ok(outputs)
}

fn unknown_class(id: &str, class_type: Option<&Json>, title: Option<&Json>, spec: &Spec) -> Json {
    let class = class_type.map(Json::python);
    let (kind, message) = match (spec.version.names_what_is_wrong(), &class) {
        (false, Some(class)) => (
            "invalid_prompt",
            format!("Cannot execute because node {class} does not exist."),
        ),
        (false, None) => (
            "invalid_prompt",
            "Cannot execute because a node is missing the class_type property.".to_owned(),
        ),
        (true, Some(class)) => {
            let title = title.map_or(class.clone(), Json::python);
            (
                "missing_node_type",
                format!("Node '{title}' not found. The custom node may not be installed."),
            )
        }
        (true, None) => {
            let title = title.map_or(format!("ID #{id}"), Json::python);
            let why =
                "has no class_type. The workflow may be corrupted or a custom node is missing.";
            ("missing_node_type", format!("Node '{title}' {why}"))
        }
    };
    let extra = if spec.version.names_what_is_wrong() {
        let title = title.or(class_type).cloned();
        object! {"node_id": id, "class_type": class_type.cloned(), "node_title": title}
    } else {
        object! {}
    };
    problem(kind, &message, &format!("Node ID '#{id}'"), extra)
}

// === impl Validation ===

impl Validation<'_> {
    /// Says of an output that it is not executed, at every node so far that something is wrong with.
    fn blame(&self, output: &str, node_errors: &mut Object) {
        for (id, (valid, reasons)) in &self.seen {
            if *valid || reasons.is_empty() {
                continue;
            }
            let entry = node_errors.entry(id.clone()).or_insert_with(|| {
                object! {
                    "errors": reasons.clone(),
                    "dependent_outputs": Json::List(Vec::new()),
                    "class_type": self.prompt.get(id).and_then(|node| node.get("class_type")).cloned(),
                }
            });
            if let Json::Object(entry) = entry
                && let Some(Json::List(outputs)) = entry.get_mut("dependent_outputs")
            {
                outputs.push(output.into());
            }
        }
    }

    /// Looks at a node, and at all that it is made from.
    fn node(&mut self, id: &str) -> Result<bool, Raised> {
        if let Some((valid, _)) = self.seen.get(id) {
            return Ok(*valid);
        }
        if let Some(start) = self.way.iter().position(|on| on == id) {
            return self.cycle(start, id);
        }
        let rules = self.rules;
        let class = class_of(self.prompt, id, rules.library).ok_or_else(|| Raised::key(id))?;
        if self.prompt[id].get("inputs").is_none() {
            return Err(Raised::key("inputs"));
        }
        let checks_file = class.works_as.starts_with("LoadImage");
        let mut errors = Vec::new();
        let mut valid = true;
        for input in class.inputs(rules.spec, rules.disk) {
            let value = self.prompt[id]
                .get("inputs")
                .and_then(|inputs| inputs.get(&input.name));
            let Some(value) = value.cloned() else {
                if input.required {
                    errors.push(input.problem(
                        "required_input_missing",
                        "Required input is missing",
                        &input.name,
                        object! {},
                    ));
                }
                continue;
            };
            if let Json::List(link) = &value {
                match self.link(id, &input, link)? {
                    Ok(right) => valid &= right,
                    Err(error) => errors.push(error),
                }
                continue;
            }
            let by_file = checks_file && input.name == "image";
            if let Err(error) = self.value(id, &input, value, by_file) {
                errors.push(error);
            }
        }
        if checks_file {
            errors.extend(self.file(id, &class.works_as)?);
        }
        let before = self.seen.shift_remove(id).unwrap_or((true, Vec::new()));
        let valid = before.0 && valid && errors.is_empty();
        let errors = before.1.into_iter().chain(errors).collect();
        self.seen.insert(id.to_owned(), (valid, errors));
        Ok(valid)
    }

    /// What the class itself says of the file that it is to load.
    fn file(&self, id: &str, class: &str) -> Result<Option<Json>, Raised> {
        let inputs = self.prompt[id].get("inputs");
        let named = inputs.and_then(|inputs| inputs.get("image"));
        let name = match named {
            Some(Json::Text(name)) => name,
            None | Some(Json::List(_)) => {
                // One of them has its check from another.
                let class = class.trim_end_matches("Output");
                let told = "missing 1 required positional argument: 'image'";
                return Err(Raised {
                    kind: "TypeError",
                    text: format!("{class}.VALIDATE_INPUTS() {told}"),
                });
            }
            Some(other) => {
                let kind = other.python_type();
                return Err(Raised {
                    kind: "AttributeError",
                    text: format!("'{kind}' object has no attribute 'endswith'"),
                });
            }
        };
        let wrong = self.rules.disk.input(name).is_none().then(|| {
            let details = format!("image - Invalid image file: {name}");
            let message = "Custom validation failed for node";
            let extra = object! {"input_name": "image"};
            problem("custom_validation_failed", message, &details, extra)
        });
        Ok(wrong)
    }

    fn cycle(&mut self, start: usize, id: &str) -> Result<bool, Raised> {
        if !self.rules.spec.version.names_what_is_wrong() {
            // Older ones recurse until Python stops them, and then forget why.
            return Ok(false);
        }
        let nodes: Vec<String> = self.way[start..].to_vec();
        let told = nodes.iter().map(String::as_str).chain([id]).map(|node| {
            let class = self.prompt[node].get("class_type").map(Json::python);
            format!("{node} ({})", class.unwrap_or_default())
        });
        let told = told.collect::<Vec<_>>().join(" -> ");
        for node in &nodes {
            let extra = object! {"node_id": node.as_str(), "cycle_nodes": nodes.iter().map(String::as_str).collect::<Json>()};
            let reason = problem(
                "dependency_cycle",
                "Dependency cycle detected",
                &told,
                extra,
            );
            self.seen.insert(node.clone(), (false, vec![reason]));
        }
        Ok(false)
    }

    fn link(
        &mut self,
        id: &str,
        input: &Input,
        link: &[Json],
    ) -> Result<Result<bool, Json>, Raised> {
        let whole = Json::List(link.to_vec());
        let [from, slot] = link else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let more = object! {"input_config": input.config(), "received_value": whole};
            return Ok(Err(input.problem(
                "bad_linked_input",
                message,
                &input.name,
                more,
            )));
        };
        let from = from.text().map_or_else(|| from.python(), str::to_owned);
        let source =
            class_of(self.prompt, &from, self.rules.library).ok_or_else(|| Raised::key(&from))?;
        let slot = slot.number().unwrap_or(-1.0) as usize;
        let given = source.outputs().get(slot).ok_or_else(|| Raised {
            kind: "IndexError",
            text: "tuple index out of range".into(),
        })?;
        let given = given.clone();
        if !fits(&given, &input.kind) {
            let details = format!(
                "{}, received_type({}) mismatch input_type({})",
                input.name,
                given.python(),
                input.kind.python()
            );
            let more = object! {
                "input_config": input.config(),
                "received_type": given,
                "linked_node": whole,
            };
            let message = "Return type mismatch between linked nodes";
            return Ok(Err(input.problem(
                "return_type_mismatch",
                message,
                &details,
                more,
            )));
        }
        self.way.push(id.to_owned());
        let inner = self.node(&from);
        self.way.pop();
        Ok(Ok(match inner {
            Ok(right) => right,
            Err(raised) => {
                let more = object! {
                    "input_config": input.config(),
                    "exception_message": raised.text.as_str(),
                    "exception_type": raised.kind,
                    "traceback": traceback(),
                    "linked_node": whole,
                };
                let message = "Exception when validating inner node";
                let reason = input.problem(
                    "exception_during_inner_validation",
                    message,
                    &raised.text,
                    more,
                );
                self.seen.insert(from, (false, vec![reason]));
                false
            }
        }))
    }

    /// Looks at a value, and puts what it stands for into the prompt.
    fn value(&mut self, id: &str, input: &Input, value: Json, by_file: bool) -> Result<Json, Json> {
        let value = value.get("__value__").cloned().unwrap_or(value);
        let kind = input.kind.text().unwrap_or("");
        let value = convert(kind, &value).map_err(|why| {
            let message = format!("Failed to convert an input value to a {kind} value");
            let details = format!("{}, {}, {why}", input.name, value.python());
            let more = object! {
                "input_config": input.config(),
                "received_value": value,
                "exception_message": why,
            };
            input.problem("invalid_input_type", &message, &details, more)
        })?;
        if let Some(Json::Object(node)) = self.prompt.get_mut(id)
            && let Some(Json::Object(inputs)) = node.get_mut("inputs")
        {
            inputs.insert(input.name.clone(), value.clone());
        }
        if by_file {
            return Ok(value);
        }
        for (limit, kind, word) in [
            ("min", "value_smaller_than_min", "smaller than min"),
            ("max", "value_bigger_than_max", "bigger than max"),
        ] {
            let (Some(is), Some(limit)) = (value.number(), input.more.get(limit)) else {
                continue;
            };
            let at = limit.number().unwrap_or(is);
            if (word.starts_with('s') && is < at) || (word.starts_with('b') && is > at) {
                let message = format!("Value {} {word} of {}", value.python(), limit.python());
                let more = object! {"input_config": input.config(), "received_value": value};
                return Err(input.problem(kind, &message, &input.name, more));
            }
        }
        let options = match (&input.kind, input.more.get("options")) {
            (Json::List(options), _) => Some(options),
            (Json::Text(kind), Some(Json::List(options))) if kind == "COMBO" => Some(options),
            _ => None,
        };
        match options {
            Some(options) if !options.contains(&value) => Err(not_in_list(input, value, options)),
            _ => Ok(value),
        }
    }
}

fn not_in_list(input: &Input, value: Json, options: &[Json]) -> Json {
    // Long lists of models are not told.
    let long = options.len() > 20;
    let list = if long {
        format!("(list of length {})", options.len())
    } else {
        Json::List(options.to_vec()).python()
    };
    let details = format!("{}: '{}' not in {list}", input.name, value.python());
    let config = (!long).then(|| input.config());
    let more = object! {"input_config": config, "received_value": value};
    input.problem("value_not_in_list", "Value not in list", &details, more)
}

// === impl Input ===

impl Input {
    fn config(&self) -> Json {
        Json::List(vec![self.kind.clone(), self.more.clone()])
    }

    fn problem(&self, kind: &str, message: &str, details: &str, more: Json) -> Json {
        let mut extra = Object::new();
        extra.insert("input_name".into(), self.name.as_str().into());
        extra.extend(
            more.object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        problem(kind, message, details, extra.into())
    }
}

// === impl Raised ===

impl Raised {
    fn key(key: &str) -> Self {
        Raised {
            kind: "KeyError",
            text: format!("'{key}'"),
        }
    }
}

/// Whether what one node gives can be taken where another wants it.
fn fits(given: &Json, wanted: &Json) -> bool {
    if given == wanted {
        return true;
    }
    let (Some(given), Some(wanted)) = (given.text(), wanted.text()) else {
        return false;
    };
    let wanted: Vec<&str> = wanted.split(',').collect();
    given == "*" || wanted.contains(&"*") || given.split(',').all(|given| wanted.contains(&given))
}

/// What Python's `int`, `float`, `str` and `bool` make of a value, or why they make nothing of it.
fn convert(kind: &str, value: &Json) -> Result<Json, String> {
    let wrong = |what: &str| format!("{what} or a real number, not '{}'", value.python_type());
    match (kind, value) {
        ("INT", Json::Number(number)) if number.is_f64() => {
            Ok((number.as_f64().unwrap_or(0.0).trunc() as i64).into())
        }
        ("INT", Json::Bool(is)) => Ok(i64::from(*is).into()),
        ("INT", Json::Text(text)) => {
            let number: Result<i64, _> = text.trim().parse();
            number.map(Json::from).map_err(|_| {
                format!(
                    "invalid literal for int() with base 10: {}",
                    value.python_repr()
                )
            })
        }
        ("INT", Json::Null | Json::Object(_)) => Err(wrong(
            "int() argument must be a string, a bytes-like object",
        )),
        ("FLOAT", Json::Number(number)) => Ok(number
            .as_f64()
            .and_then(Number::from_f64)
            .map_or(Json::Null, Json::Number)),
        ("FLOAT", Json::Bool(is)) => Ok(f64::from(u8::from(*is)).into()),
        ("FLOAT", Json::Text(text)) => {
            let number: Result<f64, _> = text.trim().parse();
            number
                .map(Json::from)
                .map_err(|_| format!("could not convert string to float: {}", value.python_repr()))
        }
        ("FLOAT", Json::Null | Json::Object(_)) => Err(wrong("float() argument must be a string")),
        ("STRING", value) => Ok(value.python().into()),
        ("BOOLEAN", value) => Ok(value.is_true().into()),
        (_, value) => Ok(value.clone()),
    }
}

fn traceback() -> Json {
    Json::List(vec![
        "  File \"/opt/ComfyUI/execution.py\", in validate_inputs\n".into(),
    ])
}
