use super::keys::Keys;
use super::least_loaded::least_loaded;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use tabane_api::{Ask, Candidate, Draw, Key, Need, Policy, PolicyKind, hash};

/// Sends requests with the same key to the same endpoint.
///
/// Weighted rendezvous hashing: an endpoint that comes or goes moves only its own share of keys. Unless
/// `strict`, an endpoint that is full, or loaded beyond `balance` times the mean, is passed over for the next
/// in its key's own order. A request without a key goes to the least loaded.
///
/// Source: Thaler and Ravishankar 1998; the weighted score −w/ln(u): Schindelhauer and Schomaker 2005; the
/// bound: Mirrokni, Thorup and Zadimoghaddam 2018.
pub(super) struct Hash(Config);

/// How requests are tied to endpoints.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where the key is in a request; of a list, the first place that has one counts.
    key: Keys,
    /// Whether a request waits for its endpoint when that is full, instead of going to the next.
    #[serde(default)]
    strict: bool,
    /// How many times the mean load an endpoint may have before it is passed over; at least 1.
    #[serde(default = "balance")]
    balance: f64,
}

fn balance() -> f64 {
    1.25
}

impl PolicyKind for Hash {
    const NAME: &'static str = "hash";
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if !(config.balance >= 1.0 && config.balance.is_finite()) {
            return Err(format!(
                "balance: must be at least 1, got {}",
                config.balance
            ));
        }
        config.key.check()?;
        Ok(Hash(config))
    }
}

impl Policy for Hash {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
        let Some(key) = need.key else {
            return least_loaded(need, among, draw);
        };
        if self.0.strict {
            return best(key, among, |_| true);
        }
        // The mean with this request; one slot more than its share is always allowed, or small pools would thrash.
        let (used, slots) = among.iter().fold((need.slots, 0), |(used, slots), c| {
            (used + c.used, slots + c.slots)
        });
        let mean = f64::from(used) / f64::from(slots.max(1));
        let fits = |c: &Candidate<'_>| {
            f64::from(c.used + need.slots) <= (self.0.balance * mean * f64::from(c.slots)).ceil()
        };
        best(key, among, |c| c.has_room(need) && fits(c))
            .or_else(|| best(key, among, |c| c.has_room(need)))
    }

    fn key(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Key {
        self.0.key.of(ask, body)
    }
}

/// The candidate that the key likes best of those that are allowed.
fn best(
    key: u64,
    among: &[Candidate<'_>],
    allowed: impl Fn(&Candidate<'_>) -> bool,
) -> Option<usize> {
    let score = |candidate: &Candidate<'_>| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..].copy_from_slice(&candidate.hash.to_le_bytes());
        // 53 bits fill a float's fraction; half a step keeps it off 0 and 1.
        let unit = ((hash(&bytes) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(candidate.weight.max(1)) / unit.ln()
    };
    let scored = among
        .iter()
        .enumerate()
        .filter(|(_, candidate)| allowed(candidate))
        .map(|(i, candidate)| (score(candidate), i));
    scored
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, i)| i)
}

#[cfg(test)]
mod tests {
    use super::super::keys::KeySource;
    use super::super::testing::candidates;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn policy(key: KeySource, strict: bool) -> Hash {
        Hash::new(Config {
            key: key.into(),
            strict,
            balance: 1.25,
        })
        .unwrap()
    }

    fn pick(policy: &Hash, key: u64, among: &[Candidate<'_>]) -> Option<usize> {
        let need = Need {
            key: Some(key),
            ..Need::of_class("x")
        };
        policy.pick(&need, among, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn a_key_goes_to_the_same_endpoint_and_keys_spread_by_weight() {
        let policy = policy(KeySource::Address, true);
        let among = candidates(&[(1, 9, 0), (3, 9, 0)]);
        let mut count = [0; 2];
        for key in 0..4000 {
            let first = pick(&policy, hash(&u64::to_le_bytes(key)), &among).unwrap();
            assert_eq!(
                pick(&policy, hash(&u64::to_le_bytes(key)), &among),
                Some(first)
            );
            count[first] += 1;
        }
        assert!((900..1100).contains(&count[0]), "{count:?}");
    }

    #[test]
    fn an_endpoint_that_leaves_moves_only_its_own_keys() {
        let policy = policy(KeySource::Address, true);
        let all = candidates(&[(1, 9, 0); 4]);
        for key in (0..1000).map(|k: u64| hash(&k.to_le_bytes())) {
            let before = pick(&policy, key, &all).unwrap();
            let after = pick(&policy, key, &all[..3]).unwrap();
            assert!(before == 3 || before == after);
        }
    }

    #[test]
    fn strict_waits_and_bounded_goes_on() {
        let among = candidates(&[(1, 1, 1), (1, 1, 0)]);
        let keys = || (0..64).map(|k: u64| hash(&k.to_le_bytes()));
        let strict = policy(KeySource::Address, true);
        assert!(
            keys().any(|key| pick(&strict, key, &among) == Some(0)),
            "it names the full one, and so waits"
        );
        let bounded = policy(KeySource::Address, false);
        assert!(keys().all(|key| pick(&bounded, key, &among) == Some(1)));
    }

    #[test]
    fn no_endpoint_gets_far_more_than_the_mean() {
        let policy = policy(KeySource::Address, false);
        let mut among = candidates(&[(1, 100, 0); 4]);
        for _ in 0..100 {
            let i = pick(&policy, 42, &among).unwrap();
            among[i].used += 1;
        }
        assert!(among.iter().all(|c| c.used <= 33), "{among:?}");
    }

    #[test]
    fn a_block_that_makes_no_sense_is_refused() {
        for (key, balance) in [
            (KeySource::Header("a b".into()), 1.25),
            (KeySource::Query(String::new()), 1.25),
            (KeySource::Address, 0.5),
            (KeySource::Address, f64::NAN),
        ] {
            assert!(
                Hash::new(Config {
                    key: key.into(),
                    strict: false,
                    balance
                })
                .is_err()
            );
        }
    }
}
