//! Bodies and framings drawn by a seed, through the real gateway: what a node gets is what was meant, or nothing.

use crate::scene::{Scene, any, nodes, until_closed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

struct Draw(StdRng);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A body in chunks, and as it is meant.
    fn chunked(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut wire, mut body) = (Vec::new(), Vec::new());
        for _ in 0..self.below(6) {
            let data = self.bytes(3000);
            if data.is_empty() {
                continue;
            }
            let zeros = "0".repeat(self.below(4));
            let extension = self.of(&["", "", ";a", ";a=\"b\"", " ", " ;a=b"]);
            let size = match self.below(2) {
                0 => format!("{zeros}{:x}{extension}\r\n", data.len()),
                _ => format!("{zeros}{:X}{extension}\r\n", data.len()),
            };
            wire.extend([size.as_bytes(), &data, b"\r\n"].concat());
            body.extend(data);
        }
        wire.extend(b"0\r\n");
        wire.extend(
            self.of(&["", "", "A: b\r\n", "Content-Length: 3\r\nB:\r\n"])
                .bytes(),
        );
        wire.extend(b"\r\n");
        (wire, body)
    }
}

/// The bodies of answers: each is one line of JSON.
fn told(answer: &str) -> Vec<serde_json::Value> {
    let lines = answer.lines().filter(|line| line.starts_with('{'));
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_arrives_as_it_was_meant_however_it_is_cut() {
    let nodes = nodes(1).await;
    let scene = Scene::start(&any(&[(&nodes[0], 9)], "")).await;
    for seed in 0..60 {
        let mut draw = Draw(StdRng::seed_from_u64(seed));
        let (mut wire, body) = draw.chunked();
        let mut framing = "Transfer-Encoding: chunked".to_owned();
        if draw.below(3) == 0 {
            framing = format!("Content-Length: {}", body.len());
            wire.clone_from(&body);
        }
        let head = format!("POST /first HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let all = [head.as_bytes(), &wire, next.as_bytes()].concat();
        let mut stream = scene.connect().await;
        let mut rest = &all[..];
        while !rest.is_empty() {
            let most = [3, 50, 5000][draw.below(3)];
            let (piece, behind) = rest.split_at((1 + draw.below(most)).min(rest.len()));
            stream.write_all(piece).await.unwrap();
            rest = behind;
        }
        let answer = until_closed(&mut stream).await;
        let told = told(&answer);
        let seen: Vec<_> = told
            .iter()
            .map(|t| (t["path"].as_str(), t["bytes"].as_u64()))
            .collect();
        let wants = [
            (Some("/first"), Some(body.len() as u64)),
            (Some("/next"), Some(0)),
        ];
        assert_eq!(seen, wants, "seed {seed}: {answer}");
        assert_eq!(told[0]["sha256"], sha256(&body), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hides_in_a_body_is_never_taken_for_a_request() {
    let nodes = nodes(1).await;
    // Some bodies are shorter than they say.
    let short = "limits: {client_read: 200ms, client_head: 200ms}\n";
    let scene = Scene::start(&(any(&[(&nodes[0], 9)], "") + short)).await;
    let hidden = "x\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let lengths = [hidden.len(), chunk.len()].map(|length| format!("Content-Length: {length}"));
    let (plain, in_chunks) = (lengths[0].as_str(), lengths[1].as_str());
    let chunked = "Transfer-Encoding: chunked";
    let lines = [
        plain,
        in_chunks,
        chunked,
        "Content-Length: 0",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Content-Length: 3, 3",
        "A: b",
        "Transfer-Encoding: chunked, identity",
        "Connection: Transfer-Encoding",
    ];
    let odd = [
        "\r", "\n", "\0", " ", "\t", ":", ",", "\u{b}", "x", "0", "\r\n ", "~", ";",
    ];
    let (mut good, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut draw = Draw(StdRng::seed_from_u64(seed));
        let mut fields: Vec<String> = (0..1 + draw.below(2))
            .map(|_| draw.of(&lines).to_owned())
            .collect();
        let meant = fields.len() == 1 && draw.below(2) == 0;
        if !meant {
            for _ in 0..1 + draw.below(2) {
                let nth = draw.below(fields.len());
                let at = draw.below(fields[nth].len() + 1);
                let what = draw.of(&odd);
                fields[nth].insert_str(at, what);
            }
        }
        let body = if draw.below(2) == 0 { hidden } else { &chunk };
        let fields = fields.join("\r\n");
        let head =
            format!("POST /front HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n");
        let before = nodes[0].seen().requests;
        let answer = scene.raw(format!("{head}{body}").as_bytes()).await;
        let seen = nodes[0].seen();
        assert!(
            !seen.paths.iter().any(|path| path == "/hidden"),
            "{head:?}{body:?}"
        );
        let status = answer
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        match status {
            // One request, and all of the body or none of it.
            Some("200") => {
                good += 1;
                assert_eq!(seen.requests, before + 1, "{head:?}");
                let bytes = told(&answer)[0]["bytes"].as_u64();
                let wants = [0, hidden.len(), chunk.len()].map(|n| Some(n as u64));
                assert!(wants.contains(&bytes), "{head:?}{body:?}: {bytes:?}");
            }
            Some("400" | "501") => {
                refused += 1;
                assert_eq!(seen.requests, before, "{head:?}{body:?}");
            }
            // Shorter than it says, head or body.
            Some("408") => {}
            other => panic!("{other:?}: {head:?}{body:?}: {answer}"),
        }
    }
    assert!(good > 30 && refused > 30, "{good} good, {refused} refused");
}
