//! A node's folders. They outlive its process: uploads and outputs are there after a restart, what is temporary is not.

use super::picture::{Picture, made_up};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;
use tempfile::TempDir;

/// One of the three folders that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Input,
    Output,
    Temp,
}

pub(crate) struct Disk {
    root: TempDir,
    windows: bool,
}

/// Where a node of a prompt writes its pictures.
pub(crate) struct SavePath {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
    /// The number of the first one.
    pub(crate) counter: u32,
    /// The folder below the output folder, as clients are told.
    pub(crate) subfolder: String,
}

// === impl Kind ===

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Kind> {
        match name {
            "input" => Some(Kind::Input),
            "output" => Some(Kind::Output),
            "temp" => Some(Kind::Temp),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Input => "input",
            Kind::Output => "output",
            Kind::Temp => "temp",
        }
    }
}

// === impl Disk ===

impl Disk {
    /// A new one, with the picture that every server comes with.
    pub(crate) fn new(windows: bool) -> io::Result<Disk> {
        let disk = Disk {
            root: tempfile::Builder::new().prefix("comfy-").tempdir()?,
            windows,
        };
        for kind in [Kind::Input, Kind::Output, Kind::Temp] {
            fs::create_dir_all(disk.folder(kind))?;
        }
        let example = Picture::squares(64, 64, |x, y| made_up(1, x, y));
        fs::write(
            disk.folder(Kind::Input).join("example.png"),
            example.png(&[]),
        )?;
        Ok(disk)
    }

    /// What a process does first.
    pub(crate) fn forget_temp(&self) -> io::Result<()> {
        fs::remove_dir_all(self.folder(Kind::Temp))?;
        fs::create_dir_all(self.folder(Kind::Temp))
    }

    pub(crate) fn folder(&self, kind: Kind) -> PathBuf {
        self.root.path().join(kind.name())
    }

    /// The folder of what users keep.
    pub(crate) fn user(&self) -> PathBuf {
        self.root.path().join("user").join("default")
    }

    /// A path below a folder. `None`: it would lead out of it.
    pub(crate) fn below(&self, folder: &Path, path: &str) -> Option<PathBuf> {
        let path = if self.windows {
            path.replace('\\', "/")
        } else {
            path.to_owned()
        };
        let mut below = folder.to_owned();
        let mut deep = 0_usize;
        for part in Path::new(&path).components() {
            match part {
                Component::Normal(name) => {
                    below.push(name);
                    deep += 1;
                }
                Component::CurDir => {}
                Component::ParentDir => {
                    deep = deep.checked_sub(1)?;
                    below.pop();
                }
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(below)
    }

    /// A name that may end in ` [output]`, and so on, without that, and where it leads.
    pub(crate) fn annotated(name: &str) -> (&str, Option<Kind>) {
        for kind in [Kind::Output, Kind::Input, Kind::Temp] {
            let end = format!("[{}]", kind.name());
            if name.ends_with(&end) {
                // A space stands before it, which is not looked at.
                let cut = name.len().saturating_sub(end.len() + 1);
                return (name.get(..cut).unwrap_or(""), Some(kind));
            }
        }
        (name, None)
    }

    /// The file that a picture input names.
    pub(crate) fn input(&self, name: &str) -> Option<PathBuf> {
        let (name, kind) = Disk::annotated(name);
        let path = self.below(&self.folder(kind.unwrap_or(Kind::Input)), name)?;
        path.exists().then_some(path)
    }

    /// Names of the files at the top of a folder; as Python's `sorted` has them.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        let mut names: Vec<String> = self.files(kind).into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// The same, the newest first.
    pub(crate) fn newest(&self, kind: Kind) -> Vec<String> {
        let mut files = self.files(kind);
        files.sort_by_key(|(name, changed)| (std::cmp::Reverse(*changed), name.clone()));
        files.into_iter().map(|(name, _)| name).collect()
    }

    fn files(&self, kind: Kind) -> Vec<(String, SystemTime)> {
        let Ok(entries) = fs::read_dir(self.folder(kind)) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok().filter(|meta| meta.is_file())?;
                Some((entry.file_name().into_string().ok()?, meta.modified().ok()?))
            })
            .collect()
    }

    /// Where pictures of this prefix go: the number after the highest that is there, in each folder for itself.
    ///
    /// Errors: the prefix leads out of the folder; the text is the server's.
    pub(crate) fn save_path(
        &self,
        kind: Kind,
        prefix: &str,
        width: u32,
        height: u32,
    ) -> Result<SavePath, String> {
        let prefix = prefix
            .replace("%width%", &width.to_string())
            .replace("%height%", &height.to_string());
        let top = self.folder(kind);
        let path = self.below(&top, &prefix).ok_or_else(|| {
            let [folder, top] = [top.join(&prefix), top.clone()].map(|p| p.display().to_string());
            format!(
                "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: {folder}\n         output_dir: {top}\n         commonpath: /"
            )
        })?;
        // Nothing is the folder itself, whose name is a dot.
        let (folder, name) = if path == top {
            (top.clone(), ".".to_owned())
        } else {
            let name = path.file_name().unwrap_or_default();
            let folder = path.parent().unwrap_or(&top).to_owned();
            (folder, name.to_string_lossy().into_owned())
        };
        let subfolder = folder.strip_prefix(&top).unwrap_or(Path::new(""));
        let subfolder = subfolder.to_string_lossy().into_owned();
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let entries = fs::read_dir(&folder).map_err(|error| error.to_string())?;
        let taken = entries.filter_map(|entry| {
            let entry = entry.ok()?.file_name().into_string().ok()?;
            let rest = entry.strip_prefix(&name)?.strip_prefix('_')?;
            Some(rest.split('_').next()?.parse().unwrap_or(0))
        });
        Ok(SavePath {
            counter: taken.max().map_or(1, |highest: u32| highest + 1),
            subfolder: if self.windows {
                subfolder.replace('/', "\\")
            } else {
                subfolder
            },
            folder,
            name,
        })
    }

    /// Writes an upload by the server's rule: the same bytes under the same name are there already; others get the next free
    /// name, unless they are to replace what is there. `None`: it would lead out of the folder, or has no name.
    pub(crate) fn upload(
        &self,
        kind: Kind,
        subfolder: &str,
        name: &str,
        overwrite: bool,
        sent: &[u8],
        written: &[u8],
    ) -> Option<io::Result<String>> {
        let folder = self.below(&self.folder(kind), subfolder)?;
        let within = format!("{subfolder}/{name}");
        let mut path = self.below(&self.folder(kind), within.trim_start_matches('/'))?;
        if name.is_empty() || path == folder {
            return None;
        }
        let mut name = name.to_owned();
        let (stem, extension) = match name.rfind('.').filter(|dot| *dot > 0) {
            Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
            None => (name.clone(), String::new()),
        };
        let mut i = 1;
        while !overwrite && path.exists() {
            // What was sent is compared, also where something else is written: a mask is written into a picture.
            if fs::read(&path).is_ok_and(|there| there == sent) {
                return Some(Ok(name));
            }
            name = format!("{stem} ({i}){extension}");
            path = folder.join(&name);
            i += 1;
        }
        // A folder within the name is not made.
        let made = fs::create_dir_all(&folder);
        Some(made.and_then(|()| fs::write(&path, written)).map(|()| name))
    }
}

#[cfg(test)]
// In a test, what cannot be unwrapped is a failure.
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_renamed_unless_it_is_the_same() {
        let disk = Disk::new(false).unwrap();
        let up = |name: &str, overwrite, bytes: &[u8]| {
            disk.upload(Kind::Input, "", name, overwrite, bytes, bytes)
                .unwrap()
                .unwrap()
        };
        assert_eq!(up("u.png", false, b"a"), "u.png");
        assert_eq!(up("u.png", false, b"a"), "u.png");
        assert_eq!(up("u.png", false, b"b"), "u (1).png");
        assert_eq!(up("u.png", false, b"b"), "u (1).png");
        assert_eq!(up("u.png", false, b"c"), "u (2).png");
        assert_eq!(up("u.png", true, b"d"), "u.png");
        assert_eq!(fs::read(disk.input("u.png").unwrap()).unwrap(), b"d");
        assert!(
            disk.upload(Kind::Input, "..", "u.png", false, b"", b"")
                .is_none()
        );
    }

    #[test]
    fn outputs_are_numbered_after_the_highest_of_their_folder() {
        let disk = Disk::new(false).unwrap();
        let path = disk.save_path(Kind::Output, "a/b", 8, 8).unwrap();
        assert_eq!((path.counter, path.subfolder.as_str()), (1, "a"));
        fs::write(path.folder.join("b_00007_.png"), "").unwrap();
        fs::write(path.folder.join("bb_00009_.png"), "").unwrap();
        assert_eq!(
            disk.save_path(Kind::Output, "a/b", 8, 8).unwrap().counter,
            8
        );
        assert_eq!(disk.save_path(Kind::Output, "b", 8, 8).unwrap().counter, 1);
        assert!(disk.save_path(Kind::Output, "../b", 8, 8).is_err());
    }
}
