//! An invitation: one string that gets anyone into a network (spec/invite).
//!
//! It says which network, and where some of its nodes are. It is made to be
//! copied by hand and by camera: one alphabet, no case, a checksum, and exactly
//! one spelling.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use thiserror::Error;

use crate::address::Scope;
use crate::ids::NodeId;
use crate::limits::{
    INVITE_ADDRESSES_MAX, INVITE_CHARS_MAX, INVITE_NODES_MAX, NAME_OF_HOST_BYTES_MAX,
};
use crate::network::NetworkName;

/// What an invitation of this version begins with. The digit is not of the
/// alphabet that follows.
pub const PREFIX: &str = "homehost1";

/// What every version begins with.
const FAMILY: &str = "homehost";

/// Context of the checksum.
const CONTEXT: &str = "homehost invite 1";

/// Bytes of the checksum: a wrong letter passes once in four billion times.
const CHECKSUM_BYTES: usize = 4;

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// An IP address.
    Ip(IpAddr),
    /// A name that the DNS knows.
    Name(String),
}

/// How a node is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// QUIC, version 1, over UDP.
    Quic,
}

/// Where one node listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteAddress {
    /// Its machine.
    pub place: Place,
    /// Its port.
    pub port: u16,
    /// What is spoken there.
    pub carrier: Carrier,
}

impl InviteAddress {
    /// How far it reaches; a name is taken to be known everywhere.
    pub fn scope(&self) -> Scope {
        match &self.place {
            Place::Ip(ip) => Scope::of(*ip),
            Place::Name(_) => Scope::Global,
        }
    }

    /// The address of a multiaddr such as `/ip4/203.0.113.7/tcp/4001`, with or
    /// without `/p2p/…` at its end; `None` for what an invitation cannot say.
    pub fn of_multiaddr(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('/')?.split('/');
        let (kind, place) = (parts.next()?, parts.next()?);
        let place = match kind {
            "ip4" => Place::Ip(place.parse::<Ipv4Addr>().ok()?.into()),
            "ip6" => Place::Ip(place.parse::<Ipv6Addr>().ok()?.into()),
            "dns" | "dns4" | "dns6" => Place::Name(place.to_ascii_lowercase()),
            _ => return None,
        };
        let (transport, port) = (parts.next()?, parts.next()?);
        let port = port.parse().ok()?;
        let carrier = match transport {
            "tcp" => Carrier::Tcp,
            "udp" if parts.next()? == "quic-v1" => Carrier::Quic,
            _ => return None,
        };
        let rest: Vec<_> = parts.collect();
        let plain = matches!(rest[..], [] | ["p2p", _]);
        let address = Self { place, port, carrier };
        (plain && address.check().is_ok()).then_some(address)
    }

    fn check(&self) -> Result<(), InviteError> {
        let sound = match &self.place {
            Place::Ip(IpAddr::V6(ip)) => ip.to_ipv4_mapped().is_none(),
            Place::Ip(_) => true,
            Place::Name(name) => is_host_name(name),
        };
        if sound && self.port != 0 { Ok(()) } else { Err(InviteError::Damaged) }
    }
}

/// As a multiaddr without a peer id.
impl fmt::Display for InviteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Ip(IpAddr::V4(ip)) => write!(f, "/ip4/{ip}")?,
            Place::Ip(IpAddr::V6(ip)) => write!(f, "/ip6/{ip}")?,
            Place::Name(name) => write!(f, "/dns/{name}")?,
        }
        match self.carrier {
            Carrier::Tcp => write!(f, "/tcp/{}", self.port),
            Carrier::Quic => write!(f, "/udp/{}/quic-v1", self.port),
        }
    }
}

/// One node and where it listens, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteNode {
    /// Who it is.
    pub node: NodeId,
    /// Where it listens.
    pub addresses: Vec<InviteAddress>,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The network.
    pub network: NetworkName,
    /// Nodes of it, best first.
    pub nodes: Vec<InviteNode>,
}

/// Why a text is no invitation, for the person who has it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InviteError {
    /// Something else.
    #[error("this is not an invitation: one begins with {PREFIX}; copy the whole string")]
    NotOne,
    /// Of a version that this program does not know.
    #[error("this invitation was made by a newer program: update HomeHost to use it")]
    Newer,
    /// More than any invitation has.
    #[error(
        "an invitation has at most {INVITE_CHARS_MAX} characters, and this is longer: copy that string alone"
    )]
    TooLong,
    /// Letters were lost or changed.
    #[error("this invitation was not copied whole, or has a wrong letter: ask for it again")]
    Damaged,
}

impl Invite {
    /// Multiaddrs to join at, each with its peer id.
    pub fn multiaddrs(&self) -> Vec<String> {
        let of = |node: &InviteNode| {
            let id = node.node;
            let full = move |address: &InviteAddress| format!("{address}/p2p/{id}");
            node.addresses.iter().map(full).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// The string, in capital letters: a QR code of them is smaller, and either
    /// case is read.
    ///
    /// # Errors
    /// When there is more than an invitation may hold, or nothing.
    pub fn to_capitals(&self) -> Result<String, InviteError> {
        self.check()?;
        let mut bytes = Vec::new();
        let network = self.network.as_str().as_bytes();
        // All lengths are bounded by `check`.
        bytes.push(network.len() as u8);
        bytes.extend_from_slice(network);
        bytes.push(self.nodes.len() as u8);
        for node in &self.nodes {
            bytes.extend_from_slice(&node.node.0);
            bytes.push(node.addresses.len() as u8);
            for address in &node.addresses {
                let quic = u8::from(address.carrier == Carrier::Quic);
                match &address.place {
                    Place::Ip(IpAddr::V4(ip)) => {
                        bytes.push(quic);
                        bytes.extend_from_slice(&ip.octets());
                    }
                    Place::Ip(IpAddr::V6(ip)) => {
                        bytes.push(2 | quic);
                        bytes.extend_from_slice(&ip.octets());
                    }
                    Place::Name(name) => {
                        bytes.push(4 | quic);
                        bytes.push(name.len() as u8);
                        bytes.extend_from_slice(name.as_bytes());
                    }
                }
                bytes.extend_from_slice(&address.port.to_be_bytes());
            }
        }
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let text = PREFIX.to_ascii_uppercase() + &BASE32_NOPAD.encode(&bytes);
        if text.len() > INVITE_CHARS_MAX { Err(InviteError::TooLong) } else { Ok(text) }
    }

    /// The string as it is shown.
    ///
    /// # Errors
    /// As for [`Self::to_capitals`].
    pub fn to_text(&self) -> Result<String, InviteError> {
        Ok(self.to_capitals()?.to_ascii_lowercase())
    }

    fn check(&self) -> Result<(), InviteError> {
        if self.nodes.len() > INVITE_NODES_MAX {
            return Err(InviteError::TooLong);
        }
        if self.nodes.is_empty() {
            return Err(InviteError::Damaged);
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if node.addresses.len() > INVITE_ADDRESSES_MAX {
                return Err(InviteError::TooLong);
            }
            let again = self.nodes[..at].iter().any(|other| other.node == node.node);
            if node.addresses.is_empty() || again {
                return Err(InviteError::Damaged);
            }
            for (at, address) in node.addresses.iter().enumerate() {
                address.check()?;
                if node.addresses[..at].contains(address) {
                    return Err(InviteError::Damaged);
                }
            }
        }
        Ok(())
    }
}

/// Reads what a person pasted: in either case, with white space anywhere, as
/// mail programs break long lines.
impl FromStr for Invite {
    type Err = InviteError;
    fn from_str(text: &str) -> Result<Self, InviteError> {
        // Twice as much for line breaks; a longer text is not looked through.
        if text.len() > 2 * INVITE_CHARS_MAX {
            return Err(InviteError::TooLong);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let text = text.to_ascii_uppercase();
        let Some(body) = text.strip_prefix(&PREFIX.to_ascii_uppercase()) else {
            let rest = text.strip_prefix(&FAMILY.to_ascii_uppercase());
            let newer = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            return Err(if newer { InviteError::Newer } else { InviteError::NotOne });
        };
        if text.len() > INVITE_CHARS_MAX {
            return Err(InviteError::TooLong);
        }
        let bytes = BASE32_NOPAD.decode(body.as_bytes()).map_err(|_| InviteError::Damaged)?;
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(InviteError::Damaged)?;
        let (payload, sum) = bytes.split_at(split);
        if checksum(payload) != sum {
            return Err(InviteError::Damaged);
        }
        // A right checksum is no word of honour: every field is checked.
        let mut reader = Reader(payload);
        let invite = reader.invite().ok_or(InviteError::Damaged)?;
        if !reader.0.is_empty() {
            return Err(InviteError::Damaged);
        }
        invite.check()?;
        Ok(invite)
    }
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = blake3::derive_key(CONTEXT, payload);
    [a, b, c, d]
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }

    fn invite(&mut self) -> Option<Invite> {
        let network = self.text()?.parse().ok()?;
        let count = usize::from(self.byte()?);
        if count > INVITE_NODES_MAX {
            return None;
        }
        let nodes = (0..count).map(|_| self.node()).collect::<Option<_>>()?;
        Some(Invite { network, nodes })
    }

    fn node(&mut self) -> Option<InviteNode> {
        let node = NodeId(self.array()?);
        let count = usize::from(self.byte()?);
        if count > INVITE_ADDRESSES_MAX {
            return None;
        }
        let addresses = (0..count).map(|_| self.address()).collect::<Option<_>>()?;
        Some(InviteNode { node, addresses })
    }

    fn address(&mut self) -> Option<InviteAddress> {
        let kind = self.byte()?;
        let carrier = if kind & 1 == 0 { Carrier::Tcp } else { Carrier::Quic };
        let place = match kind & !1 {
            0 => Place::Ip(IpAddr::from(self.array::<4>()?)),
            2 => Place::Ip(IpAddr::from(self.array::<16>()?)),
            4 => Place::Name(self.text()?),
            _ => return None,
        };
        Some(InviteAddress { place, port: u16::from_be_bytes(self.array()?), carrier })
    }
}

/// Lower-case names of the DNS, of labels with letters, digits and inner
/// hyphens; none that is a number, which would be an address in disguise.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| crate::network::is_slug(label, 63);
    name.len() <= NAME_OF_HOST_BYTES_MAX
        && name.split('.').all(label)
        && name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
