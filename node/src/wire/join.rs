//! Where players can join: the addresses of this machine as the mesh knows
//! them, with a game's port.

use std::net::{IpAddr, SocketAddr};

use homehost_hosting::{ServerDefinition, ServerView};
use homehost_mesh::{MeshStatus, Multiaddr};
use homehost_protocol::limits::JOIN_ADDRESSES_MAX;
use homehost_protocol::record::listing::Visibility;
use homehost_protocol::{JoinAddress, NetworkName, Scope, Transport};

/// The addresses of this machine that are worth telling, best first.
///
/// On the public network only addresses that work from anywhere, if there is
/// one. Loopback is told only when there is nothing else, which is the network
/// of one machine.
pub(crate) fn own_ips(network: &NetworkName, mesh: &MeshStatus) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = mesh.listening.iter().filter_map(ip_of).collect();
    for is_v6 in [false, true] {
        let known = |ip: &IpAddr| ip.is_ipv6() == is_v6 && Scope::of(*ip) == Scope::Global;
        if !ips.iter().any(known) {
            let forwards = || mesh.network.mappings.iter().any(|of| of.external.is_some());
            let router = mesh.network.router.as_ref().and_then(|router| router.external);
            let router = router.filter(|ip| known(ip) && forwards());
            ips.extend(router.or_else(|| seen_by_others(mesh, is_v6)));
        }
    }
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

/// The addresses at which a server is told to those who may learn of it.
pub(crate) fn ips_for(
    visibility: Option<Visibility>,
    network: &NetworkName,
    mesh: &MeshStatus,
) -> Vec<IpAddr> {
    if visibility != Some(Visibility::Lan) {
        return own_ips(network, mesh);
    }
    let mut ips: Vec<IpAddr> = mesh.listening.iter().filter_map(ip_of).collect();
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    ips.retain(|ip| matches!(Scope::of(*ip), Scope::OnLink | Scope::Loopback) && !link_local(ip));
    ips.sort_by_key(|ip| (rank(*ip), ip.is_ipv6(), *ip));
    ips.dedup();
    // Loopback is for the network of one machine, as ever.
    let beyond = ips.first().is_some_and(|ip| Scope::of(*ip) == Scope::OnLink);
    ips.retain(|ip| if beyond { Scope::of(*ip) == Scope::OnLink } else { ip.is_ipv4() });
    ips.truncate(JOIN_ADDRESSES_MAX);
    ips
}

/// The global address of a family at which most others see this machine.
///
/// One stranger must not decide where our players are sent: as soon as there
/// are two voices, two must agree. A voice is a prefix, not a peer.
fn seen_by_others(mesh: &MeshStatus, is_v6: bool) -> Option<IpAddr> {
    let seen = mesh.observed.iter().filter(|observed| {
        observed.ip.is_ipv6() == is_v6 && Scope::of(observed.ip) == Scope::Global
    });
    let voices: usize = seen.clone().map(|observed| observed.voices).sum();
    let best = seen.max_by_key(|observed| (observed.voices, observed.ip))?;
    (voices < 2 || best.voices >= 2).then_some(best.ip)
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
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
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

/// The port by which the world reaches a port of this machine at `ip`: at an
/// address of the router, the one that the router forwards.
pub(crate) fn outside_port(mesh: &MeshStatus, ip: IpAddr, port: (u16, Transport)) -> u16 {
    let (port, transport) = port;
    let own = || mesh.listening.iter().any(|at| ip_of(at) == Some(ip));
    if ip.is_ipv6() || Scope::of(ip) != Scope::Global || own() {
        return port;
    }
    let mapped = mesh.network.mappings.iter();
    let mut mapped = mapped.filter(|of| of.internal == port && of.transport == transport);
    mapped.find_map(|of| of.external).unwrap_or(port)
}

/// Where players join a server on this machine.
pub(crate) fn join_addresses(
    server: &ServerView,
    ips: &[IpAddr],
    mesh: &MeshStatus,
) -> Vec<JoinAddress> {
    let Some((name, transport)) = join_port(&server.definition) else { return Vec::new() };
    let Some(port) = server.ports.get(name) else { return Vec::new() };
    let address = |ip: &IpAddr| {
        let port = outside_port(mesh, *ip, (*port, transport));
        JoinAddress { socket: SocketAddr::new(*ip, port), transport }
    };
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
                .map(|text| {
                    let (ip, voices) = text.split_once('*').unwrap_or((text, "1"));
                    let (ip, voices) = (ip.parse().unwrap(), voices.parse().unwrap());
                    homehost_mesh::ObservedAddress { ip, peers: voices, voices }
                })
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

    #[test]
    fn at_the_routers_address_its_port_is_told() {
        let mut mesh = MeshStatus {
            listening: vec!["/ip4/192.168.0.9/tcp/1".parse().unwrap()],
            ..MeshStatus::default()
        };
        let mapping = homehost_mesh::MappingFacts {
            name: "HomeHost Friday 30000/udp".into(),
            transport: Transport::Udp,
            internal: 30000,
            external: Some(30007),
            protocol: None,
            expires: None,
            problem: None,
        };
        mesh.network.mappings.push(mapping);
        mesh.network.router = Some(homehost_mesh::RouterFacts {
            external: Some("8.8.8.8".parse().unwrap()),
            ..homehost_mesh::RouterFacts::default()
        });
        let ips = own_ips(&NetworkName::main(), &mesh);
        assert_eq!(ips, ["8.8.8.8".parse::<IpAddr>().unwrap()]);
        let outside =
            |ip: &str, transport| outside_port(&mesh, ip.parse().unwrap(), (30000, transport));
        assert_eq!(outside("8.8.8.8", Transport::Udp), 30007);
        assert_eq!(outside("8.8.8.8", Transport::Tcp), 30000);
        assert_eq!(outside("192.168.0.9", Transport::Udp), 30000);
        assert_eq!(outside("2a01:4f8::1", Transport::Udp), 30000);
        // A router with a private address of its own is not where players go.
        mesh.network.router = Some(homehost_mesh::RouterFacts {
            external: Some("100.64.0.9".parse().unwrap()),
            ..homehost_mesh::RouterFacts::default()
        });
        let ips = own_ips(&NetworkName::main(), &mesh);
        assert_eq!(ips, ["192.168.0.9".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn one_stranger_does_not_decide_where_players_are_sent() {
        let home = ["/ip4/192.168.0.9/tcp/1"];
        assert_eq!(ips("main", &home, &["1.1.1.1", "8.8.8.8*2"]), ["8.8.8.8"]);
        assert_eq!(ips("main", &home, &["1.1.1.1", "8.8.8.8"]), ["192.168.0.9"]);
        let server = ["/ip4/8.8.8.8/tcp/1"];
        assert_eq!(ips("main", &server, &["1.1.1.1*9"]), ["8.8.8.8"]);
        assert_eq!(ips("main", &server, &["2a01:4f8::1*3"]), ["8.8.8.8", "2a01:4f8::1"]);
    }
}
