//! How properties are tried: on the same cases in every run, so that a failure is never a matter of chance.
//!
//! Compiled for tests only. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` ask for other cases, and for more.

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Tries a property on so many cases of each strategy; the smallest that fails is shown.
pub(crate) fn tried<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let asked = Config::default();
    let more = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config {
        cases: if more { asked.cases } else { cases },
        rng_seed: match asked.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            fixed => fixed,
        },
        // A case that failed once becomes a test with a name, not a line in a file.
        failure_persistence: None,
        ..asked
    };
    let ran = TestRunner::new(config).run(&strategy, |case| {
        property(case);
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
}
