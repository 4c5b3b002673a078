//! What comes off a node and is kept: results, and files that go to other nodes.

use super::disk::{Disk, is_taken};
use super::draft::{Draft, Mark, NotNamed, Whole, is_draft};
use super::given::{self, Wanted};
use super::kept::Kept;
use super::paths::below;
use super::{Files, names};
use crate::needs::FilePath;
use futures::StreamExt;
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;
use tabane_api::{NodeError, Pieces};

/// A file that is kept now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Folders below its folder, with `/` between them.
    pub subfolder: String,
    /// The name it got: its own, if that was free.
    pub name: String,
    /// How long it is, in bytes.
    pub length: u64,
    /// The hash of its bytes.
    pub sha256: [u8; 32],
}

/// Why a file is not kept.
#[derive(Debug, thiserror::Error)]
pub enum Unplaced {
    /// The node did not give all of it.
    #[error("the file does not come off the node whole")]
    Node(#[from] NodeError),
    /// What the node calls it is no name of a file in this folder.
    #[error("`{0}` is no name that a file can be kept under")]
    Name(String),
    /// The disk said no.
    #[error("cannot keep `{name}`")]
    Disk {
        /// Which file.
        name: String,
        /// What the disk said.
        source: io::Error,
    },
}

// === impl Files ===

impl Files {
    /// Keeps a file that comes off a node, and says what it is called from now on. It gets its own name if nothing has that,
    /// and else the next free one: `prefix_00012_.png` after the highest counter that is there, or `name (1).ext`. Names are
    /// given one after the other, so that of many jobs which end at once each gets its own. It can be seen when all of it is
    /// on disk, and not before.
    ///
    /// The same bytes under the same name for the same job are kept once: if they were kept before (collecting its results
    /// was broken off, by the gateway's end as well), the name that they got then is said again. This is forgotten with
    /// [`forget`](Files::forget), and after a week.
    ///
    /// Folders are told from each other by `/` or `\`, whatever system the node runs on.
    ///
    /// Errors: the node breaks off; the name leads out of the folder; the disk is full or broken. Nothing is kept then.
    pub async fn place(
        &self,
        job: &str,
        at: FilePath<'_>,
        mut bytes: Pieces,
    ) -> Result<Placed, Unplaced> {
        let failed = |source| Unplaced::Disk {
            name: at.name.to_owned(),
            source,
        };
        let subfolder = at.subfolder.replace('\\', "/");
        let folder = self
            .path_of(at)
            .and_then(|path| path.parent().map(ToOwned::to_owned))
            .ok_or_else(|| Unplaced::Name(format!("{}/{}", at.subfolder, at.name)))?;
        let mut draft = Draft::begin(self).await.map_err(failed)?;
        while let Some(piece) = bytes.next().await {
            draft.add(&piece?).await.map_err(failed)?;
        }
        let whole = draft.finish().await.map_err(failed)?;
        let Mark { length, sha256 } = whole.mark();
        let (job, wanted) = (job.to_owned(), at.name.to_owned());
        let (told, within) = (at.folder.name(), subfolder.clone());
        let named = self
            .blocking(move |disk| {
                let wanted = Wanted {
                    job: &job,
                    folder: told,
                    subfolder: &within,
                    name: &wanted,
                };
                give_name(disk, folder, &wanted, whole)
            })
            .await;
        Ok(Placed {
            subfolder,
            name: named.flatten().map_err(failed)?,
            length,
            sha256,
        })
    }

    /// Forgets which names a job's results got: all are collected, and nobody will collect them again.
    pub async fn forget(&self, job: &str) -> io::Result<()> {
        let job = job.to_owned();
        self.blocking(move |disk| given::forget(disk, &job)).await?
    }

    /// The file of this name, opened; `None` where there is none.
    ///
    /// Errors: it is there, and cannot be read.
    pub async fn find(&self, at: FilePath<'_>) -> io::Result<Option<Kept>> {
        match self.path_of(at) {
            Some(path) => self.blocking(move |_| Kept::open(&path)).await?,
            None => Ok(None),
        }
    }

    /// Whether there is a file of this name. Waits for the disk, for a moment.
    pub fn has(&self, at: FilePath<'_>) -> bool {
        self.path_of(at).is_some_and(|path| path.is_file())
    }

    /// Something that changes with what a file holds; `None`: there is none of this name. Waits for the disk, for a moment.
    pub fn stamp(&self, at: FilePath<'_>) -> Option<String> {
        let meta = std::fs::metadata(self.path_of(at)?).ok()?;
        let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        meta.is_file()
            .then(|| format!("{:x}-{:x}", changed.as_nanos(), meta.len()))
    }

    /// Where a file lies; `None` where its name leads out of its folder, or is none.
    fn path_of(&self, at: FilePath<'_>) -> Option<PathBuf> {
        let is_name = !at.name.is_empty()
            && !at.name.contains(['/', '\\'])
            && !matches!(at.name, "." | "..")
            && !is_draft(at.name);
        let folder = below(
            &self.disk.folder(at.folder),
            &at.subfolder.replace('\\', "/"),
        )?;
        is_name.then(|| folder.join(at.name))
    }
}

fn give_name(
    disk: &Disk,
    folder: PathBuf,
    wanted: &Wanted<'_>,
    mut whole: Whole,
) -> io::Result<String> {
    let mut given = wanted.given(disk).into_iter();
    let mark = whole.mark();
    if let Some(name) = given.find(|name| mark.is_of(&folder.join(name))) {
        return Ok(name);
    }
    let mut name = wanted.name.to_owned();
    loop {
        let path = folder.join(&name);
        if is_taken(&path) {
            name = names::next(&folder, wanted.name)?;
            continue;
        }
        wanted.note(disk, &name)?;
        match whole.take_name(disk, &path) {
            Ok(()) => return Ok(name),
            Err(NotNamed::Taken(again)) => whole = again,
            Err(NotNamed::Disk(error)) => return Err(error),
        }
    }
}
