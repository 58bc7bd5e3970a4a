//! Whom the operator keeps out: node ids and blocks of addresses (spec/mesh §2).
//!
//! [`DenyList`] is read from text and asked, without file or clock;
//! [`Behaviour`] refuses connections by it. Who reads the file, and when, is the
//! operator's program's business; what becomes of those who are connected, or
//! known, is the actor's.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use homehost_protocol::NodeId;
use ipnet::IpNet;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use crate::node_id::node_of;
use crate::scope;

/// Entries of a list: about 4 MB in memory. Lists that are shared among
/// operators have some ten thousand.
const ENTRIES_MAX: usize = 65_536;

/// Bytes of a line that an error repeats.
const SHOWN_BYTES_MAX: usize = 60;

/// One thing on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// A node, wherever it is.
    Node(NodeId),
    /// A block of addresses, whoever is there.
    Block(IpNet),
}

/// Why a text is no list of whom to keep out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DenyError {
    /// A line is no entry.
    #[error("line {line}: {text:?} {why}")]
    Line {
        /// Its number; the first is 1.
        line: usize,
        /// How it begins.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There are too many.
    #[error("there are more than {ENTRIES_MAX} entries; join neighbouring addresses to prefixes")]
    TooMany,
}

impl std::str::FromStr for Denied {
    type Err = &'static str;

    /// A node id, an address, or a prefix as in `198.51.100.0/24`.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(node) = text.parse() {
            return Ok(Self::Node(node));
        }
        let block = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Ok(block), _) => block,
            (_, Ok(ip)) => IpNet::from(ip.to_canonical()),
            _ => {
                return Err("is no node id (12D3KooW…), no IP address, and no prefix of \
                     addresses as in 198.51.100.0/24");
            }
        };
        if block.prefix_len() == 0 {
            return Err("would keep everybody out; stop the node instead");
        }
        Ok(Self::Block(block.trunc()))
    }
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Block(block) if block.prefix_len() == block.max_prefix_len() => {
                block.addr().fmt(f)
            }
            Self::Block(block) => block.fmt(f),
        }
    }
}

/// Whom a node neither lets in, nor dials, nor names to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    nodes: HashSet<NodeId>,
    blocks: HashSet<IpNet>,
    /// The lengths of prefixes among them, so that one look-up each will do.
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
}

impl DenyList {
    /// Reads a list: an entry on each line, and words after `#`.
    ///
    /// # Errors
    /// The first line that is no entry: nothing of such a list holds.
    pub fn parse(text: &str) -> Result<Self, DenyError> {
        let mut list = Self::default();
        for (at, line) in text.lines().enumerate() {
            let entry = entry_of(line);
            if entry.is_empty() {
                continue;
            }
            let denied = entry.parse().map_err(|why| {
                let shown = &entry[..entry.floor_char_boundary(SHOWN_BYTES_MAX)];
                DenyError::Line { line: at + 1, text: shown.to_owned(), why }
            })?;
            list.insert(denied);
            if list.len() > ENTRIES_MAX {
                return Err(DenyError::TooMany);
            }
        }
        Ok(list)
    }

    fn insert(&mut self, denied: Denied) {
        match denied {
            Denied::Node(node) => {
                self.nodes.insert(node);
            }
            Denied::Block(block) => {
                match block {
                    IpNet::V4(_) => self.v4_lengths.insert(block.prefix_len()),
                    IpNet::V6(_) => self.v6_lengths.insert(block.prefix_len()),
                };
                self.blocks.insert(block);
            }
        }
    }

    /// How many entries there are; the same one twice counts once.
    pub fn len(&self) -> usize {
        self.nodes.len() + self.blocks.len()
    }

    /// Whether it keeps nobody out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has this very entry.
    pub fn has(&self, denied: Denied) -> bool {
        match denied {
            Denied::Node(node) => self.denies_node(node),
            Denied::Block(block) => self.blocks.contains(&block),
        }
    }

    /// Whether a node is kept out.
    pub fn denies_node(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    /// Whether whoever is at this address is kept out.
    pub fn denies_ip(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let lengths = if ip.is_ipv4() { &self.v4_lengths } else { &self.v6_lengths };
        lengths.iter().any(|length| {
            IpNet::new(ip, *length).is_ok_and(|block| self.blocks.contains(&block.trunc()))
        })
    }

    pub(crate) fn denies_peer(&self, peer: &PeerId) -> bool {
        node_of(peer).is_some_and(|node| self.denies_node(node))
    }

    pub(crate) fn denies_address(&self, address: &Multiaddr) -> bool {
        scope::ip_of(address).is_some_and(|ip| self.denies_ip(ip))
    }
}

/// What a line says, without words after `#`.
fn entry_of(line: &str) -> &str {
    line.split('#')
        .next()
        .unwrap_or_default()
        .trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// A list's text with one more entry at its end.
pub fn with_entry(text: &str, denied: Denied) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{denied}\n")
}

/// A list's text without the lines that are this very entry, and how many they
/// were. Everything else stays as the operator wrote it.
pub fn without_entry(text: &str, denied: Denied) -> (String, usize) {
    let is_it = |line: &&str| entry_of(line).parse() == Ok(denied);
    let gone = text.lines().filter(is_it).count();
    let kept = text.split_inclusive('\n').filter(|line| !is_it(line));
    (kept.collect(), gone)
}

/// The list that holds at the moment; shared by the transport, the behaviour
/// and the actor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deny(Arc<RwLock<Arc<DenyList>>>);

impl Deny {
    pub(crate) fn new(list: DenyList) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(list))))
    }

    pub(crate) fn list(&self) -> Arc<DenyList> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, list: DenyList) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }
}

/// Why a connection is not made: the operator says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the operator keeps it out")]
pub(crate) struct KeptOut;

/// Refuses connections by the list.
#[derive(Debug)]
pub(crate) struct Behaviour(Deny);

impl Behaviour {
    pub(crate) fn new(deny: Deny) -> Self {
        Self(deny)
    }

    fn judge(
        &self,
        peer: Option<PeerId>,
        address: Option<&Multiaddr>,
    ) -> Result<(), ConnectionDenied> {
        let list = self.0.list();
        let denied = peer.is_some_and(|peer| list.denies_peer(&peer))
            || address.is_some_and(|address| list.denies_address(address));
        if denied { Err(ConnectionDenied::new(KeptOut)) } else { Ok(()) }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.judge(None, Some(remote))
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.judge(Some(peer), Some(remote)).map(|()| dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.judge(peer, None).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.judge(Some(peer), Some(address)).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

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
mod tests;
