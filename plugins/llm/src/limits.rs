//! What tenants may ask for, and what of it is used.
//!
//! What flows in a minute is a bucket that fills at the limit's pace and holds a minute's worth. What is to be used is taken from it
//! before, as far as it can be known, and put right when it is known; so a bucket may be below empty for a while. One request that
//! asks for more than a whole bucket gets by when that is full.

use crate::config::Limits;
use crate::errors::{Limit, LimitOf};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::Refusal;

const MINUTE: f64 = 60.0;
/// A day that has limits of its own, seconds.
const DAY: u64 = 86_400;
/// So many counts are kept; of more, those go that were not used for longest, with nothing at work.
const COUNTS_MOST: usize = 8192;
/// When one who has as many at work as may be should come back.
const COME_BACK: Duration = Duration::from_secs(1);

/// What is used of all limits.
#[derive(Default)]
pub(crate) struct Meters(Mutex<HashMap<Key, Counts>>);

/// A line of the file and a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    tenant: Arc<str>,
    /// The line's model.
    model: Option<String>,
    /// Whether the line names the tenant.
    own: bool,
    /// Of those that are alike in this, the how many'th.
    nth: usize,
}

/// What a tenant uses of a line.
#[derive(Clone, Copy, Debug)]
struct Counts {
    at_once: u32,
    requests: Bucket,
    tokens: Bucket,
    day: Day,
    last: Instant,
}

/// How much is taken of what flows, at some time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    taken: f64,
    at: Instant,
}

/// Tokens of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Day {
    /// Days since 1970.
    day: u64,
    used: i64,
}

/// What is counted of a request until it is over.
pub(crate) struct Admitted {
    meters: Arc<Meters>,
    keys: Vec<Key>,
    reserved: u64,
    /// Tokens it used; `None`: it was not served.
    used: Option<u64>,
}

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// Seconds since 1970.
    pub(crate) unix_s: u64,
}

/// A request that wants to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants<'a> {
    pub(crate) tenant: &'a Arc<str>,
    /// The model, as its client names it.
    pub(crate) model: &'a str,
    /// Tokens it is expected to use.
    pub(crate) tokens: u64,
}

/// The lines that fit a request.
fn lines<'l>(
    limits: &'l [Limits],
    tenant: &Arc<str>,
    fits: impl Fn(&Limits) -> bool,
) -> Vec<(Key, &'l Limits)> {
    let key = |limits: &Limits, nth| Key {
        tenant: tenant.clone(),
        model: limits.model.clone(),
        own: limits.tenant.is_some(),
        nth,
    };
    let mut found: Vec<(Key, &Limits)> = Vec::new();
    for line in limits.iter().filter(|line| fits(line)) {
        let mut key = key(line, 0);
        while found.iter().any(|(known, _)| *known == key) {
            key.nth += 1;
        }
        found.push((key, line));
    }
    found
}

// === impl Meters ===

impl Meters {
    /// Lets a request begin, and counts it.
    ///
    /// Errors: `Limited`, by the line that lasts longest; nothing is counted then.
    pub(crate) fn admit(
        self: &Arc<Self>,
        limits: &[Limits],
        wants: Wants<'_>,
        at: Moment,
    ) -> Result<Admitted, Refusal> {
        let lines = lines(limits, wants.tenant, |l| l.fits(wants.tenant, wants.model));
        let mut all = self.0.lock();
        let mut refused: Option<(Duration, String)> = None;
        for (key, line) in &lines {
            let counts = all.get(key).copied().unwrap_or_else(|| Counts::new(at));
            if let Some((after, what)) = counts.refuses(line, wants.tokens, at)
                && refused.as_ref().is_none_or(|(longest, _)| after > *longest)
            {
                refused = Some((after, what));
            }
        }
        if let Some((retry_after, what)) = refused {
            let what = format!("tenant `{}` {what}", wants.tenant);
            return Err(Refusal::Limited { what, retry_after });
        }
        for (key, line) in &lines {
            make_room(&mut all);
            let counts = all.entry(key.clone());
            counts
                .or_insert_with(|| Counts::new(at))
                .take(line, wants.tokens, at);
        }
        drop(all);
        Ok(Admitted {
            meters: self.clone(),
            keys: lines.into_iter().map(|(key, _)| key).collect(),
            reserved: wants.tokens,
            used: None,
        })
    }

    /// What is left of a tenant's limits, of each kind the one that is nearest its end.
    pub(crate) fn left(&self, limits: &[Limits], tenant: &Arc<str>, at: Moment) -> Vec<Limit> {
        let mine = |line: &Limits| line.tenant.as_deref().is_none_or(|is| is == &**tenant);
        let all = self.0.lock();
        let mut told: Vec<Limit> = Vec::new();
        for (key, line) in lines(limits, tenant, mine) {
            let counts = all.get(&key).copied().unwrap_or_else(|| Counts::new(at));
            for limit in counts.left(line, at) {
                let share = |limit: &Limit| limit.remaining as f64 / limit.limit.max(1) as f64;
                match told.iter_mut().find(|known| known.of == limit.of) {
                    Some(known) if share(known) <= share(&limit) => {}
                    Some(known) => *known = limit,
                    None => told.push(limit),
                }
            }
        }
        told
    }

    /// What was used of days, to be kept.
    pub(crate) fn days(&self) -> Vec<(Key, Day)> {
        let all = self.0.lock();
        let used = all.iter().filter(|(_, counts)| counts.day.used != 0);
        let mut days: Vec<_> = used
            .map(|(key, counts)| (key.clone(), counts.day))
            .collect();
        days.sort_by(|a, b| a.0.cmp(&b.0));
        days
    }

    /// What was kept of them.
    pub(crate) fn set_days(&self, days: Vec<(Key, Day)>, at: Moment) {
        let mut all = self.0.lock();
        for (key, day) in days.into_iter().take(COUNTS_MOST) {
            let counts = all.entry(key).or_insert_with(|| Counts::new(at));
            let mine = counts.day.used;
            counts.day = day;
            counts.day.turn(at.unix_s);
            counts.day.used += mine;
        }
    }
}

/// A place for one more.
fn make_room(all: &mut HashMap<Key, Counts>) {
    if all.len() < COUNTS_MOST {
        return;
    }
    let idle = all.iter().filter(|(_, counts)| counts.at_once == 0);
    let oldest = idle.min_by_key(|(_, counts)| counts.last);
    if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
        all.remove(&oldest);
    }
}

// === impl Counts ===

impl Counts {
    fn new(at: Moment) -> Self {
        let empty = Bucket {
            taken: 0.0,
            at: at.now,
        };
        Counts {
            at_once: 0,
            requests: empty,
            tokens: empty,
            day: Day {
                day: at.unix_s / DAY,
                used: 0,
            },
            last: at.now,
        }
    }

    /// Why one more is too much, and for how long.
    fn refuses(&self, line: &Limits, tokens: u64, at: Moment) -> Option<(Duration, String)> {
        let of = line.model.as_ref();
        let of = of.map_or(String::new(), |model| format!(" of `{model}`"));
        let at_once = line.at_once.filter(|most| self.at_once >= *most);
        let at_once =
            at_once.map(|most| (COME_BACK, format!("may have {most} requests{of} at once")));
        let minute = |bucket: &Bucket, most: Option<u64>, wants: u64, what: &str| {
            let most = most?;
            let after = bucket.until(most, wants, at.now)?;
            Some((after, format!("may have {most} {what}{of} in a minute")))
        };
        let requests = minute(&self.requests, line.requests_per_minute, 1, "requests");
        let flow = minute(&self.tokens, line.tokens_per_minute, tokens, "tokens");
        let mut day = self.day;
        day.turn(at.unix_s);
        let spent = line.tokens_per_day.filter(|most| {
            let wants = i64::try_from(tokens.min(*most)).unwrap_or(i64::MAX);
            day.used.saturating_add(wants) > i64::try_from(*most).unwrap_or(i64::MAX)
        });
        let spent = spent.map(|most| {
            let after = Duration::from_secs(DAY - at.unix_s % DAY);
            (after, format!("may have {most} tokens{of} in a day"))
        });
        let all = [at_once, requests, flow, spent];
        all.into_iter().flatten().max_by_key(|(after, _)| *after)
    }

    fn take(&mut self, line: &Limits, tokens: u64, at: Moment) {
        self.last = at.now;
        self.at_once += 1;
        self.requests.flow(line.requests_per_minute, at.now);
        self.requests.taken += 1.0;
        self.tokens.flow(line.tokens_per_minute, at.now);
        self.tokens.taken += tokens as f64;
        self.day.turn(at.unix_s);
        self.day.add(tokens, 1);
    }

    fn give_back(&mut self, reserved: u64, used: u64) {
        self.at_once = self.at_once.saturating_sub(1);
        self.tokens.taken = (self.tokens.taken + used as f64 - reserved as f64).max(0.0);
        self.day.add(used, 1);
        self.day.add(reserved, -1);
    }

    fn left(&self, line: &Limits, at: Moment) -> impl Iterator<Item = Limit> {
        let bucket = |bucket: Bucket, of, limit: Option<u64>| {
            limit.map(|limit| {
                let mut now = bucket;
                now.flow(Some(limit), at.now);
                let seconds = now.taken * MINUTE / limit as f64;
                Limit {
                    of,
                    limit,
                    remaining: (limit as f64 - now.taken).max(0.0) as u64,
                    reset: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
                }
            })
        };
        let requests = bucket(self.requests, LimitOf::Requests, line.requests_per_minute);
        let tokens = bucket(self.tokens, LimitOf::Tokens, line.tokens_per_minute);
        let mut day = self.day;
        day.turn(at.unix_s);
        let day = line.tokens_per_day.map(|limit| Limit {
            of: LimitOf::Tokens,
            limit,
            remaining: limit.saturating_sub(u64::try_from(day.used).unwrap_or(0)),
            reset: Duration::from_secs(DAY - at.unix_s % DAY),
        });
        [requests, tokens, day].into_iter().flatten()
    }
}

// === impl Bucket ===

impl Bucket {
    /// Time goes by.
    fn flow(&mut self, limit: Option<u64>, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let back = limit.map_or(f64::MAX, |limit| seconds * limit as f64 / MINUTE);
        self.taken = (self.taken - back).max(0.0);
    }

    /// How long until so much is there; `None`: it is.
    fn until(mut self, limit: u64, wants: u64, now: Instant) -> Option<Duration> {
        self.flow(Some(limit), now);
        let wants = wants.min(limit) as f64;
        let short = self.taken + wants - limit as f64;
        // A share of a millionth is what is left of rounding.
        (short > 1e-6)
            .then(|| Duration::try_from_secs_f64(short * MINUTE / limit as f64).unwrap_or_default())
    }
}

// === impl Day ===

impl Day {
    fn turn(&mut self, unix_s: u64) {
        let today = unix_s / DAY;
        if today != self.day {
            (self.day, self.used) = (today, 0);
        }
    }

    fn add(&mut self, tokens: u64, sign: i64) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.used = self.used.saturating_add(tokens.saturating_mul(sign)).max(0);
    }
}

// === impl Admitted ===

impl Admitted {
    /// It used so many tokens, until now or in all.
    pub(crate) fn used(&mut self, tokens: u64) {
        self.used = Some(tokens);
    }
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.reserved)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut all = self.meters.0.lock();
        for key in &self.keys {
            if let Some(counts) = all.get_mut(key) {
                counts.give_back(self.reserved, self.used.unwrap_or(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> Vec<Limits> {
        serde_json::from_str(json).unwrap()
    }

    /// Meters on a clock of their own.
    struct Scene {
        meters: Arc<Meters>,
        limits: Vec<Limits>,
        start: Instant,
    }

    impl Scene {
        fn new(json: &str) -> Scene {
            Scene {
                meters: Arc::default(),
                limits: limits(json),
                start: Instant::now(),
            }
        }

        fn at(&self, s: f64) -> Moment {
            Moment {
                now: self.start + Duration::from_secs_f64(s),
                unix_s: 20_000 * DAY + 43_200 + s as u64,
            }
        }

        fn ask(&self, tenant: &str, model: &str, tokens: u64, s: f64) -> Result<Admitted, u64> {
            let wants = Wants {
                tenant: &tenant.into(),
                model,
                tokens,
            };
            let asked = self.meters.admit(&self.limits, wants, self.at(s));
            asked.map_err(|why| match why {
                Refusal::Limited { retry_after, .. } => retry_after.as_secs_f64().ceil() as u64,
                other => panic!("{other}"),
            })
        }
    }

    #[test]
    fn requests_of_a_minute_come_back_one_by_one() {
        let scene = Scene::new(r#"[{"requests_per_minute": 6}]"#);
        for _ in 0..6 {
            scene.ask("a", "m", 0, 0.0).unwrap();
        }
        assert_eq!(scene.ask("a", "m", 0, 0.0).err(), Some(10));
        assert_eq!(scene.ask("a", "m", 0, 4.0).err(), Some(6));
        assert!(scene.ask("b", "m", 0, 4.0).is_ok(), "another's are its own");
        assert!(scene.ask("a", "m", 0, 10.0).is_ok());
        assert_eq!(scene.ask("a", "m", 0, 10.0).err(), Some(10));
    }

    #[test]
    fn tokens_are_taken_before_and_put_right_after() {
        let scene = Scene::new(r#"[{"tenant": "a", "model": "m", "tokens_per_minute": 600}]"#);
        let mut first = scene.ask("a", "m", 500, 0.0).unwrap();
        assert_eq!(scene.ask("a", "m", 200, 0.0).err(), Some(10));
        assert!(scene.ask("a", "other", 9000, 0.0).is_ok());
        first.used(100);
        drop(first);
        let mut second = scene.ask("a", "m", 200, 0.0).unwrap();
        // It took more than anybody thought, so others wait for longer.
        second.used(900);
        drop(second);
        assert_eq!(scene.ask("a", "m", 100, 0.0).err(), Some(50));
        // What was not served is given back.
        drop(scene.ask("a", "m", 600, 100.0).unwrap());
        // More than there ever is gets by when all of it is there.
        assert!(scene.ask("a", "m", 9000, 100.0).is_ok());
    }

    #[test]
    fn those_at_work_at_once_are_given_back_when_they_are_over() {
        let scene = Scene::new(r#"[{"at_once": 2}, {"at_once": 1, "model": "big"}]"#);
        let one = scene.ask("a", "big", 0, 0.0).unwrap();
        assert_eq!(scene.ask("a", "big", 0, 0.0).err(), Some(1));
        let _two = scene.ask("a", "m", 0, 0.0).unwrap();
        assert_eq!(scene.ask("a", "m", 0, 0.0).err(), Some(1));
        drop(one);
        assert!(scene.ask("a", "big", 0, 0.0).is_ok());
    }

    #[test]
    fn what_a_day_has_is_there_again_at_midnight_and_is_kept() {
        let scene = Scene::new(r#"[{"tokens_per_day": 1000}]"#);
        let mut first = scene.ask("a", "m", 100, 0.0).unwrap();
        first.used(950);
        drop(first);
        assert_eq!(scene.ask("a", "m", 100, 60.0).err(), Some(43_200 - 60));
        let again = Scene::new(r#"[{"tokens_per_day": 1000}]"#);
        let kept = serde_json::to_string(&scene.meters.days()).unwrap();
        let kept = serde_json::from_str(&kept).unwrap();
        again.meters.set_days(kept, again.at(0.0));
        assert_eq!(again.ask("a", "m", 100, 60.0).err(), Some(43_200 - 60));
        assert!(again.ask("a", "m", 50, 60.0).is_ok());
        assert!(again.ask("a", "m", 900, 43_201.0).is_ok());
    }

    #[test]
    fn what_is_left_is_told_of_the_line_that_is_nearest_its_end() {
        let scene = Scene::new(
            r#"[{"requests_per_minute": 60}, {"requests_per_minute": 2, "model": "m"}, {"tokens_per_minute": 100}]"#,
        );
        let _first = scene.ask("a", "m", 100, 0.0).unwrap();
        let told = scene
            .meters
            .left(&scene.limits, &"a".into(), scene.at(30.0));
        let shown: Vec<_> = told
            .iter()
            .map(|l| (l.of, l.limit, l.remaining, l.reset.as_secs()))
            .collect();
        assert_eq!(
            shown,
            [
                (LimitOf::Requests, 60, 60, 0),
                (LimitOf::Tokens, 100, 50, 30)
            ]
        );
        let told = scene.meters.left(&scene.limits, &"a".into(), scene.at(0.0));
        assert_eq!((told[0].limit, told[0].remaining), (2, 1));
    }

    #[test]
    fn many_tenants_do_not_fill_the_memory() {
        let scene = Scene::new(r#"[{"requests_per_minute": 1}]"#);
        for n in 0..COUNTS_MOST + 100 {
            drop(scene.ask(&format!("t{n}"), "m", 0, n as f64 / 1e6).unwrap());
        }
        assert_eq!(scene.meters.0.lock().len(), COUNTS_MOST);
    }
}
