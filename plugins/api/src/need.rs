use std::sync::Arc;

/// How soon a request wants its turn: RFC 9218's urgency, 0 (first) to 7 (last), 3 unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency(u8);

impl Urgency {
    /// The most urgent, 0.
    pub const FIRST: Urgency = Urgency(0);
    /// The least urgent, 7.
    pub const LAST: Urgency = Urgency(7);

    /// An urgency; what lies past 7 counts as 7.
    pub const fn new(value: u8) -> Self {
        Urgency(if value > 7 { 7 } else { value })
    }

    /// 0 to 7, lower is sooner.
    pub const fn value(self) -> u8 {
        self.0
    }
}

impl Default for Urgency {
    fn default() -> Self {
        Urgency(3)
    }
}

/// What a request requires of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Requests whose times are alike (a route, a model, a workflow's shape).
    pub class: Arc<str>,
    /// How much work it is, in whatever unit its class is measured (steps × pixels, frames); 1.0 where nobody says.
    pub size: f64,
    /// How many slots it takes while it is at work. 0 for what must not hold a GPU: sockets, assets, status pages.
    pub slots: u32,
    /// Its place among those who wait.
    pub urgency: Urgency,
    /// The least memory of a card that can serve it, MiB.
    pub vram_mib: u64,
    /// Labels that a node must carry, name and value.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// What ties it to a node (a session, a prompt's beginning), as the policy's own hash. Set by the gateway from `Policy::key`.
    pub key: Option<u64>,
}

impl Need {
    /// One slot on any node.
    pub fn of_class(class: &str) -> Self {
        Need {
            class: class.into(),
            size: 1.0,
            slots: 1,
            urgency: Urgency::default(),
            vram_mib: 0,
            labels: Vec::new(),
            key: None,
        }
    }

    /// The same need, taking no slot.
    pub fn without_slot(mut self) -> Self {
        self.slots = 0;
        self
    }
}
