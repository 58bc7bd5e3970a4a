//! Where players can join: the addresses of this machine as the mesh knows
//! them, with a game's port.

use std::net::{IpAddr, SocketAddr};

use homehost_hosting::{ServerDefinition, ServerView};
use homehost_mesh::{MeshStatus, Multiaddr};
use homehost_protocol::limits::JOIN_ADDRESSES_MAX;
use homehost_protocol::{JoinAddress, NetworkName, Scope, Transport};

/// The addresses of this machine that are worth telling, best first.
///
/// On the public network only addresses that work from anywhere, if there is
/// one. Loopback is told only when there is nothing else, which is the network
/// of one machine.
pub(crate) fn own_ips(network: &NetworkName, mesh: &MeshStatus) -> Vec<IpAddr> {
    let listening = mesh.listening.iter().filter_map(ip_of);
    let mut ips: Vec<IpAddr> =
        listening.chain(mesh.observed.iter().map(|observed| observed.ip)).collect();
    // Link-local IPv6 needs a zone that no other machine knows.
    ips.retain(|ip| {
        Scope::of(*ip) != Scope::Nowhere
            && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
    });
    ips.sort_by_key(|ip| (rank(*ip), ip.is_ipv6(), *ip));
    ips.dedup();
    if let Some(best) = ips.first().map(|ip| Scope::of(*ip)) {
        ips.retain(|ip| match Scope::of(*ip) {
            Scope::Loopback => best == Scope::Loopback && ip.is_ipv4(),
            Scope::OnLink => best != Scope::Global || !network.is_main(),
            Scope::Global | Scope::Nowhere => true,
        });
    }
    ips.truncate(JOIN_ADDRESSES_MAX);
    ips
}

fn rank(ip: IpAddr) -> u8 {
    match Scope::of(ip) {
        Scope::Global => 0,
        Scope::OnLink => 1,
        Scope::Loopback => 2,
        Scope::Nowhere => 3,
    }
}

/// The address at the beginning of a multiaddr, by its text form
/// (`/ip4/…` or `/ip6/…`).
fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    let text = address.to_string();
    let mut parts = text.split('/').skip(1);
    match parts.next()? {
        "ip4" | "ip6" => parts.next()?.parse().ok(),
        _ => None,
    }
}

/// The port that players join: the one named `game`, or the only one, or the first.
pub(crate) fn join_port(definition: &ServerDefinition) -> Option<(&str, Transport)> {
    let (name, port) =
        definition.ports.get_key_value("game").or_else(|| definition.ports.first_key_value())?;
    Some((name, port.transport))
}

/// Where players join a server on this machine.
pub(crate) fn join_addresses(server: &ServerView, ips: &[IpAddr]) -> Vec<JoinAddress> {
    let Some((name, transport)) = join_port(&server.definition) else { return Vec::new() };
    let Some(port) = server.ports.get(name) else { return Vec::new() };
    let address = |ip: &IpAddr| JoinAddress { socket: SocketAddr::new(*ip, *port), transport };
    ips.iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(network: &str, listening: &[&str], observed: &[&str]) -> Vec<String> {
        let status = MeshStatus {
            listening: listening.iter().map(|text| text.parse().unwrap()).collect(),
            observed: observed
                .iter()
                .map(|ip| homehost_mesh::ObservedAddress { ip: ip.parse().unwrap(), peers: 1 })
                .collect(),
            ..MeshStatus::default()
        };
        let network = network.parse().unwrap();
        own_ips(&network, &status).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_widest_addresses_are_told() {
        let home = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.9/tcp/1", "/ip6/fe80::1/tcp/1"];
        assert_eq!(ips("main", &home, &["8.8.8.8"]), ["8.8.8.8"]);
        assert_eq!(ips("main", &home, &[]), ["192.168.0.9"]);
        assert_eq!(ips("club", &home, &["8.8.8.8"]), ["8.8.8.8", "192.168.0.9"]);
        let alone = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip6/::1/tcp/1"];
        assert_eq!(ips("local", &alone, &["127.0.0.1"]), ["127.0.0.1"]);
        assert_eq!(ips("main", &[], &[]), Vec::<String>::new());
    }
}
