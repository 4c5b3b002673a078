//! A mask, put into the picture that it was painted on.

use super::draft::Whole;
use super::kept::Kept;
use super::paths::{annotated, below};
use super::picture::{Found, NoPicture};
use super::{Files, blocking, failed};
use crate::json::Json;
use crate::needs::Folder;
use image::RgbaImage;
use image::codecs::webp::WebPEncoder;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use tabane_api::Refusal;

/// What becomes of a mask.
pub(super) enum Masked {
    /// The picture with the mask's alpha.
    Picture(Whole),
    /// The picture that it belongs to is not here, or nobody says rightly where.
    NotHere,
    /// Nobody says which it is, or one of the two is no picture, or they are not of one size, or it is to be of a kind that
    /// has no alpha: ComfyUI stumbles.
    Unexpected,
}

/// Of what kind the picture is to be.
#[derive(Clone, Copy)]
enum As {
    Png,
    WebP,
}

// === impl Files ===

impl Files {
    /// Puts a mask into the picture that a reference names (`{"filename", "subfolder", "type"}`), for a file of this name.
    /// The texts in it stay.
    pub(super) async fn masked(
        &self,
        reference: Option<&str>,
        mask: Whole,
        name: &str,
    ) -> Result<Masked, Refusal> {
        let reference = reference.and_then(|text| Json::read(text.as_bytes()).ok());
        let reference = reference.filter(|told| told.get("filename").is_some_and(is_text));
        let (Some(reference), Some(kind)) = (reference, As::named(name)) else {
            return Ok(Masked::Unexpected);
        };
        let Some(path) = self.referred(&reference) else {
            return Ok(Masked::NotHere);
        };
        let kept = self.blocking(move |_| Kept::open(&path)).await;
        let kept = kept.flatten();
        let Some(original) = kept.map_err(|error| failed("read a picture", error))? else {
            return Ok(Masked::NotHere);
        };
        match self.pasted(original, mask, kind).await? {
            Ok(whole) => Ok(Masked::Picture(whole)),
            Err(NoPicture::Unreadable) => Ok(Masked::Unexpected),
            Err(NoPicture::Disk(error)) => Err(failed("put a mask into a picture", error)),
        }
    }

    /// Where the picture is, if that is a place where one can be.
    fn referred(&self, reference: &Json) -> Option<PathBuf> {
        let text = |key| reference.get(key).and_then(Json::text);
        let (name, folder) = annotated(text("filename")?);
        let is_name = !name.is_empty() && !name.starts_with('/') && !name.contains("..");
        let folder = folder.or_else(|| Folder::named(text("type").unwrap_or("output")))?;
        let folder = below(&self.disk.folder(folder), text("subfolder").unwrap_or(""))?;
        below(&folder, name).filter(|_| is_name)
    }

    async fn pasted(
        &self,
        original: Kept,
        mask: Whole,
        kind: As,
    ) -> Result<Result<Whole, NoPicture>, Refusal> {
        let found = blocking(move || {
            let found = || {
                let texts = texts(original.reader()?);
                let both = (
                    Found::in_file(original.reader()?)?,
                    Found::in_file(mask.reopen()?)?,
                );
                Ok((texts, both))
            };
            Ok(found())
        });
        let (texts, (original, mask)) = match found.await.map_err(NoPicture::Disk).flatten() {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let room = self.room.take(original.pixels() + mask.pixels()).await?;
        let pasted = self.blocking(move |disk| {
            let _room = room;
            let picture = paste(original, mask)?;
            Ok(Whole::written(disk, |out| {
                kind.write(&picture, &texts, out).map_err(io::Error::other)
            })?)
        });
        Ok(pasted.await.map_err(NoPicture::Disk).flatten())
    }
}

fn is_text(json: &Json) -> bool {
    json.text().is_some()
}

fn paste(original: Found, mask: Found) -> Result<RgbaImage, NoPicture> {
    let mut picture = original.read()?.into_rgba8();
    let mask = mask.read()?.into_rgba8();
    if picture.dimensions() != mask.dimensions() {
        return Err(NoPicture::Unreadable);
    }
    for (pixel, masked) in picture.pixels_mut().zip(mask.pixels()) {
        pixel.0[3] = masked.0[3];
    }
    Ok(picture)
}

/// The texts in a PNG: the workflow that made it, say. In any other picture, none.
fn texts(file: File) -> Vec<(String, String)> {
    let Ok(reader) = png::Decoder::new(BufReader::new(file)).read_info() else {
        return Vec::new();
    };
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter();
    let plain = plain.map(|text| (text.keyword.clone(), text.text.clone()));
    let packed = info.compressed_latin1_text.iter();
    let packed = packed.filter_map(|text| Some((text.keyword.clone(), text.get_text().ok()?)));
    let wide = info.utf8_text.iter();
    let wide = wide.filter_map(|text| Some((text.keyword.clone(), text.get_text().ok()?)));
    plain.chain(packed).chain(wide).collect()
}

// === impl As ===

impl As {
    fn named(name: &str) -> Option<As> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(As::Png),
            "webp" => Some(As::WebP),
            _ => None,
        }
    }

    fn write(
        self,
        picture: &RgbaImage,
        texts: &[(String, String)],
        out: &mut dyn Write,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (width, height) = picture.dimensions();
        if let As::WebP = self {
            picture.write_with_encoder(WebPEncoder::new_lossless(out))?;
            return Ok(());
        }
        let mut encoder = png::Encoder::new(out, width, height);
        encoder.set_color(png::ColorType::Rgba);
        for (key, text) in texts {
            // What Latin has no letters for goes where all letters are.
            match text.chars().all(|c| u32::from(c) < 256) {
                true => encoder.add_text_chunk(key.clone(), text.clone())?,
                false => encoder.add_itxt_chunk(key.clone(), text.clone())?,
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(picture)?;
        Ok(writer.finish()?)
    }
}
