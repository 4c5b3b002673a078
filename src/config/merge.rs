//! Several files as one: maps and lists are joined, single things may stand in one file only.

use super::file::{Access, Admin, File, Limits, Listen, Log, Member, Node, Service, Tenant};
use super::file_jobs::Webhooks;
use super::findings::{Findings, Spot};
use super::typed::{At, Field, Named, Short};
use std::collections::HashMap;

/// Entries of a map, in the order of the files.
pub(crate) type Entries<T> = Vec<(At<String>, Field<T>)>;

/// Everything that was typed.
pub(crate) struct All {
    /// The start of the first file: the place of what is missing.
    pub(crate) root: Spot,
    pub(crate) listen: Vec<Field<Short<Listen>>>,
    pub(crate) admin: Field<Short<Admin>>,
    pub(crate) data_dir: Field<String>,
    pub(crate) public_url: Field<String>,
    pub(crate) nodes_reach_us_at: Field<String>,
    pub(crate) webhooks: Field<Webhooks>,
    pub(crate) access: Field<Access>,
    pub(crate) log: Field<Log>,
    pub(crate) limits: Field<Limits>,
    pub(crate) tenants: Entries<Short<Tenant>>,
    pub(crate) nodes: Entries<Node>,
    pub(crate) pools: Entries<Vec<Field<Short<Member>>>>,
    pub(crate) services: Entries<Service>,
}

/// Joins the files; a name or single thing that stands in two is a problem that names both.
pub(crate) fn merge(root: Spot, files: Vec<(Spot, File)>, findings: &Findings) -> All {
    let mut all = All {
        root,
        listen: Vec::new(),
        admin: Field::default(),
        data_dir: Field::default(),
        public_url: Field::default(),
        nodes_reach_us_at: Field::default(),
        webhooks: Field::default(),
        access: Field::default(),
        log: Field::default(),
        limits: Field::default(),
        tenants: Vec::new(),
        nodes: Vec::new(),
        pools: Vec::new(),
        services: Vec::new(),
    };
    for (_, file) in files {
        all.listen.extend(file.listen.take().unwrap_or_default());
        single(&mut all.admin, file.admin, root, "admin", findings);
        single(&mut all.data_dir, file.data_dir, root, "data_dir", findings);
        let reach = file.nodes_reach_us_at;
        single(
            &mut all.public_url,
            file.public_url,
            root,
            "public_url",
            findings,
        );
        single(
            &mut all.nodes_reach_us_at,
            reach,
            root,
            "nodes_reach_us_at",
            findings,
        );
        single(&mut all.webhooks, file.webhooks, root, "webhooks", findings);
        single(&mut all.access, file.access, root, "access", findings);
        single(&mut all.log, file.log, root, "log", findings);
        single(&mut all.limits, file.limits, root, "limits", findings);
        join(&mut all.tenants, file.tenants);
        join(&mut all.nodes, file.nodes);
        join(&mut all.pools, file.pools);
        join(&mut all.services, file.services);
    }
    distinct(&mut all.tenants, "tenant", findings);
    distinct(&mut all.nodes, "node", findings);
    distinct(&mut all.pools, "pool", findings);
    distinct(&mut all.services, "service", findings);
    all
}

fn single<T>(into: &mut Field<T>, from: Field<T>, root: Spot, key: &str, findings: &Findings) {
    if from.is_missing() {
        return;
    }
    if into.is_missing() {
        *into = from;
        return;
    }
    let first = findings.show(into.spot(root));
    let what = format!("`{key}` may stand in one file only");
    findings.problem(from.spot(root), what, format!("it stands at {first} too"));
}

fn join<T>(into: &mut Entries<T>, from: Field<Named<T>>) {
    into.extend(from.take().unwrap_or_default().0);
}

/// The same name twice in one file was told when the file was read.
fn distinct<T>(entries: &mut Entries<T>, what: &str, findings: &Findings) {
    let mut first: HashMap<String, Spot> = HashMap::new();
    entries.retain(|(name, _)| match first.get(&name.value) {
        None => {
            first.insert(name.value.clone(), name.spot);
            true
        }
        Some(&other) => {
            if findings.mark(other).file != findings.mark(name.spot).file {
                let what = format!("the {what} `{}` stands in two files", name.value);
                let hint = format!("the other is at {}", findings.show(other));
                findings.problem(name.spot, what, hint);
            }
            false
        }
    });
}
