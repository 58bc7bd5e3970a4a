//! A root's keys change: what was signed with ended keys goes, what waited for
//! new ones comes in (spec/directory §2).

use homehost_protocol::validate::KeyState;
use homehost_protocol::{Chain, KeyChain, KeyChains, RootId, Validated};

use super::chains::{CHAIN_PACE, HeldChain, Learned};
use super::pace::Bucket;
use super::{Directory, Held, Moment, Output, Refusal, Source, row};

impl Directory {
    /// The standing key chain of a root, if it is here.
    pub fn chain(&self, root: &RootId) -> Option<&Chain> {
        self.chains.chain(root)
    }

    /// Whether a root's key chains contradict each other.
    pub fn is_in_conflict(&self, root: &RootId) -> bool {
        self.chains.is_in_conflict(root)
    }

    /// The roots whose chains are here.
    pub fn chain_roots(&self) -> Vec<RootId> {
        self.chains.all().map(|held| held.chain.root()).collect()
    }

    /// The standing chain of a root, and the one that contradicts it.
    pub(crate) fn keys_of(&self, root: &RootId) -> Option<(Chain, Option<Chain>)> {
        self.chain(root).map(|chain| (chain.clone(), self.chains.rival(root).cloned()))
    }

    pub(super) fn admit_chain(
        &mut self,
        bytes: &[u8],
        validated: &Validated,
        body: &KeyChain,
        source: Source,
        now: Moment,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let chain = Chain::verify(body).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let root = chain.root();
        let before: Vec<_> = self.chains.records(&root).map(|held| held.rec_id).collect();
        let new = HeldChain {
            chain,
            rec_id: validated.id,
            seq: validated.header.seq,
            issued: validated.header.issued,
            expires: validated.header.expires(),
            envelope: bytes.to_vec(),
            heard: super::admission::heard_at(source, validated.header.issued, now),
            pace: Bucket::full(CHAIN_PACE, now.mono),
        };
        let learned = self.chains.learn(new, source == Source::Own, now)?;
        for id in &before {
            self.ids.remove(id);
        }
        let held: Vec<_> = self.chains.records(&root).map(|held| held.rec_id).collect();
        for (slot, id) in (0..).zip(held) {
            self.ids.insert(id, Held::Chain(root, slot));
        }
        self.store_chain(root, now, outputs);
        // On disk chains come before the rows that keep them.
        if source != super::admission::DISK && self.chains.wants_trim() {
            self.trim_chains(now, outputs);
        }
        match learned {
            Learned::Fresh => {}
            Learned::Rival => {
                let ids = self.ids_of(&root);
                outputs.extend(ids.into_iter().map(Output::Changed));
                outputs.push(Output::Keys(root));
            }
            Learned::Keys => {
                self.drop_ended(root, outputs);
                outputs.push(Output::Keys(root));
                for penned in self.pen.release(&root) {
                    outputs.extend(self.admit(&penned.bytes, penned.source, now).1);
                }
            }
        }
        Ok(())
    }

    /// Keeps what stands on disk; a rival is found again among peers.
    fn store_chain(&self, root: RootId, now: Moment, outputs: &mut Vec<Output>) {
        if let Some(held) = self.chains.records(&root).next() {
            let stored = row::Stored::new(&held.envelope, now.wall);
            let key = row::chain_key(&self.network, &root);
            outputs.push(Output::Store { key, value: stored.encode() });
        }
    }

    /// Forgets chains of roots without a row, when they are over or too many.
    pub(super) fn trim_chains(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        let roots = &self.roots;
        for (root, records) in self.chains.trim(now.wall, |root| roots.contains_key(root)) {
            for id in records {
                self.ids.remove(&id);
            }
            outputs.push(Output::Forget { key: row::chain_key(&self.network, &root) });
            outputs.push(Output::Keys(root));
        }
    }

    /// Drops everything of a root that a key signed which signs no longer.
    fn drop_ended(&mut self, root: RootId, outputs: &mut Vec<Output>) {
        let ended = |epoch, dev| {
            !matches!(
                self.chains.signing_key(&root, epoch, dev),
                KeyState::Valid(_) | KeyState::Contested(_) | KeyState::Unknown
            )
        };
        let ids = self.ids_of(&root);
        let rows: Vec<_> = ids
            .iter()
            .filter(|id| self.rows.get(id).is_some_and(|r| ended(r.header.key_epoch, r.header.dev)))
            .copied()
            .collect();
        let reach: Vec<_> = ids
            .iter()
            .filter(|id| {
                self.reach.get(id).is_some_and(|r| ended(r.header.key_epoch, r.header.dev))
            })
            .copied()
            .collect();
        // Only this root's: chains come by the thousand, and so do presences.
        let presences: Vec<_> = self
            .devices
            .range((root, 0)..=(root, u8::MAX))
            .filter_map(|device| Some((*device, self.presences.get(device)?)))
            .filter(|(device, presence)| ended(presence.order.0, device.1))
            .map(|(device, presence)| (device, presence.rec_id))
            .collect();
        for (device, rec_id) in presences {
            self.presences.remove(&device);
            self.devices.remove(&device);
            self.ids.remove(&rec_id);
            self.spread_presence(&device);
        }
        for id in reach {
            self.drop_reach(&id, outputs);
        }
        for id in rows {
            self.forget_row(&id, outputs);
        }
    }
}
