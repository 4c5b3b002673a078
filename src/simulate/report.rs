use super::bound::bound;
use super::outcome::{Outcome, Run};
use super::setup::Setup;
use super::trace::{Arrival, Trace};
use serde::Serialize;
use std::collections::BTreeMap;

/// How times are spread, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half are shorter.
    pub p50: f64,
    /// 95 of 100 are shorter.
    pub p95: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What came of a simulation, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Until work begins.
    pub wait: Stats,
    /// Until it ends.
    pub latency: Stats,
    /// By class.
    pub classes: Vec<GroupReport>,
    /// By tenant, where there are several.
    pub tenants: Vec<GroupReport>,
    /// By node.
    pub nodes: Vec<NodeReport>,
    /// When the last work ended, seconds.
    pub makespan_s: f64,
    /// That, to the shortest in which it could be done at all; `None` where not all came at once.
    pub makespan_of_bound: Option<f64>,
    /// What was done while work came, to the most that could be; more than 1 only where the farm was not the same all along.
    /// `None` where all came at once.
    pub throughput_of_bound: Option<f64>,
    /// The most jobs a second that could ever be done, of this mix.
    pub bound_per_s: f64,
    /// The mean time of a job that waits for nothing, on the node that is best for it, seconds.
    pub best_s: f64,
    /// How often a model was loaded, for each job.
    pub loads_per_job: f64,
    /// What the work of a job cost, USD.
    pub usd_per_job: f64,
    /// What all nodes cost until the last work ended, USD.
    pub usd: f64,
    /// The most who waited at once.
    pub most_waiting: usize,
    /// Requests that were not taken, or left because they waited too long.
    pub refused: usize,
    /// Jobs that never ended: none.
    pub lost: usize,
    /// Jobs that ended more than once: none.
    pub doubled: usize,
}

/// What came of a part of the work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupReport {
    /// What the part is called.
    pub name: String,
    /// Until work begins.
    pub wait: Stats,
    /// Until it ends.
    pub latency: Stats,
    /// How often a model was loaded, for each job.
    pub loads_per_job: f64,
    /// What the work of a job cost, USD.
    pub usd_per_job: f64,
}

/// How a node was used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its card.
    pub gpu: String,
    /// The share of the time in which its slots were at work.
    pub used: f64,
    /// How much work ended there.
    pub jobs: usize,
    /// What it cost until the last work ended, USD.
    pub usd: f64,
}

type Asked<'a> = (&'a Arrival, &'a Run);

// === impl Stats ===

impl Stats {
    /// Of these times.
    pub fn of(mut times: Vec<f64>) -> Stats {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * times.len() as f64).ceil() as usize;
            times.get(rank.max(1) - 1).copied().unwrap_or_default()
        };
        Stats {
            count: times.len(),
            mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

// === impl Report ===

impl Report {
    /// Counts all but the first `skip` to arrive, in which times are learned.
    pub fn of(setup: &Setup, trace: &Trace, outcome: &Outcome, skip: usize) -> Report {
        let counted = || trace.arrivals.iter().zip(&outcome.runs).skip(skip);
        let all = GroupReport::of(String::new(), counted());
        let mut classes: BTreeMap<usize, Vec<Asked>> = BTreeMap::new();
        let mut tenants: BTreeMap<&str, Vec<Asked>> = BTreeMap::new();
        for asked in counted() {
            classes.entry(asked.0.class).or_default().push(asked);
            tenants.entry(&asked.0.tenant).or_default().push(asked);
        }
        let several = tenants.len() > 1;
        let tenants = tenants.into_iter().filter(|_| several);
        let nodes = nodes(setup, outcome);
        let mut report = Report {
            wait: all.wait,
            latency: all.latency,
            classes: classes
                .into_iter()
                .map(|(class, asked)| GroupReport::of(name_of(setup, class), asked.into_iter()))
                .collect(),
            tenants: tenants
                .map(|(tenant, asked)| GroupReport::of(tenant.into(), asked.into_iter()))
                .collect(),
            usd: nodes.iter().map(|node| node.usd).sum(),
            nodes,
            makespan_s: outcome.end_s,
            loads_per_job: all.loads_per_job,
            usd_per_job: all.usd_per_job,
            most_waiting: outcome.most_waiting,
            refused: counted().filter(|(_, run)| run.refused.is_some()).count(),
            lost: counted()
                .filter(|(_, run)| run.ended == 0 && run.refused.is_none())
                .count(),
            doubled: counted().filter(|(_, run)| run.ended > 1).count(),
            ..Report::default()
        };
        report.compare(setup, trace, outcome, skip);
        report
    }

    /// With what no scheduler could exceed.
    fn compare(&mut self, setup: &Setup, trace: &Trace, outcome: &Outcome, skip: usize) {
        let work = |arrival: &Arrival| arrival.size * arrival.luck;
        let mut mix = vec![0.0; setup.classes.len()];
        for arrival in &trace.arrivals {
            mix[arrival.class] += work(arrival);
        }
        let Some(bound) = bound(&setup.supply(), &mix) else {
            return;
        };
        let all: f64 = mix.iter().sum();
        // In jobs of the mean size of this trace.
        let per_job = all / trace.arrivals.len().max(1) as f64;
        self.bound_per_s = bound.per_s / per_job;
        self.best_s = bound.best_s * per_job;
        let last_s = trace.last_s();
        if last_s == 0.0 {
            self.makespan_of_bound = Some(outcome.end_s * bound.per_s / all);
        }
        let Some(first) = trace.arrivals.get(skip) else {
            return;
        };
        let done = trace.arrivals.iter().zip(&outcome.runs).filter(|(_, run)| {
            run.end_s
                .is_some_and(|end_s| end_s > first.at_s && end_s <= last_s)
        });
        let worth: f64 = done
            .map(|(arrival, _)| work(arrival) * bound.worth[arrival.class])
            .sum();
        if last_s > first.at_s {
            self.throughput_of_bound = Some(worth / (last_s - first.at_s) / bound.per_s);
        }
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new(&[
            "",
            "jobs",
            "wait",
            "p50",
            "p95",
            "p99",
            "max",
            "until the end",
            "p50",
            "p95",
            "p99",
            "max",
            "loads/job",
            "USD/job",
        ]);
        let all = GroupReport {
            name: "all".into(),
            wait: self.wait,
            latency: self.latency,
            loads_per_job: self.loads_per_job,
            usd_per_job: self.usd_per_job,
        };
        for group in [&all].into_iter().chain(&self.classes).chain(&self.tenants) {
            let mut row = vec![group.name.clone(), group.wait.count.to_string()];
            for stats in [group.wait, group.latency] {
                let times = [stats.mean, stats.p50, stats.p95, stats.p99, stats.max];
                row.extend(times.map(seconds));
            }
            row.push(format!("{:.3}", group.loads_per_job));
            row.push(usd(group.usd_per_job));
            table.row(row);
        }
        let mut nodes = Table::new(&["node", "card", "used", "jobs", "USD"]);
        for node in &self.nodes {
            nodes.row(vec![
                node.name.clone(),
                node.gpu.clone(),
                percent(node.used),
                node.jobs.to_string(),
                usd(node.usd),
            ]);
        }
        format!(
            "{table}\n{nodes}\n{}",
            self.summary()
                .into_iter()
                .map(|(what, value)| format!("{what}: {value}\n"))
                .collect::<String>()
        )
    }

    /// Beside another: what was, and what would be.
    pub fn beside(&self, after: &Report) -> String {
        let mut table = Table::new(&["", "before", "after"]);
        let mut row = |what: String, before: String, after: String| {
            table.row(vec![what, before, after]);
        };
        let groups = |report: &Report| {
            let all = ("all".to_owned(), report.wait);
            let parts = report.classes.iter().chain(&report.tenants);
            let parts = parts.map(|group| (group.name.clone(), group.wait));
            [all].into_iter().chain(parts).collect::<Vec<_>>()
        };
        let (was, is) = (groups(self), groups(after));
        for (name, before) in &was {
            let Some((_, after)) = is.iter().find(|(other, _)| other == name) else {
                continue;
            };
            row(
                format!("wait p50, {name}"),
                seconds(before.p50),
                seconds(after.p50),
            );
            row(
                format!("wait p95, {name}"),
                seconds(before.p95),
                seconds(after.p95),
            );
        }
        for ((what, before), (_, after)) in self.summary().into_iter().zip(after.summary()) {
            row(what.into(), before, after);
        }
        for node in &after.nodes {
            let before = self.nodes.iter().find(|other| other.name == node.name);
            let before = before.map_or("-".into(), |before| percent(before.used));
            row(format!("{} used", node.name), before, percent(node.used));
        }
        let gone = |node: &&NodeReport| !after.nodes.iter().any(|other| other.name == node.name);
        for node in self.nodes.iter().filter(gone) {
            row(
                format!("{} used", node.name),
                percent(node.used),
                "-".into(),
            );
        }
        table.to_string()
    }

    fn summary(&self) -> Vec<(&'static str, String)> {
        let used = self.nodes.iter().map(|node| node.used).sum::<f64>();
        vec![
            ("makespan", seconds(self.makespan_s)),
            (
                "makespan to the least possible",
                share(self.makespan_of_bound),
            ),
            (
                "throughput to the most possible",
                share(self.throughput_of_bound),
            ),
            (
                "most possible, jobs per hour",
                format!("{:.0}", self.bound_per_s * 3600.0),
            ),
            ("mean time on the best node", seconds(self.best_s)),
            ("GPU use", percent(used / self.nodes.len().max(1) as f64)),
            ("most who waited", self.most_waiting.to_string()),
            ("model loads per job", format!("{:.3}", self.loads_per_job)),
            ("USD per job", usd(self.usd_per_job)),
            ("USD of all nodes", usd(self.usd)),
            ("refused", self.refused.to_string()),
            ("lost", self.lost.to_string()),
            ("doubled", self.doubled.to_string()),
        ]
    }
}

// === impl GroupReport ===

impl GroupReport {
    fn of<'a>(name: String, asked: impl Iterator<Item = Asked<'a>> + Clone) -> GroupReport {
        let ended = || {
            asked
                .clone()
                .filter_map(|(a, run)| Some((a, run, run.end_s?)))
        };
        let count = asked.clone().count().max(1) as f64;
        GroupReport {
            wait: Stats::of(ended().map(|(a, run, _)| run.begin_s - a.at_s).collect()),
            latency: Stats::of(ended().map(|(a, _, end_s)| end_s - a.at_s).collect()),
            loads_per_job: asked.clone().map(|(_, r)| f64::from(r.loads)).sum::<f64>() / count,
            usd_per_job: asked.map(|(_, r)| r.usd).sum::<f64>() / count,
            name,
        }
    }
}

fn nodes(setup: &Setup, outcome: &Outcome) -> Vec<NodeReport> {
    let plan = &setup.plan;
    let used = (0..plan.nodes.len()).filter(|node| setup.is_used(*node));
    let reports = used.map(|node| {
        let facts = &plan.nodes[node].facts;
        let of_node = |endpoint: &usize| plan.endpoints[*endpoint].node == node;
        let endpoints: Vec<usize> = (0..plan.endpoints.len()).filter(of_node).collect();
        let slots: u32 = endpoints.iter().map(|e| plan.endpoints[*e].slots).sum();
        let busy_s: f64 = endpoints.iter().map(|e| outcome.busy_s[*e]).sum();
        let here = |run: &&Run| run.end_s.is_some() && endpoints.contains(&run.endpoint);
        NodeReport {
            name: facts.name.to_string(),
            gpu: facts.gpu.to_string(),
            used: busy_s / f64::from(slots.max(1)) / outcome.end_s.max(f64::MIN_POSITIVE),
            jobs: outcome.runs.iter().filter(here).count(),
            usd: facts.usd_per_hour * outcome.end_s / 3600.0,
        }
    });
    reports.collect()
}

fn name_of(setup: &Setup, class: usize) -> String {
    let class = &setup.classes[class];
    match setup.plan.services.len() {
        // What its kind gives no name is one class, too.
        1 if class.name.is_empty() => "-".into(),
        1 => class.name.to_string(),
        _ => format!("{}/{}", setup.plan.services[class.service].name, class.name),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1}s"),
        s => format!("{s:.0}s"),
    }
}

fn share(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{share:.3}"))
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

fn usd(usd: f64) -> String {
    match usd {
        0.0 => "0".into(),
        usd if usd < 1.0 => format!("{usd:.4}"),
        usd => format!("{usd:.2}"),
    }
}

/// Rows whose columns stand below each other: the first to the left, numbers to the right.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Table {
        Table(vec![head.iter().map(|name| (*name).to_owned()).collect()])
    }

    fn row(&mut self, row: Vec<String>) {
        self.0.push(row);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.0.first().map_or(0, Vec::len);
        let wide = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(wide).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match i {
                    0 => line.push_str(&format!("{cell:width$}")),
                    _ => line.push_str(&format!("  {cell:>width$}")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_times_is_as_long_as_the_rank_says() {
        let stats = Stats::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((stats.count, stats.mean), (100, 50.5));
        assert_eq!(
            [stats.p50, stats.p95, stats.p99, stats.max],
            [50.0, 95.0, 99.0, 100.0]
        );
        assert_eq!(Stats::of(Vec::new()), Stats::default());
        assert_eq!(Stats::of(vec![3.0]).p50, 3.0);
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&["", "p50"]);
        table.row(vec!["größer".into(), "1.5s".into()]);
        assert_eq!(table.to_string(), "         p50\ngrößer  1.5s\n");
    }
}
