use super::span::Span;

/// When something is expected, seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eta {
    /// As likely sooner as later.
    pub p50_s: f64,
    /// Later in one case of ten.
    pub p90_s: f64,
}

/// The 90th percentile of a normal distribution lies so many standard deviations above its mean.
const P90: f64 = 1.2816;

// === impl Eta ===

impl Eta {
    /// When a ticket's turn comes: `slots` work off together what is at work and what waits before it.
    ///
    /// An estimate: slots are taken to be alike and never idle while something waits, nobody more urgent comes, and
    /// the sum of many times is taken to be normal. Since the last pieces of work do not end all at once, it errs
    /// on the late side by less than one of them takes. Costs the same whatever waits: both sums are kept.
    /// Shapes: `at_work` is the sum of what remains of all that is at work, `before` that of all that wait before it.
    /// `None` without slots: nobody can say.
    pub fn of_start(before: Span, at_work: Span, slots: u32) -> Option<Eta> {
        Some(Eta::of(wait(before, at_work, slots)?))
    }

    /// When a ticket's work is over: its turn, and the time it takes itself.
    pub fn of_end(before: Span, at_work: Span, slots: u32, own: Span) -> Option<Eta> {
        Some(Eta::of(wait(before, at_work, slots)? + own))
    }

    fn of(span: Span) -> Eta {
        Eta {
            p50_s: span.mean_s(),
            p90_s: span.mean_s() + P90 * span.sd_s(),
        }
    }
}

/// What remains of work of which `elapsed_s` are over. What is overdue is taken to need a quarter of its time more.
pub fn remaining(expected: Span, elapsed_s: f64) -> Span {
    let left_s = expected.mean_s() - elapsed_s;
    if left_s > 0.0 {
        Span::new(left_s, expected.sd_s())
    } else {
        Span::new(elapsed_s * 0.25, expected.sd_s())
    }
}

fn wait(before: Span, at_work: Span, slots: u32) -> Option<Span> {
    let all = before + at_work;
    let slots = (slots > 0).then(|| f64::from(slots))?;
    // Work shared by n is over n times sooner, and so is its standard deviation that much less.
    Some(Span::new(all.mean_s() / slots, all.sd_s() / slots))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn the_turn_comes_when_all_before_it_is_worked_off() {
        let before = Span::new(80.0, 6.0);
        let at_work = Span::new(20.0, 8.0);
        let start = Eta::of_start(before, at_work, 4).unwrap();
        assert_eq!(start.p50_s, 25.0);
        assert!((start.p90_s - (25.0 + 1.2816 * 10.0 / 4.0)).abs() < 1e-9);
        let end = Eta::of_end(before, at_work, 4, Span::new(10.0, 0.0)).unwrap();
        assert_eq!(end.p50_s, 35.0);
        assert_eq!(Eta::of_start(before, at_work, 0), None);
        let none = Span::default();
        let now = Eta::of_start(none, none, 1).unwrap();
        assert_eq!((now.p50_s, now.p90_s), (0.0, 0.0));
    }

    #[test]
    fn what_is_overdue_is_never_said_to_be_over() {
        let expected = Span::new(10.0, 1.0);
        assert_eq!(remaining(expected, 4.0).mean_s(), 6.0);
        assert_eq!(remaining(expected, 40.0).mean_s(), 10.0);
    }

    #[test]
    fn nine_of_ten_turns_come_before_the_ninetieth_percentile() {
        // Runs of 1 to 3 s (mean 2, sd 1/√3) on three slots, fifty of them before the ticket asked about.
        let mut draw = StdRng::seed_from_u64(1);
        let one = Span::new(2.0, 1.0 / 3f64.sqrt());
        let before: Span = std::iter::repeat_n(one, 50).sum();
        let eta = Eta::of_start(before, Span::default(), 3).unwrap();
        let (mut early, mut late) = (0, 0);
        for _ in 0..1000 {
            let mut free_s = [0f64; 3];
            for _ in 0..50 {
                let first = free_s.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
                *first += 1.0 + 2.0 * (draw.next_u64() as f64 / u64::MAX as f64);
            }
            let start_s = free_s.iter().copied().fold(f64::INFINITY, f64::min);
            early += usize::from(start_s < eta.p50_s);
            late += usize::from(start_s > eta.p90_s);
        }
        assert!(early >= 500, "it errs on the late side: {early}");
        assert!(late <= 100, "{late}");
    }
}
