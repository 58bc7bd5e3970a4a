//! Asking a game whether it answers, and how many play.
//!
//! Servers of this node are asked on loopback, and those of others when the node
//! is their witness. Neither are friends:
//! every answer is bounded in size and time, whatever it says of itself.

mod a2s;
mod datagram;
mod luanti;
mod minecraft;
mod quake3;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gamedig::protocols::types::TimeoutSettings;
use homehost_protocol::Transport;
use homehost_protocol::record::reach::ProbeProtocol;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::definition::QueryKind;

pub(crate) use luanti::PlayersFromLog;

/// A game on the same machine answers within milliseconds; one that is loading
/// may not answer at all, and is asked again a second later.
const TIMEOUT: Duration = Duration::from_secs(1);

/// For an answer that comes as a stream, from the connection to the last byte.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// Queries at once: each is over within two seconds, and a node has 64 servers
/// at most.
const AT_ONCE: usize = 8;

/// Where and how to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: QueryKind,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

/// What a game says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// People, without bots; `None` when the protocol does not tell.
    pub(crate) players: Option<u16>,
    pub(crate) slots: Option<u16>,
}

/// Asks, a few at a time.
#[derive(Clone, Debug)]
pub(crate) struct Querier {
    permits: Arc<Semaphore>,
}

impl Default for Querier {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Querier {
    /// `None` when there is no answer.
    pub(crate) async fn ask(&self, target: Target) -> Option<Answer> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, target.port));
        match target.kind {
            QueryKind::None => Some(Answer::default()),
            QueryKind::Tcp => {
                let connected = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await;
                connected.ok()?.ok().map(|_| Answer::default())
            }
            QueryKind::Luanti => luanti::probe(address, TIMEOUT).await.then(Answer::default),
            QueryKind::A2s => within(TIMEOUT, a2s::ask(address)).await?,
            QueryKind::Quake3 => within(TIMEOUT, quake3::ask(address)).await?,
            QueryKind::Minecraft if target.transport == Transport::Tcp => {
                within(STREAM_TIMEOUT, minecraft::ask(address)).await
            }
            QueryKind::Minecraft => {
                let asked = tokio::task::spawn_blocking(move || {
                    // Held until the thread is free again, whoever still waits.
                    let _permit = permit;
                    ask_bedrock(address)
                });
                asked.await.ok()?
            }
        }
    }
}

/// Time that a game somewhere else gets to answer: three round trips around the
/// world, and a slow start.
const AFAR_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks a game of another host whether it answers; how many play, if it tells.
/// `None` when there is no answer.
///
/// Whoever calls this says when and whom: nobody may be made a nuisance of.
pub async fn probe(address: SocketAddr, protocol: ProbeProtocol) -> Option<Option<u16>> {
    let answer = match protocol {
        ProbeProtocol::Tcp => {
            let connected = tokio::time::timeout(AFAR_TIMEOUT, TcpStream::connect(address)).await;
            connected.ok()?.ok().map(|_| Answer::default())
        }
        ProbeProtocol::Luanti => luanti::probe(address, AFAR_TIMEOUT).await.then(Answer::default),
        ProbeProtocol::A2s => within(AFAR_TIMEOUT, a2s::ask(address)).await?,
        ProbeProtocol::Quake3 => within(AFAR_TIMEOUT, quake3::ask(address)).await?,
        ProbeProtocol::Minecraft => within(AFAR_TIMEOUT, minecraft::ask(address)).await,
    };
    answer.map(|answer| answer.players)
}

impl QueryKind {
    /// How others may ask over this transport, if they may: only by what
    /// answers a challenge, so that nobody's address can be made to answer for
    /// another's.
    pub fn probe(self, transport: Transport) -> Option<ProbeProtocol> {
        let protocol = match self {
            Self::A2s => ProbeProtocol::A2s,
            Self::Minecraft => ProbeProtocol::Minecraft,
            Self::Quake3 => ProbeProtocol::Quake3,
            Self::Luanti => ProbeProtocol::Luanti,
            Self::Tcp => ProbeProtocol::Tcp,
            Self::None => return None,
        };
        (protocol.transport() == transport).then_some(protocol)
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()?.ok()
}

/// The one query that holds a thread. It sends one datagram and reads one of a
/// kilobyte, each with a timeout of the socket, so it keeps no daemon from
/// ending for longer than that.
fn ask_bedrock(address: SocketAddr) -> Option<Answer> {
    let timeouts = TimeoutSettings::new(Some(TIMEOUT), Some(TIMEOUT), Some(TIMEOUT), 0).ok();
    let bedrock = gamedig::games::minecraft::protocol::query_bedrock(&address, timeouts).ok()?;
    Some(answer(bedrock.players_online, bedrock.players_maximum))
}

fn answer(players: u32, slots: u32) -> Answer {
    let bounded = |number: u32| Some(number.try_into().unwrap_or(u16::MAX));
    Answer { players: bounded(players), slots: bounded(slots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tcp_port_answers_when_it_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target { kind: QueryKind::Tcp, port, transport: Transport::Tcp };
        assert_eq!(Querier::default().ask(target).await, Some(Answer::default()));
        drop(listener);
        assert_eq!(Querier::default().ask(target).await, None);
    }

    async fn serve_stream(bytes: &'static [u8], pause: Duration) -> u16 {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(bytes).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_stream_without_end_is_left() {
        for (bytes, pause) in [
            (&[0xff; 60_000][..], Duration::ZERO),
            (&[0x7b; 60_000], Duration::ZERO),
            (&[0x7b], Duration::from_millis(50)),
        ] {
            let port = serve_stream(bytes, pause).await;
            let kind = QueryKind::Minecraft;
            let target = Target { kind, port, transport: Transport::Tcp };
            let begin = std::time::Instant::now();
            assert_eq!(Querier::default().ask(target).await, None);
            assert!(begin.elapsed() < STREAM_TIMEOUT * 2, "{:?}", begin.elapsed());
        }
    }

    #[tokio::test]
    async fn a_bedrock_server_is_understood() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut ping = [0; 64];
            let (_, from) = server.recv_from(&mut ping).await.unwrap();
            let text = b"MCPE;x;1;1.0;4;9;1;world;Survival;1";
            let mut pong = vec![0x1c];
            pong.extend_from_slice(&ping[1..9]);
            pong.extend_from_slice(&[0; 8]);
            pong.extend_from_slice(&ping[9..25]);
            pong.extend_from_slice(&[0, text.len() as u8]);
            pong.extend_from_slice(text);
            server.send_to(&pong, from).await.unwrap();
        });
        let target = Target { kind: QueryKind::Minecraft, port, transport: Transport::Udp };
        assert_eq!(Querier::default().ask(target).await, Some(answer(4, 9)));
    }
}
