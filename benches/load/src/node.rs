//! A node that costs as little as it can: `/bulk/N` answers N bytes, anything else 1 KiB; bodies are read and dropped.

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What one write of a bulk answer carries.
const PIECE: usize = 256 * 1024;

/// Serves on `n` ports, and prints them in one line.
pub async fn run(n: usize) -> Result<()> {
    let mut ports = Vec::new();
    for _ in 0..n {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        ports.push(listener.local_addr()?.port().to_string());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    }
    println!("{}", ports.join(" "));
    std::future::pending().await
}

/// Serves one connection until it ends. An error ends it, too: there is nobody to tell.
async fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut waste = vec![0; PIECE];
    loop {
        let (length, asked, bulk) = loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(length) = request.parse(&buffer)? {
                let bulk = request
                    .path
                    .and_then(|path| path.strip_prefix("/bulk/"))
                    .and_then(|n| n.parse().ok());
                break (length, content_length(request.headers), bulk);
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let mut left = asked.saturating_sub((buffer.len() - length) as u64);
        buffer.drain(..buffer.len().min(length + asked as usize));
        while left > 0 {
            let most = waste.len().min(left as usize);
            let n = stream.read(&mut waste[..most]).await?;
            anyhow::ensure!(n > 0, "the body ended early");
            left -= n as u64;
        }
        let mut left: u64 = bulk.unwrap_or(1024);
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n").into_bytes();
        let first = left.min(1024);
        answer.resize(answer.len() + first as usize, b'x');
        stream.write_all(&answer).await?;
        left -= first;
        while left > 0 {
            let n = left.min(PIECE as u64);
            stream.write_all(&waste[..n as usize]).await?;
            left -= n;
        }
    }
}

/// The length that a head names; 0 if it names none.
pub fn content_length(headers: &[httparse::Header]) -> u64 {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}
