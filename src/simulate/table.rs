use serde::Deserialize;
use std::collections::BTreeMap;

/// How long work of each class takes on each kind of card: what is true in a simulation, and told to nobody in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The kinds of cards, by name.
    pub gpus: BTreeMap<String, Gpu>,
    /// The card of each node. They are used where no configuration names nodes.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The classes of work, by name.
    pub classes: BTreeMap<String, ClassRow>,
}

/// A kind of card.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its memory, GiB.
    pub vram_gib: f64,
    /// What a node with it costs, USD per hour.
    #[serde(default)]
    pub usd_per_hour: f64,
}

/// A class of work.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRow {
    /// Its part of all that arrives, beside those of the others.
    pub share: f64,
    /// The memory that its model takes, GiB; it runs on no smaller card.
    #[serde(default)]
    pub vram_gib: f64,
    /// How much sizes differ: their coefficient of variation. They are lognormal, with mean 1.
    #[serde(default)]
    pub cv: f64,
    /// Seconds of one of size 1, by kind of card; null where it cannot run.
    pub run: BTreeMap<String, Option<f64>>,
    /// Seconds until its model is loaded, by kind of card.
    #[serde(default)]
    pub load: BTreeMap<String, Option<f64>>,
    /// Its service, where a configuration has several.
    pub service: Option<String>,
}

// === impl Table ===

impl Table {
    /// Reads a table in YAML. Errors: what is wrong, for the person who wrote it.
    pub fn read(text: &str) -> Result<Table, String> {
        let table: Table = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), String> {
        let sound = |n: f64| n.is_finite() && n >= 0.0;
        for (name, gpu) in &self.gpus {
            if !sound(gpu.vram_gib) || !sound(gpu.usd_per_hour) {
                return Err(format!("gpus.{name}: what it has and costs is at least 0"));
            }
        }
        if let Some(unknown) = self.nodes.iter().find(|gpu| !self.gpus.contains_key(*gpu)) {
            return Err(format!("nodes: `{unknown}` is not one of `gpus`"));
        }
        if self.classes.is_empty() {
            return Err("classes: there is none".into());
        }
        for (name, class) in &self.classes {
            if !sound(class.share) || !sound(class.vram_gib) || !sound(class.cv) {
                return Err(format!(
                    "classes.{name}: share, vram_gib and cv are at least 0"
                ));
            }
            for (what, seconds) in class.run.iter().map(|row| ("run", row)) {
                let (gpu, seconds) = seconds;
                if seconds.is_some_and(|s| !sound(s) || s == 0.0) {
                    return Err(format!("classes.{name}.{what}.{gpu}: has to be above 0"));
                }
            }
            if class.load.values().flatten().any(|s| !sound(*s)) {
                return Err(format!("classes.{name}.load: has to be at least 0"));
            }
            let rows = class.run.keys().chain(class.load.keys());
            if let Some(unknown) = rows.clone().find(|gpu| !self.gpus.contains_key(*gpu)) {
                return Err(format!("classes.{name}: `{unknown}` is not one of `gpus`"));
            }
        }
        if self.classes.values().map(|class| class.share).sum::<f64>() <= 0.0 {
            return Err("classes: the shares come to nothing".into());
        }
        Ok(())
    }
}
