//! The key chains that this node holds, and what they say of keys.
//!
//! A chain overrules what is known of its root; two chains that deny each other
//! are a conflict, of which the first seen goes on counting and both are kept,
//! as proof (spec/directory §2).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use homehost_protocol::chain::Relation;
use homehost_protocol::validate::KeyState;
use homehost_protocol::{Chain, KeyChains, RecId, RootId, UnixMillis};

use super::Refusal;
use super::pace::{Bucket, Pace};

/// Chains kept of roots whose rows are not here. They come with rows, by the
/// DHT and by reconciliation in any order; a flood of them pushes out its own.
const STRANGERS_MAX: usize = 4096;

/// A chain as it came.
#[derive(Debug)]
pub(super) struct HeldChain {
    pub(super) chain: Chain,
    pub(super) rec_id: RecId,
    pub(super) seq: u64,
    pub(super) issued: UnixMillis,
    pub(super) expires: UnixMillis,
    pub(super) envelope: Vec<u8>,
    /// When the network last spoke of it; `None` for one from disk.
    pub(super) heard: Option<Duration>,
    /// How often its owner may sign it anew.
    pub(super) pace: Bucket,
}

/// How often an owner may sign the same chain anew: once a week is honest.
pub(super) const CHAIN_PACE: Pace = Pace { burst: 4, every: Duration::from_secs(600) };

/// What is known of one root's keys.
#[derive(Debug)]
struct Keys {
    standing: HeldChain,
    /// A chain that denies the standing one, kept as proof.
    rival: Option<HeldChain>,
}

/// All chains by root.
#[derive(Debug, Default)]
pub(super) struct ChainBook {
    held: BTreeMap<RootId, Keys>,
    /// Roots that had no row when their chain came, oldest first.
    strangers: VecDeque<RootId>,
}

/// What a chain did to the book.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// The root's keys are others now.
    Keys,
    /// The same chain, signed later.
    Fresh,
    /// It denies the standing chain.
    Rival,
}

impl ChainBook {
    /// Takes in a chain.
    ///
    /// # Errors
    /// When it says nothing new.
    pub(super) fn learn(
        &mut self,
        mut new: HeldChain,
        own: bool,
        now: Duration,
    ) -> Result<Learned, Refusal> {
        let root = new.chain.root();
        let Some(keys) = self.held.get_mut(&root) else {
            self.held.insert(root, Keys { standing: new, rival: None });
            return Ok(Learned::Keys);
        };
        let known = keys.standing.rec_id == new.rec_id
            || keys.rival.as_ref().is_some_and(|rival| rival.rec_id == new.rec_id);
        if known {
            return Err(Refusal::Known);
        }
        match new.chain.relation(&keys.standing.chain) {
            Relation::Older => Err(Refusal::Old),
            Relation::Same => {
                let standing = &mut keys.standing;
                super::admission::standing(
                    ((0, standing.seq), standing.rec_id),
                    ((0, new.seq), new.rec_id),
                )?;
                if !standing.pace.take(CHAIN_PACE, now) && !own {
                    return Err(Refusal::Pace);
                }
                new.pace = standing.pace;
                *standing = new;
                Ok(Learned::Fresh)
            }
            Relation::Newer => {
                // A rotation heals a fork of devices; one of epochs stays.
                keys.rival = keys
                    .rival
                    .take()
                    .filter(|rival| rival.chain.relation(&new.chain) == Relation::Conflict);
                keys.standing = new;
                Ok(Learned::Keys)
            }
            // One proof is enough, and all keep the same one.
            Relation::Conflict
                if keys.rival.as_ref().is_some_and(|rival| rival.rec_id < new.rec_id) =>
            {
                Err(Refusal::Old)
            }
            Relation::Conflict => {
                keys.rival = Some(new);
                Ok(Learned::Rival)
            }
        }
    }

    /// Notes that a chain's root has no row here; returns whose chain made way.
    pub(super) fn stranger(
        &mut self,
        root: RootId,
        has_row: impl Fn(&RootId) -> bool,
    ) -> Option<RootId> {
        self.strangers.push_back(root);
        while self.strangers.len() > STRANGERS_MAX {
            let oldest = self.strangers.pop_front()?;
            if !has_row(&oldest) {
                self.held.remove(&oldest);
                return Some(oldest);
            }
        }
        None
    }

    /// Drops the chains that are over, of roots without a row; returns whose.
    pub(super) fn expire(
        &mut self,
        now: UnixMillis,
        has_row: impl Fn(&RootId) -> bool,
    ) -> Vec<RootId> {
        let over: Vec<RootId> = self
            .held
            .iter()
            .filter(|(root, keys)| keys.standing.expires <= now && !has_row(root))
            .map(|(root, _)| *root)
            .collect();
        let strangers = || self.held.iter().filter(|(root, _)| !has_row(root));
        let surplus = strangers().count().saturating_sub(over.len() + STRANGERS_MAX);
        let mut over = over;
        if surplus > 0 {
            // Roots that had a row once; the longest not said anew go first.
            let mut oldest: Vec<_> =
                strangers().map(|(root, keys)| (keys.standing.issued, *root)).collect();
            oldest.sort_unstable();
            over.extend(oldest.into_iter().map(|(_, root)| root).take(surplus));
        }
        for root in &over {
            self.held.remove(root);
        }
        over
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many roots contradict themselves.
    pub(super) fn conflicts(&self) -> usize {
        self.held.values().filter(|keys| keys.rival.is_some()).count()
    }

    /// The standing chain of a root.
    pub(super) fn chain(&self, root: &RootId) -> Option<&Chain> {
        self.held.get(root).map(|keys| &keys.standing.chain)
    }

    /// Whether a root's chains contradict each other.
    pub(super) fn is_in_conflict(&self, root: &RootId) -> bool {
        self.held.get(root).is_some_and(|keys| keys.rival.is_some())
    }

    /// The chain that denies a root's standing one.
    pub(super) fn rival(&self, root: &RootId) -> Option<&Chain> {
        self.held.get(root)?.rival.as_ref().map(|rival| &rival.chain)
    }

    /// The records about a root's keys, the standing chain first.
    pub(super) fn records(&self, root: &RootId) -> impl Iterator<Item = &HeldChain> {
        let keys = self.held.get(root);
        keys.into_iter().flat_map(|keys| [&keys.standing].into_iter().chain(&keys.rival))
    }

    /// All records.
    pub(super) fn all(&self) -> impl Iterator<Item = &HeldChain> {
        self.held.keys().flat_map(|root| self.records(root))
    }
}

impl KeyChains for ChainBook {
    fn signing_key(&self, root: &RootId, key_epoch: u16, dev: u8) -> KeyState {
        let Some(keys) = self.held.get(root) else { return KeyState::Unknown };
        let rival = keys.rival.as_ref().map(|rival| &rival.chain);
        key_state(&keys.standing.chain, rival, key_epoch, dev)
    }
}

/// What a root's chains say of one (epoch, device).
pub(crate) fn key_state(
    standing: &Chain,
    rival: Option<&Chain>,
    key_epoch: u16,
    dev: u8,
) -> KeyState {
    let state = standing.signing_key(key_epoch, dev);
    let Some(rival) = rival else { return state };
    match (state, rival.signing_key(key_epoch, dev)) {
        // The other branch has keys here, so that nobody who passes on its
        // records is to blame.
        (KeyState::Unknown | KeyState::Revoked, KeyState::Valid(_)) => KeyState::Conflict,
        (KeyState::Valid(ours), KeyState::Valid(theirs)) if ours != theirs => {
            KeyState::Contested(ours)
        }
        (state, _) => state,
    }
}
