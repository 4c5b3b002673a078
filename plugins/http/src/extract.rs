use bytes::Bytes;
use http::{HeaderName, Method};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::{self, Write};
use tabane_api::{Ask, hash};

/// A longer body says nothing: whatever names a model or counts steps is short, and the rest costs time to read.
const BODY_MOST: usize = 1 << 20;
/// So many characters of a value are kept; of a longer one, its beginning and its hash.
const VALUE_MOST: usize = 48;
/// So many characters of a model's name are kept: the longest of public models have half of that.
const MODEL_MOST: usize = 256;
/// So many parts make a class, or a size.
const PARTS_MOST: usize = 8;

/// What YAML says of where a request's class, size and model stand in it. Any kind may embed it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extract {
    class: Parts,
    size: Size,
    model: Parts,
}

/// What was read from a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Extracted {
    /// Requests of the same class take alike long, per unit of size.
    ///
    /// Shapes: bounded in length, of letters, digits and `._-#/` and a space, since learned times are kept by it.
    pub class: String,
    /// How much work it is; above 0 and finite, 1.0 where nothing says.
    pub size: f64,
    /// The model it asks for, as it names it; at most 256 characters of it. `None`: it names none.
    pub model: Option<String>,
}

/// One place of a request, or several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(Vec<Part>);

/// One place of a request.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A part of the path, counted from 1: of `/render/fast`, 2 is `fast`.
    Path(#[schemars(range(min = 1))] usize),
    /// A header's value.
    Header(String),
    /// A query parameter's value.
    Query(String),
    /// A field of a JSON body: a name, or a pointer (RFC 6901) such as `/scene/samples`.
    Json(String),
}

/// How much work a request is: numbers of it, multiplied.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Where the numbers stand; one that a request leaves out counts as 1.
    multiply: Parts,
    /// What one unit of size is, so that sizes are numbers one can read: 1000000 where pixels are counted.
    #[serde(default = "one")]
    per: f64,
}

fn one() -> f64 {
    1.0
}

// === impl Extract ===

impl Extract {
    /// From what a kind's block says under `class`, `size` and `model`.
    ///
    /// Errors: what makes no sense, with the key it stands under.
    pub fn new(class: Parts, size: Size, model: Parts) -> Result<Self, String> {
        class.check("class")?;
        model.check("model")?;
        size.multiply.check("size.multiply")?;
        if !(size.per.is_finite() && size.per > 0.0) {
            return Err(format!(
                "size.per: must be a number above 0, got {}",
                size.per
            ));
        }
        Ok(Extract { class, size, model })
    }

    /// Reads a request's class, size and model; `None` when its body may say more and was not given.
    ///
    /// A body that is empty, too long or no JSON says nothing.
    pub fn read(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Option<Extracted> {
        // Methods that carry no body are not made to wait for one.
        let bodiless = [Method::GET, Method::HEAD, Method::OPTIONS].contains(ask.method);
        let json = match body {
            _ if !self.reads_body() || bodiless => Value::Null,
            None => return None,
            Some(body) if body.len() > BODY_MOST => Value::Null,
            Some(body) => serde_json::from_slice(body).unwrap_or_default(),
        };
        Some(Extracted {
            class: self.class(ask, &json),
            size: self.size.of(ask, &json),
            model: self.model.first(ask, &json),
        })
    }

    fn reads_body(&self) -> bool {
        let told = self.class.0.iter().chain(&self.size.multiply.0);
        let mut all = told.chain(&self.model.0);
        all.any(|part| matches!(part, Part::Json(_)))
    }

    /// The values of its parts, joined; by the route where the file names none.
    fn class(&self, ask: &Ask<'_>, json: &Value) -> String {
        if self.class.0.is_empty() {
            return by_route(ask);
        }
        let values = self.class.0.iter().map(|part| match part.of(ask, json) {
            Some(value) => plain(&value),
            None => "-".into(),
        });
        values.collect::<Vec<_>>().join("/")
    }
}

// === impl Parts ===

impl Parts {
    /// The first value that there is.
    fn first(&self, ask: &Ask<'_>, json: &Value) -> Option<String> {
        let values = self.0.iter().filter_map(|part| part.of(ask, json));
        let mut said = values.filter(|value| !value.trim().is_empty());
        let value = said.next()?;
        Some(value.trim().chars().take(MODEL_MOST).collect())
    }

    fn check(&self, key: &str) -> Result<(), String> {
        if self.0.len() > PARTS_MOST {
            return Err(format!(
                "{key}: {} parts, at most {PARTS_MOST}",
                self.0.len()
            ));
        }
        for part in &self.0 {
            match part {
                Part::Path(0) => {
                    return Err(format!(
                        "{key}.path: parts of a path are counted from 1, got 0"
                    ));
                }
                Part::Header(name) if HeaderName::try_from(name).is_err() => {
                    return Err(format!("{key}.header: `{name}` is no header's name"));
                }
                Part::Query(name) | Part::Json(name) if name.is_empty() => {
                    return Err(format!("{key}: must name something"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

// === impl Part ===

impl Part {
    fn of<'a>(&self, ask: &Ask<'a>, json: &'a Value) -> Option<Cow<'a, str>> {
        match self {
            Part::Path(index) => {
                let mut parts = ask.path.split('/').filter(|part| !part.is_empty());
                parts.nth(index.checked_sub(1)?).map(Cow::Borrowed)
            }
            Part::Header(name) => ask.header(name).map(Cow::Borrowed),
            Part::Query(name) => ask.query_value(name).map(Cow::Borrowed),
            Part::Json(field) => {
                let value = if field.starts_with('/') {
                    json.pointer(field)
                } else {
                    json.get(field)
                };
                match value? {
                    Value::Null => None,
                    Value::String(text) => Some(Cow::Borrowed(text)),
                    // A whole workflow makes a class too: by its hash.
                    value @ (Value::Array(_) | Value::Object(_)) => {
                        let hash = hash(value.to_string().as_bytes());
                        Some(Cow::Owned(format!("#{hash:016x}")))
                    }
                    value => Some(Cow::Owned(value.to_string())),
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand and not `untagged`: an error inside keeps its own place.
        struct PartsVisitor;
        impl<'de> Visitor<'de> for PartsVisitor {
            type Value = Parts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`{path: …}`, `{header: …}`, `{query: …}`, `{json: …}`, or a list of such",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Parts, A::Error> {
                let part = Part::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Parts(vec![part]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parts, A::Error> {
                let mut all = Vec::new();
                while let Some(part) = list.next_element()? {
                    all.push(part);
                }
                if all.is_empty() {
                    Err(A::Error::invalid_length(0, &self))
                } else {
                    Ok(Parts(all))
                }
            }
        }
        from.deserialize_any(PartsVisitor)
    }
}

impl JsonSchema for Parts {
    fn schema_name() -> Cow<'static, str> {
        "Parts".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let part = generator.subschema_for::<Part>();
        json_schema!({"anyOf": [part, {"type": "array", "items": part, "minItems": 1, "maxItems": PARTS_MOST}]})
    }
}

// === impl Size ===

impl Default for Size {
    /// All requests of a class are of one size.
    fn default() -> Self {
        Size {
            multiply: Parts::default(),
            per: one(),
        }
    }
}

impl Size {
    fn of(&self, ask: &Ask<'_>, json: &Value) -> f64 {
        let parts = self.multiply.0.iter();
        let numbers = parts.filter_map(|part| part.of(ask, json)?.trim().parse::<f64>().ok());
        // What says nothing at all is of size 1, and not of one per unit.
        let product = numbers.reduce(|product, number| product * number);
        let size = product.map_or(1.0, |product| product / self.per);
        if size.is_finite() && size > 0.0 {
            size
        } else {
            1.0
        }
    }
}

/// Requests of the same method and first path segment are taken to be alike.
fn by_route(ask: &Ask<'_>) -> String {
    let segment = ask
        .path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    let segment = if segment.len() <= 32 && segment.bytes().all(is_plain) {
        segment
    } else {
        "other"
    };
    let method = if ask.method.as_str().len() <= 16 {
        ask.method.as_str()
    } else {
        "other"
    };
    format!("{method} /{segment}")
}

/// A value as a class may carry it: short, and of characters that logs and labels take as they are.
fn plain(value: &str) -> String {
    let one = |c: char| {
        if c.is_ascii() && is_plain(c as u8) {
            c
        } else {
            '_'
        }
    };
    let mut plain: String = value.chars().take(VALUE_MOST).map(one).collect();
    if value.chars().nth(VALUE_MOST).is_some() {
        // Models of one family have names that begin alike and are long.
        let _ = write!(plain, "#{:08x}", hash(value.as_bytes()) as u32);
    }
    plain
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use tabane_api::{ANONYMOUS, Caller};

    fn extract(class: &str, size: &str) -> Result<Extract, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        let class = serde_json::from_str(class).map_err(wrong)?;
        Extract::new(
            class,
            serde_json::from_str(size).map_err(wrong)?,
            Parts::default(),
        )
    }

    fn read(extract: &Extract, method: Method, body: Option<&str>) -> Option<Extracted> {
        let mut headers = HeaderMap::new();
        headers.insert("x-scene-type", "indoor / night".parse().unwrap());
        let caller = Caller {
            tenant: ANONYMOUS.into(),
            address: [127, 0, 0, 1].into(),
        };
        let ask = Ask {
            method: &method,
            path: "/render/fast/7",
            query: Some("frames=3&q=x"),
            headers: &headers,
            caller: &caller,
        };
        let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
        extract.read(&ask, body.as_ref())
    }

    const NO_SIZE: &str = r#"{"multiply": {"path": 9}}"#;

    #[test]
    fn a_class_is_joined_from_where_the_file_says() {
        for (class, body, wants) in [
            (r#"{"path": 1}"#, None, "render"),
            (r#"[{"path": 2}, {"path": 4}]"#, None, "fast/-"),
            (r#"[{"header": "X-Scene-Type"}]"#, None, "indoor___night"),
            (r#"[{"query": "q"}, {"query": "none"}]"#, None, "x/-"),
            (
                r#"[{"path": 1}, {"json": "model"}, {"json": "/a/1"}]"#,
                Some(r#"{"model": "org/large:8b", "a": [0, true]}"#),
                "render/org_large_8b/true",
            ),
            (r#"{"json": "/model"}"#, Some(r#"{"model": null}"#), "-"),
            (r#"{"json": "/model"}"#, Some("frame=1&model=x"), "-"),
            (r#"{"json": "/model"}"#, Some(""), "-"),
        ] {
            let extract = extract(class, NO_SIZE).unwrap();
            let read = read(&extract, Method::POST, body).unwrap();
            assert_eq!((&*read.class, read.size), (wants, 1.0), "{class} {body:?}");
        }
        let route = read(&Extract::default(), Method::POST, None).unwrap();
        assert_eq!((&*route.class, route.size), ("POST /render", 1.0));
    }

    #[test]
    fn a_model_is_what_the_first_place_says_and_as_it_says_it() {
        let places = r#"[{"json": "/model"}, {"header": "X-Scene-Type"}, {"query": "q"}]"#;
        let model: Parts = serde_json::from_str(places).unwrap();
        let extract = Extract::new(Parts::default(), Size::default(), model).unwrap();
        let model = |body| read(&extract, Method::POST, Some(body)).unwrap().model;
        assert_eq!(
            model(r#"{"model": " org/large:8b "}"#).unwrap(),
            "org/large:8b"
        );
        assert_eq!(model(r#"{"model": ""}"#).unwrap(), "indoor / night");
        assert_eq!(model("not json").unwrap(), "indoor / night");
        let long = format!(r#"{{"model": "{}"}}"#, "é".repeat(1000));
        assert_eq!(model(&long).unwrap().chars().count(), MODEL_MOST);
        assert_eq!(
            read(&extract, Method::POST, None),
            None,
            "the body may say it"
        );
        let none = read(&Extract::default(), Method::POST, None).unwrap();
        assert_eq!(none.model, None);
    }

    #[test]
    fn a_size_is_the_product_of_what_the_request_says() {
        let size = r#"{"multiply": [{"json": "/steps"}, {"json": "/w"}, {"json": "/h"}, {"query": "frames"}], "per": 1000000}"#;
        let extract = extract(r#"{"path": 1}"#, size).unwrap();
        for (body, wants) in [
            (r#"{"steps": 20, "w": 1000, "h": "500"}"#, 30.0),
            (r#"{"steps": 1e6, "w": {}, "h": "much"}"#, 3.0),
            (r#"{"steps": 0, "w": 1000, "h": 500}"#, 1.0),
            (r#"{"steps": -5, "w": 1000, "h": 500}"#, 1.0),
            (r#"{"steps": 1e300, "w": 1e300, "h": 1}"#, 1.0),
            (r#"{"steps": "inf", "w": "NaN", "h": 1}"#, 1.0),
            ("not json", 3e-6),
            ("", 3e-6),
        ] {
            let read = read(&extract, Method::POST, Some(body)).unwrap();
            assert_eq!(read.size, wants, "{body}");
        }
    }

    #[test]
    fn a_body_is_asked_for_only_where_it_may_say_something() {
        let head = extract(r#"{"path": 1}"#, NO_SIZE).unwrap();
        assert!(read(&head, Method::POST, None).is_some());
        for (class, size) in [
            (r#"{"json": "model"}"#, NO_SIZE),
            (r#"{"path": 1}"#, r#"{"multiply": {"json": "steps"}}"#),
        ] {
            let body = extract(class, size).unwrap();
            assert_eq!(read(&body, Method::POST, None), None);
            assert!(read(&body, Method::POST, Some("")).is_some());
            assert!(read(&body, Method::GET, None).is_some());
        }
        let model = extract(r#"{"json": "model"}"#, NO_SIZE).unwrap();
        let long = format!(r#"{{"model": "x", "image": "{}"}}"#, "A".repeat(BODY_MOST));
        let long = read(&model, Method::POST, Some(&long)).unwrap();
        assert_eq!(long.class, "-", "a long body is not read");
    }

    #[test]
    fn a_class_is_short_and_plain_whatever_is_sent() {
        let model = extract(r#"[{"json": "model"}, {"json": "model"}]"#, NO_SIZE).unwrap();
        let class = |model_is: &Value| {
            let body = serde_json::json!({"model": model_is}).to_string();
            read(&model, Method::POST, Some(&body)).unwrap().class
        };
        for odd in ["x".repeat(9000), "é💥\0\n\"".repeat(900), String::new()] {
            let class = class(&odd.into());
            let plain = |byte: u8| is_plain(byte) || b"#/".contains(&byte);
            assert!(class.len() <= 120 && class.bytes().all(plain), "{class}");
        }
        let named = |end: &str| class(&format!("{}{end}", "family-".repeat(9)).into());
        assert_eq!(named("a"), named("a"));
        assert_ne!(named("a"), named("b"));
        let workflow = |node: u32| class(&serde_json::json!({"nodes": [node]}));
        assert_eq!(workflow(1), workflow(1));
        assert_ne!(workflow(1), workflow(2));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let path = r#"{"path": 1}"#;
        let many = format!("[{}]", [path; 9].join(","));
        for (class, size, wants) in [
            (
                r#"{"path": 0}"#,
                NO_SIZE,
                "class.path: parts of a path are counted from 1",
            ),
            (
                r#"{"header": "a b"}"#,
                NO_SIZE,
                "class.header: `a b` is no header's name",
            ),
            (r#"{"json": ""}"#, NO_SIZE, "class: must name something"),
            (&many, NO_SIZE, "class: 9 parts, at most 8"),
            ("[]", NO_SIZE, "invalid length 0"),
            (r#"{"jsn": "x"}"#, NO_SIZE, "unknown variant `jsn`"),
            (r#""model""#, NO_SIZE, "expected `{path: …}`"),
            (
                path,
                r#"{"multiply": {"query": ""}}"#,
                "size.multiply: must name something",
            ),
            (
                path,
                r#"{"multiply": {"path": 1}, "per": 0}"#,
                "size.per: must be a number above 0",
            ),
            (path, r#"{"per": 2}"#, "missing field `multiply`"),
        ] {
            let error = extract(class, size).err().unwrap_or_default();
            assert!(error.contains(wants), "{class} {size}: {error}");
        }
    }
}
