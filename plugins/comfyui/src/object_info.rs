//! What a node says it can do (`GET /object_info`), and what all of them can do together.

use crate::json::{Json, NotJson, Object};
use crate::names::{portable, united};
use crate::needs::FilePath;

/// The classes of a node, or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectInfo {
    classes: Object,
}

/// A class of nodes, as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Class<'a>(&'a Json);

/// An input of a class.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether a prompt has to have it.
    pub is_required: bool,
    told: &'a [Json],
}

/// A class that a node has in another way than the first one that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The class.
    pub class: String,
    /// The node that has it in another way.
    pub node: String,
    /// What is another.
    pub what: What,
}

/// What two nodes have in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An input that only one of them has.
    Input(String),
    /// The type of an input.
    Type(String),
    /// What it gives.
    Outputs,
}

/// Endings of files that are loaded into a card's memory.
const MODELS: [&str; 11] = [
    ".safetensors",
    ".sft",
    ".ckpt",
    ".pt",
    ".pt2",
    ".pth",
    ".bin",
    ".pkl",
    ".gguf",
    ".onnx",
    ".engine",
];

/// What says of an input that its options are files which people put there, and not what the node came with.
const UPLOADS: [&str; 5] = [
    "image_upload",
    "audio_upload",
    "video_upload",
    "file_upload",
    "animated_image_upload",
];

// === impl ObjectInfo ===

impl ObjectInfo {
    /// Reads a node's answer. Anything but an object has no classes.
    pub fn read(bytes: &[u8]) -> Result<Self, NotJson> {
        Ok(match Json::read(bytes)? {
            Json::Object(classes) => ObjectInfo { classes },
            _ => ObjectInfo::default(),
        })
    }

    /// A class.
    pub fn class(&self, name: &str) -> Option<Class<'_>> {
        self.classes.get(name).map(Class)
    }

    /// All of them.
    pub fn classes(&self) -> impl Iterator<Item = (&str, Class<'_>)> {
        self.classes
            .iter()
            .map(|(name, told)| (name.as_str(), Class(told)))
    }

    /// As it is answered.
    pub fn json(&self) -> Json {
        Json::Object(self.classes.clone())
    }

    /// The same, or one class of it, with these files among the inputs that can be chosen: each where its kind is wanted.
    pub fn with_files(&self, class: Option<&str>, files: &[String]) -> Json {
        let mut classes = match class {
            None => self.classes.clone(),
            Some(class) => {
                let known = self.classes.get_key_value(class).into_iter();
                known
                    .map(|(name, told)| (name.clone(), told.clone()))
                    .collect()
            }
        };
        for told in classes.values_mut() {
            let uploads: Vec<(String, Vec<Json>)> = Class(told)
                .inputs()
                .filter(|input| input.is_upload())
                .map(|input| {
                    let wanted = files.iter().filter(|name| input.wants_file(name));
                    let wanted = wanted.map(|name| name.as_str().into());
                    (input.name.to_owned(), wanted.collect())
                })
                .collect();
            if uploads.iter().all(|(_, files)| files.is_empty()) {
                continue;
            }
            for_each_choice(told, |input, options| {
                if let Some((_, files)) = uploads.iter().find(|(upload, _)| upload == input) {
                    *options = united([&**options, files]);
                    options.sort_by(|a, b| a.text().cmp(&b.text()));
                }
            });
        }
        Json::Object(classes)
    }

    /// Whether a file is in one of its lists of inputs.
    pub fn has_file(&self, path: FilePath<'_>) -> bool {
        let wanted = match path.subfolder {
            "" => path.name.to_owned(),
            folder => format!("{folder}/{}", path.name),
        };
        self.classes().any(|(_, class)| {
            class
                .inputs()
                .filter(|input| input.is_upload())
                .any(|input| {
                    let options = input.options().into_iter().flatten();
                    options
                        .filter_map(Json::text)
                        .any(|option| option == wanted)
                })
        })
    }

    /// The models that can be chosen, and where: class, input, name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.classes().flat_map(|(name, class)| {
            class.inputs().flat_map(move |input| {
                let options = input.options().filter(|_| !input.is_upload());
                let options = options.into_iter().flatten().filter_map(Json::text);
                options
                    .filter(|option| is_model(option))
                    .map(move |option| (name, input.name, option))
            })
        })
    }

    /// What several nodes can do together, and in what they differ: all classes, each as the first node has it that does, and
    /// of each list the options of all nodes, the first node's first. Paths are written with `/`.
    ///
    /// Shapes: `nodes` by name, the one whose front end is shown first.
    pub fn merged(nodes: &[(&str, &ObjectInfo)]) -> (ObjectInfo, Vec<Difference>) {
        // One alone is shown as it is.
        if let [(_, info)] = nodes {
            return ((*info).clone(), Vec::new());
        }
        let mut all = Object::new();
        let mut differences = Vec::new();
        for (node, info) in nodes {
            for (name, told) in &info.classes {
                let Some(known) = all.get_mut(name) else {
                    let mut told = told.clone();
                    for_each_choice(&mut told, |_, options| *options = united([&**options]));
                    all.insert(name.clone(), told);
                    continue;
                };
                let found = differ(Class(known), Class(told));
                differences.extend(found.into_iter().map(|what| Difference {
                    class: name.clone(),
                    node: (*node).to_owned(),
                    what,
                }));
                let more = Class(told);
                for_each_choice(known, |input, options| {
                    let more = more.input(input).and_then(|input| input.options());
                    *options = united([&**options, more.unwrap_or(&[])]);
                });
            }
        }
        (ObjectInfo { classes: all }, differences)
    }
}

/// Calls `change` with each input that is a choice, and its options. A default that is a path is written as the options are.
fn for_each_choice(class: &mut Json, mut change: impl FnMut(&str, &mut Vec<Json>)) {
    let Some(Json::Object(groups)) = get_mut(class, "input") else {
        return;
    };
    for inputs in groups.values_mut() {
        let Json::Object(inputs) = inputs else {
            continue;
        };
        for (name, told) in inputs {
            let Json::List(told) = told else { continue };
            let more = match told.as_mut_slice() {
                [Json::List(options), more @ ..] => {
                    change(name, options);
                    more.first_mut()
                }
                [_, more] => match get_mut(more, "options") {
                    Some(Json::List(options)) => {
                        change(name, options);
                        Some(more)
                    }
                    _ => None,
                },
                _ => None,
            };
            if let Some(Json::Text(default)) = more.and_then(|more| get_mut(more, "default")) {
                *default = portable(default).into_owned();
            }
        }
    }
}

fn get_mut<'a>(json: &'a mut Json, key: &str) -> Option<&'a mut Json> {
    match json {
        Json::Object(object) => object.get_mut(key),
        _ => None,
    }
}

fn differ(a: Class<'_>, b: Class<'_>) -> Vec<What> {
    let mut found = Vec::new();
    for input in a.inputs() {
        match b.input(input.name) {
            None => found.push(What::Input(input.name.to_owned())),
            Some(other) if !input.is_alike(other) => found.push(What::Type(input.name.to_owned())),
            Some(_) => {}
        }
    }
    let only_there = b.inputs().filter(|input| a.input(input.name).is_none());
    found.extend(only_there.map(|input| What::Input(input.name.to_owned())));
    if a.outputs() != b.outputs() {
        found.push(What::Outputs);
    }
    found
}

/// Whether a file is one that is loaded into a card's memory, by its name.
pub fn is_model(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    MODELS.iter().any(|ending| name.ends_with(ending))
}

// === impl Class ===

impl<'a> Class<'a> {
    /// Whether what it makes is a result.
    pub fn is_output(self) -> bool {
        self.0
            .get("output_node")
            .is_some_and(crate::python::is_true)
    }

    /// Whether it is other people's, and may have a word of its own on its inputs.
    pub fn is_custom(self) -> bool {
        let module = self.0.get("python_module").and_then(Json::text);
        module.is_none_or(|module| module.starts_with("custom_nodes"))
    }

    /// Whether what it makes is its own, also where another has the same inputs.
    pub fn knows_its_node(self) -> bool {
        let hidden = self
            .0
            .get("input")
            .and_then(|input| input.get("hidden")?.object());
        let mut hidden = hidden.into_iter().flat_map(Object::values);
        // One entry of a list, or the text itself: both are told.
        hidden.any(|told| {
            told.list().and_then(<[Json]>::first).unwrap_or(told).text() == Some("UNIQUE_ID")
        })
    }

    /// The types of what it gives.
    pub fn outputs(self) -> &'a [Json] {
        self.0.get("output").and_then(Json::list).unwrap_or(&[])
    }

    /// Its inputs, in their order; hidden ones are not among them.
    pub fn inputs(self) -> impl Iterator<Item = Input<'a>> {
        let groups = [("required", true), ("optional", false)].into_iter();
        groups.flat_map(move |(group, is_required)| {
            let inputs = self
                .0
                .get("input")
                .and_then(|input| input.get(group)?.object());
            inputs.into_iter().flatten().map(move |(name, told)| Input {
                name,
                is_required,
                told: told.list().unwrap_or(&[]),
            })
        })
    }

    /// The input of this name.
    pub fn input(self, name: &str) -> Option<Input<'a>> {
        self.inputs().find(|input| input.name == name)
    }
}

// === impl Input ===

impl<'a> Input<'a> {
    /// Its type's name, or the list of what can be chosen.
    pub fn kind(self) -> &'a Json {
        self.told.first().unwrap_or(&Json::Null)
    }

    /// Its type's name.
    pub fn type_name(self) -> &'a str {
        self.kind().text().unwrap_or("")
    }

    /// What else is said of it: limits, a default.
    pub fn more(self, key: &str) -> Option<&'a Json> {
        self.told.get(1)?.get(key)
    }

    /// As messages show it.
    pub fn config(self) -> Json {
        let more = self.told.get(1).cloned();
        Json::List(vec![
            self.kind().clone(),
            more.unwrap_or_else(|| Object::new().into()),
        ])
    }

    /// What can be chosen. `None`: it is no choice, or what there is to choose is asked for elsewhere.
    pub fn options(self) -> Option<&'a [Json]> {
        match self.kind() {
            Json::List(options) => Some(options),
            Json::Text(kind) if kind == "COMBO" => self.more("options")?.list(),
            _ => None,
        }
    }

    /// Whether what can be chosen are files that people put there.
    pub fn is_upload(self) -> bool {
        let is_flagged = |flag| self.more(flag).is_some_and(crate::python::is_true);
        let route = self
            .more("remote")
            .and_then(|remote| remote.get("route")?.text());
        UPLOADS.into_iter().any(is_flagged)
            || self.more("image_folder").is_some()
            || route.is_some_and(|route| route.contains("/internal/files/"))
    }

    /// Whether a file of this name is of the kind that is uploaded there, as ComfyUI's own lists have it.
    fn wants_file(self, name: &str) -> bool {
        let kind = crate::files::content_type(name);
        let is = |kinds: &[&str]| kinds.iter().any(|wanted| kind.starts_with(wanted));
        let is_flagged = |flag| self.more(flag).is_some_and(crate::python::is_true);
        match () {
            () if is_flagged("image_upload") => is(&["image/"]),
            () if is_flagged("audio_upload") => is(&["audio/", "video/"]),
            () if is_flagged("video_upload") => is(&["video/"]),
            () => true,
        }
    }

    fn is_choice(self) -> bool {
        self.kind().list().is_some() || self.type_name() == "COMBO"
    }

    fn is_alike(self, other: Self) -> bool {
        (self.is_choice() && other.is_choice()) || self.kind() == other.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> ObjectInfo {
        ObjectInfo::read(text.as_bytes()).unwrap()
    }

    const HOME: &str = r#"{
        "Load": {"input": {"required": {"name": [["b.sft", "x\\a.sft"], {"default": "x\\a.sft"}], "n": ["INT", {"max": Infinity}]}, "hidden": {"id": "UNIQUE_ID"}}, "output": ["MODEL"], "output_node": false},
        "Save": {"input": {"required": {"images": ["IMAGE"]}, "optional": {"format": ["COMBO", {"options": ["png"]}]}}, "output": [], "output_node": true}
    }"#;
    const OTHER: &str = r#"{
        "Extra": {"input": {}, "output": []},
        "Save": {"input": {"required": {"images": ["IMAGE"]}, "optional": {"format": [["jpg", "png", 3]]}}, "output": [], "output_node": true},
        "Load": {"input": {"required": {"name": [["x/a.sft", "c.sft"]], "n": ["FLOAT"], "more": ["INT"]}}, "output": ["MODEL", "CLIP"]}
    }"#;

    #[test]
    fn together_they_have_every_class_and_every_option_the_first_ones_first() {
        let (home, other) = (info(HOME), info(OTHER));
        let (all, differences) = ObjectInfo::merged(&[("home", &home), ("other", &other)]);
        let names: Vec<&str> = all.classes().map(|(name, _)| name).collect();
        assert_eq!(names, ["Load", "Save", "Extra"]);
        let told = all.json().to_string();
        assert!(told.contains(r#""name": [["b.sft", "x/a.sft", "c.sft"], {"default": "x/a.sft"}], "n": ["INT", {"max": Infinity}]"#), "{told}");
        assert!(
            told.contains(r#""format": ["COMBO", {"options": ["png", "jpg", 3]}]"#),
            "{told}"
        );
        let of_other = |what| Difference {
            class: "Load".into(),
            node: "other".into(),
            what,
        };
        let expected = [
            What::Type("n".into()),
            What::Input("more".into()),
            What::Outputs,
        ]
        .map(of_other);
        assert_eq!(differences, expected);
    }

    #[test]
    fn one_alone_is_told_as_it_tells_itself() {
        let other = info(OTHER);
        let (all, differences) = ObjectInfo::merged(&[("other", &other)]);
        assert_eq!(
            (all.json().to_string(), differences),
            (other.json().to_string(), vec![])
        );
        let (same, differences) = ObjectInfo::merged(&[("a", &other), ("b", &other)]);
        assert_eq!((same, differences), (other, vec![]));
    }

    #[test]
    fn models_are_what_can_be_chosen_and_loaded() {
        let told = info(
            r#"{"L": {"input": {"required": {"ckpt": [["a.safetensors", "B.CKPT", "none"]], "file": [["x.pt"], {"image_upload": true}], "t": ["STRING"]}}}}"#,
        );
        let models: Vec<_> = told.models().collect();
        assert_eq!(
            models,
            [("L", "ckpt", "a.safetensors"), ("L", "ckpt", "B.CKPT")]
        );
    }

    #[test]
    fn a_class_that_asks_for_its_id_is_its_own() {
        let told = info(HOME);
        let knows = |name| told.class(name).unwrap().knows_its_node();
        assert!(knows("Load") && !knows("Save"));
        let late = info(r#"{"A": {"input": {"hidden": {"unique_id": ["UNIQUE_ID"]}}}}"#);
        assert!(late.class("A").unwrap().knows_its_node());
    }

    #[test]
    fn odd_answers_are_survived() {
        for odd in [
            "[]",
            "3",
            r#"{"A": 3}"#,
            r#"{"A": {"input": [1], "output": 3}}"#,
            r#"{"A": {"input": {"required": {"a": 3, "b": [], "c": [[]], "d": [3, 4]}}}}"#,
        ] {
            let told = info(odd);
            let (all, _) = ObjectInfo::merged(&[("a", &told), ("b", &told)]);
            assert_eq!(all, told, "{odd}");
            assert_eq!(told.models().count(), 0);
        }
    }
}
