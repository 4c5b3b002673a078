//! One YAML file as a tree that knows where everything stands.
//!
//! Built from the parser's events, not by its own loader: events need no recursion, so that depth,
//! size and aliases are bounded here, whatever the file holds. `${…}` is replaced in values while
//! the tree is built; lines therefore stay true, and no value can break the YAML around it.

use super::problem::shorten;
use std::collections::HashMap;
use std::sync::Arc;
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

/// Maps and lists in each other; the deepest thing a person may type is 7 deep, a plugin's block somewhat more.
const MAX_DEPTH: u32 = 48;
/// Values in one file, aliases counted as what they stand for. A thousand nodes written at length need some 20 000.
const MAX_VALUES: u64 = 200_000;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
    /// How many values it is made of, itself and aliases counted.
    weight: u64,
    /// How many levels are below it.
    height: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    /// Its `${…}` could not be replaced, which was told.
    Unreadable,
    Scalar(Scalar),
    List(Vec<Arc<Node>>),
    Map(Vec<(Key, Arc<Node>)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, or expanded: may be a number or a bool.
    pub(crate) plain: bool,
    /// Holds the value of a variable or of a file: not to be repeated in messages.
    pub(crate) expanded: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) mark: Mark,
}

/// Why there is no tree.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) mark: Mark,
    pub(crate) path: String,
    pub(crate) what: String,
    pub(crate) hint: String,
}

/// Replaces `${…}` in one scalar: its new text, or what is wrong with it (what, hint).
pub(crate) type Expand<'a> = dyn FnMut(&str) -> Result<Option<String>, (String, String)> + 'a;

/// What one file holds: its tree (`None`: nothing), and problems that do not keep the tree from being read.
pub(crate) struct Parsed {
    pub(crate) root: Option<Arc<Node>>,
    pub(crate) broken: Vec<Broken>,
}

/// Reads one file's text.
pub(crate) fn parse(file: u32, text: &str, expand: &mut Expand<'_>) -> Parsed {
    // Editors on Windows like to begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        file,
        end: end_of(text),
        open: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        root: None,
        broken: Vec::new(),
        expand,
    };
    if let Err(fatal) = builder.read(text) {
        builder.broken.push(fatal);
        builder.root = None;
    }
    Parsed {
        root: builder.root,
        broken: builder.broken,
    }
}

impl Node {
    /// A map without entries, in the place of a block that was not written.
    pub(crate) fn empty(mark: Mark) -> Arc<Node> {
        Arc::new(Node {
            mark,
            value: Value::Map(Vec::new()),
            weight: 1,
            height: 0,
        })
    }
}

struct Builder<'a, 'e> {
    file: u32,
    /// The last line, and the column behind its end.
    end: (u32, u32),
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    values: u64,
    root: Option<Arc<Node>>,
    broken: Vec<Broken>,
    expand: &'a mut Expand<'e>,
}

/// A map or list whose end has not come.
struct Open {
    mark: Mark,
    anchor: usize,
    what: Unfinished,
    weight: u64,
    height: u32,
}

enum Unfinished {
    List(Vec<Arc<Node>>),
    Map {
        entries: Vec<(Key, Arc<Node>)>,
        lines: HashMap<String, u32>,
        key: Option<Key>,
    },
}

impl Builder<'_, '_> {
    fn read(&mut self, text: &str) -> Result<(), Broken> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        loop {
            let (event, marker) = parser.next_token().map_err(|error| Broken {
                mark: self.mark(error.marker()),
                path: self.path(),
                what: format!("not YAML: {}", error.info()),
                hint: yaml_hint(text, error.marker().line()),
            })?;
            let mark = self.mark(&marker);
            match event {
                Event::StreamEnd => return Ok(()),
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart => {
                    documents += 1;
                    if documents > 1 {
                        return Err(broken(
                            mark,
                            "a second document begins here",
                            "write one document per file, and `include` the others",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    no_tag(mark, tag.is_some())?;
                    self.scalar(mark, text, style, anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    no_tag(mark, tag.is_some())?;
                    self.open(mark, anchor, Unfinished::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    no_tag(mark, tag.is_some())?;
                    let what = Unfinished::Map {
                        entries: Vec::new(),
                        lines: HashMap::new(),
                        key: None,
                    };
                    self.open(mark, anchor, what)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(anchor) => {
                    let Some(node) = self.anchors.get(&anchor).cloned() else {
                        return Err(broken(mark, "this alias stands inside its own anchor", ""));
                    };
                    self.add(mark, node)?;
                }
            }
        }
    }

    fn scalar(
        &mut self,
        mark: Mark,
        text: String,
        style: TScalarStyle,
        anchor: usize,
    ) -> Result<(), Broken> {
        if self.wants_key() {
            return self.key(mark, text);
        }
        let plain = matches!(style, TScalarStyle::Plain);
        let text_is_empty = text.is_empty();
        let value = if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
            Value::Null
        } else {
            match (self.expand)(&text) {
                Ok(None) => Value::Scalar(Scalar {
                    text,
                    plain,
                    expanded: false,
                }),
                Ok(Some(text)) => Value::Scalar(Scalar {
                    text,
                    plain: true,
                    expanded: true,
                }),
                Err((what, hint)) => {
                    let path = self.path();
                    self.broken.push(Broken {
                        mark,
                        path,
                        what,
                        hint,
                    });
                    Value::Unreadable
                }
            }
        };
        let mark = match &value {
            Value::Null if text_is_empty => self.before(mark),
            _ => mark,
        };
        let node = Arc::new(Node {
            mark,
            value,
            weight: 1,
            height: 0,
        });
        self.define(anchor, &node);
        self.add(mark, node)
    }

    fn key(&mut self, mark: Mark, text: String) -> Result<(), Broken> {
        let Some(Open {
            what: Unfinished::Map { lines, key, .. },
            ..
        }) = self.open.last_mut()
        else {
            return Ok(());
        };
        let first = lines.insert(text.clone(), mark.line);
        let what = format!("the key `{}` stands here twice", shorten(&text));
        *key = Some(Key { text, mark });
        if let Some(first) = first {
            self.broken.push(Broken {
                mark,
                path: self.path(),
                what,
                hint: format!("the first is on line {first}"),
            });
        }
        Ok(())
    }

    fn open(&mut self, mark: Mark, anchor: usize, what: Unfinished) -> Result<(), Broken> {
        if self.wants_key() {
            return Err(key_must_be_text(mark));
        }
        if self.open.len() as u32 >= MAX_DEPTH {
            return Err(too_deep(mark));
        }
        self.open.push(Open {
            mark,
            anchor,
            what,
            weight: 1,
            height: 0,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Broken> {
        let Some(done) = self.open.pop() else {
            return Ok(());
        };
        let node = Arc::new(Node {
            mark: done.mark,
            value: match done.what {
                Unfinished::List(items) => Value::List(items),
                Unfinished::Map { entries, .. } => Value::Map(entries),
            },
            weight: done.weight,
            height: done.height,
        });
        self.define(done.anchor, &node);
        // Its parts were counted when they came.
        self.attach(done.mark, node)
    }

    /// A value that begins and ends at once: a scalar, or an alias.
    fn add(&mut self, mark: Mark, node: Arc<Node>) -> Result<(), Broken> {
        if self.wants_key() {
            return Err(key_must_be_text(mark));
        }
        self.values = self.values.saturating_add(node.weight);
        if self.values > MAX_VALUES {
            return Err(broken(
                mark,
                format!("more than {MAX_VALUES} values, aliases counted as what they stand for"),
                "split the file, or use fewer aliases",
            ));
        }
        if self.open.len() as u32 + node.height > MAX_DEPTH {
            return Err(too_deep(mark));
        }
        self.attach(mark, node)
    }

    fn attach(&mut self, mark: Mark, node: Arc<Node>) -> Result<(), Broken> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight = parent.weight.saturating_add(node.weight);
        parent.height = parent.height.max(node.height + 1);
        match &mut parent.what {
            Unfinished::List(items) => items.push(node),
            Unfinished::Map { entries, key, .. } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => return Err(key_must_be_text(mark)),
            },
        }
        Ok(())
    }

    fn define(&mut self, anchor: usize, node: &Arc<Node>) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                what: Unfinished::Map { key: None, .. },
                ..
            })
        )
    }

    /// The place of a value that was not written: its parser's mark is that of whatever follows.
    fn before(&self, mark: Mark) -> Mark {
        match self.open.last() {
            Some(Open {
                what: Unfinished::Map { key: Some(key), .. },
                ..
            }) => key.mark,
            Some(list) => list.mark,
            None => mark,
        }
    }

    /// Where the next value comes.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.what {
                Unfinished::List(items) => path.push_str(&format!("[{}]", items.len())),
                Unfinished::Map { key: Some(key), .. } => {
                    let dot = if path.is_empty() { "" } else { "." };
                    path.push_str(&format!("{dot}{}", shorten(&key.text)));
                }
                Unfinished::Map { .. } => {}
            }
        }
        path
    }

    fn mark(&self, marker: &Marker) -> Mark {
        let (line, column) = ((marker.line() as u32).max(1), marker.col() as u32 + 1);
        // What is missing at the end of a file is found behind it: told at its last line.
        let (line, column) = match line > self.end.0 {
            true => self.end,
            false => (line, column),
        };
        Mark {
            file: self.file,
            line,
            column,
        }
    }
}

/// The last line and the column behind its end. A lone carriage return ends a line too (YAML 1.2, 5.4).
fn end_of(text: &str) -> (u32, u32) {
    let normal = text.replace("\r\n", "\n").replace('\r', "\n");
    let end = normal.lines().last().map_or(0, |line| line.chars().count());
    (normal.lines().count().max(1) as u32, end as u32 + 1)
}

fn broken(mark: Mark, what: impl Into<String>, hint: impl Into<String>) -> Broken {
    Broken {
        mark,
        path: String::new(),
        what: what.into(),
        hint: hint.into(),
    }
}

fn key_must_be_text(mark: Mark) -> Broken {
    broken(mark, "a key must be plain text", "")
}

fn too_deep(mark: Mark) -> Broken {
    broken(mark, format!("nested more than {MAX_DEPTH} deep"), "")
}

fn no_tag(mark: Mark, tagged: bool) -> Result<(), Broken> {
    if tagged {
        return Err(broken(mark, "tags (`!…`) mean nothing here", "remove it"));
    }
    Ok(())
}

/// The two mistakes that the parser's own words do not make plain.
fn yaml_hint(text: &str, line: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    if indent.contains('\t') {
        "indent with spaces, not with tabs".to_owned()
    } else if line.contains("${") && !line.contains("\"${") {
        "write `${…}` in quotes inside of braces and brackets".to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Parsed {
        parse(0, text, &mut |_| Ok(None))
    }

    #[test]
    fn a_billion_laughs_is_refused_before_it_is_laughed() {
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for i in 1..30 {
            let before = format!("*a{}, ", i - 1).repeat(9);
            text.push_str(&format!(
                "a{i}: &a{i} [{}]\n",
                before.trim_end_matches(", ")
            ));
        }
        let parsed = plain(&text);
        assert!(parsed.root.is_none());
        assert!(parsed.broken[0].what.contains("more than 200000 values"));
    }

    #[test]
    fn depth_is_bounded_in_flow_and_in_block() {
        for text in [
            "[".repeat(500_000),
            "- ".repeat(500_000),
            "{a: ".repeat(200_000),
        ] {
            let parsed = plain(&text);
            assert!(parsed.root.is_none());
            assert_eq!(parsed.broken.len(), 1, "{:?}", parsed.broken);
        }
    }

    #[test]
    fn an_alias_stands_for_its_anchor_and_never_for_itself() {
        let parsed = plain("a: &x {b: 1}\nc: *x\n");
        let Some(Value::Map(entries)) = parsed.root.as_deref().map(|n| n.value.clone()) else {
            panic!("not a map");
        };
        assert!(Arc::ptr_eq(&entries[0].1, &entries[1].1));
        assert_eq!(plain("a: &x [*x]\n").broken.len(), 1);
        assert_eq!(plain("a: *nobody\n").broken.len(), 1);
    }
}
