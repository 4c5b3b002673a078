//! A zip that is written while it is read: never whole in memory, never on disk.
//!
//! Entries are stored as they are: results are pictures and films, which do not get smaller. In memory are at most four
//! pieces of [`PIECE`] bytes, and some 150 bytes for each entry that was written, for the directory at the zip's end.

use crate::store::Moment;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use rawzip::ZipArchiveWriter;
use rawzip::time::UtcDateTime;
use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use tabane_api::Content;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How much is read and sent at once.
const PIECE: usize = 256 << 10;

/// How many pieces may wait for the client.
const AHEAD: usize = 2;

/// A zip that is being written.
pub(super) struct Zip {
    archive: ZipArchiveWriter<Pipe>,
    out: Out,
}

/// What was written and not sent yet. The archive holds one end while the other is emptied.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<BytesMut>>);

/// The way to the client.
struct Out {
    pipe: Pipe,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

/// The bytes of the zip that `write` writes, made as they are asked for. An error of `write` breaks them off; a client
/// that leaves drops `write` where it stands.
pub(super) fn zip<F, W>(write: F) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    F: FnOnce(Zip) -> W,
    W: Future<Output = io::Result<()>> + Send,
{
    let (send, pieces) = mpsc::channel(AHEAD);
    let pipe = Pipe::default();
    let write = write(Zip {
        archive: ZipArchiveWriter::new(pipe.clone()),
        out: Out { pipe, pieces: send },
    });
    let failed = stream::once(write).filter_map(async |done| done.err().map(Err));
    stream::select(ReceiverStream::new(pieces), failed)
}

// === impl Zip ===

impl Zip {
    /// Adds an entry.
    ///
    /// Errors: its content cannot be read to its end, or the client left.
    pub(super) async fn add(
        &mut self,
        name: &str,
        at: Moment,
        content: &Content,
    ) -> io::Result<()> {
        let entry = self.archive.new_file(name);
        let entry = entry.last_modified(UtcDateTime::from_unix(at.0.div_euclid(1000)));
        let (mut entry, config) = entry
            .unix_permissions(0o644)
            .start()
            .map_err(io::Error::other)?;
        let mut data = config.wrap(&mut entry);
        let mut read = 0;
        while read < content.length() {
            let piece = content.read(read, PIECE).await?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read += piece.len() as u64;
            data.write_all(&piece)?;
            self.out.send(PIECE).await?;
        }
        let (_, end) = data.finish().map_err(io::Error::other)?;
        entry.finish(end).map_err(io::Error::other)?;
        self.out.send(PIECE).await
    }

    /// Writes the directory: without it, nothing is a zip.
    pub(super) async fn finish(self) -> io::Result<()> {
        self.archive.finish().map_err(io::Error::other)?;
        self.out.send(1).await
    }
}

// === impl Out ===

impl Out {
    /// Sends what is there, if it is at least so much.
    async fn send(&self, least: usize) -> io::Result<()> {
        let piece = {
            let mut written = self.pipe.0.lock();
            match written.len() >= least {
                true => written.split().freeze(),
                false => return Ok(()),
            }
        };
        let sent = self.pieces.send(Ok(piece)).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use std::io::{Cursor, Read};
    use std::sync::atomic::{AtomicU64, Ordering};
    use tabane_api::Stored;

    async fn gathered(stream: impl Stream<Item = io::Result<Bytes>>) -> io::Result<Vec<u8>> {
        let mut stream = std::pin::pin!(stream);
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    /// As many bytes as it says, made when they are read; it counts how far that got.
    struct Made {
        length: u64,
        there: u64,
        read: AtomicU64,
    }

    fn made(length: u64, there: u64) -> Arc<Made> {
        let read = AtomicU64::new(0);
        Arc::new(Made {
            length,
            there,
            read,
        })
    }

    #[async_trait]
    impl Stored for Made {
        fn length(&self) -> u64 {
            self.length
        }

        async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
            let end = self.there.min(offset + most as u64);
            self.read.fetch_max(end, Ordering::Relaxed);
            Ok((offset..end).map(|at| (at % 251) as u8).collect())
        }
    }

    #[tokio::test]
    async fn another_reader_finds_what_was_added() {
        let length = 3 * PIECE as u64 + 5;
        let long = made(length, length);
        let bytes = gathered(zip(async |mut zip: Zip| {
            let at = Moment(1_700_000_000_000);
            zip.add("0001.png", at, &Bytes::from_static(b"one").into())
                .await?;
            zip.add("0002.png", at, &Content::default()).await?;
            zip.add("-003.exr", at, &Content::Stored(long)).await?;
            zip.finish().await
        }));
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes.await.unwrap())).unwrap();
        let names: Vec<_> = archive
            .file_names()
            .map(|name| name.unwrap().into_owned())
            .collect();
        assert_eq!(names, ["0001.png", "0002.png", "-003.exr"]);
        let mut read = |name| {
            let (mut entry, mut bytes) = (archive.by_name(name).unwrap(), Vec::new());
            assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
            // Checks the sum too.
            entry.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(read("0001.png"), b"one");
        assert_eq!(read("0002.png"), b"");
        let long = read("-003.exr");
        assert_eq!(long.len(), 3 * PIECE + 5);
        assert!(
            long.iter()
                .enumerate()
                .all(|(at, byte)| (at % 251) as u8 == *byte)
        );
    }

    #[tokio::test]
    async fn more_entries_than_a_plain_zip_can_have_are_found() {
        let bytes = gathered(zip(async |mut zip: Zip| {
            for i in 0..70_000 {
                zip.add(&format!("{i:04}.txt"), Moment(0), &Content::default())
                    .await?;
            }
            zip.finish().await
        }));
        let archive = zip::ZipArchive::new(Cursor::new(bytes.await.unwrap())).unwrap();
        assert_eq!(archive.len(), 70_000);
    }

    #[tokio::test]
    async fn a_zip_without_entries_is_one() {
        let bytes = gathered(zip(|zip: Zip| zip.finish())).await.unwrap();
        assert!(zip::ZipArchive::new(Cursor::new(bytes)).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_read_to_its_end_breaks_the_zip_off() {
        let short = Content::Stored(made(10, 4));
        let bytes = gathered(zip(async |mut zip: Zip| {
            zip.add("0001.png", Moment(0), &short).await?;
            zip.finish().await
        }));
        assert_eq!(
            bytes.await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[tokio::test]
    async fn no_more_is_read_than_the_client_takes() {
        let endless = made(u64::MAX, u64::MAX);
        let content = Content::Stored(endless.clone());
        let mut stream = Box::pin(zip(async |mut zip: Zip| {
            zip.add("0001.raw", Moment(0), &content).await?;
            zip.finish().await
        }));
        for taken in 1..20 {
            assert!(stream.next().await.unwrap().is_ok());
            let read = endless.read.load(Ordering::Relaxed);
            assert!(
                read <= (taken + 2 + AHEAD as u64) * PIECE as u64,
                "{taken}: {read}"
            );
        }
    }
}
