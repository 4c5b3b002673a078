//! Values as Python sees them: how it shows them in messages, what its types make of them, and what is the same to it.

use crate::json::{Json, Number, Object};

/// What `str()` makes of a value.
pub fn str(value: &Json) -> String {
    match value {
        Json::Text(text) => text.clone(),
        other => repr(other),
    }
}

/// What `repr()` makes of a value.
pub fn repr(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Number(number) if number.is_float() => float_repr(number.value()),
        Json::Number(number) if number.as_str() == "-0" => "0".into(),
        Json::Number(number) => number.as_str().into(),
        Json::Text(text) => text_repr(text),
        Json::List(list) => {
            let items: Vec<String> = list.iter().map(repr).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(object) => {
            let items = object.iter();
            let items = items.map(|(key, value)| format!("{}: {}", text_repr(key), repr(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
    }
}

/// What Python calls a value's type.
pub fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "NoneType",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_float() => "float",
        Json::Number(_) => "int",
        Json::Text(_) => "str",
        Json::List(_) => "list",
        Json::Object(_) => "dict",
    }
}

/// Whether a value is true to Python.
pub fn is_true(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(is) => *is,
        Json::Number(number) => number.value() != 0.0,
        Json::Text(text) => !text.is_empty(),
        Json::List(list) => !list.is_empty(),
        Json::Object(object) => !object.is_empty(),
    }
}

/// Whether two values are `==`: `1`, `1.0` and `True` are.
pub fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::List(a), Json::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            let has = |(key, value): (&String, &Json)| b.get(key).is_some_and(|b| same(value, b));
            a.len() == b.len() && a.iter().all(has)
        }
        (Json::Number(_) | Json::Bool(_), Json::Number(_) | Json::Bool(_)) => {
            match (integer(a), integer(b)) {
                (Some(a), Some(b)) => a == b,
                _ => float(a) == float(b),
            }
        }
        _ => a == b,
    }
}

/// Whether a number is less than another. `None`: one of them is none.
pub fn is_less(a: &Json, b: &Json) -> Option<bool> {
    match (integer(a), integer(b)) {
        // A seed has more digits than a float.
        (Some(a), Some(b)) => Some(a < b),
        _ => Some(float(a)? < float(b)?),
    }
}

/// A float as Python writes it.
pub fn number(value: f64) -> Number {
    Number::written(match value {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value if value.is_nan() => "NaN".into(),
        value => float_repr(value),
    })
}

/// What the type of an input (`INT`, `FLOAT`, `STRING`, `BOOLEAN`) makes of a value; any other leaves it as it is.
///
/// Errors: the exception's text.
pub fn convert(kind: &str, value: &Json) -> Result<Json, String> {
    match kind {
        "INT" => to_int(value),
        "FLOAT" => to_float(value).map(|value| number(value).into()),
        "STRING" => Ok(str(value).into()),
        "BOOLEAN" => Ok(is_true(value).into()),
        _ => Ok(written(value)),
    }
}

/// The same value with its numbers written as Python writes them.
fn written(value: &Json) -> Json {
    match value {
        Json::Number(is) if is.is_float() => number(is.value()).into(),
        Json::List(list) => Json::List(list.iter().map(written).collect()),
        Json::Object(object) => {
            let entries = object.iter();
            let entries = entries.map(|(key, value)| (key.clone(), written(value)));
            Json::Object(entries.collect::<Object>())
        }
        other => other.clone(),
    }
}

fn to_int(value: &Json) -> Result<Json, String> {
    let whole = |value: i128| Ok(Number::written(value.to_string()).into());
    match value {
        Json::Bool(is) => whole((*is).into()),
        Json::Number(number) if number.is_float() => match number.value() {
            is if is.is_nan() => Err("cannot convert float NaN to integer".into()),
            is if is.is_infinite() => Err("cannot convert float infinity to integer".into()),
            is => whole(is.trunc() as i128),
        },
        Json::Number(number) => Ok(number.integer().map_or_else(
            || value.clone(),
            |is| Number::written(is.to_string()).into(),
        )),
        Json::Text(text) => match without_underscores(text.trim()).parse() {
            Ok(is) => whole(is),
            Err(_) => Err(format!(
                "invalid literal for int() with base 10: {}",
                text_repr(text)
            )),
        },
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

fn to_float(value: &Json) -> Result<f64, String> {
    match value {
        Json::Text(text) => without_underscores(text.trim())
            .parse()
            .map_err(|_| format!("could not convert string to float: {}", text_repr(text))),
        other => float(other).ok_or_else(|| {
            let kind = type_name(other);
            format!("float() argument must be a string or a real number, not '{kind}'")
        }),
    }
}

fn integer(value: &Json) -> Option<i128> {
    match value {
        Json::Bool(is) => Some((*is).into()),
        Json::Number(number) => number.integer(),
        _ => None,
    }
}

fn float(value: &Json) -> Option<f64> {
    match value {
        Json::Bool(is) => Some(u8::from(*is).into()),
        Json::Number(number) => Some(number.value()),
        _ => None,
    }
}

/// `1_000` is a number in Python, `_1` and `1__0` are none.
fn without_underscores(text: &str) -> String {
    let parts: Vec<&str> = text.split('_').collect();
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let between = parts
        .windows(2)
        .all(|two| is_digit(two[0].chars().next_back()) && is_digit(two[1].chars().next()));
    if between {
        parts.concat()
    } else {
        text.to_owned()
    }
}

/// The shortest digits that mean the same, with an exponent below 0.0001 and from 1e16 on.
fn float_repr(value: f64) -> String {
    if !value.is_finite() {
        let word = if value.is_nan() { "nan" } else { "inf" };
        return format!("{}{word}", if value < 0.0 { "-" } else { "" });
    }
    let scientific = format!("{value:e}");
    let exponent = scientific.split_once('e').and_then(|(digits, exponent)| {
        let exponent: i32 = exponent.parse().ok()?;
        (!(-4..16).contains(&exponent)).then_some((digits, exponent))
    });
    match exponent {
        Some((digits, exponent)) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        None => format!("{value:?}"),
    }
}

fn text_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Json {
        Json::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_shown_as_python_shows_them() {
        for (json, shown) in [
            (
                r#"["it's", "a\\b\n", {"k": false}, null]"#,
                r#"["it's", 'a\\b\n', {'k': False}, None]"#,
            ),
            (r#"["'\"", "\u0001é"]"#, r#"['\'"', '\x01é']"#),
            (
                "[1, -0, 18446744073709551616]",
                "[1, 0, 18446744073709551616]",
            ),
            (
                "[1.0, 0.50, 1E5, 1e15, 1e16, 12345678901234567890.0]",
                "[1.0, 0.5, 100000.0, 1000000000000000.0, 1e+16, 1.2345678901234567e+19]",
            ),
            (
                "[1e-4, 0.00001, -1.5e-7, 1e100, 1e400, NaN]",
                "[0.0001, 1e-05, -1.5e-07, 1e+100, inf, nan]",
            ),
        ] {
            assert_eq!(str(&read(json)), shown);
        }
        assert_eq!(str(&read(r#""it's""#)), "it's");
    }

    #[test]
    fn types_make_of_values_what_python_makes_of_them() {
        for (kind, value, made) in [
            ("INT", "3.9", Ok("3")),
            ("INT", "-3.9", Ok("-3")),
            ("INT", r#"" 1_000 ""#, Ok("1000")),
            ("INT", "true", Ok("1")),
            ("INT", "-0", Ok("0")),
            ("INT", "18446744073709551615", Ok("18446744073709551615")),
            (
                "INT",
                r#""wide""#,
                Err("invalid literal for int() with base 10: 'wide'"),
            ),
            (
                "INT",
                r#""1__0""#,
                Err("invalid literal for int() with base 10: '1__0'"),
            ),
            ("INT", "NaN", Err("cannot convert float NaN to integer")),
            (
                "INT",
                "1e400",
                Err("cannot convert float infinity to integer"),
            ),
            (
                "INT",
                "null",
                Err(
                    "int() argument must be a string, a bytes-like object or a real number, not 'NoneType'",
                ),
            ),
            ("FLOAT", "4", Ok("4.0")),
            ("FLOAT", r#""1e-7""#, Ok("1e-07")),
            (
                "FLOAT",
                r#""x""#,
                Err("could not convert string to float: 'x'"),
            ),
            (
                "FLOAT",
                "{}",
                Err("float() argument must be a string or a real number, not 'dict'"),
            ),
            ("STRING", "3", Ok(r#""3""#)),
            ("STRING", "1.50", Ok(r#""1.5""#)),
            ("BOOLEAN", r#""no""#, Ok("true")),
            ("BOOLEAN", "0.0", Ok("false")),
            ("COMBO", "1.50", Ok("1.5")),
            ("IMAGE", "null", Ok("null")),
        ] {
            let got = convert(kind, &read(value)).map(|made| made.to_string());
            assert_eq!(
                got.as_deref().map_err(String::as_str),
                made,
                "{kind} {value}"
            );
        }
    }

    #[test]
    fn numbers_are_compared_by_all_their_digits() {
        let big = read("18446744073709551615");
        assert_eq!(is_less(&big, &read("18446744073709551616")), Some(true));
        assert_eq!(is_less(&read("1"), &read("1.5")), Some(true));
        assert_eq!(is_less(&read("1"), &read("\"2\"")), None);
        for (a, b, are) in [
            ("1", "1.0", true),
            ("true", "1", true),
            ("\"1\"", "1", false),
            ("[1]", "[1.0]", true),
            ("null", "0", false),
        ] {
            assert_eq!(same(&read(a), &read(b)), are, "{a} {b}");
        }
    }
}
