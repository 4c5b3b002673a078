use crate::twins::tree;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::fs;
use std::path::Path;
use tabane_api::{NodeError, Pieces, one_piece};
use tabane_comfyui::files::{Files, Placed, Unplaced};
use tabane_comfyui::needs::{FilePath, Folder};
use tempfile::TempDir;

fn fresh() -> (TempDir, Files) {
    let folder = TempDir::new().unwrap();
    let files = Files::open(folder.path()).unwrap();
    (folder, files)
}

fn output<'a>(subfolder: &'a str, name: &'a str) -> FilePath<'a> {
    FilePath {
        folder: Folder::Output,
        subfolder,
        name,
    }
}

fn pieces(bytes: &[u8]) -> Pieces {
    let all: Vec<_> = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    stream::iter(all).map(Ok).boxed()
}

async fn place(files: &Files, job: &str, at: FilePath<'_>, bytes: &[u8]) -> Placed {
    files.place(job, at, pieces(bytes)).await.unwrap()
}

#[tokio::test]
async fn a_result_has_its_own_name_if_that_is_free() {
    let (folder, files) = fresh();
    for (i, (at, wanted)) in [
        (output("", "ComfyUI_00001_.png"), "ComfyUI_00001_.png"),
        (output("", "ComfyUI_00001_.png"), "ComfyUI_00002_.png"),
        (output("", "ComfyUI_00003_.png"), "ComfyUI_00003_.png"),
        (output("", "ComfyUI_00001_.png"), "ComfyUI_00004_.png"),
        (output("", "ComfyUI_00001_.webp"), "ComfyUI_00001_.webp"),
        (output("a/b", "ComfyUI_00001_.png"), "ComfyUI_00001_.png"),
        (output("a\\b", "ComfyUI_00001_.png"), "ComfyUI_00002_.png"),
        (output("", "mesh.glb"), "mesh.glb"),
        (output("", "mesh.glb"), "mesh (1).glb"),
        (output("", "mesh.glb"), "mesh (2).glb"),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = format!("result {i}");
        let placed = place(&files, &format!("job {i}"), at, bytes.as_bytes()).await;
        assert_eq!(placed.name, wanted);
        assert_eq!(placed.subfolder, at.subfolder.replace('\\', "/"));
        assert_eq!(placed.length, bytes.len() as u64);
        let path = folder.path().join("output").join(&placed.subfolder);
        assert_eq!(fs::read_to_string(path.join(wanted)).unwrap(), bytes);
    }
    assert!(tree(&folder.path().join(".drafts")).is_empty());
}

#[tokio::test]
async fn jobs_that_end_at_once_get_names_of_their_own() {
    let (folder, files) = fresh();
    let jobs = (0..40_u32).map(|job| {
        let files = &files;
        async move {
            let bytes = job.to_be_bytes().repeat(1000);
            let name = if job % 2 == 0 {
                "x_00001_.png"
            } else {
                "x.bin"
            };
            (
                job,
                place(files, &job.to_string(), output("sub", name), &bytes).await,
            )
        }
    });
    let placed = futures::future::join_all(jobs).await;
    let there = tree(&folder.path().join("output/sub"));
    assert_eq!(there.len(), 40, "none was written over another");
    for (job, placed) in placed {
        assert!(there[&placed.name] == job.to_be_bytes().repeat(1000));
    }
    for i in 1..=20 {
        assert!(there.contains_key(&format!("x_{i:05}_.png")), "no gap");
    }
}

#[tokio::test]
async fn a_result_that_breaks_off_is_not_kept() {
    let (folder, files) = fresh();
    let broken: Pieces = stream::iter([
        Ok(Bytes::from(vec![1; 600_000])),
        Err(NodeError::Broken("gone".into())),
    ])
    .boxed();
    let at = output("", "a_00001_.png");
    let error = files.place("job", at, broken).await.unwrap_err();
    assert!(matches!(error, Unplaced::Node(NodeError::Broken(_))));
    assert!(tree(&folder.path().join("output")).is_empty());
    assert!(tree(&folder.path().join(".drafts")).is_empty());
    let placed = place(&files, "job", at, b"whole").await;
    assert_eq!(placed.name, "a_00001_.png");
}

#[tokio::test]
async fn results_collected_again_are_kept_once() {
    let (folder, files) = fresh();
    let at = output("sub", "a_00001_.png");
    place(&files, "other", at, b"another's").await;
    let first = place(&files, "job", at, b"mine").await;
    assert_eq!(first.name, "a_00002_.png");
    assert_eq!(place(&files, "job", at, b"mine").await, first);
    // The gateway died meanwhile.
    let files = Files::open(folder.path()).unwrap();
    assert_eq!(place(&files, "job", at, b"mine").await, first);
    // Another attempt may make something else of it; what the earlier one made stays.
    let again = place(&files, "job", at, b"made anew").await;
    assert_eq!(again.name, "a_00003_.png");
    assert_eq!(place(&files, "job", at, b"made anew").await, again);
    assert_eq!(place(&files, "job", at, b"mine").await, first);
    // The same of another job is its own; so is one of another name.
    assert_eq!(
        place(&files, "twin", at, b"mine").await.name,
        "a_00004_.png"
    );
    let named = output("sub", "b_00001_.png");
    assert_eq!(
        place(&files, "job", named, b"mine").await.name,
        "b_00001_.png"
    );
    // One that is gone, or is another now, is not said again.
    fs::remove_file(folder.path().join("output/sub/a_00002_.png")).unwrap();
    fs::write(folder.path().join("output/sub/a_00003_.png"), "other").unwrap();
    assert_eq!(place(&files, "job", at, b"mine").await.name, "a_00005_.png");
    files.forget("job").await.unwrap();
    files.forget("never heard of").await.unwrap();
    assert_eq!(place(&files, "job", at, b"mine").await.name, "a_00006_.png");
}

#[tokio::test]
async fn what_was_noted_of_a_job_is_found_behind_a_line_that_a_crash_cut_off() {
    let (folder, files) = fresh();
    let at = output("", "a_00001_.png");
    place(&files, "job ../\n odd", at, b"mine").await;
    let notes = folder.path().join(".given");
    let notes: Vec<_> = fs::read_dir(&notes).unwrap().collect();
    let note = notes[0].as_ref().unwrap().path();
    let mut told = fs::read(&note).unwrap();
    told.extend_from_slice(b"\n[\"output\", \"\", \"a_0");
    fs::write(&note, told).unwrap();
    assert_eq!(
        place(&files, "job ../\n odd", at, b"mine").await.name,
        "a_00001_.png"
    );
    assert_eq!(
        place(&files, "job ../\n odd", at, b"new").await.name,
        "a_00002_.png"
    );
    assert_eq!(
        place(&files, "job ../\n odd", at, b"new").await.name,
        "a_00002_.png"
    );
    assert_eq!(tree(&folder.path().join("output")).len(), 2);
}

#[tokio::test]
async fn a_name_that_cannot_be_is_refused_before_its_bytes_come() {
    let (folder, files) = fresh();
    for (subfolder, name) in [
        ("..", "a.png"),
        ("..\\..", "a.png"),
        ("/etc", "a.png"),
        ("", ""),
        ("", ".."),
        ("", "a/b.png"),
        ("", "..\\b.png"),
        ("", ".draft-x"),
    ] {
        let never: Pieces = stream::pending().boxed();
        let error = files.place("job", output(subfolder, name), never).await;
        assert!(
            matches!(error, Err(Unplaced::Name(_))),
            "{subfolder} {name}"
        );
    }
    let long = "x".repeat(300);
    let error = files
        .place("job", output("", &long), one_piece("x".into()))
        .await;
    assert!(matches!(error, Err(Unplaced::Disk { .. })));
    assert!(tree(&folder.path().join("output")).is_empty());
    assert!(tree(&folder.path().join(".drafts")).is_empty());
}

#[tokio::test]
async fn a_result_is_as_open_to_others_as_any_file() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, files) = fresh();
    place(&files, "job", output("", "a.png"), b"x").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let plain = folder.path().join("plain");
    fs::write(&plain, "x").unwrap();
    assert_eq!(mode(&folder.path().join("output/a.png")), mode(&plain));
}

#[tokio::test]
async fn an_input_goes_to_a_node_as_it_is_here() {
    let (_folder, files) = fresh();
    let placed = place(&files, "job", output("s", "r.png"), &[5; 300_000]).await;
    let text = format!("{}/{} [output]", placed.subfolder, placed.name);
    let kept = files.find(FilePath::of(&text)).await.unwrap().unwrap();
    assert_eq!(kept.length(), 300_000);
    let content = kept.content();
    assert_eq!(content.read(299_990, 100).await.unwrap(), [5; 10][..]);
    assert!(content.read(300_000, 100).await.unwrap().is_empty());
    assert!(content.to_bytes(1 << 20).await.unwrap() == [5; 300_000][..]);
    // Written for a server on Windows.
    assert!(files.has(FilePath::of("s\\r.png [output]")));
}
