//! What kind of content a file is, by its name.
//!
//! Source: Python's `mimetypes` with the list that Debian brings, which is where ComfyUI looks; what its nodes make and what
//! is uploaded to them is in this table, anything else is bytes.

/// What nobody knows.
pub(super) const BYTES: &str = "application/octet-stream";

const TYPES: [(&str, &str); 50] = [
    ("aac", "audio/aac"),
    ("apng", "image/apng"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("exr", "image/x-exr"),
    ("fbx", "application/vnd.autodesk.fbx"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("glb", "model/gltf-binary"),
    ("gltf", "model/gltf+json"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("jpe", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("obj", "model/obj"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("stl", "model/stl"),
    ("svg", "image/svg+xml"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("txt", "text/plain"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "application/xml"),
    ("xsl", "application/xslt+xml"),
    ("zip", "application/zip"),
];

/// What a browser executes, or shows with scripts in it: a file of a user's must not do that under the service's address.
///
/// Source: ComfyUI `folder_paths.is_dangerous_content_type`.
const DANGEROUS: [&str; 3] = ["text/html", "text/javascript", "text/css"];

/// Names of pictures, as far as they may be kept by browsers, and as lists of inputs have them.
const PICTURES: [&str; 9] = [
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
];

/// The content type of a file of this name; `application/octet-stream` if nothing is known.
pub fn content_type(name: &str) -> &'static str {
    let known = name.rsplit_once('.').and_then(|(_, extension)| {
        let extension = extension.to_ascii_lowercase();
        let at = TYPES.binary_search_by_key(&extension.as_str(), |(known, _)| known);
        TYPES.get(at.ok()?)
    });
    known.map_or(BYTES, |(_, kind)| kind)
}

pub(super) fn is_dangerous(kind: &str) -> bool {
    DANGEROUS.contains(&kind) || kind.ends_with("+xml") || kind.ends_with("/xml")
}

pub(super) fn is_picture(path: &str) -> bool {
    let path = path.to_lowercase();
    PICTURES.iter().any(|ending| path.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found() {
        assert!(TYPES.is_sorted());
        for (extension, kind) in TYPES {
            assert_eq!(content_type(&format!("a.b.{extension}")), kind);
        }
        assert_eq!(content_type("A.PNG"), "image/png");
        for unknown in ["", "png", "a.", "a.latent", "a.png/b", "a.ü"] {
            assert_eq!(content_type(unknown), BYTES, "{unknown}");
        }
    }

    #[test]
    fn what_browsers_execute_is_dangerous() {
        for name in [
            "a.html", "a.htm", "a.xhtml", "a.svg", "a.xml", "a.xsl", "a.js", "a.css",
        ] {
            assert!(is_dangerous(content_type(name)), "{name}");
        }
        for name in ["a.png", "a.mp4", "a.json", "a.gltf", "a.txt", "a"] {
            assert!(!is_dangerous(content_type(name)), "{name}");
        }
    }
}
