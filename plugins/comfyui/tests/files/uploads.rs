use crate::twins::{Ask, FormPart, Twins, form, tree};
use bytes::Bytes;
use std::fs;
use tabane_api::Content;
use tabane_comfyui::files::Files;
use tabane_comfyui::json::Json;

const PATH: &str = "/upload/image";

#[tokio::test]
async fn uploads_are_kept_and_named_as_a_server_does_it() {
    let twins = Twins::start().await;
    let long: Vec<u8> = (0..1_000_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 8) as u8)
        .collect();
    let file = |name: &'static str, bytes: &'static [u8]| ("image", Some(name), bytes);
    let forms: Vec<Vec<FormPart<'_>>> = vec![
        vec![file("u.png", b"a")],
        vec![file("u.png", b"a")],
        vec![file("u.png", b"b")],
        vec![file("u.png", b"b")],
        vec![file("u.png", b"c")],
        vec![file("u.png", b"d"), ("overwrite", None, b"true")],
        vec![file("u.png", b"e"), ("overwrite", None, b"1")],
        vec![file("u.png", b"f"), ("overwrite", None, b"yes")],
        vec![("overwrite", None, b"true"), file("new.png", b"")],
        vec![("image", Some("long.bin"), &long)],
        // What says where it goes may come before it and behind it.
        vec![
            file("s.png", b"s"),
            ("subfolder", None, b"sub/deep"),
            ("type", None, b"input"),
        ],
        vec![
            ("subfolder", None, b"sub/deep"),
            file("s.png", b"t"),
            ("type", None, b"temp"),
        ],
        vec![
            ("type", None, b"output"),
            file("s.png", b"u"),
            ("subfolder", None, b""),
        ],
        vec![("subfolder", None, b"sub/../other/"), file("s.png", b"s")],
        // Of two with one name, the first counts.
        vec![
            file("1.png", b"1"),
            file("2.png", b"2"),
            ("type", None, b"temp"),
            ("type", None, b"output"),
        ],
        vec![
            ("more", None, b"x"),
            file("m.png", b"m"),
            ("and", Some("more.png"), b"y"),
        ],
        // Names as people have them.
        vec![file("束 ü.png", b"n")],
        vec![file("a\\\"b.png", b"n")],
        vec![file("noextension", b"n")],
        vec![file("noextension", b"m")],
        vec![file(".hidden", b"n")],
        vec![file(".hidden", b"m")],
        vec![file("a.tar.gz", b"n")],
        vec![file("a.tar.gz", b"m")],
        // Names that are paths: the folder has to be there.
        vec![file("sub/deep/s.png", b"other")],
        vec![file("none/s.png", b"n")],
        vec![file("../s.png", b"n"), ("subfolder", None, b"sub")],
        vec![file("../../s.png", b"n"), ("subfolder", None, b"sub")],
        vec![file("..", b"n")],
        vec![file(".", b"n")],
        vec![file("s.png", b"n"), ("subfolder", None, b"..")],
        vec![file("s.png", b"n"), ("subfolder", None, b"/etc")],
        vec![file("s.png", b"n"), ("subfolder", None, b"a/../../b")],
        // What is no file, or goes nowhere.
        vec![("image", None, b"text")],
        vec![("image", None, b"")],
        vec![("image", Some(""), b"bytes")],
        vec![("image", Some(""), b"")],
        vec![("images", Some("u.png"), b"bytes")],
        vec![],
        vec![file("u.png", b"a"), ("type", None, b"models")],
        vec![
            file("u.png", b"\r\n------FormBoundary\r\n-- \r\n\r\n"),
            ("overwrite", None, b"1"),
        ],
    ];
    for parts in &forms {
        let told = twins.same(&form(PATH, parts)).await;
        assert!([200, 400, 500].contains(&told.status), "{told:?}");
    }
    for folder in ["input", "output", "temp"] {
        twins.have_the_same(folder);
    }
    assert!(tree(&twins.here(".drafts")).is_empty(), "no draft is left");
    let told = twins.same(&form("/api/upload/image", &forms[2])).await;
    assert_eq!(
        told.text(),
        r#"{"name": "u (1).png", "subfolder": "", "type": "input"}"#
    );
}

#[tokio::test]
async fn what_is_no_form_is_told_so() {
    let twins = Twins::start().await;
    let whole = form(PATH, &[("image", Some("u.png"), b"bytes")]);
    let kinds = [
        "application/json",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=another",
    ];
    for kind in kinds {
        let ask = Ask::post(PATH, whole.body.clone()).with("content-type", kind);
        twins.same(&ask).await;
    }
    twins.same(&Ask::post(PATH, whole.body.clone())).await;
    for cut in [0, 10, 60, 100, whole.body.len() - 10] {
        let ask = Ask {
            body: whole.body.slice(..cut),
            ..whole.clone()
        };
        let told = twins.same(&ask).await;
        assert_eq!(told.status, 500, "cut at {cut}");
    }
    assert_eq!(tree(&twins.here("input")).len(), 1, "nothing is kept");
}

#[tokio::test]
async fn names_are_what_a_real_server_reads_and_the_simulated_one_does_not() {
    let twins = Twins::start().await;
    for (told, wanted) in [
        (
            r#"filename="x.png"; filename*=UTF-8''%E6%9D%9F%22.png"#,
            "束\".png",
        ),
        (r#"filename="%22quoted%22.png""#, "%22quoted%22.png"),
        (r#"filename="a;b=c.png""#, "a;b=c.png"),
    ] {
        let mut ask = form(PATH, &[("image", Some("x.png"), told.as_bytes())]);
        let body = String::from_utf8(ask.body.to_vec()).unwrap();
        ask.body = body.replace(r#"filename="x.png""#, told).into();
        let answer = twins.ask_here(&ask).await;
        let name = Json::read(&answer.body).unwrap();
        let name = name.get("name").and_then(Json::text).unwrap();
        assert_eq!(name, wanted);
        assert!(twins.here("input").join(name).exists());
    }
}

#[tokio::test]
async fn an_upload_is_taken_from_memory_too_and_only_so_long() {
    let twins = Twins::start().await;
    let ask = form(PATH, &[("image", Some("m.png"), &[7; 700_000])]);
    let told = twins.answered(&ask, Content::Bytes(ask.body.clone())).await;
    assert_eq!(told.unwrap().status, 200);
    assert_eq!(fs::read(twins.here("input/m.png")).unwrap(), [7; 700_000]);
    let mut twins = twins;
    twins.files = twins.files.with_most_upload(1000);
    let told = twins.ask_here(&ask).await;
    assert_eq!(told.status, 413);
    let length = ask.body.len();
    assert_eq!(
        told.text(),
        format!("Maximum request body size 1000 exceeded, actual body size {length}")
    );
}

#[tokio::test]
async fn uploads_at_once_get_names_of_their_own() {
    let twins = Twins::start().await;
    let uploads = (0..24_u8).map(|i| {
        // Three of each.
        let ask = form(PATH, &[("image", Some("same.png"), &[i / 3; 5000])]);
        let twins = &twins;
        async move { (i / 3, twins.ask_here(&ask).await) }
    });
    let told = futures::future::join_all(uploads).await;
    let mut names = std::collections::HashMap::new();
    for (bytes, told) in told {
        assert_eq!(told.status, 200);
        let name = told.text().split('"').nth(3).unwrap().to_owned();
        let kept = fs::read(twins.here("input").join(&name)).unwrap();
        assert_eq!(kept, [bytes; 5000], "{name}");
        assert_eq!(*names.entry(name).or_insert(bytes), bytes);
    }
    assert_eq!(names.len(), 8, "the same bytes are kept once");
}

#[tokio::test]
async fn a_file_goes_to_another_disk_whole() {
    let (Ok(shm), twins) = (tempfile::tempdir_in("/dev/shm"), Twins::start().await) else {
        // Not every system has a disk in memory.
        return;
    };
    fs::remove_dir(twins.here("output")).unwrap();
    std::os::unix::fs::symlink(shm.path(), twins.here("output")).unwrap();
    for (bytes, name) in [(b"one", "u.png"), (b"one", "u.png"), (b"two", "u (1).png")] {
        let parts: [FormPart<'_>; 2] = [("image", Some("u.png"), bytes), ("type", None, b"output")];
        let told = twins.ask_here(&form(PATH, &parts)).await;
        assert!(told.text().contains(&format!("\"{name}\"")), "{told:?}");
        assert_eq!(fs::read(shm.path().join(name)).unwrap(), bytes);
    }
    assert_eq!(tree(shm.path()).len(), 2, "no draft is left");
    // It is opened again as it is.
    Files::open(twins.here("")).unwrap();
    let listed = twins.ask_here(&Ask::get("/internal/files/output")).await;
    assert_eq!(listed.text().matches("u.png").count(), 1);
}

#[tokio::test]
async fn nobody_sees_half_an_upload() {
    use crate::twins::Pieces;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    /// Comes to a halt where it is told to.
    struct Halts(Pieces, u64, Semaphore);

    #[async_trait::async_trait]
    impl tabane_api::Stored for Halts {
        fn length(&self) -> u64 {
            self.0.length()
        }

        async fn read(&self, offset: u64, most: usize) -> std::io::Result<Bytes> {
            if offset >= self.1 {
                self.2.add_permits(1);
                std::future::pending::<()>().await;
            }
            self.0.read(offset, most).await
        }
    }

    let twins = Twins::start().await;
    let parts: [FormPart<'_>; 2] = [
        ("type", None, b"temp"),
        ("image", Some("half.png"), &[1; 2_000_000]),
    ];
    let ask = form(PATH, &parts);
    let halts = Halts(
        Pieces::of(ask.body.clone(), 100_000),
        1_500_000,
        Semaphore::new(0),
    );
    let halts = Arc::new(halts);
    let mut upload = Box::pin(twins.answered(&ask, Content::Stored(halts.clone())));
    tokio::select! {
        told = &mut upload => panic!("{told:?}"),
        _ = halts.2.acquire() => {}
    }
    assert_eq!(tree(&twins.here(".drafts")).len(), 1, "it is on its way");
    assert!(tree(&twins.here("temp")).is_empty());
    let view = Ask::get("/view?filename=half.png&type=temp");
    assert_eq!(twins.ask_here(&view).await.status, 404);
    drop(upload);
    // A thread may still be at its last piece.
    while !tree(&twins.here(".drafts")).is_empty() {
        tokio::task::yield_now().await;
    }
}
