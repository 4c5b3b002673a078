//! What the jobs of an array are made of: one request with places for the number of a frame.

use crate::jobs::{BadPlace, Template};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tabane_api::Refusal;

/// Headers that say how a message is framed, or what one neighbour says to the next.
const NOT_ONES_OWN: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request with places for the number of a frame.
#[derive(Debug)]
pub(super) struct Mould {
    method: Method,
    path: Template,
    headers: Vec<(HeaderName, Template)>,
    body: Template,
}

/// The request of one frame.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

// === impl Mould ===

impl Mould {
    /// Reads a request as it was asked for.
    ///
    /// Errors: a part of it makes no sense, or no frame makes a difference.
    pub(super) fn new(
        method: Option<&str>,
        path: &str,
        headers: &BTreeMap<String, String>,
        body: Option<&RawValue>,
    ) -> Result<Self, Refusal> {
        let method = match method.map(str::to_ascii_uppercase) {
            None => Method::POST,
            Some(method) => method
                .parse()
                .map_err(|_| bad(format!("`method`: `{method}` is no method")))?,
        };
        if !path.starts_with('/') {
            return Err(bad(format!("`path`: `{path}` does not begin with `/`")));
        }
        let mut all = Vec::new();
        for (name, value) in headers {
            let wrong = |why: &str| bad(format!("`headers`: `{name}` {why}"));
            let known = HeaderName::try_from(name).map_err(|_| wrong("is no header"))?;
            if NOT_ONES_OWN.contains(&known) {
                return Err(wrong("is set by whoever sends the request; leave it out"));
            }
            let value = Template::text(value).map_err(|why| bad(format!("`headers`: {why}")))?;
            all.push((known, value));
        }
        let in_body = |why: BadPlace| bad(format!("`body`: {why}"));
        let body = match body {
            None => Template::default(),
            Some(json) => match serde_json::from_str::<String>(json.get()) {
                Ok(text) => Template::text(&text).map_err(in_body)?,
                Err(_) => {
                    if !all.iter().any(|(name, _)| *name == header::CONTENT_TYPE) {
                        let value = Template::text("application/json").map_err(in_body)?;
                        all.push((header::CONTENT_TYPE, value));
                    }
                    Template::json(json).map_err(in_body)?
                }
            },
        };
        let path = Template::text(path).map_err(|why| bad(format!("`path`: {why}")))?;
        let mould = Mould {
            method,
            path,
            headers: all,
            body,
        };
        match mould.has_place() {
            true => Ok(mould),
            false => Err(bad(
                "every frame would be the same request; write `{frame}` into `path`, `headers` or `body`".into(),
            )),
        }
    }

    fn has_place(&self) -> bool {
        let values = self.headers.iter().map(|(_, value)| value);
        values
            .chain([&self.path, &self.body])
            .any(Template::has_place)
    }

    /// The request of a frame.
    ///
    /// Errors: it cannot be sent.
    pub(super) fn cast(&self, frame: i32) -> Result<Cast, Refusal> {
        let path = self.path.fill(frame);
        let uri = path
            .parse()
            .map_err(|_| bad(format!("`path`: `{path}` is no path")))?;
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let value = HeaderValue::try_from(value.fill(frame)).map_err(|_| {
                bad(format!(
                    "`headers`: `{name}` is one line of visible characters"
                ))
            })?;
            headers.append(name, value);
        }
        Ok(Cast {
            method: self.method.clone(),
            uri,
            headers,
            body: self.body.fill(frame).into(),
        })
    }
}

// === impl Cast ===

impl Cast {
    /// How many bytes of it are kept.
    pub(super) fn length(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(n, v)| n.as_str().len() + v.len()).sum();
        self.uri.path().len() + self.uri.query().map_or(0, str::len) + headers + self.body.len()
    }
}

fn bad(why: String) -> Refusal {
    Refusal::BadRequest(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Asked<'a> = (
        Option<&'a str>,
        &'a str,
        &'a [(&'a str, &'a str)],
        Option<&'a str>,
    );

    fn mould((method, path, headers, body): Asked<'_>) -> Result<Mould, Refusal> {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        let body = body.map(|body| RawValue::from_string(body.into()).unwrap());
        Mould::new(method, path, &headers.collect(), body.as_deref())
    }

    #[test]
    fn a_request_is_cast_for_a_frame() {
        let asked: Asked<'_> = (
            Some("put"),
            "/render/{frame}?out={frame:04}.exr",
            &[("X-Frame", "{frame:03}"), ("x-plain", "a b")],
            Some(r#"{"frame": "{frame}", "samples": 1.0}"#),
        );
        let cast = mould(asked).unwrap().cast(7).unwrap();
        assert_eq!(cast.method, Method::PUT);
        assert_eq!(cast.uri, "/render/7?out=0007.exr");
        assert_eq!(cast.headers["x-frame"], "007");
        assert_eq!(cast.headers["x-plain"], "a b");
        assert_eq!(cast.headers["content-type"], "application/json");
        assert_eq!(cast.body, r#"{"frame": 7, "samples": 1.0}"#);
    }

    #[test]
    fn a_text_is_sent_as_it_is_and_of_the_type_that_is_said() {
        let body = Some(r#""<frame n=\"{frame}\"/>\n""#);
        let cast = mould((None, "/", &[("Content-Type", "text/xml")], body)).unwrap();
        let cast = cast.cast(7).unwrap();
        assert_eq!(cast.method, Method::POST);
        assert_eq!(cast.headers["content-type"], "text/xml");
        assert_eq!(cast.body, "<frame n=\"7\"/>\n");
        let bare = mould((None, "/{frame}", &[], None))
            .unwrap()
            .cast(1)
            .unwrap();
        assert!(bare.headers.is_empty() && bare.body.is_empty());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_the_part_that_is_wrong() {
        let one = Some("\"{frame}\"");
        let all: [(Asked<'_>, &str); 9] = [
            ((None, "/", &[], Some("{}")), "the same request"),
            ((None, "/", &[], None), "the same request"),
            ((None, "render", &[], one), "begin with `/`"),
            ((Some("a b"), "/", &[], one), "`method`"),
            ((None, "/", &[("a b", "c")], one), "is no header"),
            ((None, "/", &[("Connection", "close")], one), "leave it out"),
            ((None, "/{frame:4}", &[], None), "`path`: `{frame:4}`"),
            (
                (None, "/", &[("a", "{frame:x}")], one),
                "`headers`: `{frame:x}`",
            ),
            (
                (None, "/", &[], Some("[\"{frame:x}\"]")),
                "`body`: `{frame:x}`",
            ),
        ];
        for (asked, wants) in all {
            let why = mould(asked).unwrap_err().to_string();
            assert!(why.contains(wants), "{asked:?}: {why}");
        }
        let all: [(Asked<'_>, &str); 2] = [
            ((None, "/a b/{frame}", &[], None), "`/a b/7` is no path"),
            (
                (None, "/{frame}", &[("a", "b\nc")], None),
                "`a` is one line",
            ),
        ];
        for (asked, wants) in all {
            let why = mould(asked).unwrap().cast(7).unwrap_err().to_string();
            assert!(why.contains(wants), "{asked:?}: {why}");
        }
    }
}
