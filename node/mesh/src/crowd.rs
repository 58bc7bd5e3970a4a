//! How many connections one address may open to us (spec/mesh §7).
//!
//! Ids cost nothing: without this, one machine takes every place of a node with
//! a fresh id for each. [`Crowd`] counts, without socket or clock; [`Behaviour`]
//! asks it. It never judges connections that we open ourselves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use homehost_protocol::Scope;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

/// Connections from one address, a /32 of IPv4 or a /64 of IPv6: more than the
/// machines of a house that play at once.
pub(crate) const PER_ADDRESS_MAX: u32 = 8;

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Crowded {
    /// The address has its share of the connections.
    #[error("too many connections from one address")]
    Address,
    /// The block has its share of those that are being made.
    #[error("too many half-open connections from one block of addresses")]
    Block,
}

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// What counts as one block: a /24 of IPv4, a /48 of IPv6, as one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Block {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Source {
    /// This machine has one address for any number of nodes.
    pub(crate) fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if Scope::of(ip) == Scope::Loopback => None,
            IpAddr::V4(ip) => Some(Self::V4(ip.octets())),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Some(Self::V6([a, b, c, d, e, f, g, h]))
            }
        }
    }

    /// The block that it is in.
    pub(crate) fn block(self) -> Block {
        match self {
            Self::V4([a, b, c, _]) => Block::V4([a, b, c]),
            Self::V6([a, b, c, d, e, f, _, _]) => Block::V6([a, b, c, d, e, f]),
        }
    }
}

/// Counts connections that others open, by where they come from.
///
/// Its maps hold a connection each at most, so the limits of the connections
/// (`behaviour.rs`) bound them too.
#[derive(Debug)]
pub(crate) struct Crowd<Id> {
    pending_max: u32,
    pending: HashMap<Id, Source>,
    pending_of: HashMap<Block, u32>,
    open: HashMap<Id, Source>,
    open_of: HashMap<Source, u32>,
}

impl<Id: Copy + Eq + std::hash::Hash> Crowd<Id> {
    /// A block may have `pending_max` half-open connections.
    pub(crate) fn new(pending_max: u32) -> Self {
        Self {
            pending_max,
            pending: HashMap::new(),
            pending_of: HashMap::new(),
            open: HashMap::new(),
            open_of: HashMap::new(),
        }
    }

    /// A connection is being made.
    ///
    /// # Errors
    /// It must not be, and is not counted.
    pub(crate) fn begin(&mut self, id: Id, from: IpAddr) -> Result<(), Crowded> {
        let Some(source) = Source::of(from) else { return Ok(()) };
        self.has_room(source)?;
        let count = self.pending_of.entry(source.block()).or_default();
        if *count >= self.pending_max {
            return Err(Crowded::Block);
        }
        *count += 1;
        self.pending.insert(id, source);
        Ok(())
    }

    /// A connection is made: it is no longer half-open, and [`Self::opened`] or
    /// [`Self::ended`] follows.
    ///
    /// # Errors
    /// Others of its address were faster.
    pub(crate) fn ready(&mut self, id: Id, from: IpAddr) -> Result<(), Crowded> {
        self.no_longer_pending(id);
        Source::of(from).map_or(Ok(()), |source| self.has_room(source))
    }

    /// A connection was let in.
    pub(crate) fn opened(&mut self, id: Id, from: IpAddr) {
        self.no_longer_pending(id);
        if let Some(source) = Source::of(from)
            && self.open.insert(id, source).is_none()
        {
            *self.open_of.entry(source).or_default() += 1;
        }
    }

    /// A connection has ended, or came to nothing.
    pub(crate) fn ended(&mut self, id: Id) {
        self.no_longer_pending(id);
        if let Some(source) = self.open.remove(&id) {
            subtract(&mut self.open_of, source);
        }
    }

    fn has_room(&self, source: Source) -> Result<(), Crowded> {
        match self.open_of.get(&source) {
            Some(count) if *count >= PER_ADDRESS_MAX => Err(Crowded::Address),
            _ => Ok(()),
        }
    }

    fn no_longer_pending(&mut self, id: Id) {
        if let Some(source) = self.pending.remove(&id) {
            subtract(&mut self.pending_of, source.block());
        }
    }
}

fn subtract<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Denies connections by [`Crowd`].
#[derive(Debug)]
pub(crate) struct Behaviour(Crowd<ConnectionId>);

impl Behaviour {
    /// With as many places for half-open connections as there are in all.
    pub(crate) fn new(pending: u32) -> Self {
        Self(Crowd::new((pending / 2).max(1)))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(ip) = crate::scope::ip_of(remote) else { return Ok(()) };
        self.0.begin(connection, ip).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(ip) = crate::scope::ip_of(remote) {
            self.0.ready(connection, ip).map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) if event.endpoint.is_listener() => {
                if let Some(ip) = crate::scope::ip_of(event.endpoint.get_remote_address()) {
                    self.0.opened(event.connection_id, ip);
                }
            }
            FromSwarm::ConnectionClosed(event) => self.0.ended(event.connection_id),
            FromSwarm::ListenFailure(event) => self.0.ended(event.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const PENDING_MAX: u32 = 16;

    #[test]
    fn one_address_has_its_share_and_others_theirs() {
        let mut crowd = Crowd::new(PENDING_MAX);
        let [one, other] = ["9.9.9.9", "9.9.9.10"].map(|ip| ip.parse().unwrap());
        for id in 0..PER_ADDRESS_MAX {
            crowd.begin(id, one).unwrap();
            crowd.ready(id, one).unwrap();
            crowd.opened(id, one);
        }
        assert_eq!(crowd.begin(100, one), Err(Crowded::Address));
        assert_eq!(crowd.begin(100, "::ffff:9.9.9.9".parse().unwrap()), Err(Crowded::Address));
        assert_eq!(crowd.begin(101, other), Ok(()));
        crowd.ended(3);
        assert_eq!(crowd.begin(102, one), Ok(()));
    }

    #[test]
    fn who_begins_many_at_once_gets_no_more() {
        let mut crowd = Crowd::new(PENDING_MAX);
        let ip = "2a01:4f8:0:1::7".parse().unwrap();
        let begun: Vec<_> = (0..100).filter(|id| crowd.begin(*id, ip).is_ok()).collect();
        assert_eq!(begun.len(), PENDING_MAX as usize);
        let let_in = begun.iter().filter(|id| {
            let ready = crowd.ready(**id, "2a01:4f8:0:1::8".parse().unwrap()).is_ok();
            if ready {
                crowd.opened(**id, ip);
            }
            ready
        });
        assert_eq!(let_in.count(), PER_ADDRESS_MAX as usize);
        assert!(crowd.pending.is_empty() && crowd.pending_of.is_empty());
        assert_eq!(crowd.begin(100, "2a01:4f8:0:2::7".parse().unwrap()), Ok(()), "another /64");
    }

    #[test]
    fn this_machine_is_exempt() {
        let mut crowd = Crowd::new(1);
        for id in 0..100 {
            let ip = if id % 2 == 0 { "127.0.0.1" } else { "::1" }.parse().unwrap();
            assert_eq!(crowd.begin(id, ip), Ok(()));
            assert_eq!(crowd.ready(id, ip), Ok(()));
            crowd.opened(id, ip);
        }
        assert!(crowd.open.is_empty());
    }

    #[test]
    fn seeded_crowds_keep_within_the_shares_and_leave_nothing_behind() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut crowd = Crowd::new(PENDING_MAX);
            let (mut pending, mut open) = (BTreeMap::new(), BTreeMap::new());
            for id in 0..400 {
                let ip: IpAddr = match random.u8(0..3) {
                    0 => Ipv6Addr::new(0x2a01, 0, 0, random.u16(0..3), 0, 0, 0, id).into(),
                    _ => Ipv4Addr::new(9, 9, random.u8(0..2), random.u8(0..4)).into(),
                };
                if crowd.begin(id, ip).is_ok() {
                    pending.insert(id, ip);
                }
                for (id, ip) in pending.clone() {
                    match random.u8(0..8) {
                        0 => crowd.ended(id),
                        1 if crowd.ready(id, ip).is_ok() => {
                            crowd.opened(id, ip);
                            open.insert(id, ip);
                        }
                        1 => crowd.ended(id),
                        _ => continue,
                    }
                    pending.remove(&id);
                }
                for id in open.keys().copied().collect::<Vec<_>>() {
                    if random.u8(0..40) == 0 {
                        crowd.ended(id);
                        open.remove(&id);
                    }
                }
                let mut of: HashMap<_, u32> = HashMap::new();
                for ip in pending.values() {
                    *of.entry(Source::of(*ip).unwrap().block()).or_default() += 1;
                }
                assert_eq!(of, crowd.pending_of, "seed {seed}");
                assert!(of.values().all(|count| *count <= PENDING_MAX), "seed {seed}");
                let mut of: HashMap<_, u32> = HashMap::new();
                for ip in open.values() {
                    *of.entry(Source::of(*ip).unwrap()).or_default() += 1;
                }
                assert_eq!(of, crowd.open_of, "seed {seed}");
                assert!(of.values().all(|count| *count <= PER_ADDRESS_MAX), "seed {seed}");
            }
            for id in 0..400 {
                crowd.ended(id);
            }
            assert!(crowd.pending_of.is_empty() && crowd.open_of.is_empty(), "seed {seed}");
            assert!(crowd.pending.is_empty() && crowd.open.is_empty(), "seed {seed}");
        }
    }
}
