//! One input of a node: its link, its value, or the file that it names.

use super::{Rules, problem};
use crate::json::{Json, Object, object};
use crate::needs::{FilePath, has};
use crate::object_info::{Class, Input};
use crate::python;

/// The nodes of a prompt, and what they are held against.
#[derive(Clone, Copy)]
pub(super) struct Prompt<'a> {
    pub(super) nodes: &'a Object,
    pub(super) rules: Rules<'a>,
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

/// An exception on the way, in Python.
#[derive(Debug)]
pub(super) struct Raised {
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// What comes of an input.
pub(super) enum Looked<'a> {
    Right,
    Wrong(Json),
    /// It depends on another node.
    Link(&'a str),
}

// === impl Prompt ===

impl<'a> Prompt<'a> {
    /// The class of a node.
    pub(super) fn class(self, id: &str) -> Option<Class<'a>> {
        self.rules.info.class(self.class_type(id)?.text()?)
    }

    pub(super) fn class_type(self, id: &str) -> Option<&'a Json> {
        self.nodes.get(id)?.get("class_type")
    }

    pub(super) fn inputs(self, id: &str) -> Option<&'a Json> {
        self.nodes.get(id)?.get("inputs")
    }

    /// Looks at an input of a node.
    pub(super) fn look(self, id: &str, input: Input<'a>) -> Result<Looked<'a>, Raised> {
        let value = self.inputs(id).and_then(|inputs| inputs.get(input.name));
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
            Some(value) => match self.value(self.checks(id), input, value) {
                Ok(()) => Looked::Right,
                Err(error) => Looked::Wrong(error),
            },
        })
    }

    /// The input that a node's class looks at itself.
    fn checks(self, id: &str) -> Option<(&'static str, &'static str)> {
        let class = self.class_type(id)?.text()?;
        let mut known = FILES.into_iter().filter(|(of, ..)| *of == class);
        known.next().map(|(_, input, what)| (input, what))
    }

    fn link(self, input: Input<'a>, link: &'a [Json]) -> Result<Looked<'a>, Raised> {
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
        let source = from.text().and_then(|from| self.class(from));
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
        self,
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
    pub(super) fn file(self, id: &str, class: Class<'_>) -> Result<Option<Json>, Raised> {
        let Some((input, what)) = self
            .checks(id)
            .filter(|(input, _)| class.input(input).is_some())
        else {
            return Ok(None);
        };
        let text = match self.inputs(id).and_then(|inputs| inputs.get(input)) {
            Some(Json::Text(text)) => text,
            None | Some(Json::List(_)) => {
                let class = self.class_type(id).map(python::str).unwrap_or_default();
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
}
/// A problem with an input.
pub(super) fn of_input(
    input: Input<'_>,
    kind: &str,
    message: &str,
    details: &str,
    more: Json,
) -> Json {
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

// === impl Raised ===

impl Raised {
    pub(super) fn key(key: &Json) -> Self {
        Raised {
            kind: "KeyError",
            text: python::repr(key),
        }
    }
}
