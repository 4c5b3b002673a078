//! What the entries of an array's zip are called: by their frame, so that a folder of them sorts as a film runs.

use http::{HeaderMap, header};

/// The longest ending of a file's name that is taken over.
const LONGEST: usize = 8;

/// Types of results, and what files of them end in.
const ENDINGS: [(&str, &str); 35] = [
    ("application/gzip", "gz"),
    ("application/json", "json"),
    ("application/pdf", "pdf"),
    ("application/x-ndjson", "ndjson"),
    ("application/x-tar", "tar"),
    ("application/xml", "xml"),
    ("application/zip", "zip"),
    ("audio/flac", "flac"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/wav", "wav"),
    ("audio/x-wav", "wav"),
    ("image/aces", "exr"),
    ("image/avif", "avif"),
    ("image/bmp", "bmp"),
    ("image/gif", "gif"),
    ("image/jpeg", "jpg"),
    ("image/png", "png"),
    ("image/svg+xml", "svg"),
    ("image/tiff", "tif"),
    ("image/vnd.radiance", "hdr"),
    ("image/webp", "webp"),
    ("image/x-exr", "exr"),
    ("model/gltf+json", "gltf"),
    ("model/gltf-binary", "glb"),
    ("model/obj", "obj"),
    ("model/stl", "stl"),
    ("model/vnd.usdz+zip", "usdz"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/xml", "xml"),
    ("video/mp4", "mp4"),
    ("video/quicktime", "mov"),
    ("video/webm", "webm"),
];

/// The name of a frame's result, by its headers: `0001.png`.
pub(super) fn result_name(frame: i32, headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let named = text(header::CONTENT_DISPOSITION).and_then(ending_of_file);
    let typed = || text(header::CONTENT_TYPE).and_then(ending_of_type);
    let ending = named.or_else(|| Some(typed()?.to_owned()));
    let ending = ending.unwrap_or_else(|| "bin".into());
    // The bytes are as they came: still encoded.
    let encoded = match text(header::CONTENT_ENCODING) {
        Some("gzip" | "x-gzip") => ".gz",
        Some("br") => ".br",
        Some("zstd") => ".zst",
        _ => "",
    };
    format!("{frame:04}.{ending}{encoded}")
}

/// The name of what is said of a frame that has no result: `0007.error.json`.
pub(super) fn error_name(frame: i32) -> String {
    format!("{frame:04}.error.json")
}

/// What the file's name ends in that a `Content-Disposition` (RFC 6266) gives. The rest of that name is the backend's.
fn ending_of_file(disposition: &str) -> Option<String> {
    let lower = disposition.to_ascii_lowercase();
    let of = |parameter: &str| {
        let value = lower.split_once(parameter)?.1.trim_start();
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => value.split(';').next()?.trim_end(),
        };
        let (name, ending) = value.rsplit_once('.')?;
        let good = (1..=LONGEST).contains(&ending.len())
            && ending.bytes().all(|b| b.is_ascii_alphanumeric());
        (good && !name.is_empty()).then(|| ending.to_owned())
    };
    of("filename*=").or_else(|| of("filename="))
}

fn ending_of_type(kind: &str) -> Option<&'static str> {
    let kind = kind.split(';').next()?.trim().to_ascii_lowercase();
    let known = ENDINGS.iter().find(|(of, _)| *of == kind);
    match known {
        Some((_, ending)) => Some(ending),
        None if kind.ends_with("+json") => Some("json"),
        None if kind.ends_with("+xml") => Some("xml"),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_its_frame_and_by_what_its_headers_say() {
        for (frame, headers, wants) in [
            (1, &[("content-type", "image/png")][..], "0001.png"),
            (1, &[("content-type", "Image/JPEG; q=1")], "0001.jpg"),
            (1, &[("content-type", "application/ld+json")], "0001.json"),
            (
                1,
                &[("content-type", "application/octet-stream")],
                "0001.bin",
            ),
            (1, &[], "0001.bin"),
            (12345, &[("content-type", "image/x-exr")], "12345.exr"),
            (-5, &[("content-type", "image/x-exr")], "-005.exr"),
            (
                1,
                &[("content-type", "text/plain"), ("content-encoding", "gzip")],
                "0001.txt.gz",
            ),
            (
                2,
                &[
                    ("content-type", "application/octet-stream"),
                    (
                        "content-disposition",
                        "attachment; filename=\"a; b.0002.EXR\"",
                    ),
                ],
                "0002.exr",
            ),
            (
                2,
                &[("content-disposition", "inline; filename=beauty.exr; x=y")],
                "0002.exr",
            ),
            (
                2,
                &[(
                    "content-disposition",
                    "inline; filename=\"x.txt\"; filename*=UTF-8''%e2%82%ac.exr",
                )],
                "0002.exr",
            ),
        ] {
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(*name, value.parse().unwrap());
            }
            assert_eq!(result_name(frame, &all), wants, "{headers:?}");
        }
        assert_eq!(error_name(7), "0007.error.json");
    }

    #[test]
    fn a_backend_cannot_choose_where_an_entry_goes() {
        for name in [
            "../../etc/passwd",
            "a.b/../c",
            "a./",
            "a.\\..\\x",
            "a.",
            ".profile",
            "a.verylongending",
            "a.ü",
            "noending",
        ] {
            let mut headers = HeaderMap::new();
            let value = format!("attachment; filename=\"{name}\"");
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.insert(header::CONTENT_DISPOSITION, value);
            assert_eq!(result_name(1, &headers), "0001.bin", "{name}");
        }
    }
}
