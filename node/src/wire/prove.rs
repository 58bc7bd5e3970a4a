//! Having ourselves witnessed: peers are asked whether they reach our servers,
//! and what they say is published (spec/mesh §9).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use homehost_directory::net_of;
use homehost_directory::proof::{ProofPlan, Subject};
use homehost_hosting::{ServerView, State};
use homehost_mesh::{MeshHandle, PathKind, PeerInfo};
use homehost_protocol::limits::WITNESSES_MAX;
use homehost_protocol::record::listing::Visibility;
use homehost_protocol::record::reach::{Attest, Probe, ProbeProtocol};
use homehost_protocol::rpc::attest::AttestRequest;
use homehost_protocol::{JoinAddress, NetworkName, NodeId, ReachAttest, ServerId, UnixMillis};
use homehost_runtime::{Shutdown, wall_ms};
use tokio::sync::watch;

use super::announce::Announcer;
use super::join::{ip_of, outside_port, own_ips};

/// How often it is looked whether a proof is due.
const TICK: Duration = Duration::from_secs(1);

/// Servers that are proved at once: witnesses take some at a time.
const AT_ONCE: usize = 4;

/// What the owner of a server is told that nobody can check.
const UNCHECKED: &str = "its query is `none`, or one that answers no challenge, so others cannot \
                         check it: give it a --query that its game speaks";

/// Running servers by id.
type Servers = Arc<BTreeMap<ServerId, ServerView>>;

/// What one witness said.
#[derive(Clone, Debug)]
pub(crate) struct WitnessReport {
    pub(crate) node: NodeId,
    /// Where we see the witness, if it has an address.
    pub(crate) ip: Option<IpAddr>,
    /// Where it reached the server and how many it saw play; or why not.
    pub(crate) result: Result<(IpAddr, Option<u16>), String>,
}

/// What came of the last proof of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReachReport {
    /// When, if anybody was asked yet.
    pub(crate) at: Option<UnixMillis>,
    /// What was asked for, as in `30000/udp by luanti`.
    pub(crate) asked: Option<String>,
    pub(crate) witnesses: Vec<WitnessReport>,
    /// Why nobody was asked.
    pub(crate) note: Option<String>,
}

pub(crate) type Reports = Arc<BTreeMap<ServerId, ReachReport>>;

/// Has servers proved.
pub(crate) struct Prover {
    pub(crate) mesh: MeshHandle,
    pub(crate) announcer: Announcer,
    pub(crate) network: NetworkName,
    pub(crate) servers: watch::Receiver<Servers>,
    pub(crate) reports: watch::Sender<Reports>,
}

impl Prover {
    /// Runs until the node stops.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut plan = ProofPlan::default();
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                _ = ticks.tick() => {
                    tokio::select! {
                        biased;
                        () = shutdown.stopping() => return Ok(()),
                        () = self.look(&mut plan) => {}
                    }
                }
            }
        }
    }

    async fn look(&self, plan: &mut ProofPlan) {
        let servers = self.servers.borrow().clone();
        plan.retain(|id| servers.contains_key(id));
        self.reports.send_if_modified(|reports| {
            let gone = reports.keys().any(|id| !servers.contains_key(id));
            if gone {
                Arc::make_mut(reports).retain(|id, _| servers.contains_key(id));
            }
            gone
        });
        let witnesses = self.witnesses();
        let mesh = self.mesh.status().borrow().clone();
        let ips = own_ips(&self.network, &mesh);
        let mut due = Vec::new();
        for (id, server) in servers.iter().filter(|(_, server)| server.state == State::Running) {
            if let Some(visibility) = server.definition.visibility {
                // Whoever is asked to look learns of it.
                self.note(
                    *id,
                    match visibility {
                        Visibility::Unlisted => "it is unlisted, so nobody is asked to look",
                        Visibility::Lan => {
                            "it is for the LAN, so nobody elsewhere is asked to look"
                        }
                    },
                );
                continue;
            }
            let Some((port, protocol)) = probe_of(server) else {
                self.note(*id, UNCHECKED);
                continue;
            };
            // They ask where the listing says that players go.
            let port = match ips.first() {
                Some(ip) => outside_port(&mesh, *ip, (port, protocol.transport())),
                None => port,
            };
            let ready = server.ready_at;
            let subject = Subject { port, protocol, ips: ips.clone(), ready };
            if witnesses.is_empty() {
                self.note(*id, "no peer is connected that could look");
            } else if plan.is_due(id, &subject, witnesses.len(), Instant::now()) {
                due.push((*id, server, subject));
            }
        }
        for some in due.chunks(AT_ONCE) {
            let proving = some
                .iter()
                .map(|(id, server, subject)| self.prove(*id, server, subject, &witnesses));
            for ((id, _, subject), ok) in some.iter().zip(join_all(proving).await) {
                let moment = (Instant::now(), fastrand::f64());
                plan.done(*id, subject.clone(), witnesses.len(), ok, moment);
            }
        }
    }

    /// Peers that may be asked: one of each block of addresses.
    fn witnesses(&self) -> Vec<PeerInfo> {
        let mut peers = self.mesh.status().borrow().peers.clone();
        // Through a relay nobody sees where this machine is.
        peers.retain(|peer| peer.holds_replica && peer.path != PathKind::Relayed);
        fastrand::shuffle(&mut peers);
        let mut nets = BTreeSet::new();
        peers.retain(|peer| ip_of(&peer.address).and_then(net_of).is_none_or(|n| nets.insert(n)));
        peers.truncate(WITNESSES_MAX);
        peers
    }

    /// Asks all of them at once; true when somebody got through.
    async fn prove(
        &self,
        id: ServerId,
        server: &ServerView,
        subject: &Subject,
        witnesses: &[PeerInfo],
    ) -> bool {
        let Subject { port, protocol, .. } = *subject;
        let request = AttestRequest { server: id, port, protocol };
        let answers = join_all(witnesses.iter().map(|peer| {
            let request = request.clone();
            async move { (peer, self.mesh.attest(peer.node, request).await) }
        }))
        .await;
        let mut attests = BTreeMap::<IpAddr, Vec<Attest>>::new();
        let mut reports = Vec::new();
        for (peer, answer) in answers {
            let result = match answer {
                Err(error) => Err(error.to_string()),
                Ok(Err(refusal)) => Err(refusal.to_string()),
                Ok(Ok((ip, attest))) => {
                    let probe = self.probe(id, ip, port, protocol);
                    let sound =
                        attest.node() == peer.node && probe.is_attested_by(&self.network, &attest);
                    if sound {
                        let players = attest.players();
                        attests.entry(ip).or_default().push(attest);
                        Ok((ip, players))
                    } else {
                        Err("its statement does not hold".to_owned())
                    }
                }
            };
            reports.push(WitnessReport { node: peer.node, ip: ip_of(&peer.address), result });
        }
        self.report(
            id,
            ReachReport {
                at: Some(UnixMillis(wall_ms())),
                asked: Some(format!("{port}/{} by {}", protocol.transport(), name_of(protocol))),
                witnesses: reports,
                note: None,
            },
        );
        // A home may be seen at several addresses; most of its witnesses count.
        let best = attests.into_iter().max_by_key(|(_, attests)| attests.len());
        let ok = best.is_some();
        let ip = best.as_ref().map(|(ip, _)| *ip).or(subject.ips.first().copied());
        let Some(ip) = ip else { return false };
        let mut attests = best.map(|(_, attests)| attests).unwrap_or_default();
        attests.sort_by_key(Attest::node);
        let reach = ReachAttest {
            nonce: server.definition.nonce,
            address: self.probe(id, ip, port, protocol).address,
            protocol,
            asked: witnesses.len().try_into().unwrap_or(u8::MAX),
            attests,
        };
        self.announcer.proved(id, reach);
        ok
    }

    fn probe(&self, server: ServerId, ip: IpAddr, port: u16, protocol: ProbeProtocol) -> Probe {
        let address = JoinAddress { socket: (ip, port).into(), transport: protocol.transport() };
        Probe { server, address, protocol }
    }

    fn note(&self, id: ServerId, note: &str) {
        let known = self
            .reports
            .borrow()
            .get(&id)
            .is_some_and(|report| report.at.is_some() || report.note.as_deref() == Some(note));
        if !known {
            self.report(id, ReachReport { note: Some(note.into()), ..ReachReport::default() });
        }
    }

    fn report(&self, id: ServerId, report: ReachReport) {
        self.reports.send_modify(|reports| drop(Arc::make_mut(reports).insert(id, report)));
    }
}

/// Where and how others may ask this server, if they may.
fn probe_of(server: &ServerView) -> Option<(u16, ProbeProtocol)> {
    let (name, request) = server.definition.query_port()?;
    let protocol = server.definition.query.kind.probe(request.transport)?;
    let port = server.ports.get(name).copied().or(request.assigned)?;
    Some((port, protocol))
}

/// The word for a protocol, as in `--query`.
pub(crate) fn name_of(protocol: ProbeProtocol) -> &'static str {
    match protocol {
        ProbeProtocol::A2s => "a2s",
        ProbeProtocol::Minecraft => "minecraft",
        ProbeProtocol::Quake3 => "quake3",
        ProbeProtocol::Luanti => "luanti",
        ProbeProtocol::Tcp => "tcp",
    }
}
