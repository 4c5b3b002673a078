//! A simulated node and the files of a service, asked the same.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tabane_api::{Body, Content, Refusal, Stored};
use tabane_comfyui::files::{DEFAULT_USER, Files};
use tabane_comfyui::validate::Dialect;
use tabane_sim::comfy::{ComfyNode, Spec, Version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Both of them.
pub struct Twins {
    pub node: ComfyNode,
    pub files: Files,
    pub dialect: Dialect,
    folder: TempDir,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// What is answered.
#[derive(Clone, PartialEq)]
pub struct Told {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

/// Headers that mean something, and are not a server's own.
const HEADERS: [&str; 8] = [
    "accept-ranges",
    "cache-control",
    "content-disposition",
    "content-range",
    "content-type",
    "etag",
    "last-modified",
    "vary",
];

// === impl Twins ===

impl Twins {
    pub async fn start() -> Twins {
        Twins::of(Version::RECORDED, Dialect::Early).await
    }

    pub async fn of(version: Version, dialect: Dialect) -> Twins {
        let folder = TempDir::new().unwrap();
        let twins = Twins {
            node: ComfyNode::start(Spec::named("a").version(version))
                .await
                .unwrap(),
            files: Files::open(folder.path()).unwrap(),
            dialect,
            folder,
        };
        let example = fs::read(twins.there("input/example.png")).unwrap();
        twins.put("input/example.png", &example, 1);
        twins
    }

    /// A path in the service's folder.
    pub fn here(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The same in the node's.
    pub fn there(&self, path: &str) -> PathBuf {
        let input = self.node.folder("input");
        input.parent().unwrap().join(path)
    }

    /// Puts a file into both, of the same time: so many seconds after some moment.
    pub fn put(&self, path: &str, bytes: &[u8], second: u64) {
        for path in [self.here(path), self.there(path)] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(time + Duration::from_secs(second))
                .unwrap();
        }
    }

    /// What both answer; it has to be the same.
    pub async fn same(&self, ask: &Ask) -> Told {
        let (here, there) = (self.ask_here(ask).await, self.ask_there(ask).await);
        assert_eq!(here, there, "{ask:?}: here, and there");
        here
    }

    /// The same, but for the headers and bodies: one may be more careful than the other.
    pub async fn same_status(&self, ask: &Ask) -> (Told, Told) {
        let (here, there) = (self.ask_here(ask).await, self.ask_there(ask).await);
        assert_eq!(here.status, there.status, "{ask:?}: {here:?}, {there:?}");
        (here, there)
    }

    /// Both have the same files below a folder, with the same bytes.
    pub fn have_the_same(&self, folder: &str) {
        let (here, there) = (tree(&self.here(folder)), tree(&self.there(folder)));
        let names = |tree: &BTreeMap<String, Vec<u8>>| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&here), names(&there), "here, and there");
        assert!(here == there, "their bytes differ");
        assert!(!here.is_empty(), "there is something to compare");
    }

    pub async fn ask_here(&self, ask: &Ask) -> Told {
        // In pieces of odd lengths, as from a disk.
        let body = Content::Stored(Arc::new(Pieces::of(ask.body.clone(), 1000)));
        self.answered(ask, body).await.unwrap()
    }

    pub async fn answered(&self, ask: &Ask, body: Content) -> Result<Told, Refusal> {
        let mut request = Request::new(body);
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.path.parse().unwrap();
        for (name, value) in &ask.headers {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(*name, value);
        }
        let answer = self.files.answer(request, DEFAULT_USER, self.dialect).await;
        let (head, body) = answer
            .unwrap_or_else(|| panic!("nobody answers {ask:?}"))?
            .into_parts();
        let body = match ask.method {
            Method::HEAD => Bytes::new(),
            _ => whole(body).await,
        };
        assert!(!head.headers.contains_key(header::CONTENT_LENGTH));
        Ok(Told {
            status: head.status.as_u16(),
            headers: meaning(&head.headers),
            body,
        })
    }

    pub async fn ask_there(&self, ask: &Ask) -> Told {
        let mut socket = TcpStream::connect(self.node.addr()).await.unwrap();
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n",
            ask.method,
            ask.path,
            ask.body.len()
        );
        for (name, value) in &ask.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&ask.body).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        read(&answer)
    }
}

// === impl Ask ===

impl Ask {
    pub fn of(method: Method, path: impl Into<String>) -> Ask {
        Ask {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub fn get(path: impl Into<String>) -> Ask {
        Ask::of(Method::GET, path)
    }

    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Ask {
        Ask {
            body: body.into(),
            ..Ask::of(Method::POST, path)
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Ask {
        self.headers.push((name, value.into()));
        self
    }
}

// === impl Told ===

impl Told {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = &self.body[..self.body.len().min(300)];
        let (status, headers) = (self.status, &self.headers);
        write!(f, "{status} {headers:?} {} bytes ", self.body.len())?;
        f.write_str(&String::from_utf8_lossy(body))
    }
}

/// A part of a form: its name, the name of the file that it is, its bytes.
pub type FormPart<'a> = (&'a str, Option<&'a str>, &'a [u8]);

/// A form of these parts.
pub fn form(path: &str, parts: &[FormPart<'_>]) -> Ask {
    const BOUNDARY: &str = "----FormBoundaryX";
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    Ask::post(path, body).with(
        "content-type",
        format!("multipart/form-data; boundary=\"{BOUNDARY}\""),
    )
}

/// Bytes that come in pieces of at most this length; how far they were read is told.
pub struct Pieces {
    bytes: Bytes,
    most: usize,
    pub read: AtomicU64,
}

// === impl Pieces ===

impl Pieces {
    pub fn of(bytes: Bytes, most: usize) -> Pieces {
        Pieces {
            bytes,
            most,
            read: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Stored for Pieces {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let from = (offset as usize).min(self.bytes.len());
        let to = (from + most.min(self.most)).min(self.bytes.len());
        self.read.fetch_max(to as u64, Ordering::Relaxed);
        Ok(self.bytes.slice(from..to))
    }
}

pub async fn whole(body: Body) -> Bytes {
    match body {
        Body::Bytes(bytes) => bytes,
        Body::Part {
            content,
            from,
            length,
        } => {
            let mut whole = Vec::new();
            while (whole.len() as u64) < length {
                let left = length as usize - whole.len();
                let at = from + whole.len() as u64;
                let piece = content.read(at, left.min(10_000)).await.unwrap();
                assert!(!piece.is_empty() && piece.len() <= left.min(10_000));
                whole.extend_from_slice(&piece);
            }
            whole.into()
        }
        Body::Live(_) => panic!("nothing here is made as it is read"),
    }
}

/// All files below a folder.
pub fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
                all.insert(name.to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

fn meaning(headers: &HeaderMap) -> BTreeMap<String, String> {
    let meaning = HEADERS.into_iter().filter_map(|name| {
        let value = headers.get(name)?.as_bytes();
        Some((name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
    });
    meaning.collect()
}

/// Reads an answer off a connection that ended.
fn read(answer: &[u8]) -> Told {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.unwrap() + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        let name: http::HeaderName = name.parse().unwrap();
        headers.insert(name, http::HeaderValue::from_str(value).unwrap());
    }
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    // Nothing here is long and of unknown length.
    let body = if is_chunked { &b""[..] } else { body };
    Told {
        status,
        headers: meaning(&headers),
        body: Bytes::copy_from_slice(body),
    }
}
