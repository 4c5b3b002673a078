//! Whether an endpoint can serve a need, and what it lacks where it cannot. Pure.
//!
//! Two kinds of lack. What the file says stays as it is until the file changes: memory, labels, slots, the largest size, a
//! list of models. A need that every endpoint of a pool lacks something of that kind for is refused at once. What a probe
//! does not show now may be there in a minute: for that one waits. (What was learned of memory is in `shortages.rs`.)

use crate::config::suggest;
use crate::fleet::Endpoint;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::Need;

/// What an endpoint lacks for a need. Shown as what follows on "it".
#[derive(Clone, Debug, PartialEq)]
pub enum Lack {
    /// Its node's card is too small, or nobody said how large it is.
    Vram {
        /// The least that would do, MiB.
        needs_mib: u64,
        /// What it has, MiB; 0: the file does not say.
        has_mib: u64,
    },
    /// Its node does not carry a label.
    Label {
        /// Which.
        name: Arc<str>,
        /// The value that is needed.
        value: Arc<str>,
        /// The value that it carries; `None`: none of this name.
        has: Option<Arc<str>>,
    },
    /// It works on fewer requests at once than the need takes slots.
    Slots {
        /// How many are needed.
        needs: u32,
        /// How many it has.
        has: u32,
    },
    /// The request is larger than it takes.
    Size {
        /// The request's, in the unit of its class.
        size: f64,
        /// The largest.
        most: f64,
    },
    /// The file lists its models, and this is none of them.
    Model {
        /// Which is needed.
        model: Arc<str>,
        /// Which it has.
        has: Arc<[Arc<str>]>,
    },
    /// Its probe shows models, and this is none of them now.
    Unseen {
        /// Which is needed.
        model: Arc<str>,
    },
    /// Requests of this class ran out of memory there.
    Memory {
        /// Which class.
        class: Arc<str>,
        /// How much longer it gets none of them.
        lasts: Duration,
    },
}

/// An endpoint that cannot serve a need, and all that it lacks.
#[derive(Clone, Debug)]
pub struct Miss {
    /// `node/endpoint`.
    pub endpoint: Arc<str>,
    /// What it lacks; not empty.
    pub lacks: Vec<Lack>,
}

/// Whether the endpoint has what the need takes.
pub fn fits(need: &Need, endpoint: &Endpoint) -> bool {
    lacks(need, endpoint).next().is_none()
}

/// What the endpoint lacks for the need, what only the file changes first.
pub fn lacks<'a>(need: &'a Need, endpoint: &'a Endpoint) -> impl Iterator<Item = Lack> + 'a {
    let (node, takes) = (endpoint.node(), endpoint.takes());
    let vram = (node.vram_mib < need.vram_mib).then(|| Lack::Vram {
        needs_mib: need.vram_mib,
        has_mib: node.vram_mib,
    });
    let labels = need.labels.iter().filter_map(|(name, value)| {
        let has = node.labels.get(name);
        (has != Some(value)).then(|| Lack::Label {
            name: name.clone(),
            value: value.clone(),
            has: has.cloned(),
        })
    });
    let slots = (endpoint.slots() < need.slots).then(|| Lack::Slots {
        needs: need.slots,
        has: endpoint.slots(),
    });
    let most = takes.max_size.filter(|most| need.size > *most);
    let size = most.map(|most| Lack::Size {
        size: need.size,
        most,
    });
    let model = need.model.as_ref().and_then(|model| match &takes.models {
        Some(has) => (!has.contains(model)).then(|| Lack::Model {
            model: model.clone(),
            has: has.clone(),
        }),
        None => {
            let shown = &endpoint.vitals().models;
            let there = shown.is_empty() || shown.iter().any(|shown| **shown == **model);
            (!there).then(|| Lack::Unseen {
                model: model.clone(),
            })
        }
    });
    let told = vram.into_iter().chain(labels).chain(slots).chain(size);
    told.chain(model)
}

/// The miss that is nearest: it lacks the fewest things, and of these the least. Of equals the first.
pub fn nearest(misses: impl IntoIterator<Item = Miss>) -> Option<Miss> {
    misses.into_iter().min_by(|a, b| {
        let fewer = a.lacks.len().cmp(&b.lacks.len());
        fewer.then_with(|| a.shortfall().total_cmp(&b.shortfall()))
    })
}

/// Why a pool whose endpoints all miss cannot serve a need: the nearest of them, and what would help.
pub fn why(misses: &[Miss]) -> String {
    let Some(miss) = nearest(misses.iter().cloned()) else {
        return "its pool is empty".to_owned();
    };
    let mut why = format!("`{}` comes nearest: {miss}", miss.endpoint);
    let wanted = miss.lacks.iter().find_map(|lack| match lack {
        Lack::Model { model, .. } => Some(model),
        _ => None,
    });
    if let Some(model) = wanted {
        let all = misses.iter().flat_map(|miss| &miss.lacks);
        let there = all.filter_map(|lack| match lack {
            Lack::Model { has, .. } => Some(has.iter().map(|name| &**name)),
            _ => None,
        });
        why.push_str("; ");
        why.push_str(&suggest(model, there.flatten()));
    }
    why
}

// === impl Lack ===

impl Lack {
    /// Whether only another file can change it.
    pub fn lasts(&self) -> bool {
        !matches!(self, Lack::Unseen { .. } | Lack::Memory { .. })
    }

    /// How far it is from being met, as a share of what is needed: 0.0 (hardly) to 1.0 (wholly).
    fn shortfall(&self) -> f64 {
        let part = |has: f64, of: f64| (1.0 - has / of).clamp(0.0, 1.0);
        match self {
            Lack::Vram { needs_mib, has_mib } => part(*has_mib as f64, *needs_mib as f64),
            Lack::Slots { needs, has } => part(f64::from(*has), f64::from(*needs)),
            Lack::Size { size, most } => part(*most, *size),
            Lack::Model { model, has } => {
                let likeness = has.iter().map(|name| strsim::jaro_winkler(model, name));
                1.0 - likeness.max_by(f64::total_cmp).unwrap_or_default()
            }
            Lack::Label { .. } | Lack::Unseen { .. } => 1.0,
            // Otherwise it has all that is needed.
            Lack::Memory { .. } => 0.0,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Vram {
                needs_mib,
                has_mib: 0,
            } => write!(
                f,
                "is not said to have any GPU memory, and {needs_mib} MiB are needed (`gpu: {{vram: …}}` of its node says it)"
            ),
            Lack::Vram { needs_mib, has_mib } => {
                write!(
                    f,
                    "has {has_mib} MiB of GPU memory, and {needs_mib} are needed"
                )
            }
            Lack::Label {
                name,
                value,
                has: Some(has),
            } => write!(
                f,
                "is labelled `{name}: {has}`, and `{name}: {value}` is needed"
            ),
            Lack::Label { name, value, .. } => {
                write!(f, "does not carry the label `{name}: {value}`")
            }
            Lack::Slots { needs, has: 1 } => write!(f, "has 1 slot, and {needs} are needed"),
            Lack::Slots { needs, has } => write!(f, "has {has} slots, and {needs} are needed"),
            Lack::Size { size, most } => write!(
                f,
                "takes requests up to size {most} (`max_size`), and this one is of size {size}"
            ),
            Lack::Model { model, .. } => write!(f, "does not have the model `{model}`"),
            Lack::Unseen { model } => write!(f, "does not show the model `{model}` now"),
            Lack::Memory { class, lasts } => write!(
                f,
                "ran out of GPU memory with requests of class `{class}`, and gets no more of them for {}",
                roughly(*lasts)
            ),
        }
    }
}

// === impl Miss ===

impl Miss {
    fn shortfall(&self) -> f64 {
        self.lacks.iter().map(Lack::shortfall).sum()
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, lack) in self.lacks.iter().enumerate() {
            match i {
                0 => write!(f, "it {lack}")?,
                _ => write!(f, "; it {lack}")?,
            }
        }
        Ok(())
    }
}

/// A time to come, as one would say it: rounded up to whole hours or minutes.
fn roughly(span: Duration) -> String {
    let minutes = span.as_secs().div_ceil(60);
    match minutes {
        0..=90 => format!("{minutes} min"),
        _ => format!("{} h", minutes.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests;
