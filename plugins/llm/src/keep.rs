//! What was learned and what was spent, over restarts: one file in the service's folder, written whole each minute.

use crate::clock::{now, unix_s};
use crate::kind::Desk;
use crate::learn::Learned;
use crate::limits::{Day, Key, Moment};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

const NAME: &str = "learned.json";
const EVERY: Duration = Duration::from_secs(60);
/// What is longer was not written by us.
const MOST: u64 = 16 << 20;

/// What is kept.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    learned: Learned,
    spent: Vec<(Key, Day)>,
}

/// Takes up what was kept, and keeps what is learned from then on for as long as the desk is there.
pub(crate) async fn keep(desk: &Arc<Desk>, folder: Option<PathBuf>) {
    let Some(folder) = folder else { return };
    let place = folder.clone();
    let read = tokio::task::spawn_blocking(move || read(&place.join(NAME))).await;
    match read {
        Ok(Ok(kept)) => {
            let at = Moment {
                now: now(),
                unix_s: unix_s(),
            };
            desk.meters.set_days(kept.spent, at);
            *desk.learned.write() = kept.learned;
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(Err(error)) => {
            let file = folder.join(NAME);
            tracing::warn!(file = %file.display(), %error, "cannot read what was learned of engines; it is learned again");
        }
        Err(_) => {}
    }
    tokio::spawn(keep_writing(Arc::downgrade(desk), folder));
}

async fn keep_writing(desk: Weak<Desk>, folder: PathBuf) {
    let (mut last, mut warned) = (Vec::new(), false);
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(bytes) = desk.upgrade().and_then(|desk| written(&desk)) else {
            return;
        };
        if bytes == last {
            continue;
        }
        last.clone_from(&bytes);
        let place = folder.clone();
        let wrote = tokio::task::spawn_blocking(move || write(&place, &bytes)).await;
        match wrote {
            Ok(Err(error)) if !warned => {
                warned = true;
                tracing::warn!(folder = %folder.display(), %error, "cannot keep what was learned of engines; trying on");
            }
            Ok(Err(_)) | Err(_) => last.clear(),
            Ok(Ok(())) => warned = false,
        }
    }
}

fn written(desk: &Desk) -> Option<Vec<u8>> {
    let kept = Kept {
        learned: desk.learned.read().clone(),
        spent: desk.meters.days(),
    };
    serde_json::to_vec(&kept).ok()
}

fn read(file: &Path) -> io::Result<Kept> {
    if std::fs::metadata(file)?.len() > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&std::fs::read(file)?)?)
}

/// Writes it beside, and puts it in place when it is whole.
fn write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(bytes)?;
    beside.as_file().sync_all()?;
    beside.persist(folder.join(NAME)).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::Sample;

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("llm");
        let desk = Arc::new(Desk::default());
        keep(&desk, Some(folder.clone())).await;
        let sample = Sample {
            endpoint: "a/llm",
            model: "m",
            first_s: Some(0.5),
            step_s: Some(0.02),
            made: 50,
            prompt: 1000,
            whole: true,
            ..Sample::default()
        };
        desk.learned.write().add(&sample);
        while !folder.join(NAME).exists() {
            tokio::time::sleep(EVERY).await;
        }
        let again = Arc::new(Desk::default());
        keep(&again, Some(folder.clone())).await;
        assert_eq!(*again.learned.read(), *desk.learned.read());
        // What is no file of ours is said, and nothing is lost but it.
        std::fs::write(folder.join(NAME), b"{\"learned\": 5}").unwrap();
        let anew = Arc::new(Desk::default());
        keep(&anew, Some(folder)).await;
        assert_eq!(*anew.learned.read(), Learned::default());
    }
}
