//! Pictures of pictures: previews, and some of their channels.

use super::kept::Kept;
use super::reply::{broken, with};
use super::{blocking, failed};
use bytes::Bytes;
use http::Response;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageEncoder, ImageError, ImageReader, ImageResult, Limits};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Seek};
use std::sync::Arc;
use tabane_api::{Body, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much memory all pictures that are looked into take together, MiB.
const MOST_MIB: u32 = 768;
/// So many at once, at most: the processor is needed for other things.
const AT_ONCE: u32 = 4;
/// What a pixel takes: as it is read, and as it is written.
const BYTES_A_PIXEL: u64 = 8;
/// Larger ones are not looked into. This is where Pillow, which does it in ComfyUI, begins to warn; all of it fits.
const MOST_PIXELS: u64 = 89_478_485;

/// What is to be seen of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// A JPEG of this quality, 1 to 100.
    Jpeg(u8),
    /// A WebP; whether with its alpha.
    WebP { alpha: bool },
    /// A PNG of its colours.
    Colors,
    /// A PNG of its alpha, on black.
    Alpha,
}

/// What a request asks to see; `None`: the file as it is.
///
/// Source: ComfyUI `server.view_image`.
pub(super) fn asked(preview: Option<&str>, channel: Option<&str>) -> Option<Shown> {
    let Some(preview) = preview else {
        return match channel {
            Some("rgb") => Some(Shown::Colors),
            Some("a") => Some(Shown::Alpha),
            _ => None,
        };
    };
    let channel = channel.unwrap_or("");
    let (kind, quality) = (preview.split(';').next(), preview.rsplit(';').next());
    let quality = quality.and_then(|quality| quality.parse::<u64>().ok());
    Some(match kind {
        // Whoever wants alpha cannot have a JPEG.
        Some("jpeg") if !channel.contains('a') => {
            Shown::Jpeg(quality.unwrap_or(90).clamp(1, 100) as u8)
        }
        _ => Shown::WebP {
            alpha: channel != "rgb",
        },
    })
}

/// The memory for pictures.
pub(super) struct Room(Arc<Semaphore>);

/// A picture that was found in a file, and not read yet: its size is known.
pub(super) struct Found {
    reader: ImageReader<BufReader<File>>,
    pixels: u64,
}

/// Why there is no picture.
pub(super) enum NoPicture {
    /// It is none, or one that nobody here can read, or too large: ComfyUI stumbles.
    Unreadable,
    Disk(io::Error),
}

// === impl Room ===

impl Room {
    pub(super) fn new() -> Room {
        Room(Arc::new(Semaphore::new(MOST_MIB as usize)))
    }

    /// Waits until there is room for so many pixels. It is taken for as long as they are looked into, also where nobody waits
    /// for that any more: so it goes with the work.
    pub(super) async fn take(&self, pixels: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let mib = (pixels.saturating_mul(BYTES_A_PIXEL) >> 20).saturating_add(1);
        let mib = u32::try_from(mib).unwrap_or(u32::MAX);
        let mib = mib.clamp(MOST_MIB / AT_ONCE, MOST_MIB);
        let taken = self.0.clone().acquire_many_owned(mib);
        // It is never closed.
        taken.await.map_err(|_| Refusal::ShuttingDown)
    }

    /// What is to be seen of a file.
    pub(super) async fn show(&self, kept: Kept, shown: Shown) -> Result<Response<Body>, Refusal> {
        let found = blocking(move || Ok(Found::in_file(kept.reader()?))).await;
        let found = match found.map_err(NoPicture::Disk).flatten() {
            Ok(found) => found,
            Err(why) => return why.answer(),
        };
        let room = self.take(found.pixels).await?;
        let made = blocking(move || {
            let _room = room;
            Ok(found.read().and_then(|picture| make(picture, shown)))
        });
        match made.await.map_err(NoPicture::Disk).flatten() {
            Ok((kind, bytes)) => Ok(with(kind, bytes)),
            Err(why) => why.answer(),
        }
    }
}

// === impl Found ===

impl Found {
    /// The picture in a file. Waits for the disk.
    pub(super) fn in_file(file: File) -> Result<Found, NoPicture> {
        let begun = |file| -> io::Result<_> {
            let mut reader = ImageReader::new(BufReader::new(file)).with_guessed_format()?;
            let mut limits = Limits::default();
            limits.max_alloc = Some(u64::from(MOST_MIB) << 20);
            reader.limits(limits);
            Ok(reader)
        };
        let again = file.try_clone()?;
        let (width, height) = begun(file)?.into_dimensions()?;
        let pixels = u64::from(width) * u64::from(height);
        if pixels > MOST_PIXELS {
            return Err(NoPicture::Unreadable);
        }
        (&again).rewind()?;
        let reader = begun(again)?;
        Ok(Found { reader, pixels })
    }

    pub(super) fn pixels(&self) -> u64 {
        self.pixels
    }

    /// Takes the room that was waited for, and time.
    pub(super) fn read(self) -> Result<DynamicImage, NoPicture> {
        Ok(self.reader.decode()?)
    }
}

fn make(picture: DynamicImage, shown: Shown) -> Result<(&'static str, Bytes), NoPicture> {
    let mut bytes = Cursor::new(Vec::new());
    let kind = match shown {
        Shown::Jpeg(quality) => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            written(&picture.into_rgb8().into(), encoder)?;
            "image/jpeg"
        }
        Shown::WebP { alpha } => {
            let with_alpha = alpha && picture.color().has_alpha();
            let picture = match with_alpha {
                true => DynamicImage::from(picture.into_rgba8()),
                false => picture.into_rgb8().into(),
            };
            written(&picture, WebPEncoder::new_lossless(&mut bytes))?;
            "image/webp"
        }
        Shown::Colors => {
            written(&picture.into_rgb8().into(), PngEncoder::new(&mut bytes))?;
            "image/png"
        }
        Shown::Alpha => {
            let mut alpha = picture.into_rgba8();
            for pixel in alpha.pixels_mut() {
                pixel.0 = [0, 0, 0, pixel.0[3]];
            }
            written(&alpha.into(), PngEncoder::new(&mut bytes))?;
            "image/png"
        }
    };
    Ok((kind, bytes.into_inner().into()))
}

fn written(picture: &DynamicImage, encoder: impl ImageEncoder) -> ImageResult<()> {
    let (width, height) = (picture.width(), picture.height());
    encoder.write_image(picture.as_bytes(), width, height, picture.color().into())
}

// === impl NoPicture ===

impl NoPicture {
    /// What is answered.
    pub(super) fn answer(self) -> Result<Response<Body>, Refusal> {
        match self {
            NoPicture::Unreadable => Ok(broken()),
            NoPicture::Disk(error) => Err(failed("read a picture", error)),
        }
    }
}

impl From<io::Error> for NoPicture {
    fn from(error: io::Error) -> Self {
        NoPicture::Disk(error)
    }
}

impl From<ImageError> for NoPicture {
    fn from(error: ImageError) -> Self {
        match error {
            // The end comes before the picture's: so it was written, whoever wrote it.
            ImageError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                NoPicture::Disk(error)
            }
            _ => NoPicture::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_asked_for_is_what_comfyui_takes_it_for() {
        for (preview, channel, wanted) in [
            (None, None, None),
            (None, Some("rgba"), None),
            (None, Some("x"), None),
            (None, Some("rgb"), Some(Shown::Colors)),
            (None, Some("a"), Some(Shown::Alpha)),
            (Some("jpeg"), None, Some(Shown::Jpeg(90))),
            (Some("jpeg;50"), Some("rgb"), Some(Shown::Jpeg(50))),
            (Some("jpeg;500"), Some(""), Some(Shown::Jpeg(100))),
            (Some("jpeg;0"), None, Some(Shown::Jpeg(1))),
            (Some("jpeg;+x"), None, Some(Shown::Jpeg(90))),
            (
                Some("jpeg"),
                Some("rgba"),
                Some(Shown::WebP { alpha: true }),
            ),
            (Some("webp;50"), None, Some(Shown::WebP { alpha: true })),
            (
                Some("webp"),
                Some("rgb"),
                Some(Shown::WebP { alpha: false }),
            ),
            (Some("90"), Some("a"), Some(Shown::WebP { alpha: true })),
            (Some(""), None, Some(Shown::WebP { alpha: true })),
        ] {
            assert_eq!(asked(preview, channel), wanted, "{preview:?} {channel:?}");
        }
    }

    /// The head of a PNG of this size, and nothing that it says behind it.
    fn headed(width: u32, height: u32) -> File {
        let mut png = Vec::new();
        let encoder = png::Encoder::new(&mut png, width, height);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0; 8]).unwrap();
        drop(writer);
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &png).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_picture_that_is_too_large_is_not_looked_into() {
        let found = Found::in_file(headed(10_000, 8_900));
        assert_eq!(found.ok().map(|found| found.pixels()), Some(89_000_000));
        for (width, height) in [(10_000, 9_000), (60_000, 60_000)] {
            let found = Found::in_file(headed(width, height));
            assert!(matches!(found, Err(NoPicture::Unreadable)));
        }
    }

    #[tokio::test]
    async fn all_pictures_together_have_a_bound() {
        let room = Room::new();
        let small = [room.take(1).await, room.take(1).await, room.take(1).await];
        let large = room.take(u64::MAX);
        tokio::pin!(large);
        let waits = |cx: &mut std::task::Context<'_>| {
            std::task::Poll::Ready(large.as_mut().poll(cx).is_pending())
        };
        assert!(
            std::future::poll_fn(waits).await,
            "three are being looked into"
        );
        drop(small);
        let all = tokio::time::timeout(Duration::from_secs(30), large).await;
        let _all = all.unwrap().unwrap();
        assert_eq!(room.0.available_permits(), 0, "it has all of it");
    }
}
