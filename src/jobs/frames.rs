//! Which frames an array is of, as render departments write them.
//!
//! A list of single frames and ranges, separated by commas or spaces: `1-10, 20, 30-40x5`. A range may count down, and
//! has a step after `x` or `:`. Frames may be negative: `-5--1` are five. What is named twice is rendered once, where
//! it was named first.

use crate::store::JobRecord;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// As many frames as one array may have.
pub const MOST_FRAMES: usize = 10_000;

/// What a job's tag for its frame begins with.
pub const FRAME_TAG: &str = "frame=";

/// The frames of an array: in their order, each once, at least one and at most [`MOST_FRAMES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames(Vec<i32>);

/// Frames as a request names them: `"1-240x2"`, `[1, 2, 5]`, or `7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedFrames {
    /// Ranges.
    Text(String),
    /// One by one.
    List(Vec<i64>),
}

/// Why a list of frames is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramesError {
    /// It names nothing.
    #[error("`frames` names no frame; write `1-240`, `1-240x2`, `1-10, 20`, or `[1, 2, 5]`")]
    None,
    /// A part of it is neither a frame nor a range.
    #[error("`frames`: `{0}` is no frame and no range; write `7`, `1-240` or `1-240x2`")]
    NoRange(String),
    /// A number that no renderer counts to.
    #[error("`frames`: {0} is out of range; frames lie between -2147483648 and 2147483647")]
    TooFar(String),
    /// More than an array may have.
    #[error("`frames` names more than {MOST_FRAMES} frames; submit several arrays")]
    TooMany,
}

/// A range of frames: `first`, `first ± step`, … as far as `last`.
#[derive(Clone, Copy)]
struct Range {
    first: i32,
    last: i32,
    step: u32,
}

// === impl Frames ===

impl Frames {
    /// Reads them.
    ///
    /// Errors: it makes no sense, or names more frames than [`MOST_FRAMES`], those that are named twice counted twice.
    pub fn read(named: &NamedFrames) -> Result<Self, FramesError> {
        match named {
            NamedFrames::Text(text) => {
                let parts = text.split(|c: char| c == ',' || c.is_whitespace());
                Frames::of(parts.filter(|part| !part.is_empty()).map(range))
            }
            NamedFrames::List(list) => Frames::of(list.iter().map(|&frame| {
                let frame =
                    i32::try_from(frame).map_err(|_| FramesError::TooFar(frame.to_string()))?;
                Ok(Range::one(frame))
            })),
        }
    }

    fn of(ranges: impl Iterator<Item = Result<Range, FramesError>>) -> Result<Self, FramesError> {
        let (mut frames, mut seen, mut named) = (Vec::new(), HashSet::new(), 0);
        for range in ranges {
            let range = range?;
            // Counted before any is made: a list of few words can name millions.
            named += range.length();
            if named > MOST_FRAMES as u64 {
                return Err(FramesError::TooMany);
            }
            frames.extend(range.frames().filter(|frame| seen.insert(*frame)));
        }
        match frames.is_empty() {
            true => Err(FramesError::None),
            false => Ok(Frames(frames)),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.iter().copied()
    }
}

/// The tag that says which frame a job is.
pub fn frame_tag(frame: i32) -> String {
    format!("{FRAME_TAG}{frame}")
}

/// Which frame of its array a job is.
pub fn frame_of(job: &JobRecord) -> Option<i32> {
    let mut tags = job.tags.iter();
    tags.find_map(|tag| tag.strip_prefix(FRAME_TAG)?.parse().ok())
}

/// Reads `7`, `1-240`, `1-240x2`.
fn range(text: &str) -> Result<Range, FramesError> {
    let wrong = || FramesError::NoRange(text.to_owned());
    let (first, rest) = split_number(text).ok_or_else(wrong)?;
    if rest.is_empty() {
        return Ok(Range::one(number(first)?));
    }
    // Blender writes two dots, all others a dash.
    let rest = rest.strip_prefix("..").or_else(|| rest.strip_prefix('-'));
    let (last, rest) = rest.and_then(split_number).ok_or_else(wrong)?;
    let step = match (rest, rest.strip_prefix(['x', 'X', ':'])) {
        ("", _) => 1,
        (_, Some(step)) => step
            .parse()
            .ok()
            .filter(|step| *step > 0)
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok(Range {
        first: number(first)?,
        last: number(last)?,
        step,
    })
}

/// The number that a text begins with, and what follows it.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < digits.len()).then(|| text.split_at(text.len() - rest.len()))
}

fn number(text: &str) -> Result<i32, FramesError> {
    text.parse()
        .map_err(|_| FramesError::TooFar(text.to_owned()))
}

// === impl Range ===

impl Range {
    fn one(frame: i32) -> Self {
        Range {
            first: frame,
            last: frame,
            step: 1,
        }
    }

    fn length(self) -> u64 {
        u64::from(self.first.abs_diff(self.last) / self.step) + 1
    }

    fn frames(self) -> impl Iterator<Item = i32> {
        let (first, step) = (i64::from(self.first), i64::from(self.step));
        let step = if self.last < self.first { -step } else { step };
        // It stays between two `i32`.
        (0..self.length() as i64).filter_map(move |i| i32::try_from(first + i * step).ok())
    }
}

impl<'de> Deserialize<'de> for NamedFrames {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Named;
        impl<'de> Visitor<'de> for Named {
            type Value = NamedFrames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("frames: `\"1-240x2\"`, `[1, 2, 5]` or a number")
            }

            fn visit_str<E>(self, text: &str) -> Result<NamedFrames, E> {
                Ok(NamedFrames::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, frame: i64) -> Result<NamedFrames, E> {
                Ok(NamedFrames::List(vec![frame]))
            }

            fn visit_u64<E>(self, frame: u64) -> Result<NamedFrames, E> {
                // Past this it is out of range either way.
                let frame = i64::try_from(frame).unwrap_or(i64::MAX);
                Ok(NamedFrames::List(vec![frame]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NamedFrames, A::Error> {
                let mut list = Vec::new();
                while let Some(frame) = seq.next_element()? {
                    list.push(frame);
                }
                Ok(NamedFrames::List(list))
            }
        }
        from.deserialize_any(Named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::tried;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<i32>, FramesError> {
        Frames::read(&NamedFrames::Text(text.into())).map(|frames| frames.0)
    }

    #[test]
    fn frames_are_read_as_render_departments_write_them() {
        for (text, wants) in [
            ("7", &[7][..]),
            ("1-4", &[1, 2, 3, 4]),
            ("1..4", &[1, 2, 3, 4]),
            ("1-10x4", &[1, 5, 9]),
            ("1-10X4", &[1, 5, 9]),
            ("1-9:4", &[1, 5, 9]),
            ("1-3,20, 30-40x5", &[1, 2, 3, 20, 30, 35, 40]),
            ("1 2\t5", &[1, 2, 5]),
            ("3-1", &[3, 2, 1]),
            ("10-1x4", &[10, 6, 2]),
            ("-3", &[-3]),
            ("-3--1", &[-3, -2, -1]),
            ("-1-1", &[-1, 0, 1]),
            ("1--1", &[1, 0, -1]),
            ("5-5", &[5]),
            ("1-3x100", &[1]),
            ("3,1-4,1", &[3, 1, 2, 4]),
            ("0007", &[7]),
            ("2147483647-2147483645x2", &[2147483647, 2147483645]),
            ("-2147483648", &[i32::MIN]),
            (",1,,2,", &[1, 2]),
        ] {
            assert_eq!(read(text).as_deref(), Ok(wants), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_frames_is_refused_with_the_part_that_is_wrong() {
        let no_range = |part: &str| FramesError::NoRange(part.into());
        for (text, wants) in [
            ("", FramesError::None),
            (" , ", FramesError::None),
            ("a", no_range("a")),
            ("1,2b", no_range("2b")),
            ("1-", no_range("1-")),
            ("-", no_range("-")),
            ("1 - 5", no_range("-")),
            ("1-5x", no_range("1-5x")),
            ("1-5x0", no_range("1-5x0")),
            ("1-5x-1", no_range("1-5x-1")),
            ("5x2", no_range("5x2")),
            ("1-2-3", no_range("1-2-3")),
            ("1.5", no_range("1.5")),
            ("+1", no_range("+1")),
            ("2147483648", FramesError::TooFar("2147483648".into())),
            ("1-10001", FramesError::TooMany),
            ("-2147483648-2147483647", FramesError::TooMany),
            ("1-60000,1-60000", FramesError::TooMany),
        ] {
            assert_eq!(read(text), Err(wants), "{text}");
        }
        assert_eq!(read("1-10000").map(|frames| frames.len()), Ok(MOST_FRAMES));
    }

    #[test]
    fn frames_in_json_are_a_text_a_list_or_a_number() {
        for (json, wants) in [
            ("\"1-3\"", Some(&[1, 2, 3][..])),
            ("[5, 1, 5, -2]", Some(&[5, 1, -2])),
            ("7", Some(&[7])),
            ("[]", None),
            ("[2147483648]", None),
            ("18446744073709551615", None),
            ("[1.5]", None),
            ("null", None),
            ("{}", None),
        ] {
            let named: Option<NamedFrames> = serde_json::from_str(json).ok();
            let read = named.and_then(|named| Frames::read(&named).ok());
            assert_eq!(read.as_ref().map(|frames| &*frames.0), wants, "{json}");
        }
    }

    /// The same, read another way: every cut of a part into numbers is tried, and every number between is looked at.
    fn slowly(text: &str) -> Option<Vec<i32>> {
        fn whole(text: &str) -> Option<i64> {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| all)
        }
        let cuts = |text: &str, by: &[&str]| -> Vec<(String, String)> {
            let places = (0..=text.len()).flat_map(|at| by.iter().map(move |by| (at, *by)));
            let cut = |(at, by): (usize, &str)| {
                let rest = text.get(at..)?.strip_prefix(by)?;
                Some((text[..at].to_owned(), rest.to_owned()))
            };
            places.filter_map(cut).collect()
        };
        let mut frames = Vec::new();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let mut found: Vec<(i64, i64, i64)> = Vec::new();
            found.extend(whole(part).map(|one| (one, one, 1)));
            let mut stepped = vec![(part.to_owned(), "1".to_owned())];
            stepped.extend(cuts(part, &["x", "X", ":"]));
            for (ends, step) in stepped {
                for (first, last) in cuts(&ends, &["-", ".."]) {
                    let all = (whole(&first), whole(&last), whole(&step));
                    if let (Some(first), Some(last), Some(step @ 1..)) = all {
                        found.push((first, last, step));
                    }
                }
            }
            let [(first, last, step)] = found[..] else {
                return None;
            };
            let mut between: Vec<i64> = (first.min(last)..=first.max(last)).collect();
            if last < first {
                between.reverse();
            }
            let on_step = |frame: &i64| (frame - first) % step == 0;
            for frame in between.into_iter().filter(on_step) {
                let frame = i32::try_from(frame).ok()?;
                if !frames.contains(&frame) {
                    frames.push(frame);
                }
            }
        }
        (!frames.is_empty()).then_some(frames)
    }

    #[test]
    fn a_second_reading_of_any_text_finds_the_same_frames() {
        let odd = "[0-9x:., -]{0,8}";
        let part = "-?[0-9]{1,2}((-|\\.\\.)-?[0-9]{1,2}([xX:][0-9]{1,2})?)?";
        let good = proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join(","));
        tried(2_000, prop_oneof![odd, good], |text: String| {
            assert_eq!(read(&text).ok(), slowly(&text), "{text:?}");
        });
    }
}
