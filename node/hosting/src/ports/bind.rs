//! Whether a port is free: by taking it for a moment.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use homehost_protocol::Transport;

/// Whether a game could listen on this port, on every address of this machine.
pub(super) fn is_free(port: u16, transport: Transport) -> bool {
    [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()]
        .into_iter()
        .all(|address| {
            let bound = match transport {
                Transport::Udp => UdpSocket::bind(address).map(drop),
                Transport::Tcp => TcpListener::bind(address).map(drop),
            };
            match bound {
                Ok(()) => true,
                // Windows says the latter of a port that is held exclusively.
                Err(error) => match error.kind() {
                    ErrorKind::AddrInUse => false,
                    ErrorKind::PermissionDenied => !cfg!(windows),
                    // A machine without IPv6, for one.
                    _ => true,
                },
            }
        })
}
