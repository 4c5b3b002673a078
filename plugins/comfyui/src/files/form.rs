//! The form that an upload comes in (`multipart/form-data`), read as it comes: the file goes to disk, a few texts to memory.

use super::Files;
use super::draft::{Draft, Whole};
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, header};
use multer::{Field, Multipart};
use percent_encoding::percent_decode_str;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tabane_api::Content;

/// How much of a body is read at once.
const PIECE: usize = 256 << 10;

/// How much may be read without anything coming out of it, and how long a text may be. A part's head is some hundred bytes.
const MOST_IN_MEMORY: u64 = 1 << 20;

/// What of a form an upload looks at.
#[derive(Default)]
pub(super) struct Form {
    pub(super) texts: Texts,
    pub(super) image: Image,
}

/// Its short texts, by their names.
#[derive(Default)]
pub(super) struct Texts(Vec<(&'static str, String)>);

/// What stands under `image`.
#[derive(Default)]
pub(super) enum Image {
    /// Nothing, or an empty text.
    #[default]
    Missing,
    /// Something that is no file.
    Text,
    File {
        name: String,
        bytes: Whole,
    },
}

/// Why a form cannot be read.
pub(super) enum Unread {
    /// It is none.
    NoForm,
    /// It is broken, or ends too early.
    Broken,
    /// It cannot be kept, or not be read from where it is kept.
    Disk(io::Error),
}

/// Texts that are looked at.
const TEXTS: [&str; 4] = ["type", "subfolder", "overwrite", "original_ref"];

// === impl Form ===

impl Form {
    pub(super) async fn read(
        files: &Files,
        headers: &HeaderMap,
        body: Content,
    ) -> Result<Form, Unread> {
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let boundary = multer::parse_boundary(kind).map_err(|error| match error {
            multer::Error::NoBoundary => Unread::Broken,
            _ => Unread::NoForm,
        })?;
        let ahead = Arc::new(AtomicU64::new(0));
        let mut parts = Multipart::new(Reader::of(body, ahead.clone()), boundary);
        let mut form = Form::default();
        let mut has_image = false;
        while let Some(part) = parts.next_field().await? {
            ahead.store(0, Ordering::Relaxed);
            let part = Part {
                field: part,
                ahead: &ahead,
            };
            // Of two with one name, the first counts.
            let name = part.field.name().ok_or(Unread::Broken)?;
            let text = TEXTS.into_iter().find(|text| *text == name);
            let is_image = name == "image" && !has_image;
            has_image |= is_image;
            match (part.file_name(), text) {
                (Some(name), _) if is_image => form.image = part.file(files, name).await?,
                (None, Some(name)) if form.texts.get(name).is_none() => {
                    form.texts.0.push((name, part.text().await?));
                }
                (file, _) => {
                    let is_text = part.pass().await? > 0 && file.is_none();
                    if is_image && is_text {
                        form.image = Image::Text;
                    }
                }
            }
        }
        Ok(form)
    }
}

// === impl Texts ===

impl Texts {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut texts = self.0.iter();
        texts.find_map(|(known, text)| (*known == name).then_some(text.as_str()))
    }
}

struct Part<'a, 'b> {
    field: Field<'a>,
    ahead: &'b AtomicU64,
}

// === impl Part ===

impl Part<'_, '_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        let piece = self.field.chunk().await?;
        self.ahead.store(0, Ordering::Relaxed);
        Ok(piece)
    }

    async fn file(mut self, files: &Files, name: String) -> Result<Image, Unread> {
        let mut draft = Draft::begin(files).await.map_err(Unread::Disk)?;
        while let Some(piece) = self.next().await? {
            draft.add(&piece).await.map_err(Unread::Disk)?;
        }
        let bytes = draft.finish().await.map_err(Unread::Disk)?;
        Ok(Image::File { name, bytes })
    }

    async fn text(mut self) -> Result<String, Unread> {
        let mut text = Vec::new();
        while let Some(piece) = self.next().await? {
            if (text.len() + piece.len()) as u64 > MOST_IN_MEMORY {
                return Err(Unread::Broken);
            }
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).map_err(|_| Unread::Broken)
    }

    /// Reads it to its end, and says how long it is.
    async fn pass(mut self) -> Result<u64, Unread> {
        let mut length = 0;
        while let Some(piece) = self.next().await? {
            length += piece.len() as u64;
        }
        Ok(length)
    }

    /// The name of the file that it is; `None`: it is a text.
    fn file_name(&self) -> Option<String> {
        let told = self.field.headers().get(header::CONTENT_DISPOSITION)?;
        file_name(std::str::from_utf8(told.as_bytes()).ok()?)
    }
}

/// The name of a file in `form-data; name="image"; filename="a b.png"`, or in `filename*=UTF-8''a%20b.png`, which counts more.
///
/// Source: RFC 6266, 4.3; aiohttp `multipart.parse_content_disposition`, which cuts slashes off the front, and leaves the
/// `%22` as it is that browsers write for a quote.
fn file_name(disposition: &str) -> Option<String> {
    let extended = parameter(disposition, "filename*").and_then(|value| {
        let (charset, rest) = value.split_once('\'')?;
        let (_, name) = rest.split_once('\'')?;
        let is_utf8 = charset.is_empty() || charset.eq_ignore_ascii_case("utf-8");
        let name = percent_decode_str(name).decode_utf8().ok()?;
        is_utf8.then(|| name.into_owned())
    });
    let plain = || {
        let value = parameter(disposition, "filename")?;
        Some(value.trim_start_matches(['\\', '/']).to_owned())
    };
    extended.or_else(plain).filter(|name| !name.is_empty())
}

/// A parameter of a header; of one in quotes, what is in them.
fn parameter(header: &str, wanted: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (key, behind) = rest.split_once('=')?;
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted),
            None => {
                let end = behind.find(';').unwrap_or(behind.len());
                let (value, behind) = behind.split_at(end);
                (value.trim().to_owned(), behind)
            }
        };
        if key.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind.split_once(';')?.1;
    }
}

/// What stands before the quote that ends it, and what stands behind that. Where there is none, all of it.
fn quoted_text(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            // A path of Windows' has them as well: only of what must be written so, they are taken off.
            '\\' if text[at + 1..].starts_with(['"', '\\']) => {
                value.extend(chars.next().map(|(_, c)| c));
            }
            c => value.push(c),
        }
    }
    (value, "")
}

/// A body as a stream. It stops after each piece to let that be taken in, and breaks off where nothing comes out any more:
/// what reads the form would hold all of it.
struct Reader {
    body: Arc<Content>,
    offset: u64,
    ahead: Arc<AtomicU64>,
    /// Whether a piece was just given.
    rests: bool,
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

// === impl Reader ===

impl Reader {
    fn of(body: Content, ahead: Arc<AtomicU64>) -> Self {
        Reader {
            body: Arc::new(body),
            offset: 0,
            ahead,
            rests: false,
            reading: None,
        }
    }
}

impl Stream for Reader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.ahead.load(Ordering::Relaxed) > MOST_IN_MEMORY {
            return Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into())));
        }
        let (body, offset) = (self.body.clone(), self.offset);
        let reading = self
            .reading
            .get_or_insert_with(|| Box::pin(async move { body.read(offset, PIECE).await }));
        let piece = match reading.as_mut().poll(cx) {
            Poll::Ready(piece) => piece,
            Poll::Pending => return Poll::Pending,
        };
        self.reading = None;
        Poll::Ready(match piece {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                self.rests = true;
                self.offset += piece.len() as u64;
                let read = piece.len() as u64;
                self.ahead.fetch_add(read, Ordering::Relaxed);
                Some(Ok(piece))
            }
            Err(error) => Some(Err(error)),
        })
    }
}

// === impl Unread ===

impl From<multer::Error> for Unread {
    fn from(error: multer::Error) -> Self {
        match error {
            multer::Error::StreamReadFailed(error) => match error.downcast::<io::Error>() {
                Ok(error) if error.kind() != io::ErrorKind::InvalidData => Unread::Disk(*error),
                _ => Unread::Broken,
            },
            _ => Unread::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_read_however_clients_write_them() {
        for (told, wanted) in [
            (
                r#"form-data; name="image"; filename="a b.png""#,
                Some("a b.png"),
            ),
            ("form-data; name=image; filename=a.png", Some("a.png")),
            (
                r#"form-data; filename="a;b=c.png"; name="image""#,
                Some("a;b=c.png"),
            ),
            (
                r#"form-data; name="filename"; FileName = "ü.png""#,
                Some("ü.png"),
            ),
            (
                r#"form-data; name="image"; filename="a\"b\\c\d.png""#,
                Some(r#"a"b\c\d.png"#),
            ),
            (
                r#"form-data; name="image"; filename="%22a%22.png""#,
                Some("%22a%22.png"),
            ),
            (
                r#"form-data; name="image"; filename="/\/a/b.png""#,
                Some("a/b.png"),
            ),
            (
                r#"form-data; name="image"; filename="x.png"; filename*=utf-8''%E6%9D%9F%20.png"#,
                Some("束 .png"),
            ),
            (
                r#"form-data; name="image"; filename="x.png"; filename*=latin-9''%E9.png"#,
                Some("x.png"),
            ),
            (r#"form-data; name="image"; filename="""#, None),
            (r#"form-data; name="image""#, None),
            (r#"form-data; name="a filename=b""#, None),
            ("form-data", None),
            ("", None),
            (r#"form-data; filename="open"#, Some("open")),
        ] {
            assert_eq!(file_name(told).as_deref(), wanted, "{told}");
        }
    }
}
