//! Clients that keep their connections and count.

use crate::node::content_length;
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is kept from one request to the next.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    waste: Vec<u8>,
}

/// How requests of one measurement went: how long each took, sorted.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of(times: Vec<Vec<Duration>>) -> Self {
        let mut all: Vec<_> = times.into_iter().flatten().collect();
        all.sort_unstable();
        Times(all)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `share` of the requests did not exceed, in microseconds; `share` from 0 to 1.
    pub fn at(&self, share: f64) -> f64 {
        let i = (self.0.len() as f64 * share) as usize;
        let time = self.0.get(i.min(self.0.len().saturating_sub(1)));
        time.copied().unwrap_or_default().as_secs_f64() * 1e6
    }
}

impl Connection {
    pub async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to)
            .await
            .with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: Vec::with_capacity(4096),
            waste: Vec::new(),
        })
    }

    /// Asks for a path and reads the whole answer.
    ///
    /// Errors: any status but 200, and a connection that ended.
    pub async fn get(&mut self, path: &str) -> Result<()> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.answer().await
    }

    /// Sends `n` bytes and reads the whole answer.
    ///
    /// Errors: any status but 200, and a connection that ended.
    pub async fn post(&mut self, path: &str, n: u64) -> Result<()> {
        let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {n}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.send(n).await?;
        self.answer().await
    }

    async fn send(&mut self, n: u64) -> Result<()> {
        self.waste.resize(256 * 1024, b'x');
        let mut left = n;
        while left > 0 {
            let piece = left.min(self.waste.len() as u64);
            self.stream.write_all(&self.waste[..piece as usize]).await?;
            left -= piece;
        }
        Ok(())
    }

    /// Sends a request as it is, head and body, and reads the whole answer.
    ///
    /// Errors: another status than `wants`, and a connection that ended.
    pub async fn ask(&mut self, request: &[u8], wants: u16) -> Result<()> {
        self.stream.write_all(request).await?;
        self.expect(wants).await?;
        Ok(())
    }

    /// Sends a request as it is, and gives the body of its answer.
    ///
    /// Errors: any status but 200, and a connection that ended.
    pub async fn told(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        let (head, length) = self.head(200).await?;
        let end = head + length as usize;
        while self.buffer.len() < end {
            let n = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(n > 0, "the answer ended early");
        }
        Ok(self.buffer.drain(head..end).collect())
    }

    /// Uploads a file of `n` bytes in a form, as front ends do, and reads the whole answer.
    ///
    /// Errors: any status but 200, and a connection that ended.
    pub async fn upload(&mut self, name: &str, n: u64) -> Result<()> {
        let first = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n"
        );
        let last = "\r\n--XX--\r\n";
        let length = n + (first.len() + last.len()) as u64;
        let head = format!(
            "POST /upload/image HTTP/1.1\r\nHost: bench\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: {length}\r\n\r\n"
        );
        self.stream.write_all((head + &first).as_bytes()).await?;
        self.send(n).await?;
        self.stream.write_all(last.as_bytes()).await?;
        self.answer().await
    }

    /// What an answer of `ask` carried as a header.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&self.buffer).ok()?;
        let mut headers = response.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value).into_owned())
    }

    async fn answer(&mut self) -> Result<()> {
        self.expect(200).await
    }

    async fn expect(&mut self, wants: u16) -> Result<()> {
        let (head, length) = self.head(wants).await?;
        let mut left = length.saturating_sub((self.buffer.len() - head) as u64);
        if left > 0 {
            self.waste.resize(256 * 1024, 0);
        }
        while left > 0 {
            let most = self.waste.len().min(left as usize);
            let n = self.stream.read(&mut self.waste[..most]).await?;
            ensure!(n > 0, "the answer ended early");
            left -= n as u64;
        }
        Ok(())
    }

    /// Reads an answer's head, and maybe more: how long the head is, and the body.
    async fn head(&mut self, wants: u16) -> Result<(usize, u64)> {
        self.buffer.clear();
        loop {
            let n = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(n > 0, "the connection ended before the answer");
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = response.parse(&self.buffer)? {
                let status = response.code.unwrap_or_default();
                ensure!(status == wants, "answered {status}");
                // What was not changed may tell how long it is, and has no body.
                let length = match status {
                    304 => 0,
                    _ => content_length(response.headers),
                };
                return Ok((head, length));
            }
        }
    }
}

pub async fn open(to: SocketAddr, n: usize) -> Result<Vec<Connection>> {
    let mut all = Vec::with_capacity(n);
    for _ in 0..n {
        let mut connection = Connection::open(to).await?;
        connection.get("/").await?;
        all.push(connection);
    }
    Ok(all)
}

/// Every connection asks again as soon as it was answered.
pub async fn as_fast_as_it_goes(connections: Vec<Connection>, time: Duration) -> Result<Times> {
    let end = Instant::now() + time;
    let asking = connections.into_iter().map(|mut connection| {
        spawn(async move {
            let mut times = Vec::new();
            loop {
                let began = Instant::now();
                if began >= end {
                    return Ok(times);
                }
                connection.get("/").await?;
                times.push(began.elapsed());
            }
        })
    });
    Ok(Times::of(try_join_all(asking).await?))
}

/// The connections together ask `rate` times a second. A request that had to wait because the one before it on its
/// connection took too long is counted from when it was due; one that was only woken late is not.
pub async fn at_a_rate(connections: Vec<Connection>, rate: f64, time: Duration) -> Result<Times> {
    let began = Instant::now();
    let every = Duration::from_secs_f64(connections.len() as f64 / rate);
    let asking = connections
        .into_iter()
        .enumerate()
        .map(|(i, mut connection)| {
            spawn(async move {
                let mut times = Vec::new();
                let mut due = began + Duration::from_secs_f64(i as f64 / rate);
                while due < began + time {
                    let late = Instant::now() > due;
                    tokio::time::sleep_until(due.into()).await;
                    let from = if late { due } else { Instant::now() };
                    connection.get("/").await?;
                    times.push(from.elapsed());
                    due += every;
                }
                Ok(times)
            })
        });
    Ok(Times::of(try_join_all(asking).await?))
}

pub async fn spawn<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await?
}
