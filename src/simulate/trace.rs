use super::bound::bound;
use super::chance::Chance;
use super::setup::Setup;
use std::sync::Arc;
use tabane_api::{ANONYMOUS, Urgency};

/// Who asks for what, and when.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In the order of time.
    pub arrivals: Vec<Arrival>,
}

/// One who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// When, seconds from the beginning.
    pub at_s: f64,
    /// An index into the classes of the setup.
    pub class: usize,
    /// How much work it is, in the unit of its class: what a kind may tell.
    pub size: f64,
    /// How much longer it takes than its size says: nobody can know before.
    pub luck: f64,
    /// Who asks.
    pub tenant: Arc<str>,
    /// How soon it wants its turn.
    pub urgency: Urgency,
    /// Whether a person waits for it, whatever its service says.
    pub interactive: bool,
    /// Whether a client holds its connection meanwhile: then it may be refused, or leave. Else it is a job.
    pub held: bool,
}

/// How work comes, where it is made up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Independently, at this share of the most that the farm could do.
    Poisson(f64),
    /// The same on average, with three times as much in a tenth of the time: six minutes of each hour.
    Bursts(f64),
    /// All at once.
    Batch,
    /// 2000 jobs of one tenant at once, and single jobs of another beside them, one in about a minute.
    Flood,
}

/// How many jobs a flood has.
const FLOOD: usize = 2000;
/// How often somebody else asks beside a flood.
const BESIDE_S: f64 = 60.0;
/// The tenant whose jobs are a flood, and the one beside it.
const TENANTS: [&str; 2] = ["flood", "person"];
/// A burst and the whole cycle, seconds.
const BURST_S: (f64, f64) = (360.0, 3600.0);
/// How much more comes in a burst than outside.
const BURST: f64 = 3.0;

// === impl Trace ===

impl Trace {
    /// Work of the setup's classes, by their shares, `jobs` of it (a flood has its own number).
    ///
    /// Errors: nothing can run, so that no share of it can be told.
    pub fn draw(shape: Shape, setup: &Setup, jobs: usize, seed: u64) -> Result<Trace, String> {
        let most = bound(&setup.supply(), &setup.shares());
        let most = most.ok_or("there is nothing to do, or a class that runs on no node")?;
        let mut draw = Draw {
            setup,
            classes: Chance::new(seed, 1),
            sizes: Chance::new(seed, 2),
            shares: setup.shares(),
        };
        let mut times = Chance::new(seed, 3);
        let nobody: Arc<str> = ANONYMOUS.into();
        let mut arrivals = Vec::with_capacity(jobs);
        match shape {
            Shape::Poisson(load) => {
                let mut at_s = 0.0;
                for _ in 0..jobs {
                    at_s += times.until_next(load * most.per_s);
                    arrivals.push(draw.one(at_s, &nobody));
                }
            }
            Shape::Bursts(load) => {
                // A clock that runs faster in bursts: what is even on it comes in bursts on ours.
                let (burst, cycle) = BURST_S;
                let mean = (burst * BURST + cycle - burst) / cycle;
                let mut even_s = 0.0;
                for _ in 0..jobs {
                    even_s += times.until_next(load * most.per_s / mean);
                    let whole = (even_s / (cycle * mean)).floor();
                    let within = even_s - whole * cycle * mean;
                    let within = match within < burst * BURST {
                        true => within / BURST,
                        false => within - burst * BURST + burst,
                    };
                    arrivals.push(draw.one(whole * cycle + within, &nobody));
                }
            }
            Shape::Batch => {
                arrivals.extend((0..jobs).map(|_| draw.one(0.0, &nobody)));
            }
            Shape::Flood => {
                let [flood, person] = TENANTS.map(Arc::from);
                arrivals.extend((0..FLOOD).map(|_| draw.one(0.0, &flood)));
                let over_s = FLOOD as f64 / most.per_s;
                let mut at_s = times.until_next(1.0 / BESIDE_S);
                while at_s < over_s {
                    arrivals.push(draw.one(at_s, &person));
                    at_s += times.until_next(1.0 / BESIDE_S);
                }
            }
        }
        Ok(Trace { arrivals })
    }

    /// When the last one asks, seconds.
    pub fn last_s(&self) -> f64 {
        self.arrivals.last().map_or(0.0, |last| last.at_s)
    }
}

struct Draw<'a> {
    setup: &'a Setup,
    classes: Chance,
    sizes: Chance,
    shares: Vec<f64>,
}

impl Draw<'_> {
    fn one(&mut self, at_s: f64, tenant: &Arc<str>) -> Arrival {
        let class = self.classes.pick(&self.shares);
        Arrival {
            at_s,
            class,
            size: self.sizes.lognormal(self.setup.classes[class].cv),
            luck: 1.0,
            tenant: tenant.clone(),
            urgency: Urgency::default(),
            interactive: false,
            held: false,
        }
    }
}
