//! What an address that a person wrote can be used for.

use std::net::IpAddr;

use libp2p::Multiaddr;

/// The IP address that a multiaddr begins with.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    let text = address.to_string();
    let mut parts = text.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("ip4" | "ip6"), Some(ip)) => ip.parse().ok(),
        _ => None,
    }
}

/// The port, if the address is a place and one of the two transports, with or
/// without the name of a node.
fn port_of(address: &Multiaddr) -> Option<u16> {
    let text = address.to_string();
    let text = text.split_once("/p2p/").map_or(text.as_str(), |(place, node)| {
        // What follows the name leads elsewhere, as a relay does.
        if node.contains('/') { "" } else { place }
    });
    let parts: Vec<_> = text.split('/').skip(1).collect();
    match parts.as_slice() {
        [_, _, "tcp", port] | [_, _, "udp", port, "quic-v1"] => port.parse().ok(),
        _ => None,
    }
}

/// Whether the transports can listen on it, if this machine has it.
pub fn is_listenable(address: &Multiaddr) -> bool {
    ip_of(address).is_some() && port_of(address).is_some() && !address.to_string().contains("/p2p/")
}

/// Whether it can be dialled: a place, and one of its ports.
pub fn is_reachable(address: &Multiaddr) -> bool {
    let text = address.to_string();
    let place = match ip_of(address) {
        Some(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        None => ["/dns/", "/dns4/", "/dns6/"].iter().any(|kind| text.starts_with(kind)),
    };
    place && port_of(address).is_some_and(|port| port != 0)
}
