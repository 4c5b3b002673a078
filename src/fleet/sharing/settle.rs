//! What a card does next: each step of the rules at the top of `sharing`, in their order.

use super::claim::{Claim, fit};
use super::hold::{Hold, Standing, TRIES};
use super::wish::Wish;
use super::{Card, Deed, Look, Looks, Proof, Side};
use std::time::{Duration, Instant};
use tabane_api::EndpointId;

/// How often a probe is asked for while one waits for its word.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// When memory that was let go of is still not free after so long, all are asked once more.
const PROVE_FOR: Duration = Duration::from_secs(30);

// === impl Card ===

impl Card {
    /// Goes on as far as it can.
    pub(in crate::fleet) fn settle(&mut self, looks: &Looks, now: Instant) -> Vec<Deed> {
        let mut deeds = Vec::new();
        // Each step brings some endpoint one standing further, and none goes back within one instant.
        for _ in 0..4 * self.sides.len() + 4 {
            let before = deeds.len();
            let changed = self.take_back(&mut deeds)
                | self.let_go(looks)
                | self.unclash(&mut deeds, looks, now)
                | self.ask(&mut deeds, looks, now)
                | self.give(&mut deeds, looks, now);
            if !changed && deeds.len() == before {
                break;
            }
        }
        self.due = self.next_due(now);
        deeds
    }

    /// Takes back what makes room for one whom nobody wants any more.
    fn take_back(&mut self, deeds: &mut Vec<Deed>) -> bool {
        let wanted = |id| self.sides.get(&id).is_some_and(|side| side.room.is_some());
        let back: Vec<EndpointId> = self
            .yielding()
            .filter(|(_, to)| !wanted(*to))
            .map(|(id, _)| id)
            .collect();
        for id in &back {
            let side = self.sides.get_mut(id);
            if let Some(hold) = side.and_then(|side| side.standing.hold_mut()) {
                hold.yields_to = None;
            }
            deeds.push(Deed::Kept);
        }
        !back.is_empty()
    }

    /// Ends the turn of those that make room, once all who make it for the same one are idle, and of those that leave.
    fn let_go(&mut self, looks: &Looks) -> bool {
        let look = |id: EndpointId| looks.get(&id).copied().unwrap_or_default();
        let busy: Vec<EndpointId> = self
            .yielding()
            .filter(|(id, _)| !look(*id).idle)
            .map(|(_, to)| to)
            .collect();
        let mut changed = false;
        for (&id, side) in &mut self.sides {
            let Some(hold) = side.standing.hold() else {
                continue;
            };
            let makes_room = hold.yields_to.is_some_and(|to| !busy.contains(&to));
            if makes_room || (look(id).leaving && look(id).idle) {
                side.standing = Standing::Unknown { held: true };
                changed = true;
            }
        }
        changed
    }

    /// While more is at work than fits, whoever is idle lets go.
    fn unclash(&mut self, deeds: &mut Vec<Deed>, looks: &Looks, now: Instant) -> bool {
        if !self.clash {
            return false;
        }
        if !self.fits() {
            let idle = |id: &EndpointId| looks.get(id).is_none_or(|look| look.idle);
            let mut sides = self.sides.iter_mut();
            let first = sides.find(|(id, side)| side.standing.hold().is_some() && idle(id));
            let Some((_, side)) = first else { return false };
            side.standing = Standing::Unknown { held: true };
            return true;
        }
        let settled = self.sides.values().all(|side| match side.standing {
            Standing::Failed { tries, .. } => tries >= TRIES,
            ref other => other.is_settled(),
        });
        if settled {
            self.clash = false;
            for hold in self
                .sides
                .values_mut()
                .filter_map(|s| s.standing.hold_mut())
            {
                *hold = Hold::new(now, false, hold.served.is_some());
            }
            deeds.push(Deed::Kept);
        }
        settled
    }

    /// Asks those of whom nobody knows what they have. One that is not up is asked only when somebody waits: nothing else
    /// depends on its answer.
    fn ask(&mut self, deeds: &mut Vec<Deed>, looks: &Looks, now: Instant) -> bool {
        let wanted = self.clash || self.sides.values().any(|side| side.wish.is_some());
        let before = deeds.len();
        for (&id, side) in &mut self.sides {
            let look = looks.get(&id).copied().unwrap_or_default();
            let (held, tries) = match side.standing {
                Standing::Unknown { held } if look.up || look.leaving || wanted => (held, 0),
                Standing::Failed { held, tries, again }
                    if again <= now && (wanted || look.leaving && tries < TRIES) =>
                {
                    (held, tries)
                }
                _ => continue,
            };
            // Of one that held we know that its work has ended, whatever its last probe saw.
            if look.idle && (held || look.leaving || !look.busy) {
                side.standing = Standing::Asked { held, tries };
                deeds.push(Deed::Release(id));
            }
        }
        deeds.len() > before
    }

    /// Gives the card to those who wait for it, and makes room for them.
    fn give(&mut self, deeds: &mut Vec<Deed>, looks: &Looks, now: Instant) -> bool {
        if self.clash {
            return false;
        }
        let wishes = self.sides.iter();
        let wishes = wishes.filter_map(|(id, side)| Some((*id, side.wish?, side.room.is_some())));
        let mut order = Vec::from_iter(wishes);
        order.sort_by_key(|(id, wish, next)| (wish.place(*next, now), *id));
        self.proof = self
            .proof
            .filter(|proof| order.iter().any(|(id, ..)| *id == proof.of));
        if self.give_back(&order, deeds, now) {
            return true;
        }
        // Those for whom room is kept.
        let mut kept = Vec::new();
        for (id, wish, next) in order {
            let usable = looks.get(&id).is_some_and(|look| look.usable);
            if !usable || self.holds(id) || self.never_fits(id, deeds, looks) {
                continue;
            }
            let beside = |with: &[EndpointId]| {
                let all = with.iter().chain(&kept).copied().chain([id]);
                fit(self.vram_mib, all.filter_map(|id| self.claim(id)))
            };
            let go_on = Vec::from_iter(self.holders(|hold| hold.yields_to.is_none()));
            let (fits_kept, fits_all) = (beside(&[]), beside(&go_on));
            if !fits_kept {
                continue;
            }
            let in_the_way = self.in_the_way(id, &wish, looks, now);
            if in_the_way.as_ref().is_none_or(|them| !them.is_empty()) {
                let changed = self.make_room(id, in_the_way.unwrap_or_default(), now);
                if changed || next || wish.overdue <= now {
                    kept.push(id);
                }
                if changed {
                    return true;
                }
                continue;
            }
            if !fits_all {
                continue;
            }
            let waits_for_holders = self.yielding().any(|(_, to)| to == id);
            if waits_for_holders || !self.is_clear_for(id) || !self.proven(id, deeds, looks, now) {
                kept.push(id);
                continue;
            }
            self.hold(id, &wish, deeds, now);
            return true;
        }
        false
    }

    /// Whoever held the card and does not let go of it goes on: an idle card helps nobody.
    fn give_back(
        &mut self,
        order: &[(EndpointId, Wish, bool)],
        deeds: &mut Vec<Deed>,
        now: Instant,
    ) -> bool {
        let stuck = |id: &EndpointId| {
            let standing = self.sides.get(id).map(|side| &side.standing);
            matches!(standing, Some(Standing::Failed { held: true, tries, .. }) if *tries >= TRIES)
        };
        let found = order.iter().find(|(id, ..)| {
            stuck(id)
                && fit(
                    self.vram_mib,
                    self.holders(|_| true)
                        .chain([*id])
                        .filter_map(|id| self.claim(id)),
                )
        });
        let Some(&(id, wish, _)) = found else {
            return false;
        };
        self.hold(id, &wish, deeds, now);
        true
    }

    fn hold(&mut self, id: EndpointId, wish: &Wish, deeds: &mut Vec<Deed>, now: Instant) {
        if let Some(side) = self.sides.get_mut(&id) {
            side.standing = Standing::Holds(Hold::new(now, true, wish.interactive));
            side.has_held = true;
            let room = side.room.take();
            let took = room.map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(at));
            deeds.push(Deed::Held(id, room.map(|(from, _)| from), took));
        }
        self.proof = None;
    }

    /// Who of those that hold has to go so that another fits; nobody when it does, and `None` while too few have to.
    fn in_the_way(
        &self,
        id: EndpointId,
        wish: &Wish,
        looks: &Looks,
        now: Instant,
    ) -> Option<Vec<EndpointId>> {
        let stay = |gone: &[EndpointId]| {
            let stay = self.holders(|hold| hold.yields_to != Some(id));
            let stay = stay.filter(|other| !gone.contains(other));
            let counted = self.counted().filter(|other| *other != id);
            let all = stay.chain(counted).chain([id]);
            fit(self.vram_mib, all.filter_map(|id| self.claim(id)))
        };
        if stay(&[]) {
            return Some(Vec::new());
        }
        let mut may: Vec<(EndpointId, &Hold, Look)> = self
            .sides
            .iter()
            .filter(|(_, side)| !(side.stays && side.claim.counts()))
            .filter_map(|(id, side)| {
                let look = looks.get(id).copied().unwrap_or_default();
                let hold = side.standing.hold()?;
                let must = hold.must_yield(wish, side.claim.hold, look.usable, look.idle, now);
                must.then_some((*id, hold, look))
            })
            .collect();
        // The idle first, and of the others who has held for longest.
        may.sort_by_key(|(id, hold, look)| (!look.idle, hold.since, *id));
        let mut gone = Vec::new();
        for (other, ..) in may {
            gone.push(other);
            if stay(&gone) {
                break;
            }
        }
        if !stay(&gone) {
            return None;
        }
        // A small one that came first may not be needed after a large one.
        for other in gone.clone() {
            let fewer: Vec<EndpointId> = gone.iter().copied().filter(|o| *o != other).collect();
            if stay(&fewer) {
                gone = fewer;
            }
        }
        Some(gone)
    }

    fn make_room(&mut self, id: EndpointId, them: Vec<EndpointId>, now: Instant) -> bool {
        for other in &them {
            let side = self.sides.get_mut(other);
            if let Some(hold) = side.and_then(|side| side.standing.hold_mut()) {
                hold.yields_to = Some(id);
            }
        }
        if let (Some(first), Some(side)) = (them.first(), self.sides.get_mut(&id)) {
            side.room.get_or_insert((*first, now));
        }
        !them.is_empty()
    }

    /// Whether it cannot hold beside what cannot let go, and nobody sees that there is room all the same. Told once.
    fn never_fits(&mut self, id: EndpointId, deeds: &mut Vec<Deed>, looks: &Looks) -> bool {
        let witness = self.witness(id, looks);
        let there = |other: &EndpointId, side: &Side| {
            side.stays && *other != id && (side.has_held || witness.is_some())
        };
        let stay = self.sides.iter().filter(|(other, side)| there(other, side));
        let known: u64 = stay.map(|(_, side)| side.claim.known_mib()).sum();
        let Some(side) = self.sides.get_mut(&id) else {
            return true;
        };
        let own = side.claim.known_mib();
        let seen = witness.is_some_and(|(_, began, free)| began > self.cleared && free >= own);
        let never = self.vram_mib > 0 && known > 0 && known + own > self.vram_mib && !seen;
        if never && !side.told {
            deeds.push(Deed::NoRoom(id));
        }
        side.told = never;
        never
    }

    /// Who can say how much memory is free, since when that holds, and how much: the newcomer itself, or another.
    fn witness(&self, id: EndpointId, looks: &Looks) -> Option<(EndpointId, Instant, u64)> {
        let others = self.sides.keys().copied();
        [id].into_iter().chain(others).find_map(|id| {
            let (began, free) = looks.get(&id).filter(|look| look.up)?.free?;
            Some((id, began, free))
        })
    }

    /// Whether it is known of all others what they have on the card, or counted; and it was itself asked.
    fn is_clear_for(&self, id: EndpointId) -> bool {
        self.sides.iter().all(|(other, side)| {
            let counted = matches!(side.standing, Standing::Failed { .. }) && side.claim.counts();
            side.standing.is_settled() || (counted && *other != id)
        })
    }

    /// Whether as much memory is free as it claims; asks for a probe while nobody knows.
    fn proven(
        &mut self,
        id: EndpointId,
        deeds: &mut Vec<Deed>,
        looks: &Looks,
        now: Instant,
    ) -> bool {
        let Some(side) = self.sides.get(&id) else {
            return false;
        };
        // What cannot let go is there, and the newcomer's own may be: then there is nothing to be seen.
        let unseen = |(other, side): (&EndpointId, &Side)| {
            let stays = matches!(side.standing, Standing::Stays);
            stays && (*other == id || !side.claim.counts())
        };
        let Some(wants) = side.claim.wants_free_mib(self.vram_mib) else {
            return true;
        };
        if self.sides.iter().any(unseen) {
            return true;
        }
        let Some((witness, began, free)) = self.witness(id, looks) else {
            return true;
        };
        if began > self.cleared && free >= wants {
            return true;
        }
        let mut proof = match self.proof {
            Some(proof) if proof.of == id => proof,
            _ => {
                deeds.push(Deed::Prove(witness));
                Proof {
                    of: id,
                    since: now,
                    asked: now,
                }
            }
        };
        if now.saturating_duration_since(proof.since) >= PROVE_FOR {
            deeds.push(Deed::Unproven(id));
            proof.since = now;
            for side in self.sides.values_mut() {
                if matches!(side.standing, Standing::Free) {
                    side.standing = Standing::Unknown { held: false };
                }
            }
        }
        if now.saturating_duration_since(proof.asked) >= PROVE_EVERY {
            deeds.push(Deed::Prove(witness));
            proof.asked = now;
        }
        self.proof = Some(proof);
        false
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let again = |side: &Side| match side.standing {
            Standing::Failed { again, .. } => Some(again),
            _ => None,
        };
        let again = self.sides.values().filter_map(again);
        let proof = self.proof.map(|proof| proof.asked + PROVE_EVERY);
        let holds = || {
            let sides = self.sides.values();
            sides.filter_map(|side| Some((side.claim.hold, side.standing.hold()?)))
        };
        let wishes = self
            .sides
            .values()
            .filter(|side| side.standing.hold().is_none());
        let wishes = wishes.filter_map(|side| side.wish);
        let turns = wishes.flat_map(|wish| {
            holds()
                .flat_map(move |(plan, hold)| hold.due(&wish, plan))
                .chain([wish.overdue])
        });
        again
            .chain(proof)
            .chain(turns)
            .filter(|due| *due > now)
            .min()
    }

    /// Whether those that hold fit together.
    pub(super) fn fits(&self) -> bool {
        let all = self.holders(|_| true);
        fit(self.vram_mib, all.filter_map(|id| self.claim(id)))
    }

    fn claim(&self, id: EndpointId) -> Option<&Claim> {
        Some(&self.sides.get(&id)?.claim)
    }

    fn holds(&self, id: EndpointId) -> bool {
        self.sides
            .get(&id)
            .is_some_and(|side| side.standing.hold().is_some())
    }

    fn holders(&self, which: impl Fn(&Hold) -> bool) -> impl Iterator<Item = EndpointId> {
        let sides = self.sides.iter();
        sides.filter_map(move |(id, side)| {
            side.standing.hold().filter(|hold| which(hold)).map(|_| *id)
        })
    }

    /// Those that do not hold, and whose memory is there all the same and can be counted.
    fn counted(&self) -> impl Iterator<Item = EndpointId> {
        let there =
            |side: &Side| matches!(side.standing, Standing::Stays | Standing::Failed { .. });
        let sides = self.sides.iter();
        sides
            .filter(move |(_, side)| there(side) && side.claim.counts())
            .map(|(id, _)| *id)
    }

    /// Those that make room, and for whom.
    fn yielding(&self) -> impl Iterator<Item = (EndpointId, EndpointId)> {
        let sides = self.sides.iter();
        sides.filter_map(|(id, side)| Some((*id, side.standing.hold()?.yields_to?)))
    }
}
