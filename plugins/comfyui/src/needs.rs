//! What a workflow needs of a node, and what a node lacks of it.

use crate::json::Json;
use crate::names::Names;
use crate::object_info::{ObjectInfo, is_model};
use crate::workflow::Workflow;

/// What a workflow needs.
#[derive(Clone, Debug, Default)]
pub struct Needs<'a> {
    /// Its classes: each once, with the first node that is of it.
    pub classes: Vec<Place<'a>>,
    /// What it chooses from lists that nodes have, models among it.
    pub choices: Vec<Choice<'a>>,
    /// The files that people put there, and that have to be where it goes.
    pub files: Vec<File<'a>>,
    /// The nodes that make results.
    pub outputs: Vec<&'a str>,
}

/// A node of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// What the prompt calls it.
    pub id: &'a str,
    /// Its class.
    pub class: &'a str,
}

/// Something that is chosen from a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'a> {
    /// By which node.
    pub of: Place<'a>,
    /// For which input.
    pub input: &'a str,
    /// What.
    pub value: &'a Json,
}

/// A file that is to be there: `subfolder/name [output]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Which node loads it.
    pub of: Place<'a>,
    /// By which input.
    pub input: &'a str,
    /// Where it is.
    pub path: FilePath<'a>,
}

/// A file in one of a server's three folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FilePath<'a> {
    /// The folder.
    pub folder: Folder,
    /// Folders in it; empty: none.
    pub subfolder: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Where a server keeps files that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Folder {
    /// What was uploaded.
    Input,
    /// What was made.
    Output,
    /// What was made to be looked at.
    Temp,
}

/// What a node has not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lack<'a> {
    /// A class.
    Class(Place<'a>),
    /// Something to choose.
    Choice(Choice<'a>),
}

/// Inputs whose options are uploaded files although nothing says so.
const UPLOADS: [(&str, &str); 1] = [("LoadLatent", "latent")];

// === impl Needs ===

impl<'a> Needs<'a> {
    /// Of a workflow, by what all nodes can do.
    pub fn of(workflow: &Workflow<'a>, info: &ObjectInfo) -> Self {
        let mut needs = Needs::default();
        let mut seen = std::collections::HashSet::new();
        for node in workflow.nodes() {
            let of = Place {
                id: node.id,
                class: node.class,
            };
            if seen.insert(node.class) {
                needs.classes.push(of);
            }
            let Some(class) = info.class(node.class) else {
                continue;
            };
            if class.is_output() {
                needs.outputs.push(node.id);
            }
            for (name, value) in &node.values {
                let Some(input) = class.input(name) else {
                    continue;
                };
                let is_upload = input.is_upload() || UPLOADS.contains(&(node.class, name));
                match value.text() {
                    Some(path) if is_upload => needs.files.push(File {
                        of,
                        input: name,
                        path: FilePath::of(path),
                    }),
                    _ if is_upload || input.options().is_none() => {}
                    // Several at once are in a list, and each of them has to be there.
                    _ => match value.get("__value__").unwrap_or(value) {
                        Json::List(values) => {
                            needs.choices.extend(values.iter().map(|value| Choice {
                                of,
                                input: name,
                                value,
                            }))
                        }
                        value => needs.choices.push(Choice {
                            of,
                            input: name,
                            value,
                        }),
                    },
                }
            }
        }
        needs
    }

    /// The models among what it chooses.
    pub fn models(&self) -> impl Iterator<Item = &Choice<'a>> {
        self.choices
            .iter()
            .filter(|choice| choice.value.text().is_some_and(is_model))
    }

    /// What a node lacks of it; files are not among it, they can be brought there.
    pub fn lacks(&self, info: &ObjectInfo, names: &Names) -> Vec<Lack<'a>> {
        let classes = self
            .classes
            .iter()
            .filter(|of| info.class(of.class).is_none());
        let choices = self.choices.iter().filter(|choice| {
            let input = info
                .class(choice.of.class)
                .and_then(|class| class.input(choice.input));
            input
                .and_then(|input| input.options())
                .is_some_and(|options| !has(options, choice.value, names))
        });
        classes
            .copied()
            .map(Lack::Class)
            .chain(choices.copied().map(Lack::Choice))
            .collect()
    }
}

/// Whether a value is among the options, under whatever name.
pub(crate) fn has(options: &[Json], value: &Json, names: &Names) -> bool {
    match value.text() {
        Some(text) => names.find(text, options).is_some(),
        None => options
            .iter()
            .any(|option| crate::python::same(option, value)),
    }
}

// === impl FilePath ===

impl<'a> FilePath<'a> {
    /// As a prompt names it.
    pub fn of(text: &'a str) -> Self {
        let folders = [
            (" [input]", Folder::Input),
            (" [output]", Folder::Output),
            (" [temp]", Folder::Temp),
        ];
        let mut named = folders
            .into_iter()
            .filter_map(|(ending, folder)| Some((text.strip_suffix(ending)?, folder)));
        let (path, folder) = named.next().unwrap_or((text, Folder::Input));
        let (subfolder, name) = path.rsplit_once(['/', '\\']).unwrap_or(("", path));
        FilePath {
            folder,
            subfolder,
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Object;

    const INFO: &str = r#"{
        "Checkpoint": {"input": {"required": {"ckpt_name": [["xl/a.safetensors", "b.safetensors"]], "dtype": [["default", "fp8"]]}}, "output": ["MODEL"]},
        "LoadImage": {"input": {"required": {"image": [[], {"image_upload": true}]}}, "output": ["IMAGE"]},
        "FromOutput": {"input": {"required": {"image": ["COMBO", {"remote": {"route": "/internal/files/output"}}]}}},
        "FromFolder": {"input": {"required": {"image": ["COMBO", {"image_folder": "output"}]}}},
        "LoadLatent": {"input": {"required": {"latent": [[]]}}},
        "Many": {"input": {"optional": {"of": ["COMBO", {"options": ["a", "b"]}], "far": ["COMBO", {"remote": {"route": "/x"}}]}}},
        "Save": {"input": {"required": {"images": ["IMAGE"], "prefix": ["STRING"]}}, "output_node": true}
    }"#;

    const PROMPT: &str = r#"{
        "1": {"class_type": "Checkpoint", "inputs": {"ckpt_name": "xl/a.safetensors", "dtype": "fp8"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "clipspace/a b.png [input]"}},
        "3": {"class_type": "FromOutput", "inputs": {"image": "r.png [output]"}},
        "4": {"class_type": "LoadLatent", "inputs": {"latent": "l.latent"}},
        "45": {"class_type": "FromFolder", "inputs": {"image": "t.png [temp]"}},
        "5": {"class_type": "Many", "inputs": {"of": {"__value__": ["a", "b"]}, "far": "anything"}},
        "6": {"class_type": "LoadImage", "inputs": {"image": ["2", 0]}},
        "7": {"class_type": "Unknown", "inputs": {"x": "y.safetensors"}},
        "9": {"class_type": "Save", "inputs": {"images": ["2", 0], "prefix": "p"}}
    }"#;

    fn read(text: &str) -> Object {
        Json::read(text.as_bytes())
            .unwrap()
            .object()
            .unwrap()
            .clone()
    }

    fn info(text: &str) -> ObjectInfo {
        ObjectInfo::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_a_workflow_needs_is_read_off_it() {
        let prompt = read(PROMPT);
        let needs = Needs::of(&Workflow::of(&prompt), &info(INFO));
        let classes: Vec<_> = needs.classes.iter().map(|of| (of.id, of.class)).collect();
        assert_eq!(
            classes,
            [
                ("1", "Checkpoint"),
                ("2", "LoadImage"),
                ("3", "FromOutput"),
                ("4", "LoadLatent"),
                ("45", "FromFolder"),
                ("5", "Many"),
                ("7", "Unknown"),
                ("9", "Save")
            ]
        );
        let choices: Vec<_> = needs
            .choices
            .iter()
            .map(|c| (c.of.id, c.input, c.value.text().unwrap()))
            .collect();
        assert_eq!(
            choices,
            [
                ("1", "ckpt_name", "xl/a.safetensors"),
                ("1", "dtype", "fp8"),
                ("5", "of", "a"),
                ("5", "of", "b")
            ]
        );
        let models: Vec<_> = needs.models().map(|c| c.value.text().unwrap()).collect();
        assert_eq!(models, ["xl/a.safetensors"]);
        let files: Vec<_> = needs
            .files
            .iter()
            .map(|f| (f.of.id, f.path.folder, f.path.subfolder, f.path.name))
            .collect();
        assert_eq!(
            files,
            [
                ("2", Folder::Input, "clipspace", "a b.png"),
                ("3", Folder::Output, "", "r.png"),
                ("4", Folder::Input, "", "l.latent"),
                ("45", Folder::Temp, "", "t.png")
            ]
        );
        assert_eq!(needs.outputs, ["9"]);
    }

    #[test]
    fn what_a_node_lacks_is_named() {
        let prompt = read(PROMPT);
        let needs = Needs::of(&Workflow::of(&prompt), &info(INFO));
        let lacks = |told: &str, names: &Names| -> Vec<String> {
            let lacks = needs.lacks(&info(told), names).into_iter();
            lacks
                .map(|lack| match lack {
                    Lack::Class(of) => of.class.to_owned(),
                    Lack::Choice(choice) => format!("{}={}", choice.input, choice.value),
                })
                .collect()
        };
        let none = Names::default();
        assert_eq!(lacks(INFO, &none), ["Unknown"]);
        let windows = INFO.replace("xl/a", r"xl\\a");
        assert_eq!(
            lacks(&windows, &none),
            ["Unknown"],
            "a Windows node has it, too"
        );
        let renamed = INFO.replace("xl/a", "c");
        assert_eq!(
            lacks(&renamed, &none),
            ["Unknown", "ckpt_name=\"xl/a.safetensors\""]
        );
        assert_eq!(
            lacks(
                &renamed,
                &Names::new([vec!["c.safetensors", "xl/a.safetensors"]])
            ),
            ["Unknown"]
        );
        assert_eq!(lacks("{}", &none).len(), 8);
    }
}
