//! The classes that a node has: what they take and give (`definitions.json`), as `/object_info` tells it and as a prompt is
//! held against it. What they do is in `work.rs`.

use super::disk::{Disk, Kind};
use super::json::{Json, Object, object};
use super::spec::Spec;
use super::view::is_image;
use indexmap::IndexMap;

/// Folders of models that every server has, also where they are empty.
pub(crate) const FOLDERS: [&str; 20] = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
];

pub(crate) struct Library {
    classes: IndexMap<String, Class>,
}

/// A class of nodes.
#[derive(Clone)]
pub(crate) struct Class {
    /// The class of the library that does its work.
    pub(crate) works_as: String,
    definition: Json,
}

/// An input of a class.
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) required: bool,
    /// A type's name, or the values it may have.
    pub(crate) kind: Json,
    /// Its limits, and how it is shown.
    pub(crate) more: Json,
}

// === impl Library ===

impl Library {
    pub(crate) fn of(spec: &Spec) -> Library {
        let built_in = Json::read(include_bytes!("definitions.json")).unwrap_or_default();
        let mut classes = IndexMap::new();
        for (name, definition) in built_in.object().into_iter().flatten() {
            let class = Class {
                works_as: name.clone(),
                definition: definition.clone(),
            };
            classes.insert(name.clone(), class);
        }
        for (name, works_as) in &spec.extra {
            if let Some(class) = classes.get(works_as) {
                let mut class = class.clone();
                if let Json::Object(definition) = &mut class.definition {
                    definition.insert("display_name".into(), name.as_str().into());
                    let module = format!("custom_nodes.{}", name.to_lowercase());
                    definition.insert("python_module".into(), module.into());
                }
                classes.insert(name.clone(), class);
            }
        }
        classes.retain(|name, _| !spec.without.contains(name));
        Library { classes }
    }

    pub(crate) fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// `/object_info`: all of it, or of one class.
    pub(crate) fn object_info(&self, only: Option<&str>, spec: &Spec, disk: &Disk) -> Json {
        let classes = self.classes.iter();
        let classes = classes.filter(|(name, _)| only.is_none_or(|only| only == *name));
        let told: Object = classes
            .map(|(name, class)| (name.clone(), class.json(name, spec, disk)))
            .collect();
        told.into()
    }
}

// === impl Class ===

impl Class {
    pub(crate) fn is_output(&self) -> bool {
        self.get("output_node").is_true()
    }

    /// Whether it works beside others: those go first.
    pub(crate) fn is_async(&self) -> bool {
        matches!(
            self.works_as.as_str(),
            "TestSleep" | "TestAsyncProgressUpdate"
        )
    }

    /// Whether what it makes is a node's own, and not shared with another of the same inputs.
    pub(crate) fn knows_its_node(&self) -> bool {
        let hidden = self.get("input").get("hidden").and_then(Json::object);
        hidden.is_some_and(|hidden| hidden.values().any(|v| v.text() == Some("UNIQUE_ID")))
    }

    pub(crate) fn outputs(&self) -> &[Json] {
        self.get("output").list().unwrap_or(&[])
    }

    /// Its inputs, hidden ones not among them.
    pub(crate) fn inputs(&self, spec: &Spec, disk: &Disk) -> Vec<Input> {
        let groups = [("required", true), ("optional", false)];
        let groups = groups.into_iter().filter_map(|(group, required)| {
            let inputs = self.get("input").get(group)?.object()?;
            Some((required, inputs))
        });
        groups
            .flat_map(|(required, inputs)| inputs.iter().map(move |input| (required, input)))
            .map(|(required, (name, told))| {
                let told = told.list().unwrap_or(&[]);
                Input {
                    name: name.clone(),
                    required,
                    kind: live(told.first().unwrap_or(&Json::Null), spec, disk),
                    more: told.get(1).cloned().unwrap_or_else(|| object! {}),
                }
            })
            .collect()
    }

    fn get(&self, key: &str) -> &Json {
        self.definition.get(key).unwrap_or(&Json::Null)
    }

    fn json(&self, name: &str, spec: &Spec, disk: &Disk) -> Json {
        let mut input = Object::new();
        let mut order = Object::new();
        for (group, inputs) in self.get("input").object().into_iter().flatten() {
            let inputs = inputs.object().into_iter().flatten();
            let told: Object = inputs
                .map(|(name, told)| {
                    let mut told = told.clone();
                    if let Json::List(told) = &mut told
                        && let Some(kind) = told.first_mut()
                    {
                        *kind = live(kind, spec, disk);
                    }
                    (name.clone(), told)
                })
                .collect();
            order.insert(group.clone(), told.keys().map(String::as_str).collect());
            input.insert(group.clone(), told.into());
        }
        let mut told = object! {
            "input": input,
            "input_order": order,
            "output": self.get("output").clone(),
            "output_is_list": self.outputs().iter().map(|_| false).collect::<Json>(),
            "output_name": self.get("output_name").clone(),
            "name": name,
            "display_name": self.get("display_name").clone(),
            "description": "",
            "python_module": self.get("python_module").clone(),
            "category": self.get("category").clone(),
            "output_node": self.is_output(),
        };
        // What only some classes tell.
        if let Json::Object(told) = &mut told {
            for key in ["deprecated", "experimental", "api_node"] {
                if let Some(value) = self.definition.get(key) {
                    told.insert(key.into(), value.clone());
                }
            }
        }
        told
    }
}

/// `@folder` stands for the names of the models in it, `@input` for the files that were uploaded, `@images` for those that are
/// pictures by their names.
fn live(kind: &Json, spec: &Spec, disk: &Disk) -> Json {
    match kind.text().and_then(|kind| kind.strip_prefix('@')) {
        Some("input") => disk.names(Kind::Input).into(),
        Some("images") => {
            let names = disk.names(Kind::Input).into_iter();
            names.filter(|name| is_image(name)).collect()
        }
        // One is always there.
        Some("vae") => spec
            .names("vae")
            .into_iter()
            .chain(["pixel_space".into()])
            .collect(),
        Some(folder) => spec.names(folder).into(),
        None => kind.clone(),
    }
}
