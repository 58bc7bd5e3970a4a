//! Through which relays others find us: a core without clock, socket or
//! randomness (spec/mesh §13).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, PeerId};

use crate::RelayState;
use crate::diversity::AddressBlock;

/// Relays that are held: when one goes, others still find us through the second.
pub(crate) const RELAYS_WANTED: usize = 2;
/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// First and longest pause before a relay that failed is asked again.
const AGAIN_FIRST: Duration = Duration::from_secs(20);
const AGAIN_MOST: Duration = Duration::from_secs(1800);
/// How long a reservation holds that libp2p's relay gave, unless it is renewed;
/// the client renews it in time.
const RESERVED_FOR: Duration = Duration::from_secs(3600);
/// Relays that failed and are remembered.
const REMEMBERED_MAX: usize = 64;

/// A peer that offers to relay, to which we have a direct connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Who.
    pub(crate) peer: PeerId,
    /// Where we reach it.
    pub(crate) address: Multiaddr,
    /// The block of its address; a name has none.
    pub(crate) block: Option<AddressBlock>,
    /// Whether it is a bootstrap node, whose business it is.
    pub(crate) bootstrap: bool,
}

/// One relay that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// How it stands.
    pub(crate) state: RelayState,
    /// When it was asked, promised, or failed.
    pub(crate) at: Instant,
    /// Why it does not forward.
    pub(crate) problem: Option<String>,
    block: Option<AddressBlock>,
    listener: Option<ListenerId>,
    failures: u32,
}

impl Asked {
    /// When the reservation ends unless it is renewed.
    pub(crate) fn expires(&self) -> Option<Instant> {
        (self.state == RelayState::Reserved).then(|| self.at + RESERVED_FOR)
    }

    fn again_at(&self) -> Instant {
        let times = 1 << self.failures.saturating_sub(1).min(10);
        self.at + (AGAIN_FIRST * times).min(AGAIN_MOST)
    }

    fn is_open(&self) -> bool {
        self.state != RelayState::Failed
    }
}

/// Decides which relays are asked.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    wanted: bool,
    asked: BTreeMap<PeerId, Asked>,
}

impl Relays {
    /// Whether we need any. Those that are held stay, they cost nothing.
    pub(crate) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Relays to ask now, of those that offer it: bootstrap nodes first, and of
    /// different networks if possible.
    pub(crate) fn due(&mut self, offers: &[Offer], now: Instant) -> Vec<Offer> {
        for asked in self.asked.values_mut() {
            if asked.state == RelayState::Trying && now >= asked.at + PATIENCE {
                asked.fail("it did not answer".into(), now);
            }
        }
        if !self.wanted {
            return Vec::new();
        }
        let mut chosen: Vec<Offer> = Vec::new();
        let open = self.asked.values().filter(|asked| asked.is_open()).count();
        let mut left: Vec<_> = offers.iter().filter(|offer| self.may_ask(offer, now)).collect();
        for _ in open..RELAYS_WANTED {
            let held = |offer: &Offer| {
                let blocks = self.asked.values().filter(|a| a.is_open()).map(|a| a.block);
                let mut blocks = blocks.chain(chosen.iter().map(|chosen| chosen.block));
                offer.block.is_some() && blocks.any(|block| block == offer.block)
            };
            let failures = |o: &Offer| self.asked.get(&o.peer).map_or(0, |asked| asked.failures);
            let best = left
                .iter()
                .enumerate()
                .min_by_key(|(_, o)| (held(o), failures(o), !o.bootstrap, o.peer))
                .map(|(index, _)| index);
            let Some(index) = best else { break };
            chosen.push(left.swap_remove(index).clone());
        }
        chosen
    }

    fn may_ask(&self, offer: &Offer, now: Instant) -> bool {
        self.asked.get(&offer.peer).is_none_or(|asked| !asked.is_open() && now >= asked.again_at())
    }

    /// When [`Self::due`] wants to be asked next, whoever offers then. A relay that
    /// may be asked again and is not waits for a place, or for an offer.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let waits = self.asked.values().filter_map(|asked| match asked.state {
            RelayState::Trying => Some(asked.at + PATIENCE),
            RelayState::Failed if self.wanted => Some(asked.again_at()),
            RelayState::Failed | RelayState::Reserved => None,
        });
        waits.filter(|at| *at > now).min()
    }

    /// A relay was asked.
    pub(crate) fn asked(&mut self, offer: &Offer, listener: ListenerId, now: Instant) {
        let failures = self.asked.get(&offer.peer).map_or(0, |asked| asked.failures);
        if self.asked.len() >= REMEMBERED_MAX {
            let failed = self.asked.iter().filter(|(_, asked)| !asked.is_open());
            if let Some(oldest) = failed.min_by_key(|(_, asked)| asked.at).map(|(peer, _)| *peer) {
                self.asked.remove(&oldest);
            }
        }
        let asked = Asked {
            state: RelayState::Trying,
            at: now,
            problem: None,
            block: offer.block,
            listener: Some(listener),
            failures,
        };
        self.asked.insert(offer.peer, asked);
    }

    /// A relay forwards to us, for another hour.
    pub(crate) fn accepted(&mut self, peer: &PeerId, now: Instant) {
        if let Some(asked) = self.asked.get_mut(peer) {
            (asked.state, asked.at) = (RelayState::Reserved, now);
            (asked.problem, asked.failures) = (None, 0);
        }
    }

    /// A relay does not, or no longer, forward to us.
    pub(crate) fn closed(&mut self, listener: ListenerId, problem: String, now: Instant) {
        let of = |asked: &&mut Asked| asked.listener == Some(listener);
        if let Some(asked) = self.asked.values_mut().find(of) {
            asked.fail(problem, now);
        }
    }

    /// The machine slept or changed its network: nobody is held to an old
    /// failure.
    pub(crate) fn shaken(&mut self) {
        self.asked.retain(|_, asked| asked.is_open());
    }

    /// Whether this peer relays for us.
    pub(crate) fn holds(&self, peer: &PeerId) -> bool {
        self.asked.get(peer).is_some_and(Asked::is_open)
    }

    /// All that were asked.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&PeerId, &Asked)> {
        self.asked.iter()
    }
}

impl Asked {
    fn fail(&mut self, problem: String, now: Instant) {
        // One that held for long may be back at once.
        self.failures = self.failures.saturating_add(1);
        (self.state, self.at) = (RelayState::Failed, now);
        (self.problem, self.listener) = (Some(problem), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(ip: &str, bootstrap: bool) -> Offer {
        let address: Multiaddr = format!("/ip4/{ip}/tcp/4001").parse().unwrap();
        let block = AddressBlock::of(ip.parse().unwrap());
        Offer { peer: PeerId::random(), address, block, bootstrap }
    }

    #[test]
    fn two_are_asked_bootstrap_nodes_first_and_of_two_networks() {
        let now = Instant::now();
        let host = offer("6.6.6.6", false);
        let boots = [offer("9.9.9.9", true), offer("9.9.1.1", true), offer("8.8.8.8", true)];
        let mut relays = Relays::default();
        let offers = [vec![host.clone()], boots.to_vec()].concat();
        assert_eq!(relays.due(&offers, now), [], "none is wanted");
        relays.want(true);
        let due = relays.due(&offers, now);
        assert_eq!(due.len(), 2);
        assert!(due.iter().all(|o| o.bootstrap) && due[0].block != due[1].block);
        assert_eq!(relays.due(std::slice::from_ref(&host), now), std::slice::from_ref(&host));
    }

    #[test]
    fn one_that_fails_is_replaced_and_asked_again_ever_more_rarely() {
        let mut now = Instant::now();
        let offers = [offer("9.9.9.9", true), offer("8.8.8.8", true), offer("6.6.6.6", false)];
        let mut relays = Relays::default();
        relays.want(true);
        let first = relays.due(&offers, now);
        for offer in &first {
            relays.asked(offer, ListenerId::next(), now);
        }
        assert_eq!(relays.due(&offers, now), []);
        relays.accepted(&first[0].peer, now);
        now += PATIENCE;
        let due = relays.due(&offers, now);
        assert_eq!(due.len(), 1, "the silent one is given up");
        assert!(!due[0].bootstrap);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            relays.asked(&first[1], ListenerId::next(), now);
            now += PATIENCE;
            relays.due(&[], now);
            let next = relays.next(now).unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses.is_sorted() && pauses.last() == Some(&AGAIN_MOST), "{pauses:?}");
        assert!(relays.holds(&first[0].peer) && !relays.holds(&first[1].peer));
    }

    /// A clock that is always due would keep the node from everything else.
    #[test]
    fn one_that_may_be_asked_again_and_is_not_there_is_not_waited_for() {
        let mut now = Instant::now();
        let offers = [offer("9.9.9.9", true), offer("8.8.8.8", true)];
        let mut relays = Relays::default();
        relays.want(true);
        for offer in relays.due(&offers, now) {
            relays.asked(&offer, ListenerId::next(), now);
        }
        now += PATIENCE;
        relays.due(&[], now);
        now = relays.next(now).unwrap();
        assert_eq!(relays.due(&[], now), []);
        assert_eq!(relays.next(now), None);
        assert_eq!(relays.due(&offers, now).len(), 2, "it comes back");
    }

    #[test]
    fn one_that_goes_is_replaced_at_once_by_another() {
        let now = Instant::now();
        let offers = [offer("9.9.9.9", true), offer("8.8.8.8", true), offer("6.6.6.6", false)];
        let mut relays = Relays::default();
        relays.want(true);
        let listeners: Vec<_> = relays
            .due(&offers, now)
            .iter()
            .map(|offer| {
                let listener = ListenerId::next();
                relays.asked(offer, listener, now);
                relays.accepted(&offer.peer, now);
                listener
            })
            .collect();
        relays.closed(listeners[0], "gone".into(), now);
        assert_eq!(relays.due(&offers, now), [offers[2].clone()]);
    }
}
