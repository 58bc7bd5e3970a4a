//! Which servers were asked for lately: a presence can name servers whose
//! listing nobody has, and every presence would have them asked for again.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use homehost_protocol::ServerId;
use homehost_protocol::limits::RPC_IDS_MAX;

/// Servers that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// How long they are.
const PAUSE: Duration = Duration::from_secs(20);

/// The servers that were asked for a moment ago.
#[derive(Debug, Default)]
pub struct Fetched {
    at: BTreeMap<ServerId, Instant>,
    /// The same, oldest first.
    order: VecDeque<ServerId>,
}

impl Fetched {
    /// Those of them that were not asked for lately, as many as one request
    /// takes.
    pub fn fresh(&mut self, mut ids: Vec<ServerId>, now: Instant) -> Vec<ServerId> {
        while let Some(oldest) = self.order.front()
            && self.at.get(oldest).is_none_or(|at| *at + PAUSE <= now)
        {
            self.forget_oldest();
        }
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !self.at.contains_key(id));
        ids.truncate(RPC_IDS_MAX);
        ids
    }

    /// These are being asked for.
    pub fn asked(&mut self, ids: Vec<ServerId>, now: Instant) {
        for id in ids {
            if self.at.insert(id, now).is_none() {
                self.order.push_back(id);
            }
        }
        while self.order.len() > REMEMBERED_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.at.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> ServerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ServerId(bytes)
    }

    #[test]
    fn a_server_is_asked_for_once_in_a_while() {
        let now = Instant::now();
        let mut fetched = Fetched::default();
        assert_eq!(fetched.fresh(vec![id(2), id(1), id(2)], now), [id(1), id(2)]);
        fetched.asked(vec![id(1)], now);
        assert_eq!(fetched.fresh(vec![id(1), id(2)], now), [id(2)]);
        assert_eq!(fetched.fresh(vec![id(1)], now + PAUSE), [id(1)]);
    }

    #[test]
    fn a_liar_who_names_many_fills_a_bounded_memory_and_a_bounded_request() {
        let now = Instant::now();
        let mut fetched = Fetched::default();
        for n in 0..10_000 {
            fetched.asked(vec![id(n)], now);
            assert!(fetched.at.len() <= REMEMBERED_MAX && fetched.order.len() == fetched.at.len());
        }
        assert_eq!(fetched.fresh((0..1000).map(id).collect(), now).len(), RPC_IDS_MAX);
    }
}
