//! A prompt in the words of the node that it goes to: each model under the name that this node has for it.

use crate::json::{Json, Object};
use crate::names::Names;
use crate::object_info::ObjectInfo;

/// Writes what a prompt chooses as the node's own lists have it, and says how often that is another text. What the lists do
/// not have stays as it is: the node says so better.
pub fn translate(prompt: &mut Object, info: &ObjectInfo, names: &Names) -> usize {
    let mut changed = 0;
    for node in prompt.values_mut() {
        let class = node.get("class_type").and_then(Json::text);
        let Some(class) = class.and_then(|class| info.class(class)) else {
            continue;
        };
        let Json::Object(node) = node else { continue };
        let Some(Json::Object(inputs)) = node.get_mut("inputs") else {
            continue;
        };
        for (name, value) in inputs {
            let input = class.input(name).filter(|input| !input.is_upload());
            let Some(options) = input.and_then(|input| input.options()) else {
                continue;
            };
            for_each_text(value, &mut |text| {
                if let Some(own) = names.find(text, options)
                    && own != text
                {
                    *text = own.to_owned();
                    changed += 1;
                }
            });
        }
    }
    changed
}

/// Of a value that is one text, and of one that is several at once. A list alone is a link.
fn for_each_text(value: &mut Json, change: &mut impl FnMut(&mut String)) {
    match value {
        Json::Text(text) => change(text),
        Json::Object(wrapped) => match wrapped.get_mut("__value__") {
            Some(Json::List(values)) => {
                for value in values {
                    if let Json::Text(text) = value {
                        change(text);
                    }
                }
            }
            Some(Json::Text(text)) => change(text),
            _ => {}
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: &str = r#"{
        "Load": {"input": {"required": {"name": [["xl\\a.sft", "b.sft"]], "more": ["COMBO", {"options": ["m\\n.sft"]}], "text": ["STRING"]}}},
        "LoadImage": {"input": {"required": {"image": [["s\\a.png"], {"image_upload": true}]}}}
    }"#;

    #[test]
    fn only_what_the_node_calls_otherwise_is_written_otherwise() {
        let before = r#"{
            "1": {"class_type": "Load", "inputs": {"text": "xl/a.sft", "name": "xl/a.sft", "more": {"__value__": ["m/n.sft", 1, "x/y.sft"]}}, "_meta": {"title": "xl/a.sft"}},
            "2": {"class_type": "Load", "inputs": {"name": "renamed.sft", "more": ["xl/a.sft", 0]}},
            "3": {"class_type": "LoadImage", "inputs": {"image": "s/a.png"}},
            "4": {"class_type": "Unknown", "inputs": {"name": "xl/a.sft"}},
            "5": 3
        }"#;
        let info = ObjectInfo::read(WINDOWS.as_bytes()).unwrap();
        let names = Names::new([vec!["renamed.sft", "b.sft"]]);
        let mut prompt = Json::read(before.as_bytes())
            .unwrap()
            .object()
            .unwrap()
            .clone();
        assert_eq!(translate(&mut prompt, &info, &names), 3);
        let after = before
            .replace(
                r#""name": "xl/a.sft", "more""#,
                r#""name": "xl\\a.sft", "more""#,
            )
            .replace("m/n.sft", r"m\\n.sft")
            .replace("renamed.sft", "b.sft");
        assert_eq!(
            Json::Object(prompt.clone()),
            Json::read(after.as_bytes()).unwrap()
        );
        assert_eq!(translate(&mut prompt, &info, &names), 0, "once is enough");
    }
}
