//! The key chains that this node holds, and what they say of keys.
//!
//! A chain overrules what is known of its root; two chains that deny each other
//! are a conflict, of which the first seen goes on counting and both are kept,
//! as proof (spec/directory §2).

use std::collections::BTreeMap;
use std::time::Duration;

use homehost_protocol::chain::Relation;
use homehost_protocol::validate::KeyState;
use homehost_protocol::{Chain, KeyChains, RecId, RootId, UnixMillis};

use super::pace::{Bucket, Pace};
use super::{Moment, Refusal};

/// Chains kept of roots whose rows are not here and that were only born. They
/// help who lost a disk to find their root; the oldest go first.
const BORN_STRANGERS_MAX: usize = 4096;

/// Chains kept of roots whose rows are not here and whose keys have changed. The
/// last to come go first: forgetting one makes an ended key good again.
const CHANGED_STRANGERS_MAX: usize = 16_384;

/// Chains that may come before it is looked whether there are too many.
const UNTRIMMED_MAX: usize = 1024;

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
    /// The order in which roots' first chains came here.
    since: u64,
}

/// All chains by root.
#[derive(Debug, Default)]
pub(super) struct ChainBook {
    held: BTreeMap<RootId, Keys>,
    /// How many roots' first chains have come, for their order.
    came: u64,
    untrimmed: usize,
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
        now: Moment,
    ) -> Result<Learned, Refusal> {
        let root = new.chain.root();
        let Some(keys) = self.held.get_mut(&root) else {
            self.came += 1;
            self.untrimmed += 1;
            self.held.insert(root, Keys { standing: new, rival: None, since: self.came });
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
                    now.wall,
                )?;
                if !standing.pace.take(CHAIN_PACE, now.mono) && !own {
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
                // Of many rivals, each lower than the one before, only a few
                // are worth passing on.
                if keys.rival.is_some() && !keys.standing.pace.take(CHAIN_PACE, now.mono) && !own {
                    return Err(Refusal::Pace);
                }
                keys.rival = Some(new);
                Ok(Learned::Rival)
            }
        }
    }

    /// Drops chains of roots without a row: those that are over, and those that
    /// are too many. Returns whose, and their records.
    pub(super) fn trim(
        &mut self,
        now: UnixMillis,
        has_row: impl Fn(&RootId) -> bool,
    ) -> Vec<(RootId, Vec<RecId>)> {
        let (mut born, mut changed, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (root, keys) in self.held.iter().filter(|(root, _)| !has_row(root)) {
            if keys.standing.expires <= now {
                over.push(*root);
            } else if keys.standing.chain.is_just_born() {
                born.push((keys.standing.issued, *root));
            } else {
                changed.push((keys.since, *root));
            }
        }
        // A root that was only born proves itself without its chain.
        born.sort_unstable();
        let surplus = born.len().saturating_sub(BORN_STRANGERS_MAX);
        over.extend(born.into_iter().take(surplus).map(|(_, root)| root));
        // What took a key back must not be pushed out by later ones, or the key
        // would be good again.
        changed.sort_unstable();
        over.extend(changed.into_iter().skip(CHANGED_STRANGERS_MAX).map(|(_, root)| root));
        self.untrimmed = 0;
        let records = |keys: Keys| {
            [Some(keys.standing), keys.rival]
                .into_iter()
                .flatten()
                .map(|held| held.rec_id)
                .collect()
        };
        let gone = over.into_iter();
        gone.filter_map(|root| self.held.remove(&root).map(|keys| (root, records(keys)))).collect()
    }

    /// Whether many chains came since the last trim.
    pub(super) fn wants_trim(&self) -> bool {
        self.untrimmed >= UNTRIMMED_MAX
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
