//! What the simulated node's tests do not reach; the rest is held against it in `tests/simulated.rs`.

use super::*;
use crate::needs::Needs;
use crate::workflow::Workflow;

const INFO: &str = r#"{
    "Load": {"input": {"required": {"name": [["xl/a.sft", "b.sft"]]}}, "output": ["MODEL", "CLIP,TEXT"], "output_node": false},
    "Lora": {"input": {"required": {"model": ["MODEL"], "lora": [["l.sft"]]}}, "output": ["MODEL"]},
    "Pass": {"input": {"optional": {"any": ["*"], "seed": ["INT", {"min": 0, "max": 18446744073709551615}], "many": ["COMBO", {"options": ["a"]}], "far": ["COMBO", {"remote": {"route": "/x"}}]}}, "output": ["*"]},
    "Text": {"input": {"required": {"text": ["TEXT, OTHER"]}}, "output": [["a"]]},
    "Choose": {"input": {"optional": {"of": [["a", "b"]]}}, "output": [["b", "a"]]},
    "Save": {"input": {"required": {"of": ["*"]}}, "output": [], "output_node": true}
}"#;

fn info(text: &str) -> ObjectInfo {
    ObjectInfo::read(text.as_bytes()).unwrap()
}

fn prompt(text: &str) -> Object {
    Json::read(text.as_bytes())
        .unwrap()
        .object()
        .unwrap()
        .clone()
}

fn valid(text: &str) -> Result<Valid, Invalid> {
    let (info, names) = (info(INFO), Names::default());
    let rules = Rules {
        info: &info,
        names: &names,
        dialect: Dialect::Late,
        has_file: &|_| true,
    };
    validate(&prompt(text), None, rules)
}

/// What is first said of the node `1`; empty: nothing.
fn said(node: &str) -> String {
    let text = format!(
        r#"{{"0": {{"class_type": "Load", "inputs": {{"name": "b.sft"}}}}, "3": {{"class_type": "Choose", "inputs": {{}}}}, "1": {node}, "2": {{"class_type": "Save", "inputs": {{"of": ["1", 0]}}}}}}"#
    );
    match valid(&text) {
        Err(Invalid::Told(told)) => {
            let node = told.node_errors.get("1").unwrap_or(&told.error);
            let first = node.get("errors").and_then(|errors| errors.list()?.first());
            let told = first.unwrap_or(node);
            ["type", "message"]
                .map(|key| told.get(key).map(python::str).unwrap_or_default())
                .join(": ")
        }
        Err(Invalid::Unexpected) => "unexpected".into(),
        Ok(_) => String::new(),
    }
}

#[test]
fn values_and_links_are_looked_at_as_python_would() {
    let too_big =
        "value_bigger_than_max: Value 18446744073709551616 bigger than max of 18446744073709551615";
    let inner = "exception_during_inner_validation: Exception when validating inner node";
    for (node, told) in [
        (
            r#"{"class_type": "Pass", "inputs": {"seed": 18446744073709551615}}"#,
            "",
        ),
        (
            r#"{"class_type": "Pass", "inputs": {"seed": 18446744073709551616}}"#,
            too_big,
        ),
        (
            r#"{"class_type": "Pass", "inputs": {"many": {"__value__": ["x"]}, "far": "anything"}}"#,
            "",
        ),
        (
            r#"{"class_type": "Load", "inputs": {"name": "xl\\a.sft"}}"#,
            "",
        ),
        (
            r#"{"class_type": "Load", "inputs": {"name": "c.sft"}}"#,
            "value_not_in_list: Value not in list",
        ),
        (
            r#"{"class_type": "Text", "inputs": {"text": ["0", 1]}}"#,
            "",
        ),
        (
            r#"{"class_type": "Text", "inputs": {"text": ["0", -1]}}"#,
            "",
        ),
        // Lists of options are united over all nodes, so as types they are not held against each other.
        (
            r#"{"class_type": "Choose", "inputs": {"of": ["3", 0]}}"#,
            "",
        ),
        (
            r#"{"class_type": "Text", "inputs": {"text": ["0", 0]}}"#,
            "return_type_mismatch: Return type mismatch between linked nodes",
        ),
        (
            r#"{"class_type": "Pass", "inputs": {"any": ["0", 2]}}"#,
            inner,
        ),
        (
            r#"{"class_type": "Pass", "inputs": {"any": ["0", 0.0]}}"#,
            inner,
        ),
        (
            r#"{"class_type": "Pass", "inputs": {"any": [0, 0]}}"#,
            inner,
        ),
        (r#"{"class_type": "Pass"}"#, inner),
    ] {
        assert_eq!(said(node), told, "{node}");
    }
}

#[test]
fn a_deep_prompt_does_not_end_the_stack_and_a_long_cycle_is_not_told_by_each() {
    let node = |i: usize, from: usize| {
        format!(r#""{i}": {{"class_type": "Pass", "inputs": {{"any": ["{from}", 0]}}}}"#)
    };
    let whole = |last: usize| {
        let nodes: Vec<String> = (0..9000)
            .map(|i| node(i, if i == 8999 { last } else { i + 1 }))
            .collect();
        format!(
            r#"{{{}, "load": {{"class_type": "Pass", "inputs": {{}}}}, "s": {{"class_type": "Save", "inputs": {{"of": ["0", 0]}}}}}}"#,
            nodes.join(",")
        )
    };
    let chain = whole(9000).replace(r#"["9000", 0]"#, r#"["load", 0]"#);
    assert_eq!(valid(&chain).unwrap().outputs, ["s"]);
    let Err(Invalid::Told(told)) = valid(&whole(0)) else {
        panic!("a cycle is right")
    };
    assert_eq!(told.node_errors.keys().collect::<Vec<_>>(), ["0"]);
    assert!(told.to_string().len() < 1_000_000);
    let more = whole(0).replacen(
        '{',
        &format!(
            "{{{},",
            (9001..10_200)
                .map(|i| node(i, 0))
                .collect::<Vec<_>>()
                .join(",")
        ),
        1,
    );
    let Err(Invalid::Told(told)) = valid(&more) else {
        panic!("there is no bound")
    };
    assert_eq!(
        told.error.get("details").map(python::str).unwrap(),
        "10201 nodes, of at most 10000"
    );
}

#[test]
fn many_wrong_outputs_do_not_make_an_answer_without_end() {
    let nodes = (0..2000).map(|i| format!(r#""{i}": {{"class_type": "Save", "inputs": {{}}}}"#));
    let Err(Invalid::Told(told)) = valid(&format!("{{{}}}", nodes.collect::<Vec<_>>().join(",")))
    else {
        panic!("all are right")
    };
    assert!((400..2000).contains(&told.node_errors.len()));
    let details = told.error.get("details").map(python::str).unwrap();
    assert_eq!(details.lines().count(), 2000, "each is told once");
    assert!(told.to_string().len() < 3_000_000);
}

#[test]
fn what_no_single_node_has_is_named_with_who_has_it() {
    let a = info(&INFO.replace("\"l.sft\"", ""));
    let b = info(&INFO.replace("xl/a.sft", "other.sft"));
    let c = info(
        &INFO
            .replace("\"Lora\"", "\"NoLora\"")
            .replace("xl/a.sft", "other.sft"),
    );
    let text = r#"{
        "4": {"class_type": "Load", "inputs": {"name": "xl/a.sft"}},
        "5": {"class_type": "Lora", "inputs": {"model": ["4", 0], "lora": "l.sft"}},
        "9": {"class_type": "Save", "inputs": {"of": ["5", 0]}}
    }"#;
    let nodes = [("gpu1", &a), ("gpu2", &b), ("gpu3", &c)];
    let (all, _) = ObjectInfo::merged(&nodes);
    let names = Names::default();
    let prompt = prompt(text);
    let rules = Rules {
        info: &all,
        names: &names,
        dialect: Dialect::Late,
        has_file: &|_| true,
    };
    assert!(
        validate(&prompt, None, rules).is_ok(),
        "all together have it"
    );
    let needs = Needs::of(&Workflow::of(&prompt), &all);
    let told = nowhere(&needs, &nodes, &names).unwrap();
    assert_eq!(
        told.error.get("details").map(python::str).unwrap(),
        "gpu1 lacks lora 'l.sft'\ngpu2 lacks name 'xl/a.sft'\ngpu3 lacks the node type Lora, name 'xl/a.sft'"
    );
    let details = |id: &str| -> Vec<String> {
        let errors = told.node_errors[id]
            .get("errors")
            .and_then(Json::list)
            .unwrap();
        errors
            .iter()
            .map(|error| error.get("details").map(python::str).unwrap())
            .collect()
    };
    assert_eq!(details("4"), ["name 'xl/a.sft': only gpu1 has it"]);
    assert_eq!(
        details("5"),
        [
            "lora 'l.sft': only gpu2 has it",
            "the node type Lora: only gpu1, gpu2 has it"
        ]
    );
    assert_eq!(
        told.node_errors["4"]
            .get("dependent_outputs")
            .map(Json::to_string)
            .unwrap(),
        r#"["9"]"#
    );
    let whole = info(INFO);
    assert_eq!(
        nowhere(&needs, &[("gpu1", &a), ("gpu4", &whole)], &names),
        None
    );
    assert_eq!(nowhere(&needs, &[], &names), None);
}
