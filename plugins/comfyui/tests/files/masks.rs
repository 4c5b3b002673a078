use crate::twins::{Ask, Told, Twins, form, tree};
use image::{ImageFormat, RgbaImage, load_from_memory};
use std::fs;

/// A picture of one colour whose alpha grows from left to right.
fn mask(width: u32, height: u32) -> Vec<u8> {
    encoded(RgbaImage::from_fn(width, height, |x, _| {
        image::Rgba([9, 9, 9, x as u8 * 5])
    }))
}

fn encoded(picture: RgbaImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A picture with these texts in it.
fn with_texts(texts: &[(&str, &str)]) -> Vec<u8> {
    let picture = RgbaImage::from_fn(40, 24, |x, y| {
        image::Rgba([x as u8, y as u8, (x * y) as u8, 255])
    });
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 40, 24);
    encoder.set_color(png::ColorType::Rgba);
    for (key, text) in texts {
        if text.is_ascii() {
            encoder
                .add_text_chunk((*key).into(), (*text).into())
                .unwrap();
        } else {
            encoder
                .add_itxt_chunk((*key).into(), (*text).into())
                .unwrap();
        }
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&picture).unwrap();
    writer.finish().unwrap();
    bytes
}

fn texts(png: &[u8]) -> Vec<(String, String)> {
    let reader = png::Decoder::new(std::io::Cursor::new(png))
        .read_info()
        .unwrap();
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter();
    let plain = plain.map(|text| (text.keyword.clone(), text.text.clone()));
    let wide = info.utf8_text.iter();
    let wide = wide.map(|text| (text.keyword.clone(), text.get_text().unwrap()));
    plain.chain(wide).collect()
}

fn upload(name: &str, mask: &[u8], reference: &str, more: &[(&str, &str)]) -> Ask {
    let mut parts = vec![
        ("image", Some(name), mask),
        ("original_ref", None, reference.as_bytes()),
    ];
    parts.extend(
        more.iter()
            .map(|(name, text)| (*name, None, text.as_bytes())),
    );
    form("/upload/mask", &parts)
}

#[tokio::test]
async fn a_mask_is_put_into_the_picture_it_was_painted_on() {
    let twins = Twins::start().await;
    let prompt = r#"{"1": {"class_type": "X"}}"#;
    let original = with_texts(&[("prompt", prompt), ("workflow", "{}")]);
    twins.put("output/a.png", &original, 5);
    twins.put("input/sub/b.png", &original, 5);
    twins.put("temp/t.png", &original, 5);
    let mask = mask(40, 24);
    let clipspace = [("subfolder", "clipspace"), ("type", "input")];
    for (name, reference) in [
        ("m1.png", r#"{"filename": "a.png"}"#),
        (
            "m2.png",
            r#"{"filename": "a.png", "subfolder": "", "type": "output"}"#,
        ),
        (
            "m3.png",
            r#"{"filename": "b.png", "subfolder": "sub", "type": "input"}"#,
        ),
        ("m4.png", r#"{"filename": "sub/b.png [input]"}"#),
        (
            "m5.png",
            r#"{"filename": "t.png [temp]", "type": "output"}"#,
        ),
        // Once more: another name, since what is there is not what is sent.
        ("m1.png", r#"{"filename": "a.png"}"#),
    ] {
        let told: Told = twins
            .same(&upload(name, &mask, reference, &clipspace))
            .await;
        assert_eq!(told.status, 200, "{told:?}");
    }
    let (here, there) = (tree(&twins.here("input")), tree(&twins.there("input")));
    assert_eq!(
        here.keys().collect::<Vec<_>>(),
        there.keys().collect::<Vec<_>>()
    );
    let pasted = here
        .iter()
        .filter(|(name, _)| name.starts_with("clipspace/"));
    let mut seen = 0;
    for (name, bytes) in pasted {
        let (one, two) = (
            load_from_memory(bytes).unwrap(),
            load_from_memory(&there[name]).unwrap(),
        );
        assert!(one.to_rgba8() == two.to_rgba8(), "{name}");
        assert_eq!(one.to_rgba8().get_pixel(7, 3).0, [7, 3, 21, 35]);
        assert_eq!(
            texts(bytes),
            [
                ("prompt".into(), prompt.into()),
                ("workflow".into(), "{}".into())
            ]
        );
        seen += 1;
    }
    assert_eq!(seen, 6);
    let overwrite = [("overwrite", "true"), ("subfolder", "clipspace")];
    let told = twins
        .same(&upload(
            "m1.png",
            &mask,
            r#"{"filename": "a.png"}"#,
            &overwrite,
        ))
        .await;
    assert!(told.text().contains("\"m1.png\""));
}

#[tokio::test]
async fn a_mask_without_its_picture_is_answered_as_a_server_does_it() {
    let twins = Twins::start().await;
    twins.put("output/a.png", &with_texts(&[]), 5);
    let mask = mask(40, 24);
    for (reference, wanted) in [
        (r#"{"filename": "none.png"}"#, 200),
        (r#"{"filename": "a.png", "type": "input"}"#, 200),
        (r#"{"filename": "a.png", "type": "models"}"#, 200),
        (r#"{"filename": "a.png", "subfolder": ".."}"#, 200),
        (r#"{"filename": "../output/a.png"}"#, 200),
        (r#"{"filename": ""}"#, 200),
        (r#"{"name": "a.png"}"#, 500),
        ("a.png", 500),
        ("", 500),
    ] {
        let told = twins.same(&upload("m.png", &mask, reference, &[])).await;
        assert_eq!(told.status, wanted, "{reference}");
    }
    let without = form("/upload/mask", &[("image", Some("m.png"), &mask)]);
    assert_eq!(twins.same(&without).await.status, 500);
    let none = upload("m.png", b"no picture", r#"{"filename": "a.png"}"#, &[]);
    assert_eq!(twins.same(&none).await.status, 500);
    assert_eq!(tree(&twins.here("input")).len(), 1, "nothing is kept");
    assert!(tree(&twins.here(".drafts")).is_empty());
}

#[tokio::test]
async fn what_a_real_server_does_with_masks_and_the_simulated_one_does_not() {
    let twins = Twins::start().await;
    twins.put("output/a.png", &with_texts(&[("title", "束")]), 5);
    let reference = r#"{"filename": "a.png"}"#;
    // Pillow says "images do not match".
    let other = upload("m.png", &mask(20, 24), reference, &[]);
    assert_eq!(twins.ask_here(&other).await.status, 500);
    // "cannot write mode RGBA as JPEG"
    let jpeg = upload("m.jpg", &mask(40, 24), reference, &[]);
    assert_eq!(twins.ask_here(&jpeg).await.status, 500);
    let webp = upload("m.webp", &mask(40, 24), reference, &[]);
    assert_eq!(twins.ask_here(&webp).await.status, 200);
    let webp = fs::read(twins.here("input/m.webp")).unwrap();
    assert_eq!(image::guess_format(&webp).unwrap(), ImageFormat::WebP);
    let wide = upload("m.png", &mask(40, 24), reference, &[]);
    assert_eq!(twins.ask_here(&wide).await.status, 200);
    let wide = fs::read(twins.here("input/m.png")).unwrap();
    assert_eq!(texts(&wide), [("title".into(), "束".into())]);
}
