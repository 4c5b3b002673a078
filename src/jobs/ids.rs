use crate::store::{JobId, Moment};
use sha2::{Digest, Sha256};
use tabane_api::Content;
use ulid::Ulid;

/// A new id: its first 10 characters say when, so that ids sort by time; the other 16 are 80 bits that nobody can guess.
pub fn new_id(now: Moment) -> JobId {
    let chance = u128::from(rand::random::<u64>()) << 16 | u128::from(rand::random::<u16>());
    let id = Ulid::from_parts(u64::try_from(now.0).unwrap_or_default(), chance);
    id.to_string().into()
}

/// SHA-256 over what makes a request the same request: method, path and query, and body.
///
/// Errors: the body cannot be read.
pub async fn fingerprint(
    method: &str,
    target: &str,
    body: &Content,
) -> Result<[u8; 32], std::io::Error> {
    let mut hash = Sha256::new();
    for part in [method, target] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut read = 0;
    loop {
        let piece = body.read(read, 256 << 10).await?;
        if piece.is_empty() {
            return Ok(hash.finalize().into());
        }
        read += piece.len() as u64;
        hash.update(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tabane_api::Work;

    #[test]
    fn ids_sort_by_time_and_are_never_the_same() {
        let (early, late) = (new_id(Moment(1_000)), new_id(Moment(2_000)));
        assert!(early < late);
        assert_eq!(early.len(), 26);
        assert_ne!(new_id(Moment(1_000)), early);
    }

    #[test]
    fn what_looks_like_one_of_the_gateways_ids_is_no_name() {
        let own = new_id(Moment(1_000));
        for name in [
            &*own,
            &own.to_lowercase(),
            "",
            ".",
            "..",
            "a/b",
            "ä",
            &"x".repeat(129),
        ] {
            assert!(!Work::is_name(name), "{name}");
        }
        // Of that length, and none.
        let other = own.replace(&own[..1], "L");
        for name in [
            &*other,
            &own[1..],
            "a",
            "a.b",
            "shot-010_v2~",
            &"x".repeat(128),
        ] {
            assert!(Work::is_name(name), "{name}");
            assert!(name.parse::<Ulid>().is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_fingerprint_tells_requests_apart() {
        let of = |method: &'static str, target: &'static str, body: &'static str| async move {
            let body = Content::Bytes(Bytes::from_static(body.as_bytes()));
            fingerprint(method, target, &body).await.unwrap()
        };
        let one = of("POST", "/a", "x").await;
        assert_eq!(of("POST", "/a", "x").await, one);
        for other in [
            of("PUT", "/a", "x").await,
            of("POST", "/ax", "").await,
            of("POST", "/a", "y").await,
            of("POST/", "a", "x").await,
        ] {
            assert_ne!(other, one);
        }
    }
}
