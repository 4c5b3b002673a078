//! Names that are free.

use super::disk::is_taken;
use super::paths::split_extension;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

/// A name with a counter in it: `prefix_00007_.png`, as ComfyUI's own nodes make them, or `prefix_00007.mp4` and
/// `prefix_00007-audio.mp4`, as the video pack does that nearly everybody has.
struct Counted<'a> {
    /// With the underscore.
    prefix: &'a str,
    counter: u64,
    rest: &'a str,
}

/// A name like this one that nothing in the folder has at the moment: of a counter's, the one after the highest that is
/// there; of any other, `name (1).ext`, and so on.
///
/// Source: ComfyUI `folder_paths.get_save_image_path`; `server.image_upload`.
pub(super) fn next(folder: &Path, name: &str) -> io::Result<String> {
    let Some(counted) = Counted::of(name) else {
        return Ok(numbered(folder, name));
    };
    let Counted { prefix, rest, .. } = counted;
    let mut highest = counted.counter;
    for entry in fs::read_dir(folder)?.flatten() {
        let there = entry.file_name();
        let there = there.to_str().and_then(|there| there.strip_prefix(prefix));
        if let Some((counter, _)) = there.and_then(counter) {
            highest = highest.max(counter);
        }
    }
    let next = highest.saturating_add(1);
    Ok(format!("{prefix}{next:05}{rest}"))
}

/// The first of `name (1).ext`, `name (2).ext`, … that nothing in the folder has.
fn numbered(folder: &Path, name: &str) -> String {
    let names = (1_u64..).map(|i| nth(name, i));
    let mut free = names.filter(|name| !is_taken(&folder.join(name)));
    free.next().unwrap_or_else(|| name.to_owned())
}

/// `name (3).ext`
pub(super) fn nth(name: &str, i: u64) -> String {
    let (stem, extension) = split_extension(name);
    format!("{stem} ({i}){extension}")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Into a text, all can be written.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let mut underscores = name.rmatch_indices('_').map(|(at, _)| at + 1);
        underscores.find_map(|at| {
            let (prefix, behind) = name.split_at(at);
            let (counter, rest) = counter(behind)?;
            // A number of other length is the name's own, a date say.
            let digits = behind.len() - rest.len();
            let is_padded = digits == 5 || digits > 5 && !behind.starts_with('0');
            is_padded.then_some(Counted {
                prefix,
                counter,
                rest,
            })
        })
    }
}

/// The counter at the beginning of what stands behind a prefix, and what stands behind it.
fn counter(behind: &str) -> Option<(u64, &str)> {
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = behind.split_at(digits);
    let is_counter = rest.starts_with('_') || digits == 5 && rest.starts_with(['.', '-']);
    Some((number.parse().ok()?, rest)).filter(|_| is_counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_name_is_free_and_of_the_same_kind() {
        let folder = tempfile::tempdir().unwrap();
        for there in [
            "a_00007_.png",
            "a_00003_.webp",
            "aa_00100_.png",
            "a_b_00050_.png",
            "a_x_.png",
            "a_20240101.png",
            "v_00002.mp4",
            "v_00004-audio.mp4",
            "big_100000_.png",
            "photo.png",
            "photo (1).png",
        ] {
            fs::write(folder.path().join(there), "").unwrap();
        }
        for (taken, wanted) in [
            ("a_00003_.webp", "a_00008_.webp"),
            ("a_00007_.png", "a_00008_.png"),
            ("a_b_00050_.png", "a_b_00051_.png"),
            ("a_20240101.png", "a_20240101 (1).png"),
            ("v_00002.mp4", "v_00005.mp4"),
            ("v_00002.png", "v_00005.png"),
            ("v_00004-audio.mp4", "v_00005-audio.mp4"),
            ("big_100000_.png", "big_100001_.png"),
            ("new_00001_.png", "new_00002_.png"),
            ("photo.png", "photo (2).png"),
            ("x_1_.png", "x_1_ (1).png"),
            ("mesh", "mesh (1)"),
            ("_00001_.png", "_00002_.png"),
            ("c_99999_.png", "c_100000_.png"),
            (
                "n_99999999999999999999_.png",
                "n_99999999999999999999_ (1).png",
            ),
        ] {
            assert_eq!(next(folder.path(), taken).unwrap(), wanted);
        }
    }
}
