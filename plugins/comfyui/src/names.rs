//! What a node calls a file. A prompt names models as the list of some node has them; another one has the same file under
//! another name: with `\` on Windows, or renamed, and ComfyUI compares texts.

use crate::json::Json;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Names that mean the same file.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Of each name all that mean the same, in the order of the table.
    aliases: HashMap<String, Vec<String>>,
}

// === impl Names ===

impl Names {
    /// From a table of names that mean the same, each line a file.
    pub fn new<S: Into<String>>(table: impl IntoIterator<Item = Vec<S>>) -> Self {
        let mut aliases: HashMap<String, Vec<String>> = HashMap::new();
        for line in table {
            let line: Vec<String> = line
                .into_iter()
                .map(|name| portable(&name.into()).into_owned())
                .collect();
            for name in &line {
                aliases
                    .entry(name.clone())
                    .or_default()
                    .extend(line.iter().cloned());
            }
        }
        Names { aliases }
    }

    /// The option that means `wanted`: the same text, else the same path, else an alias of it.
    pub fn find<'o>(&self, wanted: &str, options: &'o [Json]) -> Option<&'o str> {
        let texts = || options.iter().filter_map(Json::text);
        let named = |name: &str| texts().find(|option| portable(option) == name);
        let wanted_path = portable(wanted);
        texts()
            .find(|option| *option == wanted)
            .or_else(|| named(&wanted_path))
            .or_else(|| {
                let aliases = self.aliases.get(wanted_path.as_ref())?;
                aliases.iter().find_map(|alias| named(alias))
            })
    }
}

/// What is in any of some lists, each once: the first list first. Paths are written with `/`.
pub fn united<'a>(lists: impl IntoIterator<Item = &'a [Json]>) -> Vec<Json> {
    let mut seen = HashSet::new();
    let all = lists.into_iter().flatten();
    let all = all.map(|option| match option {
        Json::Text(text) => portable(text).into_owned().into(),
        other => other.clone(),
    });
    all.filter(|option| seen.insert(option.to_string()))
        .collect()
}

/// A path as everybody but Windows writes it. What is no path of a file stays as it is.
pub fn portable(name: &str) -> Cow<'_, str> {
    let is_file = |last: &str| last.trim_matches('.').contains('.') && !last.contains('/');
    match name.rsplit_once('\\') {
        Some((_, last)) if is_file(last) => name.replace('\\', "/").into(),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_under_the_name_that_a_node_has_for_it() {
        let names = Names::new([
            vec![
                "sd_xl_base_1.0.safetensors",
                r"xl\base.safetensors",
                "base.ckpt",
            ],
            vec!["base.ckpt", "old.ckpt"],
        ]);
        for (wanted, options, found) in [
            ("flux/a.sft", vec!["flux/a.sft"], Some("flux/a.sft")),
            (
                "flux/a.sft",
                vec!["a.sft", r"flux\a.sft"],
                Some(r"flux\a.sft"),
            ),
            (r"flux\a.sft", vec!["flux/a.sft"], Some("flux/a.sft")),
            (
                r"flux\a.sft",
                vec!["flux/a.sft", r"flux\a.sft"],
                Some(r"flux\a.sft"),
            ),
            ("flux/a.sft", vec!["a.sft", "Flux/a.sft"], None),
            (
                "sd_xl_base_1.0.safetensors",
                vec!["base.ckpt", "xl/base.safetensors"],
                Some("xl/base.safetensors"),
            ),
            (
                "xl/base.safetensors",
                vec![r"sd_xl_base_1.0.safetensors"],
                Some("sd_xl_base_1.0.safetensors"),
            ),
            ("base.ckpt", vec!["old.ckpt"], Some("old.ckpt")),
            ("old.ckpt", vec!["sd_xl_base_1.0.safetensors"], None),
            ("a", vec![], None),
        ] {
            let options: Vec<Json> = options.into_iter().map(Json::from).collect();
            assert_eq!(
                names.find(wanted, &options),
                found,
                "{wanted} in {options:?}"
            );
        }
    }

    #[test]
    fn lists_are_united_in_the_order_of_the_first() {
        let lists = [
            r#"["b.sft", "x\\a.sft", 1]"#,
            r#"["x/a.sft", "0.sft", "1", "b.sft"]"#,
        ];
        let lists = lists.map(|list| Json::read(list.as_bytes()).unwrap());
        let all = united(lists.iter().filter_map(Json::list));
        assert_eq!(
            Json::List(all).to_string(),
            r#"["b.sft", "x/a.sft", 1, "0.sft", "1"]"#
        );
    }

    #[test]
    fn only_paths_of_files_are_turned() {
        for (name, turned) in [
            (r"a\b\c.safetensors", "a/b/c.safetensors"),
            (r"a/b\c.sft", "a/b/c.sft"),
            (r"\d+", r"\d+"),
            (r"a\..", r"a\.."),
            (r"a\n", r"a\n"),
            (r"\1.5/x", r"\1.5/x"),
            ("a/b.sft", "a/b.sft"),
        ] {
            assert_eq!(portable(name), turned);
        }
    }
}
