use crate::{Ask, Need, NodeFacts};
use bytes::Bytes;
use http::HeaderValue;
use rand::Rng;

/// Names an endpoint for as long as the gateway runs; a reload does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u32);

/// The source of chance a policy is given, so that a test can give it a seeded one.
pub trait Draw {
    /// A number below `bound`; 0 when the bound is 0.
    fn below(&mut self, bound: usize) -> usize;
}

impl<R: Rng> Draw for R {
    fn below(&mut self, bound: usize) -> usize {
        // The bias of a remainder over 64 bits is far below anything a pool could show.
        (self.next_u64() % bound.max(1) as u64) as usize
    }
}

/// An endpoint that could serve a need: in the pool, well, not drained, fit by its facts.
///
/// One without room is among them, so that a policy may prefer waiting for it to another.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Which endpoint.
    pub id: EndpointId,
    /// `node/endpoint`.
    pub name: &'a str,
    /// [`hash`] of the name: the same in every process and after every restart.
    pub hash: u64,
    /// Its weight in this pool, 1.. .
    pub weight: u32,
    /// How many requests it works on at once.
    pub slots: u32,
    /// How many of them are taken: at work or cooling, by any service.
    pub used: u32,
    /// How many requests that take no slot it has now.
    pub passing: u32,
    /// Whether its card is its own now. Where several services share a card, only who holds it may work.
    pub held: bool,
    /// What it would cost here, in seconds; all 0 for a policy that does not ask ([`Mode::Load`]).
    pub terms: Terms,
    /// The node it stands on.
    pub node: &'a NodeFacts,
}

/// What serving a need at an endpoint would cost, as terms in seconds. Their sum is what policies compare.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Until its slots are free; 0 where they are.
    pub wait_s: f64,
    /// Until another service has let go of the card; 0 where none has to.
    pub switch_s: f64,
    /// Getting ready: loading the model; 0 where it is loaded.
    pub load_s: f64,
    /// The work itself.
    pub run_s: f64,
    /// What it costs in money, as the seconds one would wait to save that.
    pub price_s: f64,
    /// What is taken off so that an endpoint that was long not measured is measured again; never positive.
    pub explore_s: f64,
}

impl Terms {
    /// All terms together, seconds.
    pub fn total_s(&self) -> f64 {
        self.wait_s + self.occupied_s() + self.price_s + self.explore_s
    }

    /// How long its slot is taken, seconds: getting ready and the work.
    pub fn occupied_s(&self) -> f64 {
        self.switch_s + self.load_s + self.run_s
    }
}

/// How a policy's choice is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// `pick` looks at who is loaded how much.
    Load,
    /// `pick` looks at the terms of each.
    Terms,
    /// Each in turn goes where its work is over first, counting what those before it will need; so many are looked at
    /// together. `pick` is asked for one that is alone.
    InTurn {
        /// How many.
        window: usize,
    },
    /// The schedule matches all who wait to slots at once. `pick` is asked for one that is alone.
    Match(Matching),
}

/// How many are matched at once, and when there are too many for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matching {
    /// How many of those who wait are looked at together, at most: the oldest of each class in turn.
    pub window: usize,
    /// When more wait for each slot than this, a slot that comes free takes the class that loses most by waiting.
    pub backlog: f64,
}

impl Candidate<'_> {
    /// Whether the need's slots are free.
    pub fn has_room(&self, need: &Need) -> bool {
        need.slots == 0 || (self.held && self.used.saturating_add(need.slots) <= self.slots)
    }

    /// Slots used per slot and weight: what `least_loaded` compares.
    ///
    /// Units: share of the endpoint's capacity in use, divided by its weight; 0.0 is idle.
    pub fn load(&self) -> f64 {
        let slots = f64::from(self.slots.max(1));
        (f64::from(self.used) / slots) / f64::from(self.weight.max(1))
    }
}

/// What ties a request to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Nothing.
    None,
    /// The head does not say: ask again with the body.
    NeedBody,
    /// Requests with the same number belong together.
    Of(u64),
}

/// Chooses among candidates: the upstream-selection hook.
///
/// It is called under the gateway's one lock, so it does no IO and does not block. `pick` may be
/// called again for the same need when a slot comes free.
pub trait Policy: Send + Sync + 'static {
    /// Chooses an index into `among`, or `None` to wait.
    ///
    /// An endpoint without room may be named: the request then waits for that one.
    fn pick(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize>;

    /// How the choice is made, and so what `pick` is shown.
    fn mode(&self) -> Mode {
        Mode::Load
    }

    /// What `pick` would choose, for whoever asks why: a policy that takes turns must not take one here.
    fn preview(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
        self.pick(need, among, draw)
    }

    /// What ties this request to a node. Called with the head; after [`Key::NeedBody`], once more with the body.
    fn key(&self, _ask: &Ask<'_>, _body: Option<&Bytes>) -> Key {
        Key::None
    }

    /// A `Set-Cookie` by which the client's next request finds its way back to the endpoint it got.
    ///
    /// `hash` is [`hash`] of the endpoint's name.
    fn remember(&self, _ask: &Ask<'_>, _endpoint: &str, _hash: u64) -> Option<HeaderValue> {
        None
    }
}

/// A 64-bit hash that is the same everywhere and for ever (FNV-1a with a final mix): for keys and names, not for secrets.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // FNV's high bits move little on short input; the finaliser of MurmurHash3 spreads them.
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}
