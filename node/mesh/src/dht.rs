//! What the DHT keeps and what asking it brings (spec/mesh §8).
//!
//! The mesh carries records and never judges them: [`DhtRules`] does, before
//! anything is kept, and again for whatever a search finds.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use homehost_protocol::chain::{Chain, Relation};
use homehost_protocol::{
    KeyChains, NetworkName, NodeId, RecId, Record, RootId, Scope, UnixMillis, dht,
};
use homehost_runtime::wall_ms;
use thiserror::Error;

use crate::AddressBlock;

/// What the mesh has to know of a valid record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhtFacts {
    /// Digest of the envelope.
    pub id: RecId,
    /// Whose statement it is; issuers have quotas.
    pub issuer: RootId,
    /// Key epoch and sequence number: the highest stands.
    pub order: (u16, u64),
    /// When it ceases to hold.
    pub expires: UnixMillis,
    /// The chain, when it is one: of chains, the one that overrules stands.
    pub chain: Option<Chain>,
}

impl DhtFacts {
    /// Whether this record stands when both are about one key (records §11).
    ///
    /// Of chains that contradict each other, the first that came stays.
    pub fn overrules(&self, other: &Self) -> bool {
        let relation = match (&self.chain, &other.chain) {
            (Some(ours), Some(theirs)) => ours.relation(theirs),
            _ => Relation::Same,
        };
        match relation {
            Relation::Newer => true,
            Relation::Older | Relation::Conflict => false,
            Relation::Same if self.order == other.order => self.id < other.id,
            Relation::Same => self.order > other.order,
        }
    }
}

/// Why a value is not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DhtRefusal {
    /// No honest node could have put it there: whoever sent it is to blame.
    #[error("invalid: {0}")]
    Invalid(String),
    /// It does not count here and now; nobody is to blame.
    #[error("not taken: {0}")]
    Ignored(String),
    /// It may hold. The key chain of this root would tell; it is kept under
    /// [`DhtKey::Chain`](homehost_protocol::dht::DhtKey::Chain).
    #[error("the key chain of {0} is not known")]
    NeedChain(RootId),
}

/// Judges the values of the DHT.
///
/// It is asked on the mesh's own task for every value that comes in: an answer
/// takes some hundred microseconds at most, and waits for nothing.
pub trait DhtRules: Send + Sync {
    /// Whether a value may be kept under a key, and what is to be known of it.
    ///
    /// # Errors
    /// See [`DhtRefusal`].
    fn check(&self, key: &[u8], value: &[u8]) -> Result<DhtFacts, DhtRefusal>;

    /// The clock by which records expire.
    fn now(&self) -> UnixMillis {
        UnixMillis(wall_ms())
    }
}

/// Takes nothing, as a bootstrap node does.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRules;

impl DhtRules for NoRules {
    fn check(&self, _: &[u8], _: &[u8]) -> Result<DhtFacts, DhtRefusal> {
        Err(DhtRefusal::Ignored("this node keeps no records".into()))
    }
}

/// The rules of the network: what [`homehost_protocol::dht::check`] says, given
/// the key chains that this node knows.
#[derive(Clone)]
pub struct EnvelopeRules {
    network: NetworkName,
    chains: Arc<dyn KeyChains + Send + Sync>,
}

impl EnvelopeRules {
    /// Rules of a network.
    pub fn new(network: NetworkName, chains: Arc<dyn KeyChains + Send + Sync>) -> Self {
        Self { network, chains }
    }
}

impl DhtRules for EnvelopeRules {
    fn check(&self, key: &[u8], value: &[u8]) -> Result<DhtFacts, DhtRefusal> {
        match dht::check(key, value, &self.network, &*self.chains, self.now()) {
            Ok((_, validated)) => Ok(DhtFacts {
                id: validated.id,
                issuer: validated.header.root,
                order: (validated.header.key_epoch, validated.header.seq),
                expires: validated.header.expires(),
                chain: match &validated.record {
                    Record::KeyChain(body) => Chain::verify(body).ok(),
                    _ => None,
                },
            }),
            // A newer version may keep more kinds than we know.
            Err(error @ dht::DhtError::Key(_)) => Err(DhtRefusal::Ignored(error.to_string())),
            Err(dht::DhtError::Ignored(reason)) => Err(DhtRefusal::Ignored(reason)),
            Err(dht::DhtError::NeedChain(root)) => Err(DhtRefusal::NeedChain(root)),
            Err(dht::DhtError::Invalid(reason)) => Err(DhtRefusal::Invalid(reason)),
            Err(error @ dht::DhtError::OtherKey) => Err(DhtRefusal::Invalid(error.to_string())),
        }
    }
}

/// Is told what the DHT keeps here, so that it survives a restart.
///
/// Called on the mesh's own task for every change, so it must not wait: a write
/// that is flushed within the second, or a bounded queue. What is lost by it,
/// the network gives back.
pub trait DhtKeeper: Send + Sync {
    /// This value is kept under this key from now on.
    fn kept(&self, key: &[u8], value: &[u8]);
    /// Nothing is kept under this key any more.
    fn dropped(&self, key: &[u8]);
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeeper;

impl DhtKeeper for NoKeeper {
    fn kept(&self, _: &[u8], _: &[u8]) {}
    fn dropped(&self, _: &[u8]) {}
}

/// What the mesh needs for keeping records of others.
#[derive(Clone)]
pub struct DhtConfig {
    /// Judges values.
    pub rules: Arc<dyn DhtRules>,
    /// Is told of changes.
    pub keeper: Arc<dyn DhtKeeper>,
    /// What was kept before the restart, as keys and values. Judged anew; what
    /// no longer holds is dropped, and the keeper told so.
    pub held: Vec<(Vec<u8>, Vec<u8>)>,
}

impl DhtConfig {
    /// Keeps what these rules accept, until the next restart.
    pub fn new(rules: Arc<dyn DhtRules>) -> Self {
        Self { rules, keeper: Arc::new(NoKeeper), held: Vec::new() }
    }
}

impl Default for DhtConfig {
    /// Keeps nothing.
    fn default() -> Self {
        Self::new(Arc::new(NoRules))
    }
}

impl fmt::Debug for DhtConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DhtConfig").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// What one peer said when it was asked for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhtVote {
    /// Who.
    pub node: NodeId,
    /// How far away it is; `None` when it has gone meanwhile.
    pub scope: Option<Scope>,
    /// Its block of addresses. None for the near, for those that were reached by
    /// a name, and for those that have gone.
    pub block: Option<AddressBlock>,
    /// Which record it has, if it has one.
    pub rec_id: Option<RecId>,
    /// Whether that is the best one.
    pub agrees: bool,
}

/// What a search for a record brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhtAnswer {
    /// The envelope that stands, of those that hold, here or elsewhere.
    pub best: Option<Vec<u8>>,
    /// What the asked said. Whoever said something invalid is left out.
    pub answers: Vec<DhtVote>,
    /// Roots whose key chains would tell whether an answer holds. Ask for
    /// those, then once more for this.
    pub need_chains: Vec<RootId>,
}

impl DhtAnswer {
    /// How many voices agree with the best. One block of addresses is one
    /// voice, however many peers it has; every near peer is one; all whose
    /// block is not known are one together.
    pub fn voices(&self) -> usize {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Voice {
            Near(NodeId),
            Block(AddressBlock),
            Unknown,
        }
        let voices = self.answers.iter().filter(|vote| vote.agrees).map(|vote| {
            match (vote.scope, vote.block) {
                (Some(Scope::Loopback | Scope::OnLink), _) => Voice::Near(vote.node),
                (_, Some(block)) => Voice::Block(block),
                (_, None) => Voice::Unknown,
            }
        });
        voices.collect::<BTreeSet<_>>().len()
    }
}

/// Why the DHT was not asked, or not told.
#[derive(Debug, Error)]
pub enum DhtError {
    /// The value is not one for this key. Trying again is useless, unless a key
    /// chain is needed.
    #[error(transparent)]
    Refused(#[from] DhtRefusal),
    /// A bootstrap node keeps no records and has none of its own.
    #[error("this node does not take part in keeping records")]
    Role,
    /// Too much is under way already. Try again in a second.
    #[error("too many searches are under way")]
    Busy,
    /// The mesh has stopped.
    #[error("the mesh has stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(n: u8, scope: Scope, ip: &str, agrees: bool) -> DhtVote {
        let block = ip.parse().ok().and_then(AddressBlock::of);
        DhtVote { node: NodeId([n; 32]), scope: Some(scope), block, rec_id: None, agrees }
    }

    #[test]
    fn a_block_is_one_voice_and_each_near_peer_is_one() {
        let answers = vec![
            vote(1, Scope::Global, "8.8.1.1", true),
            vote(2, Scope::Global, "8.8.2.2", true),
            vote(3, Scope::Global, "9.9.9.9", true),
            vote(4, Scope::Global, "7.7.7.7", false),
            vote(5, Scope::OnLink, "10.0.0.1", true),
            vote(6, Scope::OnLink, "10.0.0.2", true),
            vote(7, Scope::Global, "by name", true),
            vote(8, Scope::Global, "by name", true),
        ];
        assert_eq!(DhtAnswer { answers, ..DhtAnswer::default() }.voices(), 2 + 2 + 1);
    }

    #[test]
    fn the_higher_order_stands_and_of_equals_the_lower_id() {
        let facts = |id, order| DhtFacts {
            id: RecId([id; 32]),
            issuer: RootId([1; 32]),
            order,
            expires: UnixMillis(9),
            chain: None,
        };
        assert!(facts(9, (1, 0)).overrules(&facts(1, (0, 99))));
        assert!(facts(9, (0, 2)).overrules(&facts(1, (0, 1))));
        assert!(facts(1, (0, 1)).overrules(&facts(9, (0, 1))));
        assert!(!facts(1, (0, 1)).overrules(&facts(1, (0, 1))), "it would be news for ever");
    }
}
