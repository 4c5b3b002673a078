use crate::twins::tree;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tabane_comfyui::files::{Files, Removed};
use tabane_comfyui::needs::Folder;

const HOUR: Duration = Duration::from_secs(3600);

/// Puts a file that was changed so long ago.
fn put(path: &Path, age: Duration) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "12345").unwrap();
    aged(path, age);
}

fn aged(path: &Path, age: Duration) {
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn what_is_old_goes_and_what_is_younger_stays() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).unwrap();
    let here = |path: &str| folder.path().join(path);
    put(&here("temp/old.png"), 3 * HOUR);
    put(&here("temp/young.png"), HOUR);
    put(&here("temp/sub/old.png"), 3 * HOUR);
    put(&here("temp/sub/deep/young.png"), HOUR);
    put(&here("temp/gone/old.png"), 3 * HOUR);
    fs::create_dir(here("temp/empty")).unwrap();
    fs::create_dir(here("temp/young")).unwrap();
    aged(&here("temp/gone"), 3 * HOUR);
    aged(&here("temp/empty"), 3 * HOUR);
    put(&here("output/old.png"), 3 * HOUR);
    std::os::unix::fs::symlink(here("output"), here("temp/link")).unwrap();
    let removed = files.remove_older(Folder::Temp, 2 * HOUR).await.unwrap();
    assert_eq!(
        removed,
        Removed {
            files: 3,
            bytes: 15
        }
    );
    let left: Vec<_> = tree(&here("temp")).into_keys().collect();
    assert_eq!(left, ["link/old.png", "sub/deep/young.png", "young.png"]);
    assert!(!here("temp/gone").exists() && !here("temp/empty").exists());
    assert!(here("temp/young").exists());
    let removed = files.remove_older(Folder::Temp, 2 * HOUR).await.unwrap();
    assert_eq!(removed, Removed::default());
    let removed = files.remove_older(Folder::Output, 2 * HOUR).await.unwrap();
    assert_eq!(removed.files, 1);
}

#[tokio::test]
async fn drafts_that_nobody_finishes_go_and_those_on_their_way_stay() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).unwrap();
    let drafts = folder.path().join(".drafts");
    let left = || tree(&drafts).into_keys().collect::<Vec<_>>();
    put(&drafts.join("old"), 2 * HOUR);
    put(&drafts.join("young"), HOUR / 2);
    Files::open(folder.path()).unwrap();
    assert_eq!(left(), ["young"]);
    put(&drafts.join("old"), 2 * HOUR);
    files.remove_older(Folder::Temp, HOUR).await.unwrap();
    assert_eq!(left(), ["young"]);
}
