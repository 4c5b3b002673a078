use crate::ANONYMOUS;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, LazyLock};

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
    /// What a node has to load before it can serve it. An endpoint that says which models it has, and not this one,
    /// is passed over. `None`: what stands for its class is loaded.
    pub model: Option<Arc<str>>,
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
    /// Goes before all that is not, whoever asks: a person waits for it. Set by the gateway from the file.
    pub interactive: bool,
    /// Who asks: the unit of fairness. Set by the gateway.
    pub tenant: Arc<str>,
    /// What its kind calls this one piece of work: given back to it where it is asked what the work lacks or costs
    /// somewhere. `None`: its class says it all.
    pub work: Option<Arc<str>>,
    /// What ties it to a node (a session, a prompt's beginning), as the policy's own hash. Set by the gateway from `Policy::key`.
    pub key: Option<u64>,
    /// What its kind alone knows of it. It is not kept with jobs.
    pub own: Own,
}

/// What a kind alone knows of a need: carried along, and given back to it wherever the need is. Two are the same if they are one.
#[derive(Clone, Default)]
pub struct Own(Option<Arc<dyn Any + Send + Sync>>);

impl Own {
    /// This.
    pub fn new<T: Any + Send + Sync>(own: Arc<T>) -> Self {
        Own(Some(own))
    }

    /// What was put in, if it was one of these.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "its kind's"
        } else {
            "none"
        })
    }
}

impl Need {
    /// One slot on any node.
    pub fn of_class(class: &str) -> Self {
        static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| ANONYMOUS.into());
        Need {
            class: class.into(),
            model: None,
            size: 1.0,
            slots: 1,
            urgency: Urgency::default(),
            vram_mib: 0,
            labels: Vec::new(),
            interactive: false,
            tenant: NOBODY.clone(),
            work: None,
            key: None,
            own: Own::default(),
        }
    }

    /// What is loaded for it: its model, or what stands for its class.
    pub fn loads(&self) -> &Arc<str> {
        self.model.as_ref().unwrap_or(&self.class)
    }

    /// The same need, taking no slot.
    pub fn without_slot(mut self) -> Self {
        self.slots = 0;
        self
    }
}
