//! Which server has which port, and whether it is free.

mod bind;
mod holder;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};

use homehost_protocol::{ServerId, Transport};
use thiserror::Error;

use crate::definition::{PortRequest, PortWant, ServerDefinition};

/// Where ports are taken from when any will do: registered but hardly used, and
/// below what systems hand out to clients (32768 on Linux, 49152 on Windows).
pub const AUTO_PORTS: RangeInclusive<u16> = 30_000..=30_999;

/// A text that is not a port request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a port: write NAME=auto/udp or NAME=30000/tcp ({why})")]
pub struct PortError {
    text: String,
    why: &'static str,
}

/// Reads `game=auto/udp` or `game=30000/udp`.
///
/// # Errors
/// Says what is wrong and how it is written.
pub fn parse_port(text: &str) -> Result<(String, PortRequest), PortError> {
    let error = |why| PortError { text: text.chars().take(60).collect(), why };
    let (name, rest) = text.split_once('=').ok_or_else(|| error("there is no ="))?;
    let name_ok = !name.is_empty()
        && name.len() <= 16
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !name_ok {
        return Err(error("a name has up to 16 lower-case letters, digits and dashes"));
    }
    let (want, transport) = rest.split_once('/').ok_or_else(|| error("there is no /"))?;
    let want = match want {
        "auto" => PortWant::Auto,
        _ => match want.parse() {
            Ok(0) | Err(_) => return Err(error("the number must be auto or 1 to 65535")),
            Ok(port) => PortWant::Fixed(port),
        },
    };
    let transport =
        Transport::from_str(transport).map_err(|_| error("it must end in udp or tcp"))?;
    Ok((name.to_owned(), PortRequest { transport, want, assigned: None }))
}

/// A port that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortConflict {
    /// Another server of this node has it.
    #[error("port {port}/{transport} belongs to the server {server}: choose another port or auto")]
    Server {
        /// The port.
        port: u16,
        /// Its transport.
        transport: Transport,
        /// The other server.
        server: String,
    },
    /// Something else on this machine has it.
    #[error("port {port}/{transport} is used by {holder}: end that or choose another port or auto")]
    Program {
        /// The port.
        port: u16,
        /// Its transport.
        transport: Transport,
        /// Who, as far as that can be seen.
        holder: String,
    },
    /// The definition asks for it twice.
    #[error("port {port}/{transport} is asked for twice: give each its own")]
    Twice {
        /// The port.
        port: u16,
        /// Its transport.
        transport: Transport,
    },
    /// Everything between 30000 and 30999 is taken.
    #[error("no port from 30000 to 30999 is free: end what uses them or choose a port yourself")]
    Exhausted,
}

/// One server's ports.
#[derive(Clone, Debug, Default)]
struct Claim {
    name: String,
    ports: BTreeSet<(u16, bool)>,
}

fn key(port: u16, transport: Transport) -> (u16, bool) {
    (port, transport == Transport::Tcp)
}

/// All claims of this node. One lock, never held over an `.await`: two servers
/// that start at the same moment must not get the same port.
#[derive(Debug, Default)]
pub(crate) struct PortDesk {
    claims: Mutex<BTreeMap<ServerId, Claim>>,
}

impl PortDesk {
    /// Notes what a definition has, without asking whether it is free.
    pub(crate) fn note(&self, definition: &ServerDefinition) {
        self.lock().insert(definition.id, claim_of(definition));
    }

    /// Forgets a server.
    pub(crate) fn forget(&self, id: &ServerId) {
        self.lock().remove(id);
    }

    /// Sees to it that every port of a server that does not run is its own and
    /// free. Says what had to be changed.
    pub(crate) fn settle(
        &self,
        definition: &mut ServerDefinition,
    ) -> Result<Vec<String>, PortConflict> {
        self.settle_with(definition, &bind::is_free)
    }

    fn settle_with(
        &self,
        definition: &mut ServerDefinition,
        is_free: &dyn Fn(u16, Transport) -> bool,
    ) -> Result<Vec<String>, PortConflict> {
        let mut claims = self.lock();
        let others = |port, transport| {
            claims
                .iter()
                .filter(|(id, _)| **id != definition.id)
                .find(|(_, claim)| claim.ports.contains(&key(port, transport)))
                .map(|(_, claim)| claim.name.clone())
        };
        let mut taken = BTreeSet::new();
        let mut settled = definition.ports.clone();
        let mut notes = Vec::new();
        // What cannot give way comes first.
        for request in settled.values_mut() {
            let PortWant::Fixed(port) = request.want else { continue };
            let transport = request.transport;
            if !taken.insert(key(port, transport)) {
                return Err(PortConflict::Twice { port, transport });
            }
            if let Some(server) = others(port, transport) {
                return Err(PortConflict::Server { port, transport, server });
            }
            if !is_free(port, transport) {
                let holder = holder::find(port, transport);
                return Err(PortConflict::Program { port, transport, holder });
            }
            request.assigned = Some(port);
        }
        for (name, request) in &mut settled {
            if request.want != PortWant::Auto {
                continue;
            }
            let transport = request.transport;
            let may_have = |port: u16, taken: &BTreeSet<_>| {
                !taken.contains(&key(port, transport))
                    && others(port, transport).is_none()
                    && is_free(port, transport)
            };
            let before = request.assigned;
            let port = before
                .filter(|port| may_have(*port, &taken))
                .or_else(|| AUTO_PORTS.clone().find(|port| may_have(*port, &taken)))
                .ok_or(PortConflict::Exhausted)?;
            if let Some(before) = before.filter(|before| *before != port) {
                notes.push(format!(
                    "port {name} is now {port}/{transport}, because {before} was in use"
                ));
            }
            taken.insert(key(port, transport));
            request.assigned = Some(port);
        }
        definition.ports = settled;
        claims.insert(definition.id, claim_of(definition));
        Ok(notes)
    }

    /// Whether a port that may be another the next time is not free any more:
    /// something took it between our look and the game's.
    pub(crate) fn lost_one(&self, definition: &ServerDefinition) -> bool {
        let auto = definition.ports.values().filter(|request| request.want == PortWant::Auto);
        let mut assigned = auto.filter_map(|request| Some((request.assigned?, request.transport)));
        assigned.any(|(port, transport)| !bind::is_free(port, transport))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn claim_of(definition: &ServerDefinition) -> Claim {
    let ports = definition
        .ports
        .values()
        .filter_map(|request| Some(key(request.assigned?, request.transport)));
    Claim { name: definition.name.clone(), ports: ports.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homehost_protocol::ServerNonce;

    fn server(number: u8, ports: &[&str]) -> ServerDefinition {
        let id = ServerId([number; 32]);
        let mut server = ServerDefinition::new(id, ServerNonce([number; 16]), format!("s{number}"));
        server.ports = ports.iter().map(|port| parse_port(port).unwrap()).collect();
        server
    }

    #[test]
    fn ports_are_read_and_others_refused() {
        let (name, request) = parse_port("game=30000/udp").unwrap();
        assert_eq!((name.as_str(), request.want), ("game", PortWant::Fixed(30_000)));
        assert_eq!(parse_port("web=auto/tcp").unwrap().1.transport, Transport::Tcp);
        for text in [
            "",
            "game",
            "game=1",
            "=1/udp",
            "game=0/udp",
            "game=65536/udp",
            "game=1/sctp",
            "G=1/udp",
        ] {
            assert!(parse_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn automatic_ports_are_distinct_and_stay() {
        let desk = PortDesk::default();
        let free = |_, _| true;
        let mut one = server(1, &["game=auto/udp", "query=auto/udp", "web=auto/tcp"]);
        desk.settle_with(&mut one, &free).unwrap();
        assert_eq!(
            one.assigned_ports().into_values().collect::<Vec<_>>(),
            [30_000, 30_001, 30_000],
            "the transports do not compete"
        );
        let mut two = server(2, &["game=auto/udp"]);
        desk.settle_with(&mut two, &free).unwrap();
        assert_eq!(two.assigned_ports()["game"], 30_002);
        desk.forget(&one.id);
        assert_eq!(desk.settle_with(&mut two, &free), Ok(vec![]));
        assert_eq!(two.assigned_ports()["game"], 30_002);
    }

    #[test]
    fn an_automatic_port_in_use_gives_way_and_says_so() {
        let desk = PortDesk::default();
        let mut one = server(1, &["game=auto/udp"]);
        desk.settle_with(&mut one, &|_, _| true).unwrap();
        let notes = desk.settle_with(&mut one, &|port, _| port != 30_000).unwrap();
        assert_eq!(one.assigned_ports()["game"], 30_001);
        assert!(notes[0].contains("30001") && notes[0].contains("30000"), "{notes:?}");
        assert_eq!(desk.settle_with(&mut one, &|_, _| false), Err(PortConflict::Exhausted));
    }

    #[test]
    fn a_fixed_port_never_gives_way() {
        let desk = PortDesk::default();
        let mut one = server(1, &["game=4000/udp"]);
        desk.settle_with(&mut one, &|_, _| true).unwrap();
        let error = desk.settle_with(&mut server(2, &["game=4000/udp"]), &|_, _| true);
        assert!(error.unwrap_err().to_string().contains("the server s1"));
        assert!(desk.settle_with(&mut server(2, &["game=4000/tcp"]), &|_, _| true).is_ok());
        let twice = &mut server(3, &["a=5000/udp", "b=5000/udp"]);
        assert!(matches!(desk.settle_with(twice, &|_, _| true), Err(PortConflict::Twice { .. })));
    }

    #[test]
    fn a_port_that_is_really_in_use_is_explained() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut one = server(1, &[&format!("game={port}/udp")]);
        let error = PortDesk::default().settle(&mut one).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()), "{error}");
        if cfg!(target_os = "linux") {
            assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        }
    }
}
