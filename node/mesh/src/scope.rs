//! Which addresses a peer may tell us (spec/mesh §6).
//!
//! A peer that reaches us from afar has no business naming machines behind our
//! router, and no peer may name itself at an address of no use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use homehost_protocol::Scope;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Whether an address leads through a relay, or is that of a peer who came
/// through one.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::P2p(_)))
        || address.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

/// The IP address that a multiaddr begins with; not that of a relay, who is
/// somebody else.
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    if is_relayed(address) {
        return None;
    }
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// IPv4 or IPv6: a connection of one says nothing about the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Of an IP address, or of a name that has addresses of one family; not of a
    /// way through a relay.
    pub(crate) fn of(address: &Multiaddr) -> Option<Self> {
        let of_ip = |ip: IpAddr| if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 };
        if is_relayed(address) {
            return None;
        }
        match address.iter().next()? {
            Protocol::Ip4(_) | Protocol::Dns4(_) => Some(Self::V4),
            Protocol::Ip6(ip) => Some(of_ip(ip.into())),
            Protocol::Dns6(_) => Some(Self::V6),
            _ => None,
        }
    }
}

/// Whether a connection leaves from where we listen, so that what its far end
/// sees is where others may knock.
pub(crate) fn leaves_from_listener(endpoint: &ConnectedPoint) -> bool {
    match endpoint {
        ConnectedPoint::Dialer { address, port_use: PortUse::Reuse, .. } => {
            // The gate lets no TCP dial do so on Windows.
            let tcp = matches!(address.iter().nth(1), Some(Protocol::Tcp(_)));
            !is_relayed(address) && (!cfg!(windows) || !tcp)
        }
        ConnectedPoint::Dialer { .. } | ConnectedPoint::Listener { .. } => false,
    }
}

/// Our address on the way to another one. Nothing is sent.
pub(crate) fn local_ip_towards(ip: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((ip, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Our addresses on the way to the world, of IPv4 and IPv6. Nothing is sent: any
/// global address would do.
pub(crate) fn ways_out() -> [Option<IpAddr>; 2] {
    let anywhere: [IpAddr; 2] = [
        Ipv4Addr::new(192, 175, 48, 1).into(),
        Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 1).into(),
    ];
    anywhere.map(local_ip_towards)
}

/// The relay and the way to it of an address that leads through one.
pub(crate) fn relay_of(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut way = Multiaddr::empty();
    let mut parts = address.iter();
    let relay = loop {
        match parts.next()? {
            Protocol::P2p(relay) => break relay,
            part => way.push(part),
        }
    };
    // What follows may name the peer itself and nothing else.
    let rest: Vec<_> = parts.take(3).collect();
    let ends = matches!(
        rest.as_slice(),
        [Protocol::P2pCircuit] | [Protocol::P2pCircuit, Protocol::P2p(_)]
    );
    (ends && way.iter().count() > 0).then_some((relay, way))
}

/// The address that leads through a relay.
pub(crate) fn through(way: Multiaddr, relay: PeerId) -> Multiaddr {
    way.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
}

/// The address without the name of the peer at its end.
pub(crate) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    while matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// How far the far end of a connection is.
///
/// A name was typed by a person, and is taken to be global unless it can only
/// be local.
pub(crate) fn of(address: &Multiaddr) -> Scope {
    if let Some(ip) = ip_of(address) {
        return Scope::of(ip);
    }
    if is_relayed(address) {
        return Scope::Nowhere;
    }
    match address.iter().next() {
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => of_name(&name),
        Some(Protocol::Dnsaddr(_)) => Scope::Global,
        _ => Scope::Nowhere,
    }
}

/// Names that resolve to the machine (RFC 6761) or within a home (RFC 6762,
/// RFC 8375, and what routers commonly use).
fn of_name(name: &str) -> Scope {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        Scope::Loopback
    } else if !name.contains('.')
        || [".local", ".home.arpa", ".internal", ".lan"].iter().any(|end| name.ends_with(end))
    {
        Scope::OnLink
    } else {
        Scope::Global
    }
}

/// Whether a peer that is connected over `link` may tell us that it listens
/// on `told`: an IP address with a port of a transport that we speak.
///
/// Names are refused: a lookup is not made at a stranger's word.
pub(crate) fn may_tell(link: Scope, told: &Multiaddr) -> bool {
    // Five parts are one too many: a longer address is none of ours.
    let parts: Vec<_> = told.iter().take(5).collect();
    let parts = match parts.as_slice() {
        [rest @ .., Protocol::P2p(_)] => rest,
        whole => whole,
    };
    let (ip, port) = match parts {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => (IpAddr::from(*ip), *port),
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => (IpAddr::from(*ip), *port),
        [Protocol::Ip4(ip), Protocol::Udp(port), Protocol::QuicV1] => (IpAddr::from(*ip), *port),
        [Protocol::Ip6(ip), Protocol::Udp(port), Protocol::QuicV1] => (IpAddr::from(*ip), *port),
        _ => return false,
    };
    port != 0
        && match (link, Scope::of(ip)) {
            (_, Scope::Nowhere) | (Scope::Nowhere, _) => false,
            (Scope::Loopback, _) => true,
            (Scope::OnLink, told) => told != Scope::Loopback,
            (Scope::Global, told) => told == Scope::Global,
        }
}

/// Whether a peer at the far end of `link` may enter our routing table at the
/// address `told`.
///
/// From afar, only at the very address at which it is seen: who could name
/// others would be counted in their blocks of addresses and not in its own, and
/// would have us dial whomever it likes. A peer that we reached by a name is
/// known by that name alone.
pub(crate) fn may_enter(link: &Multiaddr, told: &Multiaddr) -> bool {
    let scope = of(link);
    let ip = |address| ip_of(address).map(|ip| ip.to_canonical());
    may_tell(scope, told) && (scope != Scope::Global || ip(link) == ip(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_names_what_is_nearer_than_itself() {
        let addresses = [
            ("/ip4/127.0.0.1/tcp/1", [true, false, false, false]),
            ("/ip6/::1/udp/1/quic-v1", [true, false, false, false]),
            ("/ip4/192.168.1.1/tcp/80", [true, true, false, false]),
            ("/ip6/fe80::1/tcp/80", [true, true, false, false]),
            ("/ip4/8.8.8.8/tcp/4001", [true, true, true, false]),
            ("/ip6/2a01:4f8::1/udp/4001/quic-v1", [true, true, true, false]),
            ("/ip6/::ffff:127.0.0.1/tcp/1", [true, false, false, false]),
            ("/ip4/0.0.0.0/tcp/1", [false; 4]),
            ("/ip4/255.255.255.255/tcp/1", [false; 4]),
        ];
        let links = [Scope::Loopback, Scope::OnLink, Scope::Global, Scope::Nowhere];
        for (address, expected) in addresses {
            let address: Multiaddr = address.parse().unwrap();
            assert_eq!(links.map(|link| may_tell(link, &address)), expected, "{address}");
        }
    }

    #[test]
    fn from_afar_a_peer_enters_where_it_is_seen_and_nowhere_else() {
        for (link, told, expected) in [
            ("/ip4/8.8.8.8/tcp/50000", "/ip4/8.8.8.8/tcp/4001", true),
            ("/ip4/8.8.8.8/tcp/50000", "/ip4/8.8.8.8/udp/4001/quic-v1", true),
            ("/ip6/::ffff:8.8.8.8/tcp/50000", "/ip4/8.8.8.8/tcp/4001", true),
            ("/ip4/8.8.8.8/tcp/50000", "/ip4/8.8.8.9/tcp/4001", false),
            ("/ip4/8.8.8.8/tcp/50000", "/ip6/2a01:4f8::1/tcp/4001", false),
            ("/dns4/boot.example.org/tcp/4001", "/ip4/8.8.8.8/tcp/4001", false),
            ("/ip4/192.168.1.2/tcp/50000", "/ip4/192.168.1.3/tcp/4001", true),
            ("/ip4/192.168.1.2/tcp/50000", "/ip4/8.8.8.8/tcp/4001", true),
            ("/ip4/192.168.1.2/tcp/50000", "/ip4/127.0.0.1/tcp/4001", false),
        ] {
            let [link, told]: [Multiaddr; 2] = [link, told].map(|text| text.parse().unwrap());
            assert_eq!(may_enter(&link, &told), expected, "{link} {told}");
        }
        // One machine with any number of ids claims the whole world.
        let mut random = fastrand::Rng::with_seed(7);
        let link: Multiaddr = "/ip4/9.9.9.9/tcp/50000".parse().unwrap();
        for _ in 0..1000 {
            let ip = Ipv4Addr::from(random.u32(..));
            let told: Multiaddr = format!("/ip4/{ip}/tcp/4001").parse().unwrap();
            assert_eq!(may_enter(&link, &told), ip == Ipv4Addr::new(9, 9, 9, 9), "{told}");
        }
    }

    #[test]
    fn only_plain_addresses_of_our_transports_pass() {
        let id = "12D3KooWHsTDTjGQPoupTMu5nQzaKzdLF2QqwqG2mBrS5HxKoDHM";
        for (address, expected) in [
            (format!("/ip4/8.8.8.8/tcp/1/p2p/{id}"), true),
            (format!("/ip4/8.8.8.8/udp/1/quic-v1/p2p/{id}"), true),
            ("/ip4/8.8.8.8/tcp/0".into(), false),
            ("/ip4/8.8.8.8/udp/1".into(), false),
            ("/ip4/8.8.8.8/tcp/1/ws".into(), false),
            ("/ip4/8.8.8.8".into(), false),
            (format!("/ip4/8.8.8.8/tcp/1/p2p/{id}/p2p-circuit"), false),
            ("/dns4/example.org/tcp/1".into(), false),
            (String::new(), false),
        ] {
            let Ok(address) = address.parse::<Multiaddr>() else { panic!("{address}") };
            assert_eq!(may_tell(Scope::Global, &address), expected, "{address}");
        }
    }

    #[test]
    fn an_address_through_a_relay_names_the_relay_and_the_way_to_it() {
        let [relay, peer] = [PeerId::random(), PeerId::random()];
        let way: Multiaddr = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
        let whole = through(way.clone(), relay);
        assert_eq!(relay_of(&whole), Some((relay, way.clone())));
        assert_eq!(relay_of(&whole.with(Protocol::P2p(peer))), Some((relay, way.clone())));
        for other in [
            way.to_string(),
            format!("{way}/p2p/{relay}"),
            format!("{way}/p2p-circuit/p2p/{peer}"),
            format!("/p2p/{relay}/p2p-circuit"),
            format!("{way}/p2p/{relay}/p2p-circuit/p2p/{peer}/p2p-circuit"),
            format!("{way}/p2p/{relay}/p2p-circuit/ip4/7.7.7.7/tcp/1"),
        ] {
            assert_eq!(relay_of(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn an_address_is_of_one_family_and_a_way_through_a_relay_of_none() {
        for (address, family) in [
            ("/ip4/8.8.8.8/tcp/1", Some(Family::V4)),
            ("/ip6/2a01:4f8::1/udp/1/quic-v1", Some(Family::V6)),
            ("/ip6/::ffff:8.8.8.8/tcp/1", Some(Family::V4)),
            ("/dns4/boot.example.org/tcp/1", Some(Family::V4)),
            ("/dns6/boot.example.org/tcp/1", Some(Family::V6)),
            ("/dns/boot.example.org/tcp/1", None),
            ("/ip4/8.8.8.8/tcp/1/p2p-circuit", None),
        ] {
            assert_eq!(Family::of(&address.parse().unwrap()), family, "{address}");
        }
    }

    #[test]
    fn names_have_the_scope_that_they_suggest() {
        for (address, scope) in [
            ("/dns4/localhost/tcp/1", Scope::Loopback),
            ("/dns4/nas/tcp/1", Scope::OnLink),
            ("/dns/nas.local/tcp/1", Scope::OnLink),
            ("/dns6/boot.example.org/tcp/1", Scope::Global),
            ("/memory/7", Scope::Nowhere),
            ("/ip4/8.8.8.8/tcp/1/p2p-circuit", Scope::Nowhere),
            ("/dns4/boot.example.org/tcp/1/p2p-circuit", Scope::Nowhere),
        ] {
            assert_eq!(of(&address.parse().unwrap()), scope, "{address}");
        }
    }
}
