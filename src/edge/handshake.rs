//! How a WebSocket is agreed on (RFC 6455, 4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha1::{Digest, Sha1};
use std::io;
use tabane_api::NodeError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest head of an answer, bytes and fields.
const LONGEST: usize = 64 << 10;
const FIELDS: usize = 128;

/// What every server puts behind a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request may say that is the handshake's to say, or not a kind's business with a node.
const NOT_SENT: [HeaderName; 9] = [
    header::HOST,
    header::ORIGIN,
    header::CONNECTION,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    // What would be agreed on has to be understood.
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// What a server answers a client's key with.
pub(super) fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Asks a server for a socket; what came behind its answer.
///
/// Errors: `BadRequest` with what it answered instead.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    path: &str,
    said: &HeaderMap,
) -> Result<Bytes, NodeError> {
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    )
    .into_bytes();
    for (name, value) in said.iter().filter(|(name, _)| !NOT_SENT.contains(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    let sent = async {
        stream.write_all(&head).await?;
        stream.flush().await
    };
    sent.await.map_err(broken)?;
    let mut came = BytesMut::new();
    loop {
        let answer = read(stream, &mut came).await?;
        match answer.status {
            StatusCode::SWITCHING_PROTOCOLS => {
                answer.agrees(&accept(key.as_bytes()))?;
                return Ok(came.freeze());
            }
            // One that only says that there will be one.
            status if status.is_informational() => {}
            status => {
                let why = format!("the node answered {status} to a socket at {path}");
                return Err(NodeError::BadRequest(why));
            }
        }
    }
}

/// The head of an answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
}

/// Reads the head of an answer, and leaves in `came` what came behind it.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    came: &mut BytesMut,
) -> Result<Answer, NodeError> {
    loop {
        if let Some((answer, length)) = parse(came)? {
            // A buffer of its own: this one is a head's.
            *came = BytesMut::from(&came[length..]);
            return Ok(answer);
        }
        if came.len() >= LONGEST {
            return Err(NodeError::TooLarge { max: LONGEST });
        }
        if stream.read_buf(came).await.map_err(broken)? == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn parse(came: &[u8]) -> Result<Option<(Answer, usize)>, NodeError> {
    let odd = |why: &dyn std::fmt::Display| NodeError::Broken(format!("no answer of HTTP: {why}"));
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = match parsed.parse(came).map_err(|error| odd(&error))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    let mut headers = HeaderMap::new();
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| odd(&error))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|error| odd(&error))?;
        headers.append(name, value);
    }
    let status = status.map_err(|error| odd(&error))?;
    Ok(Some((Answer { status, headers }, length)))
}

fn broken(error: io::Error) -> NodeError {
    NodeError::Broken(error.to_string())
}

// === impl Answer ===

impl Answer {
    /// Errors: it agrees to something else, or to more.
    fn agrees(&self, accept: &str) -> Result<(), NodeError> {
        let says = |name: HeaderName, wanted: &str| {
            let value = self.headers.get(name).map(HeaderValue::as_bytes);
            value.is_some_and(|value| value.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        let key = self.headers.get(header::SEC_WEBSOCKET_ACCEPT);
        let agrees = says(header::UPGRADE, "websocket")
            && super::hop::names(&self.headers, "upgrade")
            && key.is_some_and(|key| key == accept)
            && !self.headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
        match agrees {
            true => Ok(()),
            false => Err(NodeError::Broken(
                "the node agrees to another socket".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[test]
    fn a_key_is_answered_as_the_standard_has_it() {
        // RFC 6455, 1.3.
        let answer = accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// What comes of an answer in which `KEY` stands for what the key wants.
    async fn answered(answer: &str) -> Result<Bytes, NodeError> {
        let (mut ours, mut theirs) = duplex(1000);
        let answer = answer.to_owned();
        let node = tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let key = head.split_once("Sec-WebSocket-Key: ").unwrap().1;
            let key = accept(key.split_once("\r\n").unwrap().0.as_bytes());
            let _ = theirs
                .write_all(answer.replace("KEY", &key).as_bytes())
                .await;
            head
        });
        let mut said = HeaderMap::new();
        for (name, value) in [
            (header::ORIGIN, "http://page"),
            (header::HOST, "gateway"),
            (header::SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate"),
            (header::COOKIE, "a=b"),
        ] {
            said.insert(name, HeaderValue::from_static(value));
        }
        let rest = ask(&mut ours, "node:81", "/ws?a=b", &said).await;
        drop(ours);
        let head = node.await.unwrap();
        assert!(
            head.starts_with("GET /ws?a=b HTTP/1.1\r\nHost: node:81\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\ncookie: a=b\r\n"), "{head}");
        for not_sent in ["page", "gateway", "deflate"] {
            assert!(!head.contains(not_sent), "{head}");
        }
        rest
    }

    #[tokio::test]
    async fn only_what_was_asked_for_is_agreed_on() {
        let agrees = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\r\n";
        assert_eq!(answered(agrees).await, Ok(Bytes::new()));
        let early = format!("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n{agrees}early");
        assert_eq!(answered(&early).await, Ok(Bytes::from_static(b"early")));
        for (from, to) in [
            ("KEY", "another"),
            ("WebSocket", "h2c"),
            ("keep-alive, Upgrade", "keep-alive"),
            ("KEY", "KEY\r\nSec-WebSocket-Extensions: permessage-deflate"),
            ("HTTP/1.1", "SSH"),
            ("\r\n\r\n", ""),
        ] {
            let refused = answered(&agrees.replacen(from, to, 1)).await;
            assert!(
                matches!(refused, Err(NodeError::Broken(_))),
                "{to}: {refused:?}"
            );
        }
        let endless = format!("HTTP/1.1 101 A\r\nX: {}", "a".repeat(2 * LONGEST));
        let refused = answered(&endless).await;
        assert_eq!(refused, Err(NodeError::TooLarge { max: LONGEST }));
        let refused = answered("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        let why = "the node answered 403 Forbidden to a socket at /ws?a=b";
        assert_eq!(refused, Err(NodeError::BadRequest(why.into())));
    }
}
