//! `kind:` and `policy:`: a name, or a name with its own block, decoded by whoever owns the name.

use crate::config::decode::De;
use crate::config::fault::Path;
use crate::config::findings::{Findings, Spot};
use crate::config::problem::{shorten, suggest};
use crate::config::tree::{Mark, Node, Value};
use crate::config::typed::{Field, Raw};
use std::sync::Arc;
use tabane_api::{BoundKind, BoundPolicy, Registry};

/// The kind of a service; `http` when nothing was typed.
pub(crate) fn kind(
    typed: &Field<Raw>,
    outer: Spot,
    registry: &Registry,
    findings: &Findings,
) -> Option<Arc<dyn BoundKind>> {
    let block = Block::of(typed, "kind", "http", outer, findings)?;
    let Some(entry) = registry.find_kind(&block.name) else {
        block.unknown("kind", registry.kinds().iter().map(|k| k.name), findings);
        return None;
    };
    let bound = block.bind(entry.decode, findings)?;
    match bound.build(None) {
        Ok(_) => Some(bound),
        Err(why) => block.refused(why, findings),
    }
}

/// The policy of a service; what its kind says when nothing was typed.
pub(crate) fn policy(
    typed: &Field<Raw>,
    default: &str,
    outer: Spot,
    registry: &Registry,
    findings: &Findings,
) -> Option<Arc<dyn BoundPolicy>> {
    let block = Block::of(typed, "policy", default, outer, findings)?;
    let Some(entry) = registry.find_policy(&block.name) else {
        block.unknown(
            "policy",
            registry.policies().iter().map(|p| p.name),
            findings,
        );
        return None;
    };
    let bound = block.bind(entry.decode, findings)?;
    match bound.build() {
        Ok(_) => Some(bound),
        Err(why) => block.refused(why, findings),
    }
}

/// A name with its block.
struct Block {
    name: String,
    named_at: Mark,
    node: Arc<Node>,
    path: String,
}

type Decode<T> = fn(&mut dyn erased_serde::Deserializer<'_>) -> Result<Arc<T>, erased_serde::Error>;

impl Block {
    fn of(
        typed: &Field<Raw>,
        what: &str,
        default: &str,
        outer: Spot,
        findings: &Findings,
    ) -> Option<Block> {
        let Some(Raw(id)) = typed.get() else {
            if !typed.is_missing() {
                return None;
            }
            let (mark, path) = findings.place(outer);
            return Some(Block {
                name: default.to_owned(),
                named_at: mark,
                node: Node::empty(mark),
                path: format!("{path}.{what}"),
            });
        };
        let (node, path) = findings.raw(*id)?;
        match &node.value {
            Value::Scalar(scalar) => Some(Block {
                name: scalar.text.clone(),
                named_at: node.mark,
                node: Node::empty(node.mark),
                path,
            }),
            Value::Map(entries) if entries.len() == 1 => {
                let (key, block) = &entries[0];
                let block = match block.value {
                    Value::Null => Node::empty(block.mark),
                    _ => block.clone(),
                };
                Some(Block {
                    name: key.text.clone(),
                    named_at: key.mark,
                    node: block,
                    path: format!("{path}.{}", shorten(&key.text)),
                })
            }
            _ => {
                let hint = format!("write `{what}: NAME`, or `{what}: {{NAME: {{…}}}}`");
                findings.problem_at(node.mark, path, format!("expected one {what}"), hint);
                None
            }
        }
    }

    fn unknown<'a>(&self, what: &str, known: impl Iterator<Item = &'a str>, findings: &Findings) {
        let what = format!("there is no {what} `{}`", shorten(&self.name));
        findings.problem_at(
            self.named_at,
            self.path.clone(),
            what,
            suggest(&self.name, known),
        );
    }

    fn refused<T>(&self, why: String, findings: &Findings) -> Option<T> {
        let (what, hint) = why.split_once("; ").unwrap_or((&why, ""));
        let mark = match self.node.value {
            Value::Map(ref entries) if !entries.is_empty() => self.node.mark,
            _ => self.named_at,
        };
        findings.problem_at(mark, self.path.clone(), what, hint);
        None
    }

    fn bind<T: ?Sized>(&self, decode: Decode<T>, findings: &Findings) -> Option<Arc<T>> {
        let path = Path::Text(&self.path);
        let from = De::new(&self.node, &path, findings);
        findings.take_innermost();
        match decode(&mut <dyn erased_serde::Deserializer<'_>>::erase(from)) {
            Ok(bound) => Some(bound),
            Err(error) => {
                // Through the erased layer come only words; the place was noted when the fault arose.
                let (mark, path) = findings
                    .take_innermost()
                    .unwrap_or_else(|| (self.node.mark, self.path.clone()));
                let words = error.to_string();
                let (what, hint) = words.split_once("; ").unwrap_or((&words, ""));
                findings.problem_at(mark, path, what, hint);
                None
            }
        }
    }
}
