//! Invitations: what this node says of where to join, and joining by what
//! another said.

use homehost_api::{ApiError, ErrorKind, Invitation, InvitedAddress};
use homehost_mesh::{MeshStatus, Multiaddr, Role};
use homehost_protocol::invite::{Invite, InviteAddress, InviteNode, Place};
use homehost_protocol::limits::{INVITE_ADDRESSES_MAX, INVITE_NODES_MAX};
use homehost_protocol::{NetworkName, NodeId, Scope};

use super::Control;
use crate::wire::join::own_ips;

impl Control {
    pub(super) fn invite(&self) -> Result<Invitation, ApiError> {
        let network = self.keys.network();
        let invite = make(network, self.mesh.node(), &self.mesh.status().borrow())?;
        let text = invite.to_text().map_err(|error| {
            let text = format!("failed to make an invitation: {error}");
            ApiError::new(ErrorKind::Internal, text)
        })?;
        let own = self.mesh.node();
        let said = invite.nodes.iter().flat_map(|node| {
            node.addresses.iter().map(move |address| InvitedAddress {
                address: format!("{address}/p2p/{}", node.node),
                node: if node.node == own { "this" } else { "bootstrap" }.to_owned(),
                scope: word(address.scope()).to_owned(),
            })
        });
        Ok(Invitation {
            text,
            network: network.to_string(),
            note: note(&invite).map(str::to_owned),
            addresses: said.collect(),
        })
    }

    pub(super) async fn join_mesh(&self, text: &str) -> Result<String, ApiError> {
        let invite: Invite =
            text.parse().map_err(|error| ApiError::new(ErrorKind::Usage, format!("{error}")))?;
        let own = self.keys.network();
        if invite.network != *own {
            let text = format!(
                "this invitation is for the network {:?}, and this node is on {:?}: start another \
                 node with `homehost up --invite … --data-dir` and a folder of its own",
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
        self.settings.join(addresses).await.map_err(|error| {
            let text = format!(
                "joining at {joining}, but they are not written down for the next start: {}",
                error.message
            );
            ApiError::new(error.kind, text)
        })?;
        let file = self.settings.file().display();
        Ok(format!(
            "joining {:?} at {joining}, which {file} keeps for the next start",
            own.as_str()
        ))
    }
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

/// Says where this node is, and those by whom it joined.
fn make(network: &NetworkName, own: NodeId, mesh: &MeshStatus) -> Result<Invite, ApiError> {
    let addresses = own_addresses(network, mesh);
    let local = addresses.iter().all(|address| address.scope() == Scope::Loopback);
    let mut nodes = Vec::new();
    if !addresses.is_empty() {
        nodes.push(InviteNode { node: own, addresses });
    }
    let mut bootstrap: Vec<_> = mesh
        .peers
        .iter()
        .filter(|peer| peer.role == Role::Bootstrap && peer.outgoing && peer.node != own)
        .filter_map(|peer| {
            let address = InviteAddress::of_multiaddr(&peer.address.to_string())?;
            let useful = match address.scope() {
                Scope::Global | Scope::OnLink => true,
                Scope::Loopback => local,
                Scope::Nowhere => false,
            };
            useful.then(|| InviteNode { node: peer.node, addresses: vec![address] })
        })
        .collect();
    bootstrap.sort_by_key(|node| rank(&node.addresses[0]));
    nodes.extend(bootstrap.into_iter().take(INVITE_NODES_MAX - 1));
    if nodes.is_empty() {
        let text = "this node listens nowhere and knows no bootstrap node, so there is nothing to \
                    invite to: see `homehost doctor`";
        return Err(ApiError::new(ErrorKind::WrongState, text));
    }
    Ok(Invite { network: network.clone(), nodes })
}

/// The addresses of this node for others: from afar first, then of its LAN, and
/// of this machine only where there is nothing else.
fn own_addresses(network: &NetworkName, mesh: &MeshStatus) -> Vec<InviteAddress> {
    let listening = mesh.listening.iter().map(ToString::to_string);
    let mut addresses: Vec<_> =
        listening.filter_map(|text| InviteAddress::of_multiaddr(&text)).collect();
    // Behind a router, the address that enough others see, with our own port:
    // it is right when that port is forwarded.
    for ip in own_ips(network, mesh).into_iter().filter(|ip| Scope::of(*ip) == Scope::Global) {
        let behind = addresses.clone().into_iter().filter(|address| {
            address.scope() == Scope::OnLink
                && matches!(address.place, Place::Ip(own) if own.is_ipv4() == ip.is_ipv4())
        });
        addresses.extend(behind.map(|address| InviteAddress { place: Place::Ip(ip), ..address }));
    }
    addresses.retain(|address| {
        let link_local = matches!(address.place, Place::Ip(std::net::IpAddr::V6(ip))
            if ip.is_unicast_link_local());
        !link_local && address.scope() != Scope::Nowhere
    });
    addresses.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    addresses.dedup();
    let beyond = addresses.iter().any(|address| address.scope() != Scope::Loopback);
    addresses.retain(|address| !beyond || address.scope() != Scope::Loopback);
    addresses.truncate(INVITE_ADDRESSES_MAX);
    addresses
}

fn rank(address: &InviteAddress) -> u8 {
    match address.scope() {
        Scope::Global => 0,
        Scope::OnLink => 1,
        Scope::Loopback | Scope::Nowhere => 2,
    }
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::OnLink => "lan",
        Scope::Loopback | Scope::Nowhere => "this-machine",
    }
}

/// Who cannot use an invitation.
fn note(invite: &Invite) -> Option<&'static str> {
    let best = invite.nodes.iter().flat_map(|node| &node.addresses).map(rank).min();
    match best {
        Some(0) => None,
        Some(1) => Some(
            "only nodes on your LAN can use it: no address of this node is known beyond your \
             router; forward its port there, or join a bootstrap node first",
        ),
        _ => Some("only nodes on this machine can use it: this node listens on loopback alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(listening: &[&str], observed: &[&str]) -> MeshStatus {
        MeshStatus {
            listening: listening.iter().map(|text| text.parse().unwrap()).collect(),
            observed: observed
                .iter()
                .map(|ip| homehost_mesh::ObservedAddress {
                    ip: ip.parse().unwrap(),
                    peers: 2,
                    voices: 2,
                })
                .collect(),
            ..MeshStatus::default()
        }
    }

    fn said(listening: &[&str], observed: &[&str]) -> Vec<String> {
        let network = "main".parse().unwrap();
        let invite = make(&network, NodeId([1; 32]), &status(listening, observed)).unwrap();
        invite.nodes[0].addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_widest_addresses_come_first_and_loopback_only_alone() {
        let home = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.9/tcp/1", "/ip6/fe80::1/tcp/1"];
        assert_eq!(said(&home, &[]), ["/ip4/192.168.0.9/tcp/1"]);
        assert_eq!(said(&home, &["8.8.8.8"]), ["/ip4/8.8.8.8/tcp/1", "/ip4/192.168.0.9/tcp/1"]);
        assert_eq!(said(&["/ip4/127.0.0.1/udp/1/quic-v1"], &[]), ["/ip4/127.0.0.1/udp/1/quic-v1"]);
        let both = ["/ip4/8.8.8.8/tcp/1", "/ip6/2a01:4f8::1/tcp/1", "/ip4/10.0.0.1/tcp/1"];
        assert_eq!(
            said(&both, &[]),
            ["/ip4/8.8.8.8/tcp/1", "/ip6/2a01:4f8::1/tcp/1", "/ip4/10.0.0.1/tcp/1"]
        );
        let network = "main".parse().unwrap();
        let error = make(&network, NodeId([1; 32]), &status(&[], &[])).unwrap_err();
        assert!(error.message.contains("listens nowhere"), "{error}");
    }

    #[test]
    fn a_node_does_not_join_itself() {
        let network = "main".parse().unwrap();
        let own = NodeId([1; 32]);
        let invite = make(&network, own, &status(&["/ip4/8.8.8.8/tcp/1"], &[])).unwrap();
        assert!(others(&invite, own).unwrap_err().message.contains("own"));
        assert_eq!(others(&invite, NodeId([2; 32])).unwrap().len(), 1);
        assert_eq!(note(&invite), None);
    }
}
