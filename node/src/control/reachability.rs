//! This node's place in the network, and what a person can do about it.

use std::time::Instant;

use homehost_api as api;
use homehost_mesh::{
    AddressSource, AddressState, MappingFacts, MeshStatus, NatKind, NetworkFacts, OwnAddress,
    PathKind, PortProtocol, RelayFacts, RelayState,
};

/// The facts as the API tells them.
pub(crate) fn view(mesh: &MeshStatus) -> api::NetworkFacts {
    let facts = &mesh.network;
    let now = Instant::now();
    let ipv6 = ipv6(facts);
    api::NetworkFacts {
        nat: nat(facts.nat),
        addresses: facts.addresses.iter().map(|address| own_address(address, now)).collect(),
        router: facts.router.as_ref().map(|router| api::Router {
            protocol: router.protocol.map(protocol),
            external_ip: router.external.map(|ip| ip.to_string()),
            problem: router.problem.clone(),
        }),
        mappings: facts.mappings.iter().map(|mapping| self::mapping(mapping, now)).collect(),
        relays: facts.relays.iter().map(|relay| self::relay(relay, now)).collect(),
        ipv6,
        summary: summary(mesh, ipv6),
    }
}

fn nat(kind: NatKind) -> api::NatKind {
    match kind {
        NatKind::Unknown => api::NatKind::Unknown,
        NatKind::None => api::NatKind::None,
        NatKind::Blocked => api::NatKind::Blocked,
        NatKind::Mapped => api::NatKind::Mapped,
        NatKind::EndpointIndependent => api::NatKind::EndpointIndependent,
        NatKind::EndpointDependent => api::NatKind::EndpointDependent,
        NatKind::Double => api::NatKind::Double,
    }
}

fn own_address(own: &OwnAddress, now: Instant) -> api::OwnAddress {
    api::OwnAddress {
        address: own.address.to_string(),
        source: match own.source {
            AddressSource::Listen => api::AddressSource::Listen,
            AddressSource::Observed => api::AddressSource::Observed,
            AddressSource::Mapped => api::AddressSource::Mapped,
            AddressSource::Relay => api::AddressSource::Relay,
            AddressSource::Configured => api::AddressSource::Configured,
        },
        state: match own.state {
            AddressState::Confirmed => api::AddressState::Confirmed,
            AddressState::Refuted => api::AddressState::Refuted,
            AddressState::Unknown => api::AddressState::Unknown,
        },
        by: own.voices,
        age_s: own.at.map(|at| now.saturating_duration_since(at).as_secs()),
    }
}

fn protocol(protocol: PortProtocol) -> api::PortProtocol {
    match protocol {
        PortProtocol::Upnp => api::PortProtocol::Upnp,
        PortProtocol::NatPmp => api::PortProtocol::NatPmp,
        PortProtocol::Pcp => api::PortProtocol::Pcp,
    }
}

fn mapping(mapping: &MappingFacts, now: Instant) -> api::PortMapping {
    api::PortMapping {
        name: mapping.name.clone(),
        transport: mapping.transport.to_string(),
        internal: mapping.internal,
        external: mapping.external,
        protocol: mapping.protocol.map(protocol),
        expires_s: mapping.expires.map(|at| at.saturating_duration_since(now).as_secs()),
        problem: mapping.problem.clone(),
    }
}

fn relay(relay: &RelayFacts, now: Instant) -> api::Relay {
    api::Relay {
        node: relay.node.to_string(),
        address: relay.address.as_ref().map(ToString::to_string),
        state: match relay.state {
            RelayState::Trying => api::RelayState::Trying,
            RelayState::Reserved => api::RelayState::Reserved,
            RelayState::Failed => api::RelayState::Failed,
        },
        expires_s: relay.expires.map(|at| at.saturating_duration_since(now).as_secs()),
        problem: relay.problem.clone(),
    }
}

/// How a peer is reached.
pub(super) fn path(path: PathKind) -> api::PathKind {
    match path {
        PathKind::Direct => api::PathKind::Direct,
        PathKind::HolePunched => api::PathKind::HolePunched,
        PathKind::Relayed => api::PathKind::Relayed,
    }
}

fn ipv6(facts: &NetworkFacts) -> api::Ipv6 {
    let global = |own: &&OwnAddress| {
        own.source != AddressSource::Relay && own.address.to_string().starts_with("/ip6/")
    };
    let mut own = facts.addresses.iter().filter(global);
    let mut listens = own.clone();
    api::Ipv6 {
        global: listens.any(|own| own.source == AddressSource::Listen),
        confirmed: own.any(|own| own.state == AddressState::Confirmed),
    }
}

/// How it stands, and what to do next.
fn summary(mesh: &MeshStatus, ipv6: api::Ipv6) -> String {
    let facts = &mesh.network;
    let port = mesh_port(mesh);
    let relayed = facts.relays.iter().any(|relay| relay.state == RelayState::Reserved);
    let meanwhile = if relayed {
        "peers reach you through a relay meanwhile"
    } else {
        "peers that you reach first can talk to you meanwhile"
    };
    let forward = format!("forward {port}/tcp and {port}/udp to this machine, or turn on UPnP");
    match facts.nat {
        NatKind::Unknown if mesh.peers.is_empty() => super::ALONE.to_owned(),
        NatKind::Unknown => "nobody from another network has said yet whether this node can be \
                             reached: that takes a minute after the first peer from outside; if \
                             there is none, ask somebody for a `homehost mesh invite`, and give \
                             it to `homehost mesh join`"
            .into(),
        NatKind::None => "the world reaches this node directly; nothing to do".into(),
        NatKind::Mapped => "the router forwards to this node, and the world gets through; \
                            nothing to do"
            .into(),
        NatKind::Blocked => format!(
            "this machine has a global address, but a firewall keeps peers out: let it pass \
             {port}/tcp and {port}/udp; {meanwhile}"
        ),
        _ if ipv6.confirmed => format!(
            "the world reaches this node over IPv6 only: for those without it, {forward}; \
             {meanwhile}"
        ),
        NatKind::EndpointIndependent => {
            format!("behind a router that forwards nothing: {forward}; {meanwhile}")
        }
        NatKind::EndpointDependent => format!(
            "behind a router that forwards nothing and gives every peer another port, so that \
             few can connect directly: {forward}; {meanwhile}"
        ),
        NatKind::Double => format!(
            "behind two routers, the second of them most likely your provider's: ask the \
             provider for an IPv4 address of your own, or for IPv6; {meanwhile}"
        ),
    }
}

/// The port that the mesh listens on, for a sentence.
pub(super) fn mesh_port(mesh: &MeshStatus) -> String {
    let port = |address: &homehost_mesh::Multiaddr| {
        let text = address.to_string();
        let port = text.split('/').nth(4)?.parse::<u16>().ok()?;
        (text.starts_with("/ip4/") && !text.contains("p2p-circuit")).then_some(port)
    };
    mesh.listening.iter().find_map(port).map_or_else(|| "the mesh port".into(), |p| p.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(nat: NatKind, confirmed: &[&str]) -> MeshStatus {
        let own = |text: &&str| OwnAddress {
            address: text.parse().unwrap(),
            source: AddressSource::Listen,
            state: AddressState::Confirmed,
            voices: 1,
            at: None,
        };
        let addresses = confirmed.iter().map(own).collect();
        MeshStatus {
            listening: vec!["/ip4/192.168.1.2/tcp/4011".parse().unwrap()],
            network: NetworkFacts { nat, addresses, ..NetworkFacts::default() },
            ..MeshStatus::default()
        }
    }

    #[test]
    fn every_kind_has_a_sentence_and_those_with_a_fault_a_next_step() {
        for (nat, part) in [
            (NatKind::Unknown, "--bootstrap"),
            (NatKind::None, "nothing to do"),
            (NatKind::Mapped, "nothing to do"),
            (NatKind::Blocked, "let it pass 4011/tcp"),
            (NatKind::EndpointIndependent, "forward 4011/tcp and 4011/udp"),
            (NatKind::EndpointDependent, "forward 4011/tcp and 4011/udp"),
            (NatKind::Double, "ask the provider"),
        ] {
            let text = view(&mesh(nat, &[])).summary;
            assert!(text.contains(part), "{nat:?}: {text}");
        }
    }

    #[test]
    fn who_waits_for_a_word_from_outside_is_told_how_to_get_one() {
        let mut mesh = mesh(NatKind::Unknown, &[]);
        mesh.peers.push(homehost_mesh::PeerInfo {
            node: homehost_protocol::NodeId([1; 32]),
            address: "/ip4/192.168.1.3/tcp/4011".parse().unwrap(),
            scope: homehost_protocol::Scope::OnLink,
            outgoing: true,
            path: PathKind::Direct,
            transport: Some("tcp"),
            agent: String::new(),
            role: homehost_mesh::Role::Host,
            holds_replica: true,
            rtt: None,
            since: Instant::now(),
        });
        let text = view(&mesh).summary;
        assert!(text.contains("homehost mesh join"), "{text}");
    }

    #[test]
    fn ipv6_alone_is_said_to_be_enough_for_some() {
        let facts = view(&mesh(NatKind::Double, &["/ip6/2a01:4f8::1/tcp/4011"]));
        assert_eq!(facts.ipv6, api::Ipv6 { global: true, confirmed: true });
        assert!(facts.summary.contains("over IPv6 only"), "{}", facts.summary);
        assert_eq!(view(&mesh(NatKind::Double, &[])).ipv6, api::Ipv6::default());
    }
}
