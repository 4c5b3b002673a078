/// How a farm is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// For what chance policies are given.
    pub seed: u64,
    /// Whether the scheduler is told how large each job is, as a kind may.
    pub told_sizes: bool,
    /// Measures how long each decision takes.
    pub stopwatch: bool,
}

/// Something that happens to a farm.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When, seconds from the beginning.
    pub at_s: f64,
    /// To which node.
    pub node: String,
    /// What.
    pub what: What,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It goes down, with all that is at work on it.
    Lost,
    /// It is added by a reload; before, nobody knew of it.
    Added,
}

/// What became of one who asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// When the attempt began that went well, seconds from the beginning.
    pub begin_s: f64,
    /// When it ended; `None`: it never did.
    pub end_s: Option<f64>,
    /// Where: an index into the endpoints of the plan.
    pub endpoint: usize,
    /// How often it was begun.
    pub attempts: u32,
    /// How often a model had to be loaded for it.
    pub loads: u32,
    /// How long it held slots, seconds.
    pub busy_s: f64,
    /// What that cost.
    pub usd: f64,
    /// How often it ended well: once.
    pub ended: u32,
    /// Why it was not taken, or left.
    pub refused: Option<String>,
}

/// What came of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What became of each arrival of the trace.
    pub runs: Vec<Run>,
    /// How long each endpoint's slots were at work, seconds.
    pub busy_s: Vec<f64>,
    /// The most slots that were at work on each endpoint at once.
    pub most_at_work: Vec<u32>,
    /// The most who waited at once.
    pub most_waiting: usize,
    /// When the last work ended, seconds.
    pub end_s: f64,
    /// How long each decision took, nanoseconds; empty without the stopwatch.
    pub decided_ns: Vec<u32>,
}
