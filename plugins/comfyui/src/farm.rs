//! The nodes of a service, as far as a kind knows them: what each can do, what it has computed, what it is at.

use crate::json::{Json, Object};
use crate::line::Line;
use crate::names::united;
use crate::object_info::ObjectInfo;
use crate::signature::{Computed, Keeps, Signature};
use crate::strays::Strays;
use crate::validate::Dialect;
use crate::version::Version;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tabane_api::EndpointId;
use tokio::sync::{mpsc, watch};

/// So many signatures are remembered of a node that keeps what many prompts made.
const REMEMBERED: usize = 20_000;

/// So many ways to put the nodes together are remembered: which of them is the home node changes with their health.
const ORDERS: usize = 8;

/// The nodes of a service.
pub struct Farm {
    /// What the gateway calls itself on nodes, as a client. The same as long as its process lives: what a node has of it is told
    /// to this name, whatever came between.
    sid: Arc<str>,
    nodes: Mutex<HashMap<EndpointId, Arc<Node>>>,
    /// Counts what nodes said of themselves.
    told: watch::Sender<u64>,
    merged: Mutex<Known>,
}

/// What was worked out last.
#[derive(Default)]
struct Known {
    /// By what nodes had said until then.
    version: u64,
    /// Of which nodes, the first one first; what was asked for last comes last.
    orders: Vec<(Vec<EndpointId>, Arc<Merged>)>,
}

/// All nodes as one.
pub struct Merged {
    /// What they can do together.
    pub info: ObjectInfo,
    /// In whose words what is wrong with a prompt is told: the newest one's.
    pub dialect: Dialect,
    /// Whether a prompt's time is stamped on it.
    pub stamps: bool,
    /// How much the one takes in one request that takes least, bytes.
    pub max_upload: Option<i64>,
    /// What all of them say that they can.
    pub features: Json,
}

/// A node.
pub struct Node {
    /// Which endpoint.
    pub id: EndpointId,
    /// `node/endpoint`.
    pub name: Arc<str>,
    /// What people are shown of it: the node's name alone.
    pub short: Arc<str>,
    /// What the gateway calls itself there, as a client.
    pub sid: Arc<str>,
    /// Asks it what it can do, one at a time.
    pub asking: tokio::sync::Mutex<()>,
    /// Prompts that nobody follows any more, and that it may be at.
    pub strays: Strays,
    /// Its event socket.
    pub line: Line,
    told: Mutex<Told>,
    live: Mutex<Live>,
}

/// What a node said of itself.
#[derive(Clone, Default)]
pub struct Told {
    /// What it can do.
    pub info: Option<Arc<ObjectInfo>>,
    /// When it said that.
    pub at: Option<Instant>,
    /// The bytes it said it in: when they are the same, nothing is new.
    pub bytes: Bytes,
    /// Its version.
    pub version: Option<Version>,
    /// `GET /system_stats`.
    pub stats: Option<Arc<Json>>,
    /// `GET /features`.
    pub features: Option<Arc<Json>>,
}

#[derive(Default)]
struct Live {
    computed: Option<Computed>,
    /// What the gateway handed over, and who hears of it.
    inboxes: HashMap<Arc<str>, mpsc::Sender<crate::frames::Frame>>,
    /// What it executes, of what the gateway handed over.
    current: Option<Arc<str>>,
    /// How many it says wait or run there, others' among them.
    remaining: usize,
    /// Files that were copied there, and what they hold.
    copied: HashMap<String, String>,
}

// === impl Farm ===

impl Farm {
    /// An endpoint is looked after.
    pub fn node(&self, id: EndpointId, name: &Arc<str>) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let known = nodes.entry(id).or_insert_with(|| {
            Arc::new(Node {
                id,
                name: name.clone(),
                short: name.split('/').next().unwrap_or_default().into(),
                sid: self.sid.clone(),
                asking: tokio::sync::Mutex::default(),
                strays: Strays::default(),
                line: Line::default(),
                told: Mutex::default(),
                live: Mutex::default(),
            })
        });
        known.clone()
    }

    /// The node behind an endpoint, if it was looked after.
    pub fn get(&self, id: EndpointId) -> Option<Arc<Node>> {
        self.nodes.lock().get(&id).cloned()
    }

    /// The node of this name, if it was looked after.
    pub fn named(&self, name: &str) -> Option<Arc<Node>> {
        let nodes = self.nodes.lock();
        nodes.values().find(|node| *node.name == *name).cloned()
    }

    /// Forgets those that are not among these, and that have nothing more to do.
    pub fn keep_only(&self, ids: &[EndpointId]) {
        let mut nodes = self.nodes.lock();
        let before = nodes.len();
        nodes.retain(|id, node| ids.contains(id) || node.is_at_something());
        if nodes.len() != before {
            self.told.send_modify(|count| *count += 1);
        }
    }

    /// A node said something new of itself.
    pub fn is_told(&self) {
        self.told.send_modify(|count| *count += 1);
    }

    /// Counts up with all that nodes say of themselves.
    pub fn version(&self) -> u64 {
        *self.told.borrow()
    }

    /// Waits until nodes have said more than that.
    pub async fn says_more(&self, than: u64) {
        let mut told = self.told.subscribe();
        if told.wait_for(|count| *count > than).await.is_err() {
            std::future::pending().await
        }
    }

    /// All of these nodes as one, the first one first; `None`: none of them has said what it can do.
    pub fn merged(&self, order: &[EndpointId]) -> Option<Arc<Merged>> {
        let version = self.version();
        let mut known = self.merged.lock();
        if known.version != version {
            *known = Known {
                version,
                orders: Vec::new(),
            };
        }
        if let Some(at) = known.orders.iter().position(|(of, _)| of == order) {
            known.orders[at..].rotate_left(1);
            return known.orders.last().map(|(_, merged)| merged.clone());
        }
        let nodes: Vec<Arc<Node>> = order.iter().filter_map(|id| self.get(*id)).collect();
        let told: Vec<(Arc<str>, Told)> =
            nodes.iter().map(|n| (n.name.clone(), n.told())).collect();
        let infos = told
            .iter()
            .filter_map(|(name, told)| Some((&**name, &**told.info.as_ref()?)));
        let infos: Vec<(&str, &ObjectInfo)> = infos.collect();
        if infos.is_empty() {
            return None;
        }
        let (info, differences) = ObjectInfo::merged(&infos);
        for difference in differences.iter().take(20) {
            tracing::debug!(class = %difference.class, node = %difference.node, what = ?difference.what,
                "nodes differ in what a class of theirs takes");
        }
        let newest = told.iter().filter_map(|(_, told)| told.version).max();
        let newest = newest.unwrap_or(Version::OLDEST);
        let features: Vec<Arc<Json>> = told
            .iter()
            .filter_map(|(_, told)| told.features.clone())
            .collect();
        let fresh = Arc::new(Merged {
            info,
            dialect: newest.dialect(),
            stamps: newest.stamps_create_time(),
            max_upload: features
                .iter()
                .filter_map(|f| i64::try_from(f.get("max_upload_size")?.number()?.integer()?).ok())
                .min(),
            features: common(&features),
        });
        if known.orders.len() >= ORDERS {
            known.orders.remove(0);
        }
        known.orders.push((order.to_vec(), fresh.clone()));
        Some(fresh)
    }
}

impl Default for Farm {
    fn default() -> Self {
        Farm {
            sid: format!("tabane-{}", uuid::Uuid::new_v4().simple()).into(),
            nodes: Mutex::default(),
            told: watch::Sender::new(0),
            merged: Mutex::default(),
        }
    }
}

/// What all say alike.
fn common(features: &[Arc<Json>]) -> Json {
    let Some((first, others)) = features.split_first() else {
        return Json::Object(Object::new());
    };
    let all = first.object().into_iter().flatten();
    let same = all.filter(|(key, value)| others.iter().all(|other| other.get(key) == Some(value)));
    let same: Object = same
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    same.into()
}

/// Lists of texts as one, each text once.
pub fn one_list(lists: &[Json]) -> Json {
    let lists = lists.iter().filter_map(Json::list);
    Json::List(united(lists))
}

// === impl Node ===

impl Node {
    /// What it said of itself.
    pub fn told(&self) -> Told {
        self.told.lock().clone()
    }

    /// It said something of itself.
    pub fn tells<T>(&self, change: impl FnOnce(&mut Told) -> T) -> T {
        change(&mut self.told.lock())
    }

    /// What it can do.
    pub fn info(&self) -> Option<Arc<ObjectInfo>> {
        self.told.lock().info.clone()
    }

    /// Its version.
    pub fn version(&self) -> Option<Version> {
        self.told.lock().version
    }

    /// A prompt is handed over to it: what it says of it is told to `inbox`.
    pub fn hand_over(&self, prompt: &Arc<str>, inbox: mpsc::Sender<crate::frames::Frame>) {
        self.live.lock().inboxes.insert(prompt.clone(), inbox);
    }

    /// It has nothing to do with a prompt any more.
    pub fn lets_go(&self, prompt: &str) {
        let mut live = self.live.lock();
        live.inboxes.remove(prompt);
        if live.current.as_deref() == Some(prompt) {
            live.current = None;
        }
    }

    /// Whether it has something of the gateway's, or may have.
    fn is_at_something(&self) -> bool {
        !self.live.lock().inboxes.is_empty() || !self.strays.is_empty()
    }

    /// Who hears of a prompt. Of `None`, it is the one that it executes.
    pub fn inbox(&self, prompt: Option<&str>) -> Option<mpsc::Sender<crate::frames::Frame>> {
        let live = self.live.lock();
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => live.current.as_deref()?,
        };
        live.inboxes.get(prompt).cloned()
    }

    /// It executes this of what the gateway handed over.
    pub fn executes(&self, prompt: &str) {
        let mut live = self.live.lock();
        let known = live.inboxes.get_key_value(prompt).map(|(id, _)| id.clone());
        live.current = known;
    }

    /// What it executes, of what the gateway handed over.
    pub fn current(&self) -> Option<Arc<str>> {
        self.live.lock().current.clone()
    }

    /// So many wait or run there.
    pub fn has_remaining(&self, remaining: usize) {
        self.live.lock().remaining = remaining;
    }

    /// How many of others wait or run there.
    pub fn foreign(&self) -> usize {
        let live = self.live.lock();
        live.remaining.saturating_sub(live.inboxes.len())
    }

    /// How much of a prompt it has computed, 0.0..=1.0.
    pub fn share(&self, signatures: &[Signature]) -> f64 {
        let live = self.live.lock();
        live.computed
            .as_ref()
            .map_or(0.0, |computed| computed.share(signatures))
    }

    /// It computed a prompt.
    pub fn computed(&self, signatures: &[Signature]) {
        let many = self
            .version()
            .is_some_and(Version::keeps_more_than_one_prompt);
        let keeps = match many {
            true => Keeps::Many(REMEMBERED),
            false => Keeps::LastPrompt,
        };
        let mut live = self.live.lock();
        live.computed
            .get_or_insert_with(|| Computed::nothing(keeps))
            .note(signatures);
    }

    /// It was restarted, or told to let go.
    pub fn forgets(&self) {
        self.live.lock().computed = None;
    }

    /// Whether a file that holds this was copied there.
    pub fn has_copy(&self, path: &str, holds: &str) -> bool {
        let live = self.live.lock();
        live.copied.get(path).is_some_and(|known| known == holds)
    }

    /// A file was copied there.
    pub fn was_copied(&self, path: String, holds: String) {
        let mut live = self.live.lock();
        // Names of files come from people: those that were copied long ago are copied again.
        if live.copied.len() >= 10_000 {
            live.copied.clear();
        }
        live.copied.insert(path, holds);
    }

    /// Its files may be gone: it was restarted.
    pub fn lost_copies(&self) {
        self.live.lock().copied.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes that have said what they can do.
    fn two() -> (Farm, [EndpointId; 2]) {
        let farm = Farm::default();
        let ids = [EndpointId(1), EndpointId(2)];
        for id in ids {
            let node = farm.node(id, &format!("n{}/http", id.0).into());
            node.tells(|told| told.info = Some(Arc::default()));
        }
        farm.is_told();
        (farm, ids)
    }

    #[test]
    fn a_home_that_changes_to_and_fro_is_worked_out_once_each_way() {
        let (farm, [a, b]) = two();
        let ways = [[a, b], [b, a]];
        let first = ways.map(|order| farm.merged(&order).unwrap());
        for _ in 0..3 {
            for (order, first) in ways.iter().zip(&first) {
                assert!(Arc::ptr_eq(&farm.merged(order).unwrap(), first));
            }
        }
        farm.is_told();
        assert!(!Arc::ptr_eq(&farm.merged(&ways[0]).unwrap(), &first[0]));
    }

    #[test]
    fn the_gateway_is_called_the_same_on_all_nodes_also_on_those_that_come_back() {
        let (farm, [a, b]) = two();
        let sid = farm.get(a).unwrap().sid.clone();
        farm.keep_only(&[b]);
        assert!(farm.get(a).is_none());
        assert_eq!(farm.node(a, &"n1/http".into()).sid, sid);
        assert_eq!(farm.get(b).unwrap().sid, sid);
    }

    #[test]
    fn a_node_that_left_the_pool_is_known_as_long_as_it_is_at_something() {
        let (farm, [a, b]) = two();
        let node = farm.get(a).unwrap();
        let (inbox, _hears) = mpsc::channel(1);
        node.hand_over(&"p".into(), inbox);
        farm.keep_only(&[b]);
        assert!(Arc::ptr_eq(&farm.named("n1/http").unwrap(), &node));
        node.lets_go("p");
        farm.keep_only(&[b]);
        assert!(farm.named("n1/http").is_none());
    }
}
