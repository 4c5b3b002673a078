//! Walks over JSON without building anything of it.
//!
//! It takes more than JSON is: commas and colons are not counted, words are not read unless asked for. What is no JSON the
//! engine refuses; what an engine takes (`NaN` among it) is read here as the engine reads it. No recursion, so that depth costs
//! nothing, and each byte is seen once, so that no body is slow.

use memchr::memchr2;
use std::borrow::Cow;
use std::ops::Range;

/// Bytes that end too soon, or where something else stands than has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, at byte {at}")]
pub struct NotJson {
    /// Where it is noticed.
    pub at: usize,
}

/// A place in JSON.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A text between quotes, its escapes not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// What stands between the quotes.
    pub raw: &'a [u8],
    /// Where that is in the whole.
    pub range: Range<usize>,
    /// Whether there are backslashes in it.
    pub escaped: bool,
}

/// What kind of value stands at a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `"`
    Text,
    /// `{`
    Object,
    /// `[`
    List,
    /// A number or a word.
    Word,
}

const OTHER: u8 = 0;
const QUOTE: u8 = 1;
const OPENS: u8 = 2;
const CLOSES: u8 = 3;

const CLASS: [u8; 256] = {
    let mut class = [OTHER; 256];
    class[b'"' as usize] = QUOTE;
    class[b'{' as usize] = OPENS;
    class[b'[' as usize] = OPENS;
    class[b'}' as usize] = CLOSES;
    class[b']' as usize] = CLOSES;
    class
};

/// So many words of eight bytes are looked at one by one, before a search is begun that is faster from there on: keys are over
/// by then.
const WORDS: usize = 4;

// === impl Cursor ===

impl<'a> Cursor<'a> {
    /// At the beginning; a byte order mark is stepped over, as Python and llama.cpp do.
    pub fn new(bytes: &'a [u8]) -> Self {
        let at = if bytes.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        };
        Cursor { bytes, at }
    }

    /// Where it stands.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What stands in a range of the whole.
    pub fn bytes(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    fn wrong(&self) -> NotJson {
        NotJson { at: self.at }
    }

    /// The next byte that is no space. It is not taken.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                other => return Some(*other),
            }
        }
    }

    /// The kind of the value that stands here.
    pub fn shape(&mut self) -> Result<Shape, NotJson> {
        match self.peek() {
            Some(b'"') => Ok(Shape::Text),
            Some(b'{') => Ok(Shape::Object),
            Some(b'[') => Ok(Shape::List),
            Some(b',' | b':' | b'}' | b']') | None => Err(self.wrong()),
            Some(_) => Ok(Shape::Word),
        }
    }

    /// Steps into the object that stands here, if one does.
    pub fn enters_object(&mut self) -> bool {
        let is_one = self.peek() == Some(b'{');
        self.at += usize::from(is_one);
        is_one
    }

    /// Steps into the list that stands here, if one does.
    pub fn enters_list(&mut self) -> bool {
        let is_one = self.peek() == Some(b'[');
        self.at += usize::from(is_one);
        is_one
    }

    /// The next key of the object that was entered; the cursor is at its value then. `None`: the object is over.
    #[inline]
    pub fn key(&mut self) -> Result<Option<Text<'a>>, NotJson> {
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(None);
                }
                _ => return Err(self.wrong()),
            }
        }
        let key = self.text()?;
        match self.peek() {
            Some(b':') => self.at += 1,
            _ => return Err(self.wrong()),
        }
        Ok(Some(key))
    }

    /// Whether the list that was entered has another item; the cursor is at it then.
    pub fn item(&mut self) -> Result<bool, NotJson> {
        loop {
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(false);
                }
                Some(_) => return Ok(true),
                None => return Err(self.wrong()),
            }
        }
    }

    /// The text that stands here, which is the next byte.
    #[inline]
    pub fn text(&mut self) -> Result<Text<'a>, NotJson> {
        let from = self.at + 1;
        let mut escaped = false;
        let mut at = from;
        loop {
            at = stop(self.bytes, at).ok_or(self.wrong())?;
            if self.bytes[at] == b'"' {
                return Ok(self.text_to(from..at, escaped));
            }
            escaped = true;
            at += 2;
        }
    }

    fn text_to(&mut self, range: Range<usize>, escaped: bool) -> Text<'a> {
        self.at = range.end + 1;
        Text {
            raw: &self.bytes[range.clone()],
            range,
            escaped,
        }
    }

    /// Takes the value that stands here: a text, or `None` and the value is stepped over.
    pub fn takes_text(&mut self) -> Result<Option<Text<'a>>, NotJson> {
        match self.shape()? {
            Shape::Text => self.text().map(Some),
            _ => self.skip().map(|_| None),
        }
    }

    /// Takes the value that stands here: a number or a word, as it is written, or `None` and the value is stepped over.
    pub fn takes_word(&mut self) -> Result<Option<&'a [u8]>, NotJson> {
        match self.shape()? {
            Shape::Word => self.skip().map(|range| Some(&self.bytes[range])),
            _ => self.skip().map(|_| None),
        }
    }

    /// Takes the value that stands here: a count, or `None` and the value is stepped over. What is too large for it is its
    /// largest, a fraction is cut off, what is negative is none.
    pub fn takes_count(&mut self) -> Result<Option<u64>, NotJson> {
        Ok(self.takes_word()?.and_then(count))
    }

    /// Takes the value that stands here: a number, or `None` and the value is stepped over.
    pub fn takes_number(&mut self) -> Result<Option<f64>, NotJson> {
        let word = self
            .takes_word()?
            .and_then(|word| std::str::from_utf8(word).ok());
        Ok(word.and_then(|word| word.parse().ok()))
    }

    /// Steps over the value that stands here, and says where it is.
    pub fn skip(&mut self) -> Result<Range<usize>, NotJson> {
        let shape = self.shape()?;
        let from = self.at;
        match shape {
            Shape::Text => {
                self.text()?;
            }
            Shape::Word => {
                let word = self.bytes[from..].iter();
                self.at += word.take_while(|byte| !ends_word(**byte)).count();
            }
            Shape::Object | Shape::List => {
                let mut depth = 0usize;
                loop {
                    let rest = self.bytes.get(self.at..).unwrap_or_default();
                    let far = rest
                        .iter()
                        .position(|byte| CLASS[usize::from(*byte)] != OTHER);
                    self.at += far.ok_or(NotJson {
                        at: self.bytes.len(),
                    })?;
                    match CLASS[usize::from(self.bytes[self.at])] {
                        QUOTE => {
                            self.text()?;
                            continue;
                        }
                        OPENS => depth += 1,
                        _ => depth -= 1,
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
        Ok(from..self.at)
    }

    /// Gives each text of the value that stands here, at any depth, with the key that stands before it or before the list it is
    /// in; steps over values whose key `skips`.
    pub fn texts(
        &mut self,
        skips: impl Fn(&Text<'a>) -> bool,
        mut each: impl FnMut(Option<&Text<'a>>, Text<'a>),
    ) -> Result<(), NotJson> {
        let mut depth = 0usize;
        let mut key: Option<Text<'a>> = None;
        loop {
            match self.peek().ok_or(self.wrong())? {
                b'"' => {
                    let text = self.text()?;
                    if depth > 0 && self.peek() == Some(b':') {
                        self.at += 1;
                        if skips(&text) {
                            self.skip()?;
                        } else {
                            key = Some(text);
                        }
                        continue;
                    }
                    each(key.as_ref(), text);
                }
                b'{' | b'[' => {
                    self.at += 1;
                    depth += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    self.at += 1;
                    depth -= 1;
                }
                b',' if depth > 0 => self.at += 1,
                _ => {
                    self.skip()?;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Where the next quote or backslash is.
#[inline]
fn stop(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // The lowest byte that is set here was zero before; those above it may be set for nothing.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    for _ in 0..WORDS {
        let Some((eight, _)) = bytes.get(at..)?.split_first_chunk() else {
            break;
        };
        let word = u64::from_le_bytes(*eight);
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let found = quotes | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Some(at + memchr2(b'"', b'\\', bytes.get(at..)?)?)
}

fn ends_word(byte: u8) -> bool {
    matches!(
        byte,
        b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']' | b' ' | b'\n' | b'\r' | b'\t'
    )
}

fn count(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    if let Ok(count) = text.parse::<u64>() {
        return Some(count);
    }
    let number = text.parse::<f64>().ok()?;
    (number >= 0.0).then_some(number as u64)
}

// === impl Text ===

impl<'a> Text<'a> {
    /// Whether it says this.
    #[inline]
    pub fn is(&self, text: &str) -> bool {
        match self.escaped {
            false => self.raw == text.as_bytes(),
            true => self.decoded() == text,
        }
    }

    /// What it says. What stands for no character (half of a pair, bytes that are not UTF-8) is `U+FFFD`, as in Go.
    pub fn decoded(&self) -> Cow<'a, str> {
        match self.escaped {
            false => String::from_utf8_lossy(self.raw),
            true => Cow::Owned(unescaped(self.raw)),
        }
    }

    /// Where it is with its quotes.
    pub fn quoted(&self) -> Range<usize> {
        self.range.start - 1..self.range.end + 1
    }
}

fn unescaped(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'\\' {
            out.push(byte);
            at += 1;
            continue;
        }
        let sign = raw.get(at + 1).copied().unwrap_or(b'\\');
        at += 2;
        let plain = match sign {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let (character, taken) = unit(raw, at);
                at += taken;
                character
            }
            other => char::from(other),
        };
        out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// The character that the digits of `\u` stand for, with those of a second `\u` where it is half of a pair; and how many bytes
/// that is.
fn unit(raw: &[u8], at: usize) -> (char, usize) {
    let digits = |at: usize| {
        let four = raw.get(at..at + 4)?;
        let text = std::str::from_utf8(four).ok()?;
        let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u16::from_str_radix(text, 16).ok())?
    };
    let odd = char::REPLACEMENT_CHARACTER;
    let Some(first) = digits(at) else {
        return (odd, 0);
    };
    if let Some(character) = char::from_u32(first.into()) {
        return (character, 4);
    }
    let follows = raw.get(at + 4..at + 6) == Some(b"\\u".as_slice());
    let pair = follows.then(|| digits(at + 6)).flatten();
    let pair = pair.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    pair.map_or((odd, 4), |character| (character, 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(json: &str) -> Result<Vec<(String, String)>, NotJson> {
        let mut cursor = Cursor::new(json.as_bytes());
        let mut all = Vec::new();
        assert!(cursor.enters_object(), "{json}");
        while let Some(key) = cursor.key()? {
            let range = cursor.skip()?;
            let value = String::from_utf8_lossy(cursor.bytes(range)).into_owned();
            all.push((key.decoded().into_owned(), value));
        }
        Ok(all)
    }

    #[test]
    fn values_are_stepped_over_whatever_is_in_them() {
        let read = entries(concat!(
            "\u{feff}{\"a\" : {\"x\":[1,\"]}\\\"\",{}]} ,\n\"\\u0062\":NaN,\"c\":12345678901234567890123,",
            "\"d\":\"\\\\\",\"e\":[[],[[\"}\"]]],\"f\":null, \"g\":-1.5e-7}garbage"
        ));
        let wants = [
            ("a", "{\"x\":[1,\"]}\\\"\",{}]}"),
            ("b", "NaN"),
            ("c", "12345678901234567890123"),
            ("d", "\"\\\\\""),
            ("e", "[[],[[\"}\"]]]"),
            ("f", "null"),
            ("g", "-1.5e-7"),
        ];
        let wants = wants.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(read, Ok(wants.to_vec()));
    }

    #[test]
    fn what_ends_too_soon_says_where() {
        for (json, at) in [
            ("{", 1),
            ("{\"a", 2),
            ("{\"a\"", 4),
            ("{\"a\":", 5),
            ("{\"a\":}", 5),
            ("{\"a\":\"b\\", 6),
            ("{\"a\":[1,2", 9),
            ("{\"a\":1", 6),
            ("{1:2}", 1),
            ("{\"aaaaaaaaaaaaaaaaaaaaaaaa", 2),
        ] {
            let error = entries(json).unwrap_err();
            assert!(error.at >= at.min(json.len()) - 1, "{json}: {error}");
        }
    }

    #[test]
    fn depth_is_no_danger_and_costs_nothing() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(entries(&deep).unwrap().len(), 1);
        let deep = format!("{{\"a\":{}", "{\"a\":".repeat(1 << 18));
        assert!(entries(&deep).is_err());
    }

    #[test]
    fn texts_are_found_with_their_keys_and_some_are_left_out() {
        let json = br#"[{"role":"user","content":[{"type":"text","text":"a\"b","cache_control":{"type":"ephemeral"}}],
            "images":["i1","i2"]},"bare",5,null]"#;
        let mut found = Vec::new();
        let mut cursor = Cursor::new(json);
        cursor
            .texts(
                |key| key.is("cache_control"),
                |key, text| {
                    let key = key.map(|key| key.decoded().into_owned());
                    found.push((key.unwrap_or_default(), text.decoded().into_owned()));
                },
            )
            .unwrap();
        let pairs: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
        let wants = [
            ("role", "user"),
            ("type", "text"),
            ("text", "a\"b"),
            ("images", "i1"),
            ("images", "i2"),
            ("images", "bare"),
        ];
        assert_eq!(pairs, wants);
        assert_eq!(cursor.at(), json.len());
    }

    #[test]
    fn escapes_are_read_as_engines_read_them() {
        for (raw, says) in [
            (r"a\/b\\\n", "a/b\\\n"),
            (r"\u006d\u00e9", "mé"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\b\f\t\r\q", "\u{8}\u{c}\t\rq"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (r"\u+123", "\u{fffd}+123"),
            (r"\u12", "\u{fffd}12"),
        ] {
            let json = format!("\"{raw}\"");
            let text = Cursor::new(json.as_bytes()).text().unwrap();
            assert_eq!(text.decoded(), says, "{raw}");
            assert_eq!(text.quoted(), 0..json.len());
        }
        let text = Cursor::new(b"\"a\xffb\"").text().unwrap();
        assert_eq!(text.decoded(), "a\u{fffd}b");
    }

    #[test]
    fn counts_are_read_whatever_their_size() {
        for (json, wants) in [
            ("16", Some(16)),
            ("16.9", Some(16)),
            ("1e3", Some(1000)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("NaN", None),
            ("null", None),
            ("\"16\"", None),
            ("[16]", None),
        ] {
            assert_eq!(
                Cursor::new(json.as_bytes()).takes_count(),
                Ok(wants),
                "{json}"
            );
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i16>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            any::<u64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((".{0,20}", inner), 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_a_parser_takes_is_walked_over_alike(value in any_json(), pretty in any::<bool>()) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => serde_json::to_string(&value).unwrap(),
            };
            let mut cursor = Cursor::new(text.as_bytes());
            prop_assert_eq!(cursor.skip().unwrap(), 0..text.len());
            if let serde_json::Value::Object(object) = &value {
                let read = entries(&text).unwrap();
                prop_assert_eq!(read.len(), object.len());
                for (key, raw) in read {
                    let again: serde_json::Value = serde_json::from_str(&raw).unwrap();
                    prop_assert_eq!(Some(&again), object.get(&key));
                }
            }
        }

        #[test]
        fn no_bytes_are_a_danger(bytes in proptest::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}\",:\\\\ a1]{0,60}") {
            for bytes in [bytes.as_slice(), json.as_bytes()] {
                let _ = Cursor::new(bytes).skip();
                let _ = Cursor::new(bytes).texts(|_| false, |_, text| { text.decoded(); });
                let mut cursor = Cursor::new(bytes);
                if cursor.enters_object() {
                    while let Ok(Some(_)) = cursor.key() {
                        if cursor.skip().is_err() { break }
                    }
                }
            }
        }
    }
}
