use super::problem::Problem;
use super::tree::{Mark, Node};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most problems that are kept; more than anyone reads, few enough for any file.
const MOST: usize = 1000;
/// The most problems that are told.
const TOLD: usize = 50;

/// What is found while files are read and checked: problems, warnings, and the places of what was typed.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    sources: RefCell<Vec<Source>>,
    spots: RefCell<Vec<(Mark, String)>>,
    raws: RefCell<Vec<(Arc<Node>, String)>>,
    problems: RefCell<Vec<(u32, Problem)>>,
    warnings: RefCell<Vec<(u32, Problem)>>,
    uncounted: RefCell<usize>,
    innermost: RefCell<Option<(Mark, String)>>,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// As it is shown.
    pub(crate) name: String,
    /// The folder that its relative paths start from.
    pub(crate) dir: PathBuf,
}

/// The place of something that was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot(pub(crate) u32);

/// A part of the tree kept for later: a kind's or policy's own block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawId(pub(crate) u32);

impl Findings {
    /// Takes in a file; what it answers is the `file` of its marks.
    pub(crate) fn source(&self, name: String, dir: PathBuf) -> u32 {
        let mut sources = self.sources.borrow_mut();
        sources.push(Source { name, dir });
        (sources.len() - 1) as u32
    }

    /// The folder that a path typed at `spot` is relative to.
    pub(crate) fn dir(&self, spot: Spot) -> PathBuf {
        let file = self.mark(spot).file as usize;
        let sources = self.sources.borrow();
        sources.get(file).map(|s| s.dir.clone()).unwrap_or_default()
    }

    /// `path` as seen from the file that `spot` is in.
    pub(crate) fn resolve(&self, spot: Spot, path: impl AsRef<Path>) -> PathBuf {
        self.dir(spot).join(path)
    }

    /// Remembers a place.
    pub(crate) fn spot(&self, mark: Mark, path: String) -> Spot {
        let mut spots = self.spots.borrow_mut();
        spots.push((mark, path));
        Spot((spots.len() - 1) as u32)
    }

    /// Where a spot is.
    pub(crate) fn mark(&self, spot: Spot) -> Mark {
        let spots = self.spots.borrow();
        spots.get(spot.0 as usize).map(|s| s.0).unwrap_or_default()
    }

    /// `file:line` of a spot, for messages that name a second place.
    pub(crate) fn show(&self, spot: Spot) -> String {
        let mark = self.mark(spot);
        format!("{}:{}", self.name(mark), mark.line)
    }

    /// Keeps a part of the tree.
    pub(crate) fn keep(&self, node: Arc<Node>, path: String) -> RawId {
        let mut raws = self.raws.borrow_mut();
        raws.push((node, path));
        RawId((raws.len() - 1) as u32)
    }

    /// A part of the tree that was kept, with its path.
    pub(crate) fn raw(&self, id: RawId) -> Option<(Arc<Node>, String)> {
        self.raws.borrow().get(id.0 as usize).cloned()
    }

    /// Something is wrong at `spot`.
    pub(crate) fn problem(&self, spot: Spot, what: impl Into<String>, hint: impl Into<String>) {
        let (mark, path) = self.place(spot);
        self.problem_at(mark, path, what, hint);
    }

    /// Something below `spot` is wrong that has no place of its own because it is missing.
    pub(crate) fn missing(&self, spot: Spot, key: &str, hint: impl Into<String>) {
        let (mark, path) = self.place(spot);
        self.problem_at(mark, path, format!("`{key}` is missing"), hint);
    }

    /// Something is wrong at a mark.
    pub(crate) fn problem_at(
        &self,
        mark: Mark,
        path: String,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= MOST {
            *self.uncounted.borrow_mut() += 1;
            return;
        }
        let problem = self.make(mark, path, what.into(), hint.into());
        problems.push((mark.file, problem));
    }

    /// Something at `spot` is probably not meant.
    pub(crate) fn warn(&self, spot: Spot, what: impl Into<String>, hint: impl Into<String>) {
        let (mark, path) = self.place(spot);
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MOST {
            let warning = self.make(mark, path, what.into(), hint.into());
            warnings.push((mark.file, warning));
        }
    }

    /// Notes where a fault arose, for decoders that hand on only its words. The first note of a fault is its place.
    pub(crate) fn note_innermost(&self, mark: Mark, path: &str) {
        let mut innermost = self.innermost.borrow_mut();
        innermost.get_or_insert_with(|| (mark, path.to_owned()));
    }

    /// Where the last fault arose, once.
    pub(crate) fn take_innermost(&self) -> Option<(Mark, String)> {
        self.innermost.borrow_mut().take()
    }

    /// Whether anything is wrong so far.
    pub(crate) fn any(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// The problems in reading order, at most 50; the last then says how many more there are.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut told = in_order(&self.problems);
        if told.len() > TOLD {
            let more = told.len() - TOLD + *self.uncounted.borrow();
            told.truncate(TOLD + 1);
            if let Some(last) = told.last_mut() {
                last.path = String::new();
                last.what = format!("… and {more} more");
                last.hint = "mend those above first".to_owned();
            }
        }
        told
    }

    /// The warnings in reading order.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        in_order(&self.warnings)
    }

    /// Mark and path of a spot.
    pub(crate) fn place(&self, spot: Spot) -> (Mark, String) {
        let spots = self.spots.borrow();
        spots.get(spot.0 as usize).cloned().unwrap_or_default()
    }

    fn name(&self, mark: Mark) -> String {
        let sources = self.sources.borrow();
        sources
            .get(mark.file as usize)
            .map(|s| s.name.clone())
            .unwrap_or_default()
    }

    fn make(&self, mark: Mark, path: String, what: String, hint: String) -> Problem {
        Problem {
            file: self.name(mark),
            line: mark.line.max(1),
            column: mark.column.max(1),
            path,
            what,
            hint,
        }
    }
}

fn in_order(found: &RefCell<Vec<(u32, Problem)>>) -> Vec<Problem> {
    let mut found = found.borrow().clone();
    found.sort_by(|(f, a), (g, b)| (f, a.line, a.column).cmp(&(g, b.line, b.column)));
    let mut told: Vec<Problem> = found.into_iter().map(|(_, problem)| problem).collect();
    told.dedup();
    told
}
