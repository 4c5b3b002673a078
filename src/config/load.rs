//! From a path to typed files: reading, includes, `${…}`, and every fault of form with its place.

use super::check;
use super::decode::decode;
use super::expand::{Expander, read_bounded};
use super::file::File;
use super::findings::{Findings, Spot};
use super::merge::merge;
use super::plan::Plan;
use super::problem::Problem;
use super::tree::{self, Mark};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tabane_api::Registry;

/// A page of YAML has some 3 KiB; a thousand nodes some 200 KiB.
const MAX_FILE: u64 = 1 << 20;
/// Included files in all.
const MAX_FILES: usize = 100;
/// Includes of includes.
const MAX_DEPTH: usize = 8;

/// A configuration that holds together.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the gateway is to do.
    pub plan: Plan,
    /// Every file it was made of: YAML, certificates, secrets. A change of any may change the plan.
    pub files: Vec<PathBuf>,
    /// The folders to watch: of those files, and of what `include` matches.
    pub watch_dirs: Vec<PathBuf>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads a file and all it includes, and makes a plan of it.
///
/// `env` answers for environment variables. Errors: every problem of all files, in reading order,
/// each with its place; at most 50, the last then saying how many more there are.
pub fn load(
    path: &Path,
    registry: &Registry,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    let mut reader = Reader::new(env, folder(path));
    reader.file(path, 0, None);
    reader.finish(registry)
}

/// The same for a text that stands in no file; `name` is what its problems call it.
///
/// Relative paths in it start at the current folder.
pub fn load_text(
    name: &str,
    text: &str,
    registry: &Registry,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    let mut reader = Reader::new(env, PathBuf::new());
    reader.text(name.to_owned(), PathBuf::new(), text.as_bytes(), 0);
    reader.finish(registry)
}

struct Reader<'a> {
    findings: Findings,
    expander: Expander<'a>,
    /// The folder of the first file: names in the hash are relative to it.
    base: PathBuf,
    /// Names and bytes, for the hash.
    read: Vec<(String, Vec<u8>)>,
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    seen: HashSet<PathBuf>,
    typed: Vec<(Spot, File)>,
}

impl<'a> Reader<'a> {
    fn new(env: &'a dyn Fn(&str) -> Option<String>, base: PathBuf) -> Self {
        Reader {
            findings: Findings::default(),
            expander: Expander::new(env),
            base,
            read: Vec::new(),
            files: Vec::new(),
            dirs: Vec::new(),
            seen: HashSet::new(),
            typed: Vec::new(),
        }
    }

    /// Reads one file; `by` is the place that includes it.
    fn file(&mut self, path: &Path, depth: usize, by: Option<Spot>) {
        // A file is read once, however many ways lead to it: `include: "*.yaml"` matches itself too.
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(identity) {
            return;
        }
        self.files.push(path.to_owned());
        self.dirs.push(folder(path));
        let name = path.display().to_string();
        match read_bounded(path, MAX_FILE) {
            Ok(bytes) => self.text(name, folder(path), &bytes, depth),
            Err(why) => match by {
                Some(spot) => {
                    self.findings
                        .problem(spot, format!("cannot read `{name}`: {why}"), "")
                }
                None => {
                    let file = self.findings.source(name, folder(path));
                    let hint = "name another with `-c FILE` or `TABANE_CONFIG`";
                    let what = format!("cannot read the file: {why}");
                    self.findings
                        .problem_at(start(file), String::new(), what, hint);
                }
            },
        }
    }

    fn text(&mut self, name: String, dir: PathBuf, bytes: &[u8], depth: usize) {
        let relative = Path::new(&name)
            .strip_prefix(&self.base)
            .map_or(name.clone(), |path| path.display().to_string());
        self.read.push((relative, bytes.to_owned()));
        let file = self.findings.source(name, dir.clone());
        let Some(text) = self.utf8(file, bytes) else {
            return;
        };
        let parsed = {
            let expander = &self.expander;
            tree::parse(file, text, &mut |scalar| expander.expand(scalar, &dir))
        };
        let unreadable = parsed.root.is_none() && !parsed.broken.is_empty();
        for broken in parsed.broken {
            self.findings
                .problem_at(broken.mark, broken.path, broken.what, broken.hint);
        }
        if unreadable {
            return;
        }
        let root = parsed
            .root
            .filter(|node| !matches!(node.value, tree::Value::Null));
        let spot = self.findings.spot(start(file), String::new());
        let Some(root) = root else {
            if depth == 0 {
                let hint =
                    "the least is `services: {any: {pool: [http://gpu1:8188], routes: [/]}}`";
                self.findings.problem(spot, "the file is empty", hint);
            }
            return;
        };
        if let Ok(typed) = decode::<File>(&root, "", &self.findings) {
            let place = self.typed.len();
            self.typed.push((spot, typed));
            self.includes(place, depth);
        }
    }

    fn utf8<'t>(&self, file: u32, bytes: &'t [u8]) -> Option<&'t str> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let line = before.matches('\n').count() as u32 + 1;
                let column = before
                    .rsplit('\n')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .count() as u32
                    + 1;
                self.findings.problem_at(
                    Mark { file, line, column },
                    String::new(),
                    "this is not UTF-8 text",
                    "save the file as UTF-8",
                );
                None
            }
        }
    }

    fn includes(&mut self, place: usize, depth: usize) {
        let Some((outer, file)) = self.typed.get(place) else {
            return;
        };
        let outer = file.include.spot(*outer);
        let patterns: Vec<(Spot, String)> = file
            .include
            .get()
            .into_iter()
            .flat_map(|list| &list.0)
            .filter_map(|pattern| Some((pattern.spot(outer), pattern.get()?.clone())))
            .collect();
        for (spot, pattern) in patterns {
            self.include(spot, &pattern, depth);
        }
    }

    fn include(&mut self, spot: Spot, pattern: &str, depth: usize) {
        if depth >= MAX_DEPTH {
            let what = format!("includes more than {MAX_DEPTH} deep");
            return self
                .findings
                .problem(spot, what, "include it from a file further up");
        }
        if pattern.contains("**") {
            return self.findings.problem(
                spot,
                "`**` is not followed",
                "name the folders one by one",
            );
        }
        let dir = self.findings.dir(spot);
        let full = dir.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return self.bounded(&full, depth, spot);
        }
        self.dirs.push(folder(&full));
        let escaped = Path::new(&glob::Pattern::escape(&dir.display().to_string())).join(pattern);
        match glob::glob(&escaped.display().to_string()) {
            Ok(paths) => {
                for path in paths.flatten().filter(|path| path.is_file()) {
                    if self.files.len() > MAX_FILES {
                        return self.bounded(&path, depth, spot);
                    }
                    self.bounded(&path, depth, spot);
                }
            }
            Err(error) => self
                .findings
                .problem(spot, format!("not a pattern: {}", error.msg), ""),
        }
    }

    fn bounded(&mut self, path: &Path, depth: usize, spot: Spot) {
        if self.files.len() > MAX_FILES {
            let what = format!("more than {MAX_FILES} files are included");
            return self.findings.problem(spot, what, "join some of them");
        }
        self.file(path, depth + 1, Some(spot));
    }

    fn finish(mut self, registry: &Registry) -> Result<Loaded, Vec<Problem>> {
        let Some((root, _)) = self.typed.first() else {
            return Err(self.findings.problems());
        };
        let root = *root;
        let typed = std::mem::take(&mut self.typed);
        let all = merge(root, typed, &self.findings);
        let (mut plan, more_files) = check::check(&all, registry, &self.findings);
        if self.findings.any() {
            return Err(self.findings.problems());
        }
        for (path, bytes) in more_files {
            self.read.push((path.display().to_string(), bytes));
            self.files.push(path);
        }
        plan.hash = self.hash();
        self.files.append(&mut self.expander.files.borrow_mut());
        let mut dirs = std::mem::take(&mut self.dirs);
        dirs.extend(self.files.iter().map(|file| folder(file)));
        Ok(Loaded {
            plan,
            files: distinct(self.files),
            watch_dirs: distinct(dirs),
            warnings: self.findings.warnings(),
        })
    }

    /// What was read and what was drawn on, each with its length, so that no two sets look alike.
    fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        let mut read: Vec<_> = self.read.iter().collect();
        read.sort();
        for (name, bytes) in read {
            add(name.as_bytes());
            add(bytes);
        }
        let drawn = self.expander.drawn.borrow();
        let mut drawn: Vec<_> = drawn.iter().collect();
        drawn.sort();
        for (name, value) in drawn {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn start(file: u32) -> Mark {
    Mark {
        file,
        line: 1,
        column: 1,
    }
}

/// The folder a path is in; `.` for a bare name, so that it can be watched.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    paths
        .into_iter()
        .filter(|path| seen.insert(path.clone()))
        .collect()
}
