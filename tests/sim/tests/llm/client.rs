//! A client that sees what is on the wire: each part of a chunked answer for itself.

use std::time::Duration;
use tabane_sim::llm::LlmNode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The parts of a chunked answer; any other has one, or none.
    pub parts: Vec<String>,
}

/// An answer that is still coming.
pub struct Coming {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    read: BufReader<TcpStream>,
    left: Left,
}

/// How much of an answer's body is to come.
#[derive(Clone, Copy)]
enum Left {
    Bytes(usize),
    Chunks,
    UntilClosed,
    Nothing,
}

// === impl Answer ===

impl Answer {
    pub fn text(&self) -> String {
        self.parts.concat()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    let mut found = headers.iter().filter(|(has, _)| has == name);
    found.next().map_or("", |(_, value)| value.as_str())
}

// === impl Coming ===

impl Coming {
    /// Asks, and does not wait for an answer.
    pub async fn ask(
        address: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<TcpStream, String> {
        let mut tcp = TcpStream::connect(address).await.map_err(text)?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let request = format!("{head}\r\n{body}");
        tcp.write_all(request.as_bytes()).await.map_err(text)?;
        Ok(tcp)
    }

    /// Waits for the head of an answer.
    pub async fn head(tcp: TcpStream) -> Result<Coming, String> {
        let mut read = BufReader::new(tcp);
        let first = line(&mut read).await?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or("no status")?;
        let mut headers = Vec::new();
        loop {
            let line = line(&mut read).await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or("no header")?;
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let length = find(&headers, "content-length").parse();
        let left = match length {
            _ if find(&headers, "transfer-encoding") == "chunked" => Left::Chunks,
            Ok(0) => Left::Nothing,
            Ok(length) => Left::Bytes(length),
            Err(_) => Left::UntilClosed,
        };
        Ok(Coming {
            status,
            headers,
            read,
            left,
        })
    }

    /// The next part of its body. `None`: it is over.
    pub async fn part(&mut self) -> Result<Option<String>, String> {
        let mut bytes = Vec::new();
        match self.left {
            Left::Nothing => return Ok(None),
            Left::Bytes(length) => {
                bytes.resize(length, 0);
                self.read.read_exact(&mut bytes).await.map_err(text)?;
                self.left = Left::Nothing;
            }
            Left::UntilClosed => {
                self.read.read_to_end(&mut bytes).await.map_err(text)?;
                self.left = Left::Nothing;
            }
            Left::Chunks => {
                let size = usize::from_str_radix(&line(&mut self.read).await?, 16).map_err(text)?;
                bytes.resize(size + 2, 0);
                self.read.read_exact(&mut bytes).await.map_err(text)?;
                bytes.truncate(size);
                if size == 0 {
                    self.left = Left::Nothing;
                    return Ok(None);
                }
            }
        }
        String::from_utf8(bytes).map(Some).map_err(text)
    }

    pub async fn rest(mut self) -> Result<Answer, String> {
        let mut parts = Vec::new();
        while let Some(part) = self.part().await? {
            parts.push(part);
        }
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            parts,
        })
    }
}

async fn line(read: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut line = String::new();
    let length = read.read_line(&mut line).await.map_err(text)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None if length == 0 => Err("closed".into()),
        None => Err("broken off".into()),
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Asks, and reads the whole answer. An error is a connection that broke.
pub async fn ask_at(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let asked = async {
        let tcp = Coming::ask(address, method, path, headers, body).await?;
        Coming::head(tcp).await?.rest().await
    };
    timeout(LONG, asked).await.expect("it takes too long")
}

pub async fn ask(node: &LlmNode, method: &str, path: &str, body: &str) -> Result<Answer, String> {
    let json = [("content-type", "application/json")];
    ask_at(&node.addr().to_string(), method, path, &json, body).await
}

pub async fn get(node: &LlmNode, path: &str) -> Answer {
    ask(node, "GET", path, "").await.unwrap()
}

pub async fn post(node: &LlmNode, path: &str, body: &str) -> Answer {
    ask(node, "POST", path, body).await.unwrap()
}

/// Asks for work, and does not wait for an answer: dropping it is leaving.
pub async fn begin(node: &LlmNode, path: &str, body: &str) -> TcpStream {
    let json = [("content-type", "application/json")];
    Coming::ask(&node.addr().to_string(), "POST", path, &json, body)
        .await
        .unwrap()
}

/// A talk of one turn.
pub fn chat(text: &str, most: usize, stream: bool) -> String {
    format!(
        r#"{{"model":"tiny","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":{most},"stream":{stream}}}"#
    )
}

/// Waits until what a node saw is so.
pub async fn until(node: &LlmNode, so: impl FnMut(&tabane_sim::llm::Seen) -> bool) {
    timeout(LONG, node.until(so))
        .await
        .expect("it does not come to that");
}
