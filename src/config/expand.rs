//! `${NAME}`, `${NAME:-default}` and `${file:/path}` inside of values; `$${` writes `${`.

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A secret is a line or a certificate, not a film.
const MAX_FILE: u64 = 64 * 1024;

/// What variables and files the values may draw on, and which they did.
pub(crate) struct Expander<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    /// What was drawn: the plan's hash covers it, so that a new value counts as a change.
    pub(crate) drawn: RefCell<Vec<(String, String)>>,
    /// The files that were read.
    pub(crate) files: RefCell<Vec<PathBuf>>,
}

type Wrong = (String, String);

impl<'a> Expander<'a> {
    pub(crate) fn new(env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Expander {
            env,
            drawn: RefCell::new(Vec::new()),
            files: RefCell::new(Vec::new()),
        }
    }

    /// The text with everything replaced, or `None` when there was nothing to replace.
    ///
    /// Errors: what is wrong, and what to do.
    pub(crate) fn expand(&self, text: &str, dir: &Path) -> Result<Option<String>, Wrong> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = rest.split_at(at);
            let after = &after[2..];
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let Some((inside, next)) = after.split_once('}') else {
                return Err((
                    "`${` is never closed".to_owned(),
                    "end it with `}`, or write `$${` for a literal `${`".to_owned(),
                ));
            };
            out.push_str(&self.value(inside, dir)?);
            rest = next;
        }
        out.push_str(rest);
        Ok(Some(out))
    }

    fn value(&self, inside: &str, dir: &Path) -> Result<String, Wrong> {
        let value = match inside.strip_prefix("file:") {
            Some(path) => self.file(path, dir)?,
            None => self.variable(inside)?,
        };
        self.drawn
            .borrow_mut()
            .push((inside.to_owned(), value.clone()));
        Ok(value)
    }

    fn variable(&self, inside: &str) -> Result<String, Wrong> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            return Err((
                format!(
                    "`{}` is not the name of a variable",
                    super::problem::shorten(name)
                ),
                "write `${NAME}`, `${NAME:-default}` or `${file:/path}`".to_owned(),
            ));
        }
        // As in a shell, `:-` also stands in for an empty variable.
        let value = (self.env)(name).filter(|value| default.is_none() || !value.is_empty());
        value.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
            (
                format!("the environment variable `{name}` is not set"),
                format!("set it, or give a default: `${{{name}:-default}}`"),
            )
        })
    }

    fn file(&self, path: &str, dir: &Path) -> Result<String, Wrong> {
        let full = dir.join(path);
        // Watched even while it is missing: it may come.
        self.files.borrow_mut().push(full.clone());
        let cannot = |why: String| {
            (
                format!("cannot read `{path}`: {why}"),
                "a relative path starts at this file's folder; for a variable use `${NAME:-default}`".to_owned(),
            )
        };
        let bytes = read_bounded(&full, MAX_FILE).map_err(cannot)?;
        let text =
            String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text".to_owned()))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

/// Reads an ordinary file of at most `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    // A named pipe would be waited for and a device never ends.
    let meta = std::fs::metadata(path).map_err(|error| reason(&error))?;
    if !meta.is_file() {
        return Err("it is not a file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| reason(&error))?;
    let mut bytes = Vec::new();
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| reason(&error))?;
    if bytes.len() as u64 > max {
        return Err(format!("it is larger than {} KiB", max / 1024));
    }
    Ok(bytes)
}

/// The system's words without its error number, the same on every system.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "it may not be read by this user".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<Option<String>, Wrong> {
        let env = |name: &str| match name {
            "A" => Some("a: \"1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Expander::new(&env).expand(text, Path::new("."))
    }

    #[test]
    fn variables_defaults_and_literals() {
        let is = |text: &str, expected: &str| {
            assert_eq!(expand(text), Ok(Some(expected.to_owned())), "{text}")
        };
        assert_eq!(expand("nothing $A {A}"), Ok(None));
        is("x${A}y", "xa: \"1y");
        is("${B:-b}${A}", "ba: \"1");
        is("${EMPTY:-b}", "b");
        is("${EMPTY}", "");
        is("${B:-}", "");
        is("$${A}", "${A}");
        is("a$${A}${B:-b}", "a${A}b");
        for bad in ["${B}", "${A", "${}", "${A B}", "${file:/none}", "${ä}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_files_last_newline_is_trimmed_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "se cret \r\n").unwrap();
        let env = |_: &str| None;
        let expander = Expander::new(&env);
        assert_eq!(
            expander.expand("${file:key}", dir.path()),
            Ok(Some("se cret ".to_owned()))
        );
        assert_eq!(expander.files.borrow().len(), 1);
        assert!(expander.expand("${file:.}", dir.path()).is_err());
    }
}
