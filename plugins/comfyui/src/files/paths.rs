//! Where a path that a client names leads: below its folder, or nowhere.

use crate::needs::Folder;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

// === impl Folder ===

impl Folder {
    /// All of them.
    pub const ALL: [Folder; 3] = [Folder::Input, Folder::Output, Folder::Temp];

    /// The folder that clients call so (`type=output`).
    pub fn named(name: &str) -> Option<Folder> {
        Folder::ALL.into_iter().find(|folder| folder.name() == name)
    }

    /// What clients call it, and what it is called on disk.
    pub fn name(self) -> &'static str {
        match self {
            Folder::Input => "input",
            Folder::Output => "output",
            Folder::Temp => "temp",
        }
    }
}

/// A path below a folder, whatever is there. `None`: it would lead out of it, on its way or at its end.
pub(super) fn below(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let mut below = folder.to_owned();
    below.extend(parts);
    Some(below)
}

/// A name without the ` [output]` that may stand behind it, and the folder that this says.
///
/// Source: ComfyUI `folder_paths.annotated_filepath`, which cuts off the character before the bracket, whatever it is.
pub(super) fn annotated(name: &str) -> (&str, Option<Folder>) {
    let named = Folder::ALL.into_iter().find_map(|folder| {
        let rest = name.strip_suffix(']')?.strip_suffix(folder.name())?;
        Some((rest.strip_suffix('[')?, folder))
    });
    match named {
        Some((rest, folder)) => {
            let mut rest = rest.chars();
            rest.next_back();
            (rest.as_str(), Some(folder))
        }
        None => (name, None),
    }
}

/// A path relative to a folder, as clients are told it.
pub(super) fn told(path: &Path, folder: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path);
    let parts = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy());
    let told = parts.collect::<Vec<_>>().join("/");
    // Python's `relpath` of a folder to itself.
    if told.is_empty() { ".".into() } else { told }
}

/// A name in two: before its extension, and the extension with its dot. Dots in front are no extension's.
///
/// Source: Python `os.path.splitext`.
pub(super) fn split_extension(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dots = name[base..]
        .bytes()
        .take_while(|byte| *byte == b'.')
        .count();
    match name[base + dots..].rfind('.') {
        Some(dot) => name.split_at(base + dots + dot),
        None => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_its_folder() {
        let leads = |path: &str| {
            let path = below(Path::new("/top"), path)?;
            path.to_str().map(str::to_owned)
        };
        for (path, wanted) in [
            ("", Some("/top")),
            (".", Some("/top")),
            ("a.png", Some("/top/a.png")),
            ("a/./b//c/", Some("/top/a/b/c")),
            ("a/../b", Some("/top/b")),
            ("..", None),
            ("a/../../top/b", None),
            ("../top/a", None),
            ("/etc/passwd", None),
            ("/top/a", None),
            ("...", Some("/top/...")),
            ("a\\..\\..", Some("/top/a\\..\\..")),
        ] {
            assert_eq!(leads(path).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn a_name_may_say_its_folder() {
        for (name, wanted) in [
            ("a.png", ("a.png", None)),
            ("a.png [output]", ("a.png", Some(Folder::Output))),
            ("a.png[input]", ("a.pn", Some(Folder::Input))),
            ("é[temp]", ("", Some(Folder::Temp))),
            ("[temp]", ("", Some(Folder::Temp))),
            ("a [other]", ("a [other]", None)),
            ("output]", ("output]", None)),
        ] {
            assert_eq!(annotated(name), wanted, "{name}");
        }
    }

    #[test]
    fn extensions_are_what_python_takes_for_them() {
        for (name, wanted) in [
            ("a.png", ("a", ".png")),
            ("a.tar.gz", ("a.tar", ".gz")),
            ("a", ("a", "")),
            (".hidden", (".hidden", "")),
            ("..a.b", ("..a", ".b")),
            ("x.y/a", ("x.y/a", "")),
            ("x.y/a.b", ("x.y/a", ".b")),
            ("a.", ("a", ".")),
            ("é.é", ("é", ".é")),
        ] {
            assert_eq!(split_extension(name), wanted, "{name}");
        }
    }
}
