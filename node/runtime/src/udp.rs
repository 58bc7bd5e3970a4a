//! UDP sockets that go on hearing.
//!
//! On Windows an ICMP "port unreachable" after one datagram makes the next
//! receive of the socket fail, whoever that receive was waiting for. One peer
//! that has gone, or one that wants to, would end a socket for all others. Our
//! sockets are told not to say so. QUIC's endpoint passes over such errors by
//! itself.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

/// Binds a socket that closed ports elsewhere do not disturb. On Unix a
/// connected socket still tells of them, which concerns its one peer alone.
///
/// # Errors
/// What the system said.
pub async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    #[cfg(windows)]
    ignore_resets(&socket);
    Ok(socket)
}

/// `SIO_UDP_CONNRESET`: off. Without it the socket still works, so a refusal is
/// no reason not to use it.
#[cfg(windows)]
fn ignore_resets(socket: &UdpSocket) {
    use std::os::windows::io::AsRawSocket as _;
    use std::ptr::null_mut;
    use windows_sys::Win32::Networking::WinSock::{SIO_UDP_CONNRESET, SOCKET, WSAIoctl};

    let socket = socket.as_raw_socket() as SOCKET;
    let (off, mut length) = (0_u32, 0);
    #[expect(unsafe_code, reason = "neither std nor tokio has this option")]
    // SAFETY: the socket is open; the pointers outlive the call, which does not
    // return before it is done.
    let code = unsafe {
        let (given, size) = ((&raw const off).cast(), size_of::<u32>() as u32);
        let told = &raw mut length;
        WSAIoctl(socket, SIO_UDP_CONNRESET, given, size, null_mut(), 0, told, null_mut(), None)
    };
    if code != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "a closed port elsewhere may disturb a socket");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test]
    async fn a_socket_that_met_a_closed_port_hears_the_next_one() {
        let socket = bind(loopback()).await.unwrap();
        let friend = bind(loopback()).await.unwrap();
        for _ in 0..8 {
            let gone = bind(loopback()).await.unwrap().local_addr().unwrap();
            socket.send_to(b"anyone?", gone).await.unwrap();
        }
        // Loopback has answered for the closed ports before this arrives.
        friend.send_to(b"here", socket.local_addr().unwrap()).await.unwrap();
        let mut buffer = [0; 16];
        let (length, from) =
            timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!((&buffer[..length], from), (&b"here"[..], friend.local_addr().unwrap()));
    }
}
