//! One question and one answer over UDP, in datagrams of a bounded size.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use homehost_runtime::udp;
use tokio::net::UdpSocket;

/// The longest answer that is taken: what servers send unsplit is 1,400 bytes
/// (Valve) or 1,024 (Quake); a longer datagram is cut, and its tail not needed.
const ANSWER_BYTES_MAX: usize = 4_096;

/// A socket that hears one address only, bound as far as that address needs: to
/// loopback where that is enough.
pub(super) async fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let bind: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = udp::bind(SocketAddr::new(bind, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// A socket that hears one address only.
pub(super) struct Asker {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl Asker {
    pub(super) async fn new(address: SocketAddr) -> io::Result<Self> {
        let socket = connected(address).await?;
        Ok(Self { socket, buffer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// The next datagram after a question. The caller sets the deadline.
    pub(super) async fn ask(&mut self, question: &[u8]) -> io::Result<&[u8]> {
        self.socket.send(question).await?;
        let length = self.socket.recv(&mut self.buffer).await?;
        Ok(&self.buffer[..length])
    }
}
