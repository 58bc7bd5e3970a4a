//! Sockets that find out what is between two machines.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use homehost_tests::Namespace;

/// Longest wait for a packet that must come.
const COMES: Duration = Duration::from_secs(10);

/// A socket on a machine.
#[derive(Debug)]
pub(crate) struct Probe(UdpSocket);

impl Probe {
    /// A socket with a port, for the family of an address.
    #[track_caller]
    pub(crate) fn new(at: &Namespace, port: u16, family: IpAddr) -> Self {
        let any = if family.is_ipv4() { "0.0.0.0" } else { "::" };
        let any: IpAddr = any.parse().expect("an address");
        let socket = at.enter(|| UdpSocket::bind((any, port)).expect("the port is free"));
        socket.set_read_timeout(Some(COMES)).expect("it is not zero");
        Self(socket)
    }

    /// Sends a word; what a router makes of it shows at the other end.
    pub(crate) fn says(&self, word: &str, to: SocketAddr) {
        // An answer that a port is closed may be reported here, and is no news.
        let _ =
            self.0.send_to(word.as_bytes(), to).or_else(|_| self.0.send_to(word.as_bytes(), to));
    }

    /// Waits for a word; where it came from, and what came before it.
    #[track_caller]
    pub(crate) fn hears(&self, word: &str) -> (SocketAddr, Vec<String>) {
        let mut before = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match self.0.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if heard == word {
                        return (from, before);
                    }
                    before.push(heard);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => panic!("{word:?} does not come ({error}); before it: {before:?}"),
            }
        }
    }
}
