use crate::config::plan::HoldPlan;

/// What an endpoint claims of a card that it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whether it wants the card for itself.
    pub whole: bool,
    /// How much of its memory the service takes, MiB; `None`: nobody said.
    pub vram_mib: Option<u64>,
    /// How long it keeps the card.
    pub hold: HoldPlan,
}

// === impl Claim ===

impl Claim {
    /// What it is known to take while it is there, MiB.
    pub(super) fn known_mib(&self) -> u64 {
        self.vram_mib.unwrap_or(0)
    }

    /// Whether it takes turns with everybody: it wants all, or nobody can say how much it wants.
    fn takes_turns(&self) -> bool {
        self.whole || self.vram_mib.is_none()
    }

    /// Whether its memory can be counted beside that of others.
    pub(super) fn counts(&self) -> bool {
        !self.takes_turns()
    }

    /// How much has to be free before it may come, MiB; `None`: nobody said, and nobody knows the card.
    ///
    /// Three quarters where only the card is known: a desktop, a driver and a context or two take their part of any card.
    pub(super) fn wants_free_mib(&self, card_mib: u64) -> Option<u64> {
        self.vram_mib
            .or_else(|| (card_mib > 0).then_some(card_mib / 4 * 3))
    }
}

/// Whether these claims fit on a card of so much memory (0: nobody knows it) together.
pub(super) fn fit<'a>(card_mib: u64, claims: impl IntoIterator<Item = &'a Claim>) -> bool {
    let (mut count, mut turns, mut sum) = (0, false, 0_u64);
    for claim in claims {
        count += 1;
        turns |= claim.takes_turns();
        sum = sum.saturating_add(claim.known_mib());
    }
    // One alone always fits: what it claims was checked against the card when the file was read.
    count <= 1 || (!turns && sum <= card_mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(whole: bool, vram_mib: Option<u64>) -> Claim {
        Claim {
            whole,
            vram_mib,
            hold: HoldPlan::default(),
        }
    }

    #[test]
    fn claims_fit_when_the_card_holds_their_sum_and_nobody_wants_it_all() {
        let part = |mib| claim(false, Some(mib));
        let all = claim(true, Some(1));
        let unsaid = claim(false, None);
        for (card, claims, wants) in [
            (24, vec![part(10), part(14)], true),
            (24, vec![part(10), part(15)], false),
            (24, vec![part(10), unsaid], false),
            (24, vec![all, part(1)], false),
            (24, vec![all], true),
            (24, vec![], true),
            (0, vec![part(1), part(1)], false),
            (0, vec![part(1)], true),
        ] {
            assert_eq!(fit(card, &claims), wants, "{card} {claims:?}");
        }
    }

    #[test]
    fn who_says_nothing_wants_three_quarters_of_a_known_card_free() {
        assert_eq!(claim(true, None).wants_free_mib(24_000), Some(18_000));
        assert_eq!(claim(true, Some(9)).wants_free_mib(24_000), Some(9));
        assert_eq!(claim(true, None).wants_free_mib(0), None);
    }
}
