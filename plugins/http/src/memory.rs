//! How a server says that its card's memory was too small for a request.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::Response;
use tabane_api::{NodeError, Pieces};

/// So much of a failing answer is read: what went wrong stands at its beginning, or at the end of a stack of calls.
const READ: usize = 64 << 10;

/// So many characters of it are shown in all, and so many of them before the word.
const SAID: usize = 300;
const BEFORE: usize = 100;

/// Words by which a failing answer tells that the card's memory was too small. In lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signs(Vec<String>);

/// The beginning of a failing answer that goes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beginning(BytesMut);

// === impl Signs ===

impl Signs {
    /// From what the file says.
    ///
    /// Errors: a word is empty.
    pub(crate) fn new(words: &[String]) -> Result<Self, String> {
        if words.iter().any(|word| word.trim().is_empty()) {
            return Err("out_of_memory: an empty text stands in every answer".into());
        }
        Ok(Signs(
            words.iter().map(|word| word.to_lowercase()).collect(),
        ))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What an answer's body says of memory, where it has one of the words: the line around it.
    pub(crate) fn said(&self, body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        let of_line = |line: &str| {
            let small = line.to_lowercase();
            let at = self.0.iter().find_map(|word| small.find(word.as_str()))?;
            let before = small[..at].chars().count();
            let from = before.saturating_sub(BEFORE);
            Some(line.chars().skip(from).take(SAID).collect::<String>())
        };
        let said = text.lines().find_map(of_line)?;
        Some(said.trim().to_owned())
    }

    /// Reads the beginning of a failing answer; gives what it says of memory, or the answer as it came.
    ///
    /// Errors: the node broke it off.
    pub(crate) async fn look(
        &self,
        answer: Response<Pieces>,
    ) -> Result<Result<String, Response<Pieces>>, NodeError> {
        if self.is_empty() || answer.status().as_u16() < 400 {
            return Ok(Err(answer));
        }
        let (head, mut pieces) = answer.into_parts();
        let (mut read, mut beginning) = (Vec::<Bytes>::new(), Beginning::default());
        while !beginning.is_full()
            && let Some(piece) = pieces.next().await
        {
            let piece = piece?;
            beginning.add(&piece);
            read.push(piece);
        }
        if let Some(said) = self.said(&beginning.0) {
            return Ok(Ok(said));
        }
        let whole = stream::iter(read.into_iter().map(Ok)).chain(pieces);
        Ok(Err(Response::from_parts(head, Box::pin(whole))))
    }
}

// === impl Beginning ===

impl Beginning {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        let room = READ - self.0.len();
        self.0.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn is_full(&self) -> bool {
        self.0.len() >= READ
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs() -> Signs {
        Signs::new(&["CUDA out of memory".into(), "OOM".into()]).unwrap()
    }

    /// What is left of an answer that came in these pieces, or what it says.
    fn look(status: u16, pieces: &[&str]) -> Result<Result<String, String>, NodeError> {
        let pieces: Vec<Result<Bytes, NodeError>> = pieces
            .iter()
            .map(|piece| match *piece {
                "broken" => Err(NodeError::Broken("reset".into())),
                piece => Ok(Bytes::copy_from_slice(piece.as_bytes())),
            })
            .collect();
        let pieces: Pieces = Box::pin(stream::iter(pieces));
        let mut answer = Response::new(pieces);
        *answer.status_mut() = status.try_into().unwrap();
        futures::executor::block_on(async {
            Ok(match signs().look(answer).await? {
                Ok(said) => Ok(said),
                Err(answer) => {
                    let all: Vec<Bytes> = answer.into_body().map(Result::unwrap).collect().await;
                    Err(String::from_utf8(all.concat()).unwrap())
                }
            })
        })
    }

    #[test]
    fn a_failing_answer_says_that_memory_was_too_small_in_any_case_and_in_pieces() {
        let said = look(
            500,
            &["Traceback\ntorch: cuda OUT", " of memory. Tried\nmore"],
        );
        assert_eq!(said, Ok(Ok("torch: cuda OUT of memory. Tried".into())));
        let json = format!(r#"{{"trace": "{}", "error": "OOM"}}"#, "é".repeat(500));
        let said = look(400, &[&json]).unwrap().unwrap();
        assert!(
            said.ends_with(r#""error": "OOM"}"#) && said.starts_with('é'),
            "{said}"
        );
    }

    #[test]
    fn any_other_answer_comes_out_as_it_came() {
        assert_eq!(
            look(200, &["OOM", "!"]),
            Ok(Err("OOM!".into())),
            "it did not fail"
        );
        assert_eq!(look(500, &["a ", "fault"]), Ok(Err("a fault".into())));
        assert_eq!(look(500, &[]), Ok(Err(String::new())));
        // What stands far behind is not looked for, and is there all the same.
        let long = "x".repeat(READ);
        let all = look(500, &[&long, "OOM"]).unwrap().unwrap_err();
        assert_eq!((all.len(), all.ends_with("OOM")), (READ + 3, true));
        assert!(look(500, &["a", "broken"]).is_err());
    }

    #[test]
    fn an_empty_word_stands_in_every_answer() {
        assert!(Signs::new(&[" ".into()]).is_err());
        assert!(Signs::default().said(b"anything").is_none());
    }
}
