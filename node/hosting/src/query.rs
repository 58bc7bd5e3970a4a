//! Asking a game whether it answers, and how many play.
//!
//! Only servers of this node are asked, on loopback.

mod luanti;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gamedig::games::minecraft;
use gamedig::protocols::types::{GatherToggle, TimeoutSettings};
use gamedig::protocols::{quake, valve};
use homehost_protocol::Transport;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::definition::QueryKind;

pub(crate) use luanti::PlayersFromLog;

/// A game on the same machine answers within milliseconds; one that is loading
/// may not answer at all, and is asked again a second later.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Queries at once. Each of the blocking ones holds a thread for [`TIMEOUT`] at
/// worst, and a node has 64 servers at most.
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
            QueryKind::A2s | QueryKind::Minecraft | QueryKind::Quake3 => {
                tokio::task::spawn_blocking(move || {
                    // Held until the thread is free again, whoever still waits.
                    let _permit = permit;
                    ask_blocking(target, address)
                })
                .await
                .ok()?
            }
        }
    }
}

fn ask_blocking(target: Target, address: SocketAddr) -> Option<Answer> {
    let timeouts = TimeoutSettings::new(Some(TIMEOUT), Some(TIMEOUT), Some(TIMEOUT), 0).ok();
    match target.kind {
        QueryKind::A2s => {
            let only_info = valve::GatheringSettings {
                players: GatherToggle::Skip,
                rules: GatherToggle::Skip,
                check_app_id: false,
            };
            let engine = valve::Engine::Source(None);
            let info = valve::query(&address, engine, Some(only_info), timeouts).ok()?.info;
            let people = info.players_online.saturating_sub(info.players_bots);
            Some(answer(people.into(), info.players_maximum.into()))
        }
        QueryKind::Minecraft if target.transport == Transport::Udp => {
            let bedrock = minecraft::protocol::query_bedrock(&address, timeouts).ok()?;
            Some(answer(bedrock.players_online, bedrock.players_maximum))
        }
        QueryKind::Minecraft => {
            let java = minecraft::protocol::query_java(&address, timeouts, None).ok()?;
            Some(answer(java.players_online, java.players_maximum))
        }
        QueryKind::Quake3 => {
            let status = quake::three::query(&address, timeouts).ok()?;
            Some(answer(status.players_online.into(), status.players_maximum.into()))
        }
        QueryKind::Luanti | QueryKind::Tcp | QueryKind::None => None,
    }
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
}
