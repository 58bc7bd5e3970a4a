//! The addresses on standard output: the first line is what hosts are given.

use std::io::{self, Write};
use std::net::SocketAddr;

use homehost_mesh::address::ip_of;
use homehost_mesh::{MeshEvent, Multiaddr};
use homehost_protocol::{NodeId, Scope};

use crate::Failure;

/// Our own addresses, as they become known.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    external: Vec<Multiaddr>,
    listening: Vec<Multiaddr>,
    /// Listen addresses about which nothing is known yet.
    open: usize,
    /// Whether one asked-for address may become several.
    wildcard: bool,
}

impl Addresses {
    /// # Errors
    /// [`Failure::Usage`] when an external address names another node.
    pub(crate) fn new(
        node: NodeId,
        external: &[Multiaddr],
        listen: &[Multiaddr],
    ) -> Result<Self, Failure> {
        let external = external.iter().map(|address| with_node(address, node));
        Ok(Self {
            external: external.collect::<Result<_, _>>()?,
            listening: Vec::new(),
            open: listen.len(),
            wildcard: listen
                .iter()
                .any(|address| ip_of(address).is_none_or(|ip| ip.is_unspecified())),
        })
    }

    /// Takes note of an event.
    ///
    /// # Errors
    /// [`Failure::PortInUse`]: the operator asked for this port, and hosts
    /// would be sent to another program. [`Failure::Usage`] when it is no
    /// address to listen on.
    pub(crate) fn note(&mut self, event: MeshEvent) -> Result<(), Failure> {
        match event {
            MeshEvent::Listening { address } => {
                self.open = self.open.saturating_sub(1);
                if !self.listening.contains(&address) {
                    self.listening.push(address);
                }
            }
            MeshEvent::ListenFailed { address, kind: io::ErrorKind::AddrInUse, .. } => {
                return Err(Failure::PortInUse {
                    address: address.to_string(),
                    option: "--listen",
                });
            }
            MeshEvent::ListenFailed { address, kind: io::ErrorKind::InvalidInput, reason } => {
                return Err(Failure::Usage(format!("--listen {address}: {reason}")));
            }
            MeshEvent::ListenFailed { address, reason, .. } => {
                self.open = self.open.saturating_sub(1);
                tracing::warn!(%address, reason, "cannot listen here; the other addresses go on");
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether there is an address to announce.
    pub(crate) fn any(&self) -> bool {
        !self.listening.is_empty()
    }

    /// Whether no more are to be expected.
    pub(crate) fn complete(&self) -> bool {
        self.open == 0 && !self.wildcard
    }

    /// All addresses, the one that reaches furthest first.
    pub(crate) fn in_order(&self) -> Vec<&Multiaddr> {
        let mut listening: Vec<_> = self.listening.iter().collect();
        listening.sort_by_key(|address| match ip_of(address).map(Scope::of) {
            Some(Scope::Global) => 0,
            Some(Scope::OnLink) => 1,
            Some(Scope::Loopback) => 2,
            Some(Scope::Nowhere) | None => 3,
        });
        self.external.iter().chain(listening).collect()
    }

    /// Writes them, one on each line, and where metrics are.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        metrics: Option<SocketAddr>,
    ) -> io::Result<()> {
        for address in self.in_order() {
            writeln!(out, "{address}")?;
        }
        if let Some(metrics) = metrics {
            writeln!(out, "metrics http://{metrics}/metrics")?;
        }
        out.flush()
    }
}

fn with_node(address: &Multiaddr, node: NodeId) -> Result<Multiaddr, Failure> {
    let end = format!("/p2p/{node}");
    let text = address.to_string();
    let full = if text.ends_with(&end) { text } else { format!("{text}{end}") };
    if full.matches("/p2p/").count() != 1 {
        return Err(Failure::Usage(format!(
            "--external-address {address}: this node is {node}; leave /p2p away"
        )));
    }
    full.parse().map_err(|_| Failure::Usage(format!("--external-address {address}: no multiaddr")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([9; 32]);

    fn listening(text: &str) -> MeshEvent {
        MeshEvent::Listening { address: text.parse().unwrap() }
    }

    fn new(external: &[&str], listen: &[&str]) -> Result<Addresses, Failure> {
        let parse = |texts: &[&str]| -> Vec<Multiaddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        Addresses::new(NODE, &parse(external), &parse(listen))
    }

    #[test]
    fn external_comes_first_then_what_reaches_furthest() {
        let mut addresses =
            new(&["/dns4/boot.example.org/tcp/4001"], &["/ip4/0.0.0.0/tcp/4001"]).unwrap();
        for ip in ["127.0.0.1", "192.168.1.2", "8.8.8.8"] {
            addresses.note(listening(&format!("/ip4/{ip}/tcp/4001"))).unwrap();
        }
        assert!(addresses.any() && !addresses.complete(), "others may follow");
        let mut out = Vec::new();
        addresses.write(&mut out, Some(([127, 0, 0, 1], 9464).into())).unwrap();
        let out = String::from_utf8(out).unwrap();
        let expected = format!(
            "/dns4/boot.example.org/tcp/4001/p2p/{NODE}\n/ip4/8.8.8.8/tcp/4001\n\
             /ip4/192.168.1.2/tcp/4001\n/ip4/127.0.0.1/tcp/4001\n\
             metrics http://127.0.0.1:9464/metrics\n"
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn it_is_complete_when_each_listener_has_spoken() {
        let mut addresses =
            new(&[], &["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]).unwrap();
        addresses.note(listening("/ip4/127.0.0.1/tcp/1")).unwrap();
        assert!(!addresses.complete());
        let failed = |kind| MeshEvent::ListenFailed {
            address: "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(),
            kind,
            reason: String::new(),
        };
        let refused = |failure| matches!(failure, Err(Failure::PortInUse { .. }));
        assert!(refused(addresses.note(failed(io::ErrorKind::AddrInUse))));
        let refused = |failure| matches!(failure, Err(Failure::Usage(_)));
        assert!(refused(addresses.note(failed(io::ErrorKind::InvalidInput))));
        addresses.note(failed(io::ErrorKind::Unsupported)).unwrap();
        assert!(addresses.complete());
    }

    #[test]
    fn an_external_address_names_this_node_or_none() {
        let own = format!("/ip4/8.8.8.8/tcp/1/p2p/{NODE}");
        assert_eq!(new(&[&own], &[]).unwrap().in_order()[0].to_string(), own);
        let other = format!("/ip4/8.8.8.8/tcp/1/p2p/{}", NodeId([8; 32]));
        assert!(matches!(new(&[&other], &[]), Err(Failure::Usage(_))));
    }
}
