//! Pictures, small enough to make many of them: one of a single colour is not spread out until it must be.

use super::json::Json;
use super::mosaic;
use sha2::{Digest, Sha256};
use std::io::Cursor;

/// A picture, red, green, blue and alpha.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pixels: Pixels,
}

#[derive(Clone, Debug, PartialEq)]
enum Pixels {
    Flat([u8; 4]),
    Each(Vec<u8>),
}

/// A number that two things share if they are the same, and hardly otherwise.
pub(crate) fn mark(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |mark, byte| mark << 8 | u64::from(*byte))
}

/// The colour of a square of a picture that was made up.
pub(crate) fn made_up(mark: u64, x: u32, y: u32) -> [u8; 4] {
    let mut mixed = mark ^ (u64::from(x) << 32 | u64::from(y)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 29;
    let [red, green, blue, ..] = mixed.to_le_bytes();
    [red, green, blue, 255]
}

// === impl Picture ===

impl Picture {
    pub(crate) fn flat(width: u32, height: u32, color: [u8; 4]) -> Self {
        Picture {
            width,
            height,
            pixels: Pixels::Flat(color),
        }
    }

    /// One whose squares of 8 by 8 have the colours that `color` gives them.
    pub(crate) fn squares(width: u32, height: u32, color: impl Fn(u32, u32) -> [u8; 4]) -> Self {
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 4);
        for y in 0..height {
            if y % 8 != 0 {
                let row = width as usize * 4;
                pixels.extend_from_within(pixels.len() - row..);
                continue;
            }
            for x in (0..width).step_by(8) {
                let wide = (width - x).min(8) as usize;
                pixels.extend(color(x / 8, y / 8).repeat(wide));
            }
        }
        Picture {
            width,
            height,
            pixels: Pixels::Each(pixels),
        }
    }

    /// One without any two pixels alike, or hardly.
    pub(crate) fn noise(width: u32, height: u32) -> Self {
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        Picture {
            width,
            height,
            pixels: Pixels::Each(rows.flat_map(|(x, y)| made_up(1, x, y)).collect()),
        }
    }

    pub(crate) fn at(&self, x: u32, y: u32) -> [u8; 4] {
        match &self.pixels {
            Pixels::Flat(color) => *color,
            Pixels::Each(pixels) => {
                let at = (y as usize * self.width as usize + x as usize) * 4;
                let pixel = pixels.get(at..at + 4).and_then(|p| p.try_into().ok());
                pixel.unwrap_or_default()
            }
        }
    }

    fn each(&self, f: impl Fn([u8; 4]) -> [u8; 4]) -> Self {
        let pixels = match &self.pixels {
            Pixels::Flat(color) => Pixels::Flat(f(*color)),
            Pixels::Each(pixels) => Pixels::Each(
                pixels
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .flat_map(|pixel| f(*pixel))
                    .collect(),
            ),
        };
        Picture { pixels, ..*self }
    }

    pub(crate) fn inverted(&self) -> Self {
        self.each(|[r, g, b, a]| [255 - r, 255 - g, 255 - b, a])
    }

    pub(crate) fn opaque(&self) -> Self {
        self.each(|[r, g, b, _]| [r, g, b, 255])
    }

    /// Its alpha alone, on black.
    pub(crate) fn alpha(&self) -> Self {
        self.each(|[_, _, _, a]| [0, 0, 0, a])
    }

    pub(crate) fn scaled(&self, width: u32, height: u32) -> Self {
        if let Pixels::Flat(color) = self.pixels {
            return Picture::flat(width, height, color);
        }
        let scale = |to: u32, from: u32, size: u32| {
            (u64::from(to) * u64::from(from) / u64::from(size.max(1))) as u32
        };
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 4);
        for y in 0..height {
            for x in 0..width {
                pixels.extend(self.at(scale(x, self.width, width), scale(y, self.height, height)));
            }
        }
        Picture {
            width,
            height,
            pixels: Pixels::Each(pixels),
        }
    }

    /// Blurs it, roughly: squares take the colour of their first pixel.
    pub(crate) fn blurred(&self) -> Self {
        match self.pixels {
            Pixels::Flat(_) => self.clone(),
            Pixels::Each(_) => {
                Picture::squares(self.width, self.height, |x, y| self.at(x * 8, y * 8))
            }
        }
    }

    /// The same with another's alpha.
    pub(crate) fn with_alpha_of(&self, other: &Picture) -> Self {
        let mut pixels = Vec::with_capacity(self.width as usize * self.height as usize * 4);
        for y in 0..self.height {
            for x in 0..self.width {
                let [r, g, b, _] = self.at(x, y);
                let inside = x < other.width && y < other.height;
                pixels.extend([r, g, b, if inside { other.at(x, y)[3] } else { 255 }]);
            }
        }
        Picture {
            pixels: Pixels::Each(pixels),
            ..*self
        }
    }

    pub(crate) fn mark(&self) -> u64 {
        let size = [self.width.to_be_bytes(), self.height.to_be_bytes()].concat();
        match &self.pixels {
            Pixels::Flat(color) => mark(&[&size, color]),
            Pixels::Each(pixels) => mark(&[&size, pixels]),
        }
    }

    fn is_opaque(&self) -> bool {
        match &self.pixels {
            Pixels::Flat(color) => color[3] == 255,
            Pixels::Each(pixels) => pixels
                .as_chunks::<4>()
                .0
                .iter()
                .all(|pixel| pixel[3] == 255),
        }
    }

    /// A PNG, with texts in it as the real server puts the prompt and the workflow there. Without alpha if it needs none.
    pub(crate) fn png(&self, texts: &[(String, Json)]) -> Vec<u8> {
        self.png_of(if self.is_opaque() { 3 } else { 4 }, texts)
    }

    /// The same, with alpha in any case.
    pub(crate) fn png_with_alpha(&self, texts: &[(String, Json)]) -> Vec<u8> {
        self.png_of(4, texts)
    }

    fn png_of(&self, channels: usize, texts: &[(String, Json)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(if channels == 3 {
            png::ColorType::Rgb
        } else {
            png::ColorType::Rgba
        });
        encoder.set_compression(png::Compression::Fastest);
        let written = (|| {
            for (key, text) in texts {
                encoder.add_text_chunk(key.clone(), text.to_string())?;
            }
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&self.bytes(channels))?;
            writer.finish()
        })();
        // Into memory, everything can be written but a picture without pixels, and a text whose key is no word.
        if written.is_err() { Vec::new() } else { bytes }
    }

    fn bytes(&self, channels: usize) -> Vec<u8> {
        match &self.pixels {
            Pixels::Flat(color) => {
                color[..channels].repeat(self.width as usize * self.height as usize)
            }
            Pixels::Each(pixels) if channels == 4 => pixels.clone(),
            Pixels::Each(pixels) => {
                let pixels = pixels.as_chunks::<4>().0.iter();
                pixels.flat_map(|[r, g, b, _]| [*r, *g, *b]).collect()
            }
        }
    }

    /// A JPEG, of squares.
    pub(crate) fn jpeg(&self) -> Vec<u8> {
        let squares = |pixels: u32| pixels.div_ceil(8).min(8191) as u16;
        let (columns, rows) = (squares(self.width), squares(self.height));
        mosaic::jpeg(columns, rows, |x, y| self.at(x * 8, y * 8))
    }

    /// A WebP. Its quality is the best, whatever is asked for.
    pub(crate) fn webp(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = image_webp::WebPEncoder::new(&mut bytes);
        let color = image_webp::ColorType::Rgba8;
        match encoder.encode(&self.bytes(4), self.width, self.height, color) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Reads a PNG. From any other bytes it makes up a picture, the same from the same ones.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Picture::read_png(bytes).unwrap_or_else(|| {
            let mark = mark(&[bytes]);
            Picture::squares(64, 64, |x, y| made_up(mark, x, y))
        })
    }

    pub(crate) fn read_png(bytes: &[u8]) -> Option<Self> {
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::ALPHA | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().ok()?;
        let mut read = vec![0; reader.output_buffer_size()?];
        let frame = reader.next_frame(&mut read).ok()?;
        let read = read.get(..frame.buffer_size())?;
        let pixels = match frame.color_type {
            png::ColorType::Rgba => read.to_vec(),
            png::ColorType::GrayscaleAlpha => {
                let pixels = read.as_chunks::<2>().0.iter();
                pixels.flat_map(|[v, a]| [*v, *v, *v, *a]).collect()
            }
            _ => return None,
        };
        Some(Picture {
            width: frame.width,
            height: frame.height,
            pixels: Pixels::Each(pixels),
        })
    }

    /// The texts in a PNG.
    pub(crate) fn texts(bytes: &[u8]) -> Vec<(String, Json)> {
        let Ok(reader) = png::Decoder::new(Cursor::new(bytes)).read_info() else {
            return Vec::new();
        };
        let texts = reader.info().uncompressed_latin1_text.iter();
        texts
            .filter_map(|text| {
                let json = Json::read(text.text.as_bytes()).ok()?;
                Some((text.keyword.clone(), json))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_from_its_png_with_its_texts() {
        let picture = Picture::squares(20, 12, |x, y| made_up(7, x, y));
        let texts = vec![("prompt".to_owned(), Json::from("a cat"))];
        let png = picture.png(&texts);
        assert_eq!(Picture::read_png(&png), Some(picture));
        assert_eq!(Picture::texts(&png), texts);
    }

    #[test]
    fn alpha_survives_its_png() {
        let picture = Picture::squares(8, 8, |_, _| [1, 2, 3, 9]);
        assert_eq!(Picture::read_png(&picture.png(&[])), Some(picture));
    }
}
