use serde::Serialize;
use std::fmt;

/// Something in a file that is wrong, or (as a warning) probably not meant.
///
/// Shown as `file:line:column: path: what; hint`, which editors and terminals turn into a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, as it was named on the command line or by an `include`.
    pub file: String,
    /// Its line, 1.. .
    pub line: u32,
    /// Its column in characters, 1.. .
    pub column: u32,
    /// The value's path, such as `pools.image[2].weight`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do; empty when `what` says it all.
    pub hint: String,
}

impl Problem {
    /// A problem of no place in a file: a port that is taken, a kind that refuses its block.
    pub fn whole(about: &str, what: impl Into<String>) -> Self {
        Problem {
            file: about.to_owned(),
            line: 1,
            column: 1,
            path: String::new(),
            what: what.into(),
            hint: String::new(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// `did you mean …?` when one of `known` looks like `typed`, else the list of what there is.
pub(crate) fn suggest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let near = known
        .iter()
        .map(|name| (strsim::jaro_winkler(typed, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, name)) = near {
        return format!("did you mean `{name}`?");
    }
    match known.len() {
        0 => "none is known here".to_owned(),
        1 => format!("there is only `{}`", known[0]),
        // More than fits on two lines helps nobody.
        2..=24 => format!("there are {}", list(&known)),
        n => format!("none of the {n} names looks like it"),
    }
}

/// `a`, `b` and `c`.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// What somebody typed, short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    let clean: String = text
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MOST).is_some() {
        format!("{clean}…")
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_as_file_line_column_path_what_hint() {
        let mut problem = Problem {
            file: "conf/a.yaml".into(),
            line: 14,
            column: 9,
            path: "pools.image[2].weight".into(),
            what: "must be at least 1, got 0".into(),
            hint: "to take a node out use `drained: true`".into(),
        };
        assert_eq!(
            problem.to_string(),
            "conf/a.yaml:14:9: pools.image[2].weight: must be at least 1, got 0; to take a node out use `drained: true`"
        );
        problem.path.clear();
        problem.hint.clear();
        assert_eq!(
            problem.to_string(),
            "conf/a.yaml:14:9: must be at least 1, got 0"
        );
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_gets_the_list() {
        assert_eq!(suggest("imgae", ["image", "chat"]), "did you mean `image`?");
        assert_eq!(
            suggest("zzz", ["image", "chat"]),
            "there are `chat` and `image`"
        );
        assert_eq!(suggest("zzz", []), "none is known here");
    }
}
