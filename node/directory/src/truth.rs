//! How true what peers brought turned out to be: the share of the rows first
//! learned from a peer that witnesses proved later (spec/mesh §3).

use std::collections::{BTreeMap, VecDeque};

use homehost_protocol::{NodeId, ServerId};

/// Rows whose outcome is awaited.
const AWAITED_MAX: usize = 4096;

/// Peers that are judged; more than can be connected.
const PEERS_MAX: usize = 1024;

/// Outcomes as if seen before the first: a newcomer is neither good nor bad, and
/// one false row does not condemn.
const PRIOR: f64 = 8.0;

/// Outcomes of one peer after which the old ones are halved, so that nobody
/// lives on an old reputation.
const MEMORY: f64 = 256.0;

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    good: f64,
    bad: f64,
}

impl Record {
    /// The good share, drawn towards what is expected of anybody.
    fn share(self, expected: f64) -> f64 {
        (self.good + PRIOR * expected) / (self.good + self.bad + PRIOR)
    }

    fn add(&mut self, proved: bool) {
        *(if proved { &mut self.good } else { &mut self.bad }) += 1.0;
        if self.good + self.bad > MEMORY {
            self.good /= 2.0;
            self.bad /= 2.0;
        }
    }
}

/// Who brought what, and what became of it.
#[derive(Debug, Default)]
pub struct Truth {
    awaited: BTreeMap<ServerId, NodeId>,
    order: VecDeque<ServerId>,
    peers: BTreeMap<NodeId, Record>,
    all: Record,
}

impl Truth {
    /// A row is new here, and this peer brought it.
    pub fn learned(&mut self, id: ServerId, from: NodeId) {
        if self.awaited.insert(id, from).is_none() {
            self.order.push_back(id);
        }
        // What nobody proved for so long proves nothing either way.
        while self.order.len() > AWAITED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.awaited.remove(&oldest);
            }
        }
    }

    /// A row turned out true, or went without ever having been. Returns whose
    /// reputation that changes, and to what.
    pub fn outcome(&mut self, id: &ServerId, proved: bool) -> Option<(NodeId, f64)> {
        let from = self.awaited.remove(id)?;
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&from) {
            return None;
        }
        let record = self.peers.entry(from).or_default();
        record.add(proved);
        self.all.add(proved);
        Some((from, self.of(&from)))
    }

    /// Whether a row's outcome is awaited.
    pub fn awaits(&self, id: &ServerId) -> bool {
        self.awaited.contains_key(id)
    }

    /// A row went in a way that says nothing.
    pub fn forget(&mut self, id: &ServerId) -> Option<(NodeId, f64)> {
        self.awaited.remove(id);
        None
    }

    /// From 0 to 1; 0.5 is as good as all together. Where most hosts cannot be
    /// reached, nobody is to blame for bringing their rows.
    pub fn of(&self, node: &NodeId) -> f64 {
        let record = self.peers.get(node).copied().unwrap_or_default();
        let all = self.all.share(0.5);
        (0.5 + (record.share(all) - all) / 2.0).clamp(0.0, 1.0)
    }

    /// The truest of these.
    pub fn best<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> Option<NodeId> {
        nodes.copied().max_by(|a, b| self.of(a).total_cmp(&self.of(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> ServerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        ServerId(bytes)
    }

    #[test]
    fn truth_is_the_share_that_was_proved() {
        let (liar, friend) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut truth = Truth::default();
        assert!((truth.of(&liar) - 0.5).abs() < 1e-9);
        for n in 0..100 {
            truth.learned(id(n), if n % 2 == 0 { liar } else { friend });
            truth.outcome(&id(n), n % 2 == 1);
        }
        assert!(truth.of(&liar) < 0.3 && truth.of(&friend) > 0.7);
        assert_eq!(truth.best([&liar, &friend].into_iter()), Some(friend));
        assert_eq!(truth.outcome(&id(1), false), None, "an outcome counts once");
        // Where nobody's rows are proved, nobody is blamed.
        let mut truth = Truth::default();
        for n in 0..400 {
            truth.learned(id(n), if n % 2 == 0 { liar } else { friend });
            truth.outcome(&id(n), false);
        }
        assert!((truth.of(&liar) - 0.5).abs() < 0.05, "{}", truth.of(&liar));
    }

    #[test]
    fn a_flood_of_rows_is_bounded() {
        let mut truth = Truth::default();
        for n in 0..100_000_u32 {
            truth.learned(id(n), NodeId([(n % 251) as u8; 32]));
        }
        assert!(truth.awaited.len() <= AWAITED_MAX && truth.order.len() <= AWAITED_MAX);
    }
}
