//! Invitations: what this node says of where to join, and joining by what
//! another said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use homehost_api::{self as api, ApiError, ErrorKind, Invitation, InvitedAddress};
use homehost_mesh::{AddressSource, AddressState, MeshStatus, Multiaddr, Role};
use homehost_protocol::invite::{Carrier, Invite, InviteAddress, InviteNode, Place};
use homehost_protocol::limits::{INVITE_ADDRESSES_MAX, INVITE_NODES_MAX};
use homehost_protocol::{NetworkName, NodeId, Scope, Transport};

use super::Control;
use super::reachability::mesh_port;
use crate::config::{BOOTSTRAP, NETWORK, Origin, another_network};
use crate::wire::join::{outside_port, own_ips};

impl Control {
    pub(super) fn invite(&self) -> Result<Invitation, ApiError> {
        let network = self.keys.network();
        let mesh = self.mesh.status().borrow().clone();
        let entries = entries(network, self.mesh.node(), &mesh)?;
        let nodes = entries.iter().map(|entry| InviteNode {
            node: entry.node,
            addresses: entry.ways.iter().map(|way| way.address.clone()).collect(),
        });
        let invite = Invite { network: network.clone(), nodes: nodes.collect() };
        let text = invite.to_text().map_err(|error| {
            let text = format!("failed to make an invitation: {error}");
            ApiError::new(ErrorKind::Internal, text)
        })?;
        let said = entries.iter().flat_map(|entry| {
            entry.ways.iter().map(move |way| InvitedAddress {
                address: format!("{}/p2p/{}", way.address, entry.node),
                node: entry.by.word().to_owned(),
                scope: word(way.address.scope()).to_owned(),
                state: way.reached.state(),
                reached: way.reached.words().to_owned(),
            })
        });
        Ok(Invitation {
            text,
            network: network.to_string(),
            note: note(&entries, &mesh),
            addresses: said.collect(),
        })
    }

    pub(super) async fn join_mesh(&self, text: &str) -> Result<String, ApiError> {
        let invite: Invite =
            text.parse().map_err(|error| ApiError::new(ErrorKind::Usage, format!("{error}")))?;
        let own = self.keys.network();
        if invite.network != *own {
            let how = how_to_move(self.settings.origin(NETWORK).as_ref(), &invite.network);
            let text = format!(
                "this invitation is for the network {:?}, and this node is on {:?}: to move it \
                 there, {how}; to be on both, start another node with `homehost up --invite \
                 STRING --data-dir DIR` and a folder of its own",
                invite.network.as_str(),
                own.as_str()
            );
            return Err(ApiError::new(ErrorKind::WrongState, text));
        }
        let addresses = others(&invite, self.mesh.node())?;
        let joining = match addresses.len() {
            1 => "1 address".to_owned(),
            n => format!("{n} addresses"),
        };
        let another = self.settings.join(addresses).await.map_err(|error| {
            let text = format!(
                "joining at {joining}, but they are not written down for the next start: {}",
                error.message
            );
            ApiError::new(error.kind, text)
        })?;
        let file = self.settings.file().display();
        let mut text =
            format!("joining {:?} at {joining}, which {file} keeps for later starts", own.as_str());
        if let Some(given) = another {
            text.push_str(&format!("; but {}", another_network(&given, own)));
        }
        if let Some(over @ (Origin::Flag(_) | Origin::Variable(_))) =
            self.settings.origin(BOOTSTRAP)
        {
            text.push_str(&format!(
                "; {over} counts more than the file: leave it away the next time, as the file has \
                 what the invitation says"
            ));
        }
        Ok(text)
    }
}

/// How a node comes to be on another network, by what put it on its own.
fn how_to_move(origin: Option<&Origin>, network: &NetworkName) -> String {
    let set = match origin {
        Some(Origin::File(..)) => format!("`homehost config set {NETWORK} {network}`, "),
        _ => String::new(),
    };
    let without = match origin {
        Some(over @ (Origin::Flag(_) | Origin::Variable(_))) => format!(" without {over}"),
        _ => String::new(),
    };
    format!("`homehost down`, {set}then `homehost up --invite STRING`{without}")
}

/// Where an invitation says that nodes other than `own` are.
///
/// # Errors
/// When it names nobody else.
fn others(invite: &Invite, own: NodeId) -> Result<Vec<Multiaddr>, ApiError> {
    let mut invite = invite.clone();
    invite.nodes.retain(|node| node.node != own);
    if invite.nodes.is_empty() {
        let text = "this invitation is this node's own: give it to others";
        return Err(ApiError::new(ErrorKind::Usage, text));
    }
    Ok(multiaddrs(&invite))
}

/// The addresses of an invitation as the mesh takes them.
pub(crate) fn multiaddrs(invite: &Invite) -> Vec<Multiaddr> {
    // What an invitation can say is always a multiaddr.
    invite.multiaddrs().iter().filter_map(|text| text.parse().ok()).collect()
}

/// Whose addresses they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// This node.
    Own,
    /// One that it joined by.
    Bootstrap,
    /// One that forwards to it.
    Relay,
}

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Own => "this",
            Self::Bootstrap => "bootstrap",
            Self::Relay => "relay",
        }
    }
}

/// From where an address is reached, as far as that is known; the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// Somebody got through to it from outside.
    Anywhere,
    /// The router says that it forwards it.
    Mapped,
    /// An interface of this machine has it.
    Interface,
    /// Peers see this machine at that IP address; the port is a guess.
    IfForwarded,
    /// It is of the LAN.
    Lan,
    /// Peers of other networks tried and did not get through.
    InVain,
    /// It is loopback.
    ThisMachine,
}

impl Reached {
    fn words(self) -> &'static str {
        match self {
            Self::Anywhere => "from anywhere",
            Self::Mapped => "from anywhere, says the router; nobody has tried yet",
            Self::Interface => "from anywhere if no firewall forbids it; nobody has tried yet",
            Self::IfForwarded => "if your router forwards the port; nobody has tried yet",
            Self::Lan => "on your LAN only",
            Self::InVain => "not from outside: peers tried in vain",
            Self::ThisMachine => "on this machine only",
        }
    }

    fn state(self) -> api::AddressState {
        match self {
            Self::Anywhere => api::AddressState::Confirmed,
            Self::InVain => api::AddressState::Refuted,
            _ => api::AddressState::Unknown,
        }
    }

    /// Whether somebody far away could get through.
    fn is_far(self) -> bool {
        self <= Self::IfForwarded
    }
}

/// One address of a node, and what is known of it.
#[derive(Clone, Debug)]
struct Way {
    address: InviteAddress,
    reached: Reached,
}

/// A node by which somebody gets in; it has a way.
#[derive(Clone, Debug)]
struct Entry {
    node: NodeId,
    by: By,
    ways: Vec<Way>,
}

impl Entry {
    fn best(&self) -> Reached {
        self.ways.iter().map(|way| way.reached).min().unwrap_or(Reached::ThisMachine)
    }
}

/// Says where this node is, and those by whom it joined or is found: relays are
/// nodes of this network, too, and from one of them the way leads on. The nodes
/// that are reached from farthest come first.
fn entries(network: &NetworkName, own: NodeId, mesh: &MeshStatus) -> Result<Vec<Entry>, ApiError> {
    let mut entries = Vec::new();
    let ways = own_ways(network, mesh);
    let local = ways.iter().all(|way| way.reached == Reached::ThisMachine);
    if !ways.is_empty() {
        entries.push(Entry { node: own, by: By::Own, ways });
    }
    let bootstrap = mesh.peers.iter().filter(|peer| peer.role == Role::Bootstrap && peer.outgoing);
    let bootstrap = bootstrap.map(|peer| (peer.node, By::Bootstrap, peer.address.to_string()));
    let relays = mesh.network.relays.iter().filter_map(|relay| {
        let whole = relay.address.as_ref()?.to_string();
        let (at, _) = whole.split_once("/p2p-circuit")?;
        Some((relay.node, By::Relay, at.to_owned()))
    });
    let mut others: Vec<Entry> = Vec::new();
    for (node, by, at) in bootstrap.chain(relays) {
        let Some(address) = InviteAddress::of_multiaddr(&at) else { continue };
        let reached = match address.scope() {
            // This node dialled it there.
            Scope::Global => Reached::Anywhere,
            Scope::OnLink => Reached::Lan,
            Scope::Loopback if local => Reached::ThisMachine,
            Scope::Loopback | Scope::Nowhere => continue,
        };
        if node != own && others.iter().all(|other| other.node != node) {
            others.push(Entry { node, by, ways: vec![Way { address, reached }] });
        }
    }
    others.sort_by_key(Entry::best);
    entries.extend(others.into_iter().take(INVITE_NODES_MAX - 1));
    if entries.is_empty() {
        let text = "this node listens nowhere and knows no bootstrap node, so there is nothing to \
                    invite to: see `homehost doctor`";
        return Err(ApiError::new(ErrorKind::WrongState, text));
    }
    entries.sort_by_key(Entry::best);
    Ok(entries)
}

/// The addresses of this node for others, those that are known to be reached from
/// afar first, and of this machine only where there is nothing else. One at which
/// peers tried in vain is for whoever has no other, and forwards the port later.
fn own_ways(network: &NetworkName, mesh: &MeshStatus) -> Vec<Way> {
    let known: BTreeMap<InviteAddress, AddressState> = mesh
        .network
        .addresses
        .iter()
        .filter(|own| own.source != AddressSource::Relay)
        .filter_map(|own| Some((InviteAddress::of_multiaddr(&own.address.to_string())?, own.state)))
        .collect();
    let mut ways: BTreeMap<InviteAddress, Reached> = BTreeMap::new();
    let mut add = |address: InviteAddress, unless_tried: Reached| {
        let reached = match (address.scope(), known.get(&address)) {
            (Scope::Nowhere, _) => return,
            (Scope::Loopback, _) => Reached::ThisMachine,
            (Scope::OnLink, _) => Reached::Lan,
            (Scope::Global, Some(AddressState::Confirmed)) => Reached::Anywhere,
            (Scope::Global, Some(AddressState::Refuted)) => Reached::InVain,
            (Scope::Global, _) => unless_tried,
        };
        let link_local = matches!(address.place, Place::Ip(IpAddr::V6(ip))
            if ip.is_unicast_link_local());
        if !link_local {
            let best = ways.entry(address).or_insert(reached);
            *best = reached.min(*best);
        }
    };
    let listening: Vec<_> = mesh
        .listening
        .iter()
        .filter_map(|address| InviteAddress::of_multiaddr(&address.to_string()))
        .collect();
    for address in &listening {
        add(address.clone(), Reached::Interface);
    }
    for own in &mesh.network.addresses {
        let Some(address) = InviteAddress::of_multiaddr(&own.address.to_string()) else { continue };
        match own.source {
            AddressSource::Mapped => add(address, Reached::Mapped),
            AddressSource::Configured => add(address, Reached::IfForwarded),
            // What peers see may be a port that the router lent for a moment.
            AddressSource::Observed if own.state == AddressState::Confirmed => {
                add(address, Reached::Anywhere);
            }
            AddressSource::Observed | AddressSource::Listen | AddressSource::Relay => {}
        }
    }
    // Behind a router, the address that enough others see, with the port that it
    // forwards, or else our own: that is right when it is forwarded by hand.
    for ip in own_ips(network, mesh).into_iter().filter(|ip| Scope::of(*ip) == Scope::Global) {
        let behind = listening.iter().filter(|address| {
            address.scope() == Scope::OnLink
                && matches!(address.place, Place::Ip(own) if own.is_ipv4() == ip.is_ipv4())
        });
        for address in behind {
            let transport = match address.carrier {
                Carrier::Tcp => Transport::Tcp,
                Carrier::Quic => Transport::Udp,
            };
            let port = outside_port(mesh, ip, (address.port, transport));
            let address = InviteAddress { place: Place::Ip(ip), port, carrier: address.carrier };
            add(address, Reached::IfForwarded);
        }
    }
    let mut ways: Vec<_> =
        ways.into_iter().map(|(address, reached)| Way { address, reached }).collect();
    ways.sort_by(|a, b| (a.reached, &a.address).cmp(&(b.reached, &b.address)));
    let far = ways.iter().any(|way| way.reached.is_far());
    let beyond = ways.iter().any(|way| way.reached != Reached::ThisMachine);
    ways.retain(|way| match way.reached {
        Reached::InVain => !far,
        Reached::ThisMachine => !beyond,
        _ => true,
    });
    ways.truncate(INVITE_ADDRESSES_MAX);
    ways
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::OnLink => "lan",
        Scope::Loopback | Scope::Nowhere => "this-machine",
    }
}

/// How a node comes to listen beyond its own machine.
const LISTEN: &str = "start it without --listen and without mesh.listen in its settings";

/// Who cannot use an invitation, or may not be able to, and what to do about it.
fn note(entries: &[Entry], mesh: &MeshStatus) -> Option<String> {
    let this = entries.iter().find(|entry| entry.by == By::Own);
    let in_vain = this.is_some_and(|of| of.ways.iter().any(|way| way.reached == Reached::InVain));
    let own = this.map(Entry::best);
    let others = entries.iter().filter(|entry| entry.by != By::Own).map(Entry::best).min();
    let port = mesh_port(mesh);
    let forward = format!("forward {port}/tcp and {port}/udp on your router to this machine");
    match (own, others) {
        (Some(Reached::Anywhere), _) => None,
        (Some(Reached::ThisMachine), Some(Reached::Anywhere)) => Some(format!(
            "this node listens on this machine alone, so nobody gets through to it: whoever uses \
             the string joins by the other node that it names; so that they reach your servers, \
             {LISTEN}"
        )),
        (_, Some(Reached::Anywhere)) => Some(format!(
            "nobody outside is known to get through to this node itself: whoever uses it from \
             afar joins by the other node that it names, and finds this one from there; so that \
             they get here directly, {forward}"
        )),
        (Some(Reached::Mapped), _) => Some(format!(
            "your router says that it forwards the port, and nobody outside has tried yet: ask \
             for it again in some minutes; if friends do not get in, {forward}"
        )),
        (Some(Reached::Interface), _) => Some(format!(
            "nobody outside has tried yet whether this node is reached: if friends do not get \
             in, let the firewalls of this machine and its router pass {port}/tcp and {port}/udp"
        )),
        (Some(Reached::IfForwarded), _) => Some(format!(
            "friends elsewhere get in only if your router forwards the port, which nobody outside \
             has tried yet: {forward}, or turn on UPnP there, or join a bootstrap node first"
        )),
        _ if in_vain => Some(format!(
            "friends elsewhere cannot use it now: peers tried to get through from outside, in \
             vain; {forward}, or turn on UPnP there, or join a bootstrap node first"
        )),
        (Some(Reached::Lan), _) | (_, Some(Reached::Lan)) => Some(format!(
            "only nodes on your LAN can use it: no address of this node is known beyond your \
             router; {forward}, or join a bootstrap node first"
        )),
        _ => Some(format!(
            "only nodes on this machine can use it: this node listens on loopback alone; for \
             others, {LISTEN}"
        )),
    }
}

#[cfg(test)]
mod tests;
