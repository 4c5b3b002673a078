//! Who holds a card that several services share. A pure machine: what is seen of the endpoints and the time go in,
//! what has to be done comes out.
//!
//! Rules.
//! - Each endpoint claims memory: the whole card (`exclusive`), or what the file says (`fits`); who says nothing claims
//!   all. Those that hold the card fit on it together. Only who holds it is given work that takes a slot.
//! - *A switch.* Those in the way get no further work; their work ends (what cools counted); they are asked to let go;
//!   what has become free is proven; then the other holds. Until somebody was asked, it is taken back when nobody
//!   wants it any more.
//! - *Asked.* At the start nobody knows who has what, so all are asked before anybody new holds, once they say that they
//!   are at no work, but for those whose work was taken up again: these hold. Whoever comes up again was perhaps started again, and is asked. One that fails to let
//!   go is asked again, and nobody comes in its place; after some failures, whoever held goes on if it is wanted, until
//!   the next switch. One that is down and listens nowhere has nothing on the card. One that cannot let go (its API has
//!   no word for it) takes its turns, and what it claims stays counted: who does not fit beside that never holds.
//! - *Proven.* A probe that began after the last one let go says that as much is free as the newcomer claims. Where no
//!   endpoint of the card can say, their word is taken.
//! - *When.* Nobody has to go before `gpu_hold.min`, so that what belongs together is done together; then it goes as soon
//!   as it is idle, after `gpu_hold.max` even if not, or when somebody's patience is over. A person does not wait for
//!   batch: it goes at once, when its work ends. Batch is who has not served a person for `min`; so two who both do never
//!   drive each other out sooner. Nobody has to go before it could do something.
//! - *Who is next.* The one that room was made for; who has waited past its patience; a person; who waits longest. Nobody
//!   who comes later takes the room of one before it.
//! - When more is at work than fits (sharing was turned on, a claim grew, work was taken up again), nobody gets anything
//!   new until what is left fits and the others have let go.

mod claim;
mod hold;
mod settle;
#[cfg(test)]
mod tests;
mod wish;

pub use claim::Claim;
pub use wish::Want;

use hold::{Hold, Standing, TRIES};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tabane_api::EndpointId;
use wish::Wish;

/// What came of asking an endpoint to let go of its card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It says that its memory is free.
    Freed,
    /// Its API has no word for it.
    Unsupported,
    /// It failed, or took too long.
    Failed,
    /// Nobody listens there.
    Absent,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It is to be asked to let go.
    Release(EndpointId),
    /// It is to be probed.
    Prove(EndpointId),
    /// It holds the card now; the switch took so long.
    Held(EndpointId, Option<EndpointId>, Duration),
    /// It may work again: the switch was taken back.
    Kept,
    /// It will never fit beside what cannot let go.
    NoRoom(EndpointId),
    /// Its memory is not free though all have let go.
    Unproven(EndpointId),
}

/// An endpoint as its card sees it at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// It could be given work.
    pub(super) usable: bool,
    /// Its last probes were good.
    pub(super) up: bool,
    /// Nothing of ours is at work there, what cools counted.
    pub(super) idle: bool,
    /// It says that it is at work: from before a restart, or for somebody else.
    pub(super) busy: bool,
    /// The plan no longer wants it.
    pub(super) leaving: bool,
    /// When its last good probe began, and how much memory that said is free.
    pub(super) free: Option<(Instant, u64)>,
}

/// What is seen of all endpoints of a card.
pub(super) type Looks = BTreeMap<EndpointId, Look>;

/// A card that several endpoints share.
#[derive(Debug)]
pub(super) struct Card {
    /// Its memory, MiB; 0: nobody said.
    vram_mib: u64,
    sides: BTreeMap<EndpointId, Side>,
    wants: Vec<Want>,
    /// More is at work than fits.
    clash: bool,
    /// Since when what is not held is free: what a probe saw before counts for nothing.
    cleared: Instant,
    proof: Option<Proof>,
    due: Option<Instant>,
}

/// An endpoint of the card.
#[derive(Debug)]
struct Side {
    claim: Claim,
    standing: Standing,
    wish: Option<Wish>,
    /// Who had to make room for it, and when that began.
    room: Option<(EndpointId, Instant)>,
    /// It was asked, and said that it cannot let go.
    stays: bool,
    /// It has held the card, and so may have taken memory, in this life of the gateway.
    has_held: bool,
    /// It was told that it never fits.
    told: bool,
}

/// Memory that a newcomer waits to be told of.
#[derive(Clone, Copy, Debug)]
struct Proof {
    of: EndpointId,
    since: Instant,
    asked: Instant,
}

// === impl Card ===

impl Card {
    pub(super) fn new(vram_mib: u64, now: Instant) -> Self {
        Card {
            vram_mib,
            sides: BTreeMap::new(),
            wants: Vec::new(),
            clash: false,
            cleared: now,
            proof: None,
            due: None,
        }
    }

    /// These endpoints share it, and nobody else. One that is at work holds it.
    pub(super) fn share(
        &mut self,
        vram_mib: u64,
        claims: &BTreeMap<EndpointId, Claim>,
        looks: &Looks,
        now: Instant,
    ) {
        self.vram_mib = vram_mib;
        self.sides.retain(|id, _| claims.contains_key(id));
        for (&id, &claim) in claims {
            let idle = looks.get(&id).is_none_or(|look| look.idle);
            let side = self.sides.entry(id).or_insert_with(|| Side {
                claim,
                standing: match idle {
                    true => Standing::Unknown { held: false },
                    false => Standing::Holds(Hold::new(now, false, false)),
                },
                wish: None,
                room: None,
                stays: false,
                has_held: !idle,
                told: false,
            });
            side.claim = claim;
            side.told = false;
        }
        self.clash |= !self.fits();
    }

    /// It has work. One that does not hold the card had it before anybody asked: it holds it now.
    pub(super) fn at_work(&mut self, id: EndpointId, now: Instant) {
        let Some(side) = self.sides.get_mut(&id) else {
            return;
        };
        if let Some(hold) = side.standing.hold_mut() {
            hold.fresh = false;
            return;
        }
        side.standing = Standing::Holds(Hold::new(now, false, false));
        side.has_held = true;
        self.clash |= !self.fits();
    }

    /// It was given work that a person waits for.
    pub(super) fn serves_person(&mut self, id: EndpointId, now: Instant) {
        let side = self.sides.get_mut(&id);
        if let Some(hold) = side.and_then(|side| side.standing.hold_mut()) {
            hold.served = Some(now);
        }
    }

    /// It is another server now, or was started again: nobody knows what it has on the card.
    pub(super) fn came_up(&mut self, id: EndpointId) {
        if let Some(side) = self.sides.get_mut(&id)
            && matches!(
                side.standing,
                Standing::Free | Standing::Stays | Standing::Failed { .. }
            )
        {
            side.standing = Standing::Unknown { held: false };
            side.stays = false;
        }
    }

    /// Who waits now, sorted; whether that is news.
    pub(super) fn wanted(&mut self, wants: Vec<Want>, now: Instant) -> bool {
        let mut news = wants != self.wants;
        for hold in self
            .sides
            .values_mut()
            .filter_map(|s| s.standing.hold_mut())
        {
            news |= std::mem::take(&mut hold.fresh);
        }
        if !news {
            return false;
        }
        for (id, side) in &mut self.sides {
            let before = side.wish.take();
            for want in wants.iter().filter(|want| want.endpoint == *id) {
                let wish = Wish::new(want, before.as_ref(), now);
                match &mut side.wish {
                    Some(all) => all.join(wish),
                    None => side.wish = Some(wish),
                }
            }
            side.room = side.room.filter(|_| side.wish.is_some());
        }
        self.wants = wants;
        true
    }

    /// What came of asking an endpoint to let go.
    pub(super) fn released(&mut self, id: EndpointId, outcome: Outcome, up: bool, now: Instant) {
        let Some(side) = self.sides.get_mut(&id) else {
            return;
        };
        let Standing::Asked { held, tries } = side.standing else {
            return;
        };
        side.stays = outcome == Outcome::Unsupported;
        side.standing = match outcome {
            Outcome::Freed => Standing::Free,
            Outcome::Unsupported => Standing::Stays,
            Outcome::Absent if !up => Standing::Free,
            Outcome::Absent | Outcome::Failed => Standing::failed(held, tries, now),
        };
        if side.standing.is_settled() {
            self.cleared = now;
        }
    }

    /// Whether it may be given work that takes a slot.
    pub(super) fn grants(&self, id: EndpointId) -> bool {
        let hold = self.sides.get(&id).and_then(|side| side.standing.hold());
        !self.clash && hold.is_some_and(|hold| hold.yields_to.is_none())
    }

    /// Whether one that leaves has nothing on the card any more, or was asked often enough.
    pub(super) fn has_let_go(&self, id: EndpointId) -> bool {
        self.sides.get(&id).is_none_or(|side| match side.standing {
            Standing::Free | Standing::Stays => true,
            Standing::Failed { tries, .. } => tries >= TRIES,
            _ => false,
        })
    }

    /// It is forgotten.
    pub(super) fn gone(&mut self, id: EndpointId) {
        self.sides.remove(&id);
    }

    /// Whose it is.
    pub(super) fn members(&self) -> Vec<EndpointId> {
        self.sides.keys().copied().collect()
    }

    /// Whether an endpoint's word is waited for.
    pub(super) fn is_proving(&self) -> bool {
        let unknown = |side: &Side| matches!(side.standing, Standing::Unknown { .. });
        self.proof.is_some() || self.sides.values().any(unknown)
    }

    /// What an endpoint has of it, in a word.
    pub(super) fn word(&self, id: EndpointId) -> Option<&'static str> {
        Some(self.sides.get(&id)?.standing.word())
    }

    /// When time alone changes something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}
