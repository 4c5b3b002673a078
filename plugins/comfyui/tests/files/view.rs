use crate::twins::{Ask, FormPart, Twins};
use http::Method;
use image::{DynamicImage, ImageFormat, load_from_memory};
use tabane_comfyui::needs::{FilePath, Folder};
use tabane_comfyui::validate::Dialect;
use tabane_sim::comfy::Version;

#[tokio::test]
async fn files_are_found_and_told_as_a_server_does_it() {
    let twins = Twins::start().await;
    let bytes: Vec<u8> = (0..30_000_u32).map(|n| (n % 251) as u8).collect();
    twins.put("output/a.png", &bytes, 5);
    twins.put("output/sub/b c.txt", b"text", 6);
    twins.put("output/empty.json", b"", 7);
    twins.put("temp/t.webp", b"temp", 8);
    twins.put("output/.hidden", b"hidden", 9);
    twins.put("output/latent.latent", b"latent", 9);
    for path in [
        "/view?filename=a.png",
        "/api/view?filename=a.png&type=output&subfolder=&rand=0.3",
        "/view?filename=a.png&channel=rgba",
        "/view?filename=none.png",
        "/view?filename=a.png&type=input",
        "/view?filename=a.png%20[output]",
        "/view?filename=a.png+%5Boutput%5D&type=input",
        "/view?filename=t.webp+[temp]",
        "/view?filename=example.png+[input]",
        "/view?filename=example.png&type=input",
        "/view?filename=[input]",
        "/view?filename=b%20c.txt&subfolder=sub",
        "/view?filename=b+c.txt&subfolder=sub/",
        "/view?filename=sub/b+c.txt",
        "/view?filename=x/b+c.txt&subfolder=./sub",
        "/view?filename=b+c.txt&subfolder=none",
        "/view?filename=sub",
        "/view?filename=&type=output",
        "/view?filename=..",
        "/view?filename=a..png",
        "/view?filename=/a.png",
        "/view?filename=a.png&type=models",
        "/view?filename=a.png&subfolder=..",
        "/view?filename=a.png&subfolder=../output",
        "/view?filename=a.png&subfolder=/etc",
        "/view?filename=a.png&subfolder=sub/..",
        "/view?filename=empty.json",
        "/view?filename=.hidden",
        "/view?filename=latent.latent",
        "/view",
        "/view?file=a.png",
    ] {
        let told = twins.same(&Ask::get(path)).await;
        assert!([200, 400, 403, 404].contains(&told.status), "{path}");
        twins.same(&Ask::of(Method::HEAD, path)).await;
    }
    let told = twins.same(&Ask::get("/view?filename=a.png")).await;
    assert!(told.body == bytes);
}

#[tokio::test]
async fn parts_and_known_files_are_answered_as_a_server_does_it() {
    let twins = Twins::start().await;
    let bytes: Vec<u8> = (0..100_u8).collect();
    twins.put("output/a.mp4", &bytes, 5);
    twins.put("output/empty.mp4", b"", 5);
    let ask = Ask::get("/view?filename=a.mp4");
    let told = twins.same(&ask).await;
    let etag = told.header("etag").unwrap().to_owned();
    let date = told.header("last-modified").unwrap().to_owned();
    let early = "Sat, 01 Jan 2000 00:00:00 GMT".to_owned();
    let late = "Fri, 01 Jan 2100 00:00:00 GMT".to_owned();
    for range in [
        "bytes=0-9",
        "bytes=0-0",
        "bytes=50-",
        "bytes=-5",
        "bytes=-500",
        "bytes=90-500",
        "bytes=99-99",
        "bytes=100-",
        "bytes=100-200",
        "bytes=9-5",
        "bytes=-",
        "bytes=-0",
        "bytes=0-1,5-6",
        "bytes=a-b",
        "items=0-1",
    ] {
        let ask = ask.clone().with("range", range);
        let told = twins.same(&ask).await;
        assert!([206, 416].contains(&told.status), "{range}: {told:?}");
        twins
            .same(&ask.clone().with("if-range", etag.clone()))
            .await;
        let other = ask.with("if-range", "\"other\"");
        assert_eq!(twins.same(&other).await.status, 200, "{range}");
        let empty = Ask::get("/view?filename=empty.mp4").with("range", range);
        assert_eq!(twins.same(&empty).await.status, 416, "{range}");
    }
    for (header, values) in [
        (
            "if-none-match",
            vec![
                etag.clone(),
                "\"other\"".into(),
                format!("\"other\", {etag}"),
                "*".into(),
                String::new(),
            ],
        ),
        (
            "if-modified-since",
            vec![date.clone(), early.clone(), late.clone(), "no date".into()],
        ),
    ] {
        for value in values {
            let told = twins.same_status(&ask.clone().with(header, value)).await.0;
            assert!([200, 304].contains(&told.status));
            assert_eq!(told.header("etag"), Some(etag.as_str()));
        }
    }
    // What tells more counts more.
    let both = ask
        .clone()
        .with("if-none-match", "\"other\"")
        .with("if-modified-since", late.clone());
    assert_eq!(twins.same(&both).await.status, 200);
    // A server knows these, and the simulated one does not.
    for (header, value, wanted) in [
        ("if-none-match", format!("W/{etag}"), 304),
        ("if-match", etag.clone(), 200),
        ("if-match", format!("W/{etag}"), 412),
        ("if-match", "\"other\"".into(), 412),
        ("if-unmodified-since", early.clone(), 412),
        ("if-unmodified-since", late.clone(), 200),
    ] {
        let told = twins.ask_here(&ask.clone().with(header, value)).await;
        assert_eq!(told.status, wanted, "{header}");
    }
    for (date, wanted) in [(date, 206), (late, 206), (early, 200)] {
        let ask = ask
            .clone()
            .with("range", "bytes=0-9")
            .with("if-range", date);
        assert_eq!(twins.ask_here(&ask).await.status, wanted);
    }
}

#[tokio::test]
async fn what_a_browser_would_execute_is_saved() {
    let twins = Twins::start().await;
    let script = b"<script>alert(1)</script>";
    for name in [
        "a.html", "a.svg", "a.xml", "a.js", "a.css", "a.XHTML", "a.png",
    ] {
        twins.put(&format!("output/{name}"), script, 5);
    }
    let view = |name: &str| Ask::get(format!("/view?filename={name}"));
    for name in ["a.html", "a.svg", "a.xml", "a.js", "a.css", "a.XHTML"] {
        let (here, there) = twins.same_status(&view(name)).await;
        assert_eq!(here.body, there.body);
        assert_eq!(here.header("content-type"), there.header("content-type"));
        let wanted = format!("attachment; filename=\"{name}\"");
        assert_eq!(here.header("content-disposition"), Some(wanted.as_str()));
        assert_eq!(here.header("cache-control"), Some("no-store"));
        assert_eq!(here.header("vary"), Some("Sec-Fetch-Dest"));
    }
    let shown = twins
        .ask_here(&view("a.svg").with("sec-fetch-dest", "image"))
        .await;
    assert_eq!(shown.header("content-type"), Some("image/svg+xml"));
    assert_eq!(
        shown.header("content-disposition"),
        Some("filename=\"a.svg\"")
    );
    let page = view("a.html").with("sec-fetch-dest", "image");
    let page = twins.ask_here(&page).await;
    assert_eq!(
        page.header("content-type"),
        Some("application/octet-stream")
    );
    let query = Some("filename=a.png");
    let raw = twins.files.view(query, &http::HeaderMap::new()).await;
    assert_eq!(raw.unwrap().headers()["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn odd_names_are_told_so_that_they_can_be_read() {
    let twins = Twins::start().await;
    twins.put("output/束\"\\.png", b"odd", 5);
    let told = twins
        .ask_here(&Ask::get("/view?filename=%E6%9D%9F%22%5C.png"))
        .await;
    assert_eq!(told.status, 200);
    assert_eq!(
        told.header("content-disposition"),
        Some(r#"filename="束\"\\.png""#)
    );
    twins.put("output/line\nbreak.png", b"odd", 5);
    let told = twins
        .ask_here(&Ask::get("/view?filename=line%0Abreak.png"))
        .await;
    assert_eq!(
        (told.status, told.header("content-disposition")),
        (200, None)
    );
}

/// A picture with alpha, no two pixels alike in a row.
fn picture() -> DynamicImage {
    let picture = image::RgbaImage::from_fn(40, 24, |x, y| {
        image::Rgba([x as u8 * 6, y as u8 * 10, 77, (x * y) as u8])
    });
    picture.into()
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn previews_and_channels_show_what_a_server_shows() {
    let twins = Twins::start().await;
    let with_alpha = picture();
    let opaque: DynamicImage = with_alpha.to_rgb8().into();
    twins.put(
        "output/rgba.png",
        &encoded(&with_alpha, ImageFormat::Png),
        5,
    );
    twins.put("output/rgb.png", &encoded(&opaque, ImageFormat::Png), 5);
    for name in ["rgba.png", "rgb.png"] {
        for asked in [
            "preview=webp;50",
            "preview=webp",
            "preview=jpeg;80",
            "preview=jpeg&channel=rgb",
            "preview=jpeg&channel=rgba",
            "preview=other",
            "preview=",
            "preview=webp&channel=rgb",
            "preview=webp&channel=a",
            "channel=rgb",
            "channel=a",
        ] {
            let ask = Ask::get(format!("/view?filename={name}&{asked}"));
            let (here, there) = twins.same_status(&ask).await;
            assert_eq!(here.status, 200, "{name} {asked}");
            assert_eq!(here.headers, there.headers, "{name} {asked}");
            let (here, there) = (
                load_from_memory(&here.body).unwrap(),
                load_from_memory(&there.body).unwrap(),
            );
            // The simulated node makes JPEGs of squares.
            let is_jpeg = asked.starts_with("preview=jpeg") && !asked.ends_with('a');
            if !is_jpeg {
                assert!(here.to_rgba8() == there.to_rgba8(), "{name} {asked}");
            } else {
                let near = here
                    .to_rgb8()
                    .iter()
                    .zip(opaque.to_rgb8().iter())
                    .all(|(one, two)| one.abs_diff(*two) < 40);
                assert!(near, "{name} {asked}");
            }
        }
    }
    let ask = Ask::get("/view?filename=rgba.png&channel=rgb");
    let rgb = load_from_memory(&twins.ask_here(&ask).await.body).unwrap();
    assert!(rgb == opaque, "the alpha is left out");
    let shown = |asked: &str| Ask::get(format!("/view?filename=rgba.png&preview={asked}"));
    let (low, high) = (
        twins.ask_here(&shown("jpeg;10")).await,
        twins.ask_here(&shown("jpeg;95")).await,
    );
    assert!(low.body.len() < high.body.len(), "the quality counts");
}

#[tokio::test]
async fn other_pictures_are_shown_and_what_is_none_is_stumbled_over() {
    let twins = Twins::start().await;
    let opaque: DynamicImage = picture().to_rgb8().into();
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("a.webp", ImageFormat::WebP),
        ("a.gif", ImageFormat::Gif),
        ("a.bmp", ImageFormat::Bmp),
        // By what it is, not by what it is called.
        ("b.txt", ImageFormat::Png),
    ] {
        twins.put(&format!("output/{name}"), &encoded(&opaque, format), 5);
        for asked in ["preview=webp", "preview=jpeg", "channel=rgb", "channel=a"] {
            let ask = Ask::get(format!("/view?filename={name}&{asked}"));
            let told = twins.ask_here(&ask).await;
            assert_eq!(told.status, 200, "{name} {asked}");
            let seen = load_from_memory(&told.body).unwrap();
            assert_eq!((seen.width(), seen.height()), (40, 24));
        }
    }
    let whole = encoded(&opaque, ImageFormat::Png);
    twins.put("output/none.png", b"no picture", 5);
    twins.put("output/empty.png", b"", 5);
    twins.put("output/cut.png", &whole[..whole.len() / 2], 5);
    // 60000 by 60000, says its head: four gigabytes of memory, and nothing behind it.
    let mut large = whole.clone();
    large[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    twins.put("output/large.png", &large, 5);
    for name in ["none.png", "empty.png", "cut.png", "large.png"] {
        let told = twins
            .ask_here(&Ask::get(format!("/view?filename={name}&preview=webp")))
            .await;
        assert_eq!(told.status, 500, "{name}");
        assert!(told.text().contains("Server got itself in trouble"));
    }
    let gone = Ask::get("/view?filename=gone.png&preview=webp");
    assert_eq!(twins.same(&gone).await.status, 404);
}

#[tokio::test]
async fn many_previews_at_once_all_come() {
    let twins = Twins::start().await;
    twins.put("output/a.png", &encoded(&picture(), ImageFormat::Png), 5);
    let ask = Ask::get("/view?filename=a.png&preview=webp");
    let asks = (0..50).map(|_| twins.ask_here(&ask));
    for told in futures::future::join_all(asks).await {
        assert_eq!(told.status, 200);
    }
}

#[tokio::test]
async fn folders_are_listed_as_a_server_of_that_time_does_it() {
    for (version, dialect) in [
        (Version::RECORDED, Dialect::Early),
        (Version::LATE, Dialect::Late),
    ] {
        let twins = Twins::of(version, dialect).await;
        twins.put("output/old.png", b"1", 1);
        twins.put("output/new.png", b"1", 9);
        twins.put("output/b.txt", b"1", 5);
        twins.put("output/a.txt", b"1", 5);
        twins.put("output/sub/below.png", b"1", 9);
        for folder in ["output", "input", "temp", "models", "x%20y"] {
            twins
                .same(&Ask::get(format!("/internal/files/{folder}")))
                .await;
        }
        let names = twins.files.names(Folder::Output).await.unwrap();
        assert_eq!(names, ["a.txt", "b.txt", "new.png", "old.png"]);
        assert_eq!(
            twins.files.names(Folder::Input).await.unwrap(),
            ["example.png"]
        );
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_is_read_to_its_end_as_it_was() {
    let twins = Twins::start().await;
    let at = FilePath::of("example.png");
    let kept = twins.files.find(at).await.unwrap().unwrap();
    let (etag, was) = (
        kept.etag(),
        std::fs::read(twins.here("input/example.png")).unwrap(),
    );
    let parts: [FormPart<'_>; 2] = [
        ("image", Some("example.png"), b"other"),
        ("overwrite", None, b"1"),
    ];
    let told = twins
        .ask_here(&crate::twins::form("/upload/image", &parts))
        .await;
    assert_eq!(told.status, 200);
    let content = kept.content();
    assert_eq!(content.to_bytes(1 << 20).await.unwrap(), was);
    let now = twins.files.find(at).await.unwrap().unwrap();
    assert_ne!(now.etag(), etag);
    assert_eq!(now.length(), 5);
    assert!(twins.files.has(at));
    for gone in ["none.png", "../secret", "example.png [temp]", "", "sub/"] {
        let at = FilePath::of(gone);
        assert!(twins.files.find(at).await.unwrap().is_none(), "{gone}");
        assert!(!twins.files.has(at), "{gone}");
    }
}
