use super::bound::Supply;
use super::table::Table;
use crate::config;
use crate::config::plan::{Member, Plan};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use tabane_api::{
    Ask, BoundPolicy, Intent, Kind, NoConfig, NodeClient, NodeFacts, Policy, ProbeError, Refusal,
    Registry, Service, Vitals,
};

/// What is simulated: a plan as the gateway would have it, and how long work truly takes on its endpoints.
#[derive(Clone)]
pub struct Setup {
    /// What the gateway is told.
    pub plan: Plan,
    /// The policy of each service, in the order of the plan.
    pub policies: Vec<Arc<dyn Policy>>,
    /// The kind of each: what it says of costs counts.
    pub kinds: Vec<Arc<dyn Service>>,
    /// What there is to do.
    pub classes: Vec<Class>,
}

/// Work that is alike.
#[derive(Clone, Debug)]
pub struct Class {
    /// An index into the plan's services.
    pub service: usize,
    /// What its kind would call it.
    pub name: Arc<str>,
    /// What is loaded for it; `None`: what stands for its class.
    pub model: Option<Arc<str>>,
    /// The memory that this takes, MiB.
    pub vram_mib: u64,
    /// Its part of all that arrives, beside those of the others.
    pub share: f64,
    /// How much sizes differ: their coefficient of variation.
    pub cv: f64,
    /// What it costs on each endpoint of the plan; `None` where it cannot run.
    pub costs: Vec<Option<Cost>>,
}

/// How long work truly takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Seconds of one of size 1.
    pub run_s: f64,
    /// Seconds until its model is loaded.
    pub load_s: f64,
}

// === impl Setup ===

impl Setup {
    /// A farm of a table's nodes, with one service. `policy` as in a configuration: a name, or a map with its block.
    ///
    /// Errors: what the table or the policy lacks.
    pub fn of_table(table: &Table, registry: &Registry, policy: &str) -> Result<Setup, String> {
        let registry = registry.clone().kind::<Simulated>();
        let mut nodes = serde_json::Map::new();
        for (i, gpu) in table.nodes.iter().enumerate() {
            let of = table.gpus.get(gpu).ok_or("a node of no known card")?;
            let nth = table.nodes[..i].iter().filter(|other| *other == gpu);
            let name = format!("{gpu}-{}", nth.count() + 1);
            let node = json!({
                "gpu": {"model": gpu, "vram": format!("{}MiB", mib(of.vram_gib))},
                "price_per_hour": of.usd_per_hour,
                "url": format!("http://node-{i}:80"),
            });
            nodes.insert(name, node);
        }
        if nodes.is_empty() {
            return Err("nodes: there is none".into());
        }
        let members: Vec<&String> = nodes.keys().collect();
        let service = json!({"kind": Simulated::NAME, "pool": members, "routes": ["/"]});
        let file =
            json!({"admin": false, "services": {"work": service}, "nodes": Value::from(nodes)});
        let text = serde_yaml::to_string(&file).map_err(|error| error.to_string())?;
        let loaded = config::load_text("simulation", &text, &registry, &|_| None);
        let loaded = loaded.map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            problems.join("\n")
        })?;
        let setup = Setup::of_plan(loaded.plan)?;
        setup.with_table(table)?.with_policy(registry, policy)
    }

    /// A plan without anything to do. Errors: what a policy or kind has against its block.
    pub fn of_plan(plan: Plan) -> Result<Setup, String> {
        let (mut policies, mut kinds) = (Vec::new(), Vec::new());
        for service in &plan.services {
            let of = |why| format!("services.{}: {why}", service.name);
            policies.push(service.policy.build().map_err(of)?);
            kinds.push(service.kind.build(None).map_err(of)?);
        }
        Ok(Setup {
            policies,
            kinds,
            classes: Vec::new(),
            plan,
        })
    }

    /// The classes of a table are what there is to do, on the plan's nodes, which it knows by their cards.
    ///
    /// Errors: a class whose service cannot be told, a node whose card the table does not know.
    pub fn with_table(mut self, table: &Table) -> Result<Setup, String> {
        self.classes.clear();
        for (name, row) in &table.classes {
            let service = self.service(row.service.as_deref());
            let service = service.map_err(|why| format!("classes.{name}: {why}"))?;
            let pool = &self.plan.pools[self.plan.services[service].pool];
            let mut costs = vec![None; self.plan.endpoints.len()];
            for member in &pool.members {
                let node = &self.plan.nodes[self.plan.endpoints[member.endpoint].node].facts;
                let gpu = known_card(table, node)?;
                let run_s = row.run.get(gpu).copied().flatten();
                let load_s = row.load.get(gpu).copied().flatten().unwrap_or(0.0);
                costs[member.endpoint] = run_s
                    .filter(|_| node.vram_mib == 0 || node.vram_mib >= mib(row.vram_gib))
                    .map(|run_s| Cost { run_s, load_s });
            }
            self.classes.push(Class {
                service,
                name: name.as_str().into(),
                model: None,
                vram_mib: mib(row.vram_gib),
                share: row.share,
                cv: row.cv,
                costs,
            });
        }
        Ok(self)
    }

    /// The same with another policy for all services.
    pub fn with_policy(mut self, registry: Registry, text: &str) -> Result<Setup, String> {
        let bound = policy(&registry, text)?;
        for (service, policy) in self.plan.services.iter_mut().zip(&mut self.policies) {
            *policy = bound.build()?;
            service.policy = bound.clone();
        }
        Ok(self)
    }

    /// Adds a node that is like another: its card, its endpoints, its pools, its times.
    ///
    /// Errors: there is a node of that name, or none to copy.
    pub fn add(&mut self, name: &str, like: &str) -> Result<(), String> {
        if self.node(name).is_some() {
            return Err(format!("there is a node `{name}`"));
        }
        let model = self.node(like);
        let model = model.ok_or_else(|| format!("there is no node `{like}`"))?;
        let mut node = self.plan.nodes[model].clone();
        node.facts = Arc::new(NodeFacts {
            name: name.into(),
            ..NodeFacts::clone(&node.facts)
        });
        let new_node = self.plan.nodes.len();
        self.plan.nodes.push(node);
        for of in 0..self.plan.endpoints.len() {
            if self.plan.endpoints[of].node != model {
                continue;
            }
            let mut endpoint = self.plan.endpoints[of].clone();
            let last = endpoint.name.rsplit('/').next().unwrap_or_default();
            endpoint.name = format!("{name}/{last}").into();
            endpoint.node = new_node;
            endpoint.target.host = name.into();
            let new = self.plan.endpoints.len();
            self.plan.endpoints.push(endpoint);
            for pool in &mut self.plan.pools {
                let weight = pool.members.iter().find(|member| member.endpoint == of);
                if let Some(weight) = weight.map(|member| member.weight) {
                    let endpoint = new;
                    pool.members.push(Member { endpoint, weight });
                }
            }
            for class in &mut self.classes {
                class.costs.push(class.costs[of]);
            }
        }
        Ok(())
    }

    /// Adds a node with a card that no other has but a table knows; in all else it is like the first node.
    ///
    /// Errors: there is a node of that name, or the table does not know the card.
    pub fn add_card(&mut self, name: &str, gpu: &str, table: &Table) -> Result<(), String> {
        let mut known = table.gpus.iter();
        let card = known.find(|(known, _)| same_card(known, gpu));
        let (card, of) = card.ok_or_else(|| format!("no times are given for a `{gpu}`"))?;
        let like = (0..self.plan.nodes.len()).find(|node| self.is_used(*node));
        let like = like.ok_or("there is no node to put it beside")?;
        let like = self.plan.nodes[like].facts.name.clone();
        self.add(name, &like)?;
        if let Some(node) = self.plan.nodes.last_mut() {
            node.facts = Arc::new(NodeFacts {
                gpu: card.as_str().into(),
                vram_mib: mib(of.vram_gib),
                usd_per_hour: of.usd_per_hour,
                ..NodeFacts::clone(&node.facts)
            });
        }
        *self = self.clone().with_table(table)?;
        Ok(())
    }

    /// The same without a node. Errors: there is none of that name.
    pub fn without(&self, name: &str) -> Result<Setup, String> {
        let node = self.node(name);
        let node = node.ok_or_else(|| format!("there is no node `{name}`"))?;
        let mut setup = self.clone();
        let gone: Vec<usize> = (0..self.plan.endpoints.len())
            .filter(|of| self.plan.endpoints[*of].node == node)
            .collect();
        for pool in &mut setup.plan.pools {
            pool.members
                .retain(|member| !gone.contains(&member.endpoint));
        }
        for &endpoint in &gone {
            // Nobody uses it: the fleet does not hear of it. It stays in the plan, so that indexes hold.
            setup.plan.endpoints[endpoint].probed_by = None;
            for class in &mut setup.classes {
                class.costs[endpoint] = None;
            }
        }
        Ok(setup)
    }

    /// The index of a node.
    pub fn node(&self, name: &str) -> Option<usize> {
        let mut nodes = self.plan.nodes.iter();
        nodes.position(|node| &*node.facts.name == name)
    }

    /// Whether a node is used at all.
    pub fn is_used(&self, node: usize) -> bool {
        let mut endpoints = self.plan.endpoints.iter();
        endpoints.any(|endpoint| endpoint.node == node && endpoint.probed_by.is_some())
    }

    /// What a bound needs to know of what the machines can do.
    pub fn supply(&self) -> Supply {
        let slots = self.plan.endpoints.iter().map(|endpoint| endpoint.slots);
        let rows = self.classes.iter().map(|class| {
            let costs = class.costs.iter();
            costs.map(|cost| cost.map(|cost| cost.run_s)).collect()
        });
        Supply {
            slots: slots.map(f64::from).collect(),
            run_s: rows.collect(),
        }
    }

    /// Each class's part of what arrives; together 1.
    pub fn shares(&self) -> Vec<f64> {
        let all: f64 = self.classes.iter().map(|class| class.share).sum();
        let classes = self.classes.iter();
        classes.map(|class| class.share / all).collect()
    }

    /// The index of a service by its name; the only one needs none.
    ///
    /// Errors: there is none of that name, or there are several.
    pub fn service(&self, name: Option<&str>) -> Result<usize, String> {
        let services = &self.plan.services;
        match (name, &services[..]) {
            (Some(name), _) => services
                .iter()
                .position(|service| *service.name == *name)
                .ok_or_else(|| format!("there is no service `{name}`")),
            (None, [_]) => Ok(0),
            (None, _) => Err(format!(
                "say its `service`, since there are {}",
                services.len()
            )),
        }
    }

    /// The index of a class.
    pub fn class(&self, service: usize, name: &str) -> Option<usize> {
        let mut classes = self.classes.iter();
        classes.position(|class| class.service == service && *class.name == *name)
    }

    /// The index of an endpoint, by its name or by that of a node that has no other.
    pub fn endpoint(&self, name: &str) -> Option<usize> {
        let of_node = |name: &str| {
            let node = self.node(name)?;
            let mut on_it = (0..self.plan.endpoints.len())
                .filter(|endpoint| self.plan.endpoints[*endpoint].node == node);
            let first = on_it.next()?;
            on_it.next().is_none().then_some(first)
        };
        let mut endpoints = self.plan.endpoints.iter();
        let by_name = endpoints.position(|endpoint| *endpoint.name == *name);
        by_name.or_else(|| of_node(name))
    }
}

/// A policy as it is written in a configuration: `match`, or `{match: {window: 16}}`.
///
/// Errors: there is none of that name, or it has something against its block.
pub fn policy(registry: &Registry, text: &str) -> Result<Arc<dyn BoundPolicy>, String> {
    let value: serde_yaml::Value =
        serde_yaml::from_str(text).map_err(|error| format!("policy: {error}"))?;
    let empty = || serde_yaml::Value::Mapping(serde_yaml::Mapping::new());
    let (name, block) = match value {
        serde_yaml::Value::String(name) => (name, empty()),
        serde_yaml::Value::Mapping(map) if map.len() == 1 => match map.into_iter().next() {
            Some((serde_yaml::Value::String(name), block)) => (name, block),
            _ => return Err("policy: give a name, or `{name: {…}}`".into()),
        },
        _ => return Err("policy: give a name, or `{name: {…}}`".into()),
    };
    let entry = registry.find_policy(&name).ok_or_else(|| {
        let known = registry.policies().iter().map(|entry| entry.name);
        let known: Vec<&str> = known.collect();
        format!(
            "policy: there is no `{name}`; there are {}",
            known.join(", ")
        )
    })?;
    let mut block = <dyn erased_serde::Deserializer<'_>>::erase(block);
    (entry.decode)(&mut block).map_err(|error| format!("policy `{name}`: {error}"))
}

/// Whether two names of cards mean the same: `RTX 4090`, `rtx4090`.
pub fn same_card(a: &str, b: &str) -> bool {
    let plain = |name: &str| {
        let letters = name.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect::<String>()
    };
    plain(a) == plain(b)
}

fn known_card<'a>(table: &'a Table, node: &NodeFacts) -> Result<&'a str, String> {
    let mut known = table.gpus.keys();
    let card = known.find(|name| same_card(name, &node.gpu));
    card.map(String::as_str).ok_or_else(|| match &*node.gpu {
        "" => format!(
            "nodes.{}: its `gpu.model` is needed, to know its times",
            node.name
        ),
        gpu => format!("nodes.{}: no times are given for a `{gpu}`", node.name),
    })
}

fn mib(gib: f64) -> u64 {
    (gib * 1024.0).round() as u64
}

/// What a simulated farm serves: nobody ever asks it anything.
struct Simulated;

impl Kind for Simulated {
    const NAME: &'static str = "simulated";
    type Config = NoConfig;

    fn new(_: NoConfig, _prior: Option<Arc<Self>>) -> Result<Self, String> {
        Ok(Simulated)
    }
}

#[async_trait]
impl Service for Simulated {
    fn classify(&self, _ask: &Ask<'_>, _body: Option<&Bytes>) -> Result<Intent, Refusal> {
        Err(Refusal::NotFound(String::new()))
    }

    async fn probe(&self, _node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        Ok(Vitals::default())
    }
}
