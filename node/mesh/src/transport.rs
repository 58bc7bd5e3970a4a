//! TCP with Noise and Yamux, and QUIC, behind the dial gate and name resolution
//! (spec/mesh §1).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::Either;
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OptionalTransport, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::metrics::{BandwidthTransport, Registry};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, dns, noise, quic, relay, tcp};
use socket2::{Domain, Socket, Type};

use crate::backlog::Backlog;
use crate::dial_gate::{DialGate, DialRules, Way};
use crate::port_reuse::ReuseOrNew;
use crate::throttle::Throttle;
use crate::traffic::Traffic;

/// Longest time from a dial or an accepted connection to a secure, multiplexed
/// one. Ten seconds are thirty round trips around the world.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

type Direct = DialGate<Boxed<(PeerId, StreamMuxerBox)>>;

fn direct(keypair: &Keypair, rules: DialRules, backlog: Backlog) -> Result<Direct, noise::Error> {
    let tcp = ReuseOrNew::new(tcp::tokio::Transport::new(tcp::Config::new().nodelay(true)))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex_ext(move |peer, _| backlog.yamux(*peer))
        .timeout(CONNECTION_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::tokio::Transport::new(quic::Config::new(keypair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(DialGate::new(tcp.or_transport(quic).map(whichever).boxed(), Way::Direct, rules))
}

fn whichever<T>(either: Either<T, T>, _: ConnectedPoint) -> T {
    match either {
        Either::Left(connection) | Either::Right(connection) => connection,
    }
}

/// Connections through relays: a stream of a connection to the relay, with Noise
/// and Yamux within, so that the relay reads nothing.
fn through_relays(
    keypair: &Keypair,
    relayed: relay::client::Transport,
    rules: DialRules,
    backlog: Backlog,
) -> Result<Direct, noise::Error> {
    let relayed = relayed
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex_ext(move |peer, _| backlog.yamux(*peer))
        .timeout(CONNECTION_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(DialGate::new(relayed.boxed(), Way::Relayed, rules))
}

/// Builds the transport; all kinds share the rules of the gate and the counts of
/// bytes.
///
/// # Errors
/// The key cannot make a Noise identity.
pub(crate) fn build(
    keypair: &Keypair,
    relayed: Option<relay::client::Transport>,
    rules: DialRules,
    registry: &mut Registry,
    (traffic, backlog, throttle): (&Traffic, &Backlog, &Throttle),
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let relayed = relayed
        .map(|relayed| through_relays(keypair, relayed, rules.clone(), backlog.clone()))
        .transpose()?;
    let relayed = relayed.map_or_else(OptionalTransport::none, OptionalTransport::some);
    let named =
        match dns::tokio::Transport::system(direct(keypair, rules.clone(), backlog.clone())?) {
            Ok(named) => DialGate::new(named.boxed(), Way::Named, rules).boxed(),
            Err(error) => {
                tracing::warn!(%error, "no resolver: bootstrap nodes are reached by address only");
                direct(keypair, rules, backlog.clone())?.boxed()
            }
        };
    let (traffic, throttle) = (traffic.clone(), throttle.clone());
    Ok(BandwidthTransport::new(relayed.or_transport(named).map(whichever), registry)
        .map(move |(peer, muxer), ends| {
            let muxer = throttle.muxer(StreamMuxerBox::new(muxer), ends.get_remote_address());
            let counted = traffic.muxer(muxer);
            (peer, StreamMuxerBox::new(counted))
        })
        .boxed())
}

/// Whether a port is free to listen on.
///
/// libp2p listens on TCP with `SO_REUSEPORT` (its dials leave from the port on
/// which it listens), so a second node of the same user would share the port of
/// the first, and each would get some of the other's connections. For QUIC it
/// would say that a port is in use, but only in words.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when it is taken, or why it cannot be had.
pub(crate) fn probe(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter().skip(1);
    let (ip, kind, port) = match (crate::scope::ip_of(address), parts.next()) {
        (_, Some(Protocol::Tcp(0) | Protocol::Udp(0))) => return Ok(()),
        (Some(ip), Some(Protocol::Tcp(port))) => (ip, Type::STREAM, port),
        (Some(ip), Some(Protocol::Udp(port))) => (ip, Type::DGRAM, port),
        // Not ours to judge: the transports refuse it.
        _ => return Ok(()),
    };
    let socket = Socket::new(Domain::for_address((ip, port).into()), kind, None)?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // On Unix this passes over connections that linger, but not over listeners;
    // on Windows it would pass over those too.
    if cfg!(unix) && kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::new(ip, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_noticed_and_a_free_one_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        assert_eq!(probe(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        probe(&address).unwrap();
        probe(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap()).unwrap();
    }
}
