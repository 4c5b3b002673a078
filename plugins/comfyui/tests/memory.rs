//! However long a file is, it is never in memory. Alone in its process: what that takes is measured.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue};
use std::fs::File;
use std::io;
use std::sync::Arc;
use tabane_api::{Body, Content, Stored};
use tabane_comfyui::files::{Files, Upload};
use tabane_comfyui::needs::FilePath;

const MIB: u64 = 1 << 20;

/// A form with a file of so many bytes in it.
struct Form(u64);

const BEGIN: &[u8] =
    b"--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"long.bin\"\r\n\r\n";
const END: &[u8] = b"\r\n--X--\r\n";

#[async_trait]
impl Stored for Form {
    fn length(&self) -> u64 {
        self.0 + (BEGIN.len() + END.len()) as u64
    }

    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let begin = BEGIN.len() as u64;
        if offset < begin {
            return Ok(Bytes::from_static(&BEGIN[offset as usize..]));
        }
        match (begin + self.0).checked_sub(offset) {
            Some(left) if left > 0 => Ok(vec![7; (left as usize).min(most)].into()),
            _ => Ok(Bytes::from_static(
                &END[(offset - begin - self.0) as usize..],
            )),
        }
    }
}

/// The most memory that this process ever took.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

#[tokio::test]
async fn the_length_of_a_file_is_not_what_it_takes_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path()).unwrap();
    let before = peak();

    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("multipart/form-data; boundary=X");
    headers.insert("content-type", kind);
    let body = Content::Stored(Arc::new(Form(99 * MIB)));
    let told = files.upload(Upload::File, &headers, body).await.unwrap();
    assert_eq!(told.status(), 200);
    let kept = files.find(FilePath::of("long.bin")).await.unwrap().unwrap();
    assert_eq!(kept.length(), 99 * MIB);

    let pieces = (0..400).map(|_| Ok(Bytes::from(vec![7; MIB as usize / 4])));
    let at = FilePath::of("result.bin [output]");
    let placed = files.place("job", at, Box::pin(stream::iter(pieces)));
    assert_eq!(placed.await.unwrap().length, 100 * MIB);

    let long = File::create(folder.path().join("output/view.mp4")).unwrap();
    long.set_len(200 * MIB).unwrap();
    let range = HeaderValue::from_static("bytes=1-");
    let headers = HeaderMap::from_iter([(http::header::RANGE, range)]);
    let query = Some("filename=view.mp4");
    let answer = files.view(query, &headers).await.unwrap();
    let Body::Part {
        content,
        from,
        length,
    } = answer.into_body()
    else {
        panic!("it is a part of what is kept");
    };
    assert_eq!((from, length), (1, 200 * MIB - 1));
    let mut read = 0;
    while read < length {
        let piece = content.read(from + read, 256 << 10).await.unwrap();
        assert!(!piece.is_empty());
        read += piece.len() as u64;
    }

    let taken = peak() - before;
    assert!(taken < 16 * MIB, "{} KiB more were taken", taken >> 10);
}
