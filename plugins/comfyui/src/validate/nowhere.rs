//! A prompt that is right, but for which no single node has everything: all nodes together are shown as one, so somebody may
//! put together what lies on two.

use super::{Told, problem};
use crate::json::{Json, Object, object};
use crate::names::Names;
use crate::needs::{Choice, Lack, Needs, Place, has};
use crate::object_info::ObjectInfo;
use crate::python;

/// What is told where every node lacks something, at each node of the prompt that is concerned: who has it, and who has not.
/// `None`: some node has everything.
///
/// Shapes: `nodes` by name, those that could be sent it.
pub fn nowhere(needs: &Needs<'_>, nodes: &[(&str, &ObjectInfo)], names: &Names) -> Option<Told> {
    let lacks = nodes
        .iter()
        .map(|(name, info)| (*name, needs.lacks(info, names)));
    let lacks: Vec<(&str, Vec<Lack<'_>>)> = lacks.collect();
    if lacks.is_empty() || lacks.iter().any(|(_, lacks)| lacks.is_empty()) {
        return None;
    }
    let told = lacks.iter().map(|(name, lacks)| {
        let lacks: Vec<String> = lacks.iter().map(|lack| words(*lack)).collect();
        format!("{name} lacks {}", lacks.join(", "))
    });
    let told = told.collect::<Vec<_>>().join("\n");
    let kind = "prompt_outputs_failed_validation";
    let error = problem(
        kind,
        "No node has all that this prompt needs",
        &told,
        object! {},
    );
    let mut node_errors = Object::new();
    for lack in lacks.iter().flat_map(|(_, lacks)| lacks) {
        let of = place(*lack);
        let entry = node_errors.entry(of.id.to_owned()).or_insert_with(|| {
            let outputs = needs.outputs.clone();
            object! {"errors": Json::List(Vec::new()), "dependent_outputs": outputs, "class_type": of.class}
        });
        let reason = reason(*lack, nodes, names);
        if let Json::Object(entry) = entry
            && let Some(Json::List(errors)) = entry.get_mut("errors")
            && !errors.contains(&reason)
        {
            errors.push(reason);
        }
    }
    Some(Told { error, node_errors })
}

fn place(lack: Lack<'_>) -> Place<'_> {
    match lack {
        Lack::Class(of) => of,
        Lack::Choice(choice) => choice.of,
    }
}

fn words(lack: Lack<'_>) -> String {
    match lack {
        Lack::Class(of) => format!("the node type {}", of.class),
        Lack::Choice(Choice { input, value, .. }) => format!("{input} {}", python::repr(value)),
    }
}

fn reason(lack: Lack<'_>, nodes: &[(&str, &ObjectInfo)], names: &Names) -> Json {
    let with = nodes.iter().filter(|(_, info)| match lack {
        Lack::Class(of) => info.class(of.class).is_some(),
        Lack::Choice(choice) => {
            let input = info
                .class(choice.of.class)
                .and_then(|class| class.input(choice.input));
            let options = input.and_then(|input| input.options());
            options.is_some_and(|options| has(options, choice.value, names))
        }
    });
    let with: Vec<&str> = with.map(|(name, _)| *name).collect();
    let with = if with.is_empty() {
        "no node".to_owned()
    } else {
        format!("only {}", with.join(", "))
    };
    let details = format!("{}: {with} has it", words(lack));
    match lack {
        Lack::Class(of) => {
            let extra = object! {"node_id": of.id, "class_type": of.class};
            problem("missing_node_type", "Not on every node", &details, extra)
        }
        Lack::Choice(choice) => {
            let extra = object! {"input_name": choice.input, "input_config": Json::Null, "received_value": choice.value.clone()};
            problem("value_not_in_list", "Value not in list", &details, extra)
        }
    }
}
