use crate::{Policy, Service};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

/// A kind that can be named in the YAML file.
pub trait Kind: Service + Sized {
    /// Its name, as in `kind: {NAME: {…}}`.
    const NAME: &'static str;
    /// The policy of its services where the file names none: `least_loaded`, unless its requests wait in a queue for whole
    /// nodes (`match`), or stream, many at once on a node (`fastest`).
    const POLICY: &'static str = "least_loaded";
    /// Whether it takes work in for later by itself: then the file has to say where that is kept (`data_dir`).
    const KEEPS: bool = false;
    /// How many requests an endpoint works on at once, where neither the file nor the endpoint says: 1, unless its servers are made
    /// to work on many together.
    const SLOTS: u32 = 1;
    /// Whether a request that broke off before its answer began may be run again, where the file does not say: running twice
    /// does no harm but cost.
    const REPEATS: bool = false;
    /// Its own block. Plain structs and externally tagged enums with `deny_unknown_fields` keep errors at their line.
    type Config: DeserializeOwned + JsonSchema + Clone + PartialEq + Debug + Send + Sync + 'static;

    /// Makes it. After a reload that changed its block, `prior` is the one that served until now, so that sockets
    /// and caches may be kept; a block that did not change keeps the kind itself.
    ///
    /// Errors: what is wrong with the block, for the person who wrote it.
    fn new(config: Self::Config, prior: Option<Arc<Self>>) -> Result<Self, String>;
}

/// A policy that can be named in the YAML file.
pub trait PolicyKind: Policy + Sized {
    /// Its name, as in `policy: {NAME: {…}}`.
    const NAME: &'static str;
    /// Its own block.
    type Config: DeserializeOwned + JsonSchema + Clone + PartialEq + Debug + Send + Sync + 'static;

    /// Makes it. Errors: what is wrong with the block, for the person who wrote it.
    fn new(config: Self::Config) -> Result<Self, String>;
}

/// The block of a kind or policy that has nothing to configure: `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// A kind's block, decoded, its type known only to the kind.
pub trait BoundKind: Debug + Send + Sync {
    /// The kind's name.
    fn name(&self) -> &'static str;
    /// The policy of its services where the file names none.
    fn policy(&self) -> &'static str;
    /// Whether it needs a place to keep work for later.
    fn keeps(&self) -> bool;
    /// How many requests an endpoint works on at once, where nobody says.
    fn slots(&self) -> u32;
    /// Whether requests may be run again, where the file does not say.
    fn repeats(&self) -> bool;
    /// Whether two blocks ask for the same.
    fn same(&self, other: &dyn BoundKind) -> bool;
    /// Makes the kind; `prior` counts only when it is of this kind.
    fn build(&self, prior: Option<Arc<dyn Service>>) -> Result<Arc<dyn Service>, String>;
    /// The block itself.
    fn config(&self) -> &dyn Any;
}

/// A policy's block, decoded, its type known only to the policy.
pub trait BoundPolicy: Debug + Send + Sync {
    /// The policy's name.
    fn name(&self) -> &'static str;
    /// Whether two blocks ask for the same.
    fn same(&self, other: &dyn BoundPolicy) -> bool;
    /// Makes the policy.
    fn build(&self) -> Result<Arc<dyn Policy>, String>;
    /// The block itself.
    fn config(&self) -> &dyn Any;
}

type Decode<T> = fn(&mut dyn erased_serde::Deserializer<'_>) -> Result<Arc<T>, erased_serde::Error>;

/// How the YAML file speaks of a kind.
#[derive(Clone, Copy)]
pub struct KindEntry {
    /// Its name.
    pub name: &'static str,
    /// Whether it needs a place to keep work for later.
    pub keeps: bool,
    /// Decodes its block from the stream, so that errors keep line and column.
    pub decode: Decode<dyn BoundKind>,
    /// The JSON Schema of its block.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// How the YAML file speaks of a policy.
#[derive(Clone, Copy)]
pub struct PolicyEntry {
    /// Its name.
    pub name: &'static str,
    /// Decodes its block from the stream, so that errors keep line and column.
    pub decode: Decode<dyn BoundPolicy>,
    /// The JSON Schema of its block.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// The kinds and policies a gateway knows: an explicit list. A later entry replaces an earlier one of its name.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Vec<KindEntry>,
    policies: Vec<PolicyEntry>,
}

impl Registry {
    /// Adds a kind.
    #[must_use]
    pub fn kind<K: Kind>(mut self) -> Self {
        self.kinds.retain(|entry| entry.name != K::NAME);
        self.kinds.push(KindEntry {
            name: K::NAME,
            keeps: K::KEEPS,
            decode: decode_kind::<K>,
            schema: |g| g.subschema_for::<K::Config>(),
        });
        self
    }

    /// Adds a policy.
    #[must_use]
    pub fn policy<P: PolicyKind>(mut self) -> Self {
        self.policies.retain(|entry| entry.name != P::NAME);
        self.policies.push(PolicyEntry {
            name: P::NAME,
            decode: decode_policy::<P>,
            schema: |g| g.subschema_for::<P::Config>(),
        });
        self
    }

    /// Adds everything of another registry.
    #[must_use]
    pub fn merge(mut self, other: Registry) -> Self {
        self.kinds
            .retain(|entry| other.find_kind(entry.name).is_none());
        self.policies
            .retain(|entry| other.find_policy(entry.name).is_none());
        self.kinds.extend(other.kinds);
        self.policies.extend(other.policies);
        self
    }

    /// All kinds, in the order they were added.
    pub fn kinds(&self) -> &[KindEntry] {
        &self.kinds
    }

    /// All policies, in the order they were added.
    pub fn policies(&self) -> &[PolicyEntry] {
        &self.policies
    }

    /// The kind of this name.
    pub fn find_kind(&self, name: &str) -> Option<&KindEntry> {
        self.kinds.iter().find(|entry| entry.name == name)
    }

    /// The policy of this name.
    pub fn find_policy(&self, name: &str) -> Option<&PolicyEntry> {
        self.policies.iter().find(|entry| entry.name == name)
    }
}

fn decode_kind<K: Kind>(
    from: &mut dyn erased_serde::Deserializer<'_>,
) -> Result<Arc<dyn BoundKind>, erased_serde::Error> {
    Ok(Arc::new(KindBlock::<K>(erased_serde::deserialize(from)?)))
}

fn decode_policy<P: PolicyKind>(
    from: &mut dyn erased_serde::Deserializer<'_>,
) -> Result<Arc<dyn BoundPolicy>, erased_serde::Error> {
    Ok(Arc::new(PolicyBlock::<P>(erased_serde::deserialize(from)?)))
}

struct KindBlock<K: Kind>(K::Config);

impl<K: Kind> Debug for KindBlock<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", K::NAME, self.0)
    }
}

impl<K: Kind> BoundKind for KindBlock<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn policy(&self) -> &'static str {
        K::POLICY
    }

    fn keeps(&self) -> bool {
        K::KEEPS
    }

    fn slots(&self) -> u32 {
        K::SLOTS
    }

    fn repeats(&self) -> bool {
        K::REPEATS
    }

    fn same(&self, other: &dyn BoundKind) -> bool {
        other
            .config()
            .downcast_ref::<K::Config>()
            .is_some_and(|theirs| K::NAME == other.name() && *theirs == self.0)
    }

    fn build(&self, prior: Option<Arc<dyn Service>>) -> Result<Arc<dyn Service>, String> {
        let prior = prior.and_then(|service| {
            let any: Arc<dyn Any + Send + Sync> = service;
            any.downcast::<K>().ok()
        });
        Ok(Arc::new(K::new(self.0.clone(), prior)?))
    }

    fn config(&self) -> &dyn Any {
        &self.0
    }
}

struct PolicyBlock<P: PolicyKind>(P::Config);

impl<P: PolicyKind> Debug for PolicyBlock<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", P::NAME, self.0)
    }
}

impl<P: PolicyKind> BoundPolicy for PolicyBlock<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn same(&self, other: &dyn BoundPolicy) -> bool {
        other
            .config()
            .downcast_ref::<P::Config>()
            .is_some_and(|theirs| P::NAME == other.name() && *theirs == self.0)
    }

    fn build(&self) -> Result<Arc<dyn Policy>, String> {
        Ok(Arc::new(P::new(self.0.clone())?))
    }

    fn config(&self) -> &dyn Any {
        &self.0
    }
}
