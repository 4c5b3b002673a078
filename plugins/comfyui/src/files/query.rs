use form_urlencoded::parse;

/// What stands behind a question mark, decoded.
pub(super) struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    pub(super) fn of(query: Option<&str>) -> Query {
        let pairs = parse(query.unwrap_or("").as_bytes());
        Query(pairs.into_owned().collect())
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        pairs.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }

    /// Whether it says `true`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}
