//! Who reached our servers: signed, and said before the rows that it proves.

use anyhow::Context as _;
use homehost_directory::Source;
use homehost_protocol::gossip::Topic;
use homehost_protocol::{JoinAddress, ReachAttest, Record, Scope, ServerId, UnixMillis};
use homehost_runtime::wall_ms;

use super::AnnounceTask;

/// Puts the address that witnesses reached before the others.
///
/// What they say counts for the first address of a listing, as that is where
/// players go; and the peers of a machine with addresses of both families may
/// all see it at the second.
pub(super) fn reached_first(addresses: &mut [JoinAddress], reach: &ReachAttest) {
    let reached = |at: &JoinAddress| at.socket.ip() == reach.address.socket.ip();
    if let Some(at) = addresses.iter().position(reached).filter(|_| !reach.attests.is_empty()) {
        addresses[..=at].rotate_right(1);
    }
}

impl AnnounceTask {
    /// Signs and says who reached a server. Where nothing is signed at the
    /// moment it is kept, until there is a key again.
    pub(super) async fn say_reach(&mut self, id: ServerId, reach: ReachAttest) {
        let servers = self.parts.servers.borrow().clone();
        self.reach.retain(|id, _| servers.contains_key(id));
        let near = self.parts.network.is_main() && reach.address.scope() != Scope::Global;
        if self.state.signer().is_none() {
            self.reach.insert(id, (reach, None));
            return;
        }
        match self.sign_reach(id, reach.clone()).await {
            Ok(envelope) => {
                self.reach.insert(id, (reach, Some(envelope.clone())));
                if near {
                    self.offer_to_link(&[envelope]);
                } else {
                    self.publish(Topic::Listings, vec![envelope]).await;
                }
            }
            Err(error) => tracing::warn!("failed to say who reached a server: {error}"),
        }
    }

    async fn sign_reach(&self, id: ServerId, reach: ReachAttest) -> anyhow::Result<Vec<u8>> {
        let key = self.parts.key(&[b"reach/", id.as_ref()].concat());
        let signer = self.state.signer().context("this machine does not sign")?;
        let now = wall_ms();
        let seq = self.parts.clock.next_seq(&self.parts.ledger, &key, now).await?;
        let envelope = signer.sign(&Record::ReachAttest(reach), seq, UnixMillis(now))?;
        self.parts.directory.admit(vec![(envelope.clone(), Source::Own)]).await?;
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homehost_protocol::ServerNonce;
    use homehost_protocol::keys::DeviceKey;
    use homehost_protocol::record::reach::{Probe, ProbeProtocol};

    #[test]
    fn only_an_address_that_was_reached_goes_first() {
        let own: Vec<JoinAddress> =
            ["8.8.8.8:30000/udp", "[2a01:4f8::1]:30000/udp", "1.1.1.1:30000/udp"]
                .map(|text| text.parse().unwrap())
                .to_vec();
        let order = |about: &str, witnesses: u8| {
            let address = about.parse().unwrap();
            let (protocol, server) = (ProbeProtocol::A2s, ServerId([0; 32]));
            let probe = Probe { server, address, protocol };
            let attest = |seed| {
                let key = DeviceKey::from_seed([seed; 32]);
                probe.attest(&"main".parse().unwrap(), UnixMillis(1), None, &key)
            };
            let attests = (0..witnesses).map(attest).collect();
            let nonce = ServerNonce([0; 16]);
            let reach = ReachAttest { nonce, address, protocol, asked: 2, attests };
            let mut addresses = own.clone();
            reached_first(&mut addresses, &reach);
            addresses.iter().map(|at| own.iter().position(|own| own == at).unwrap()).collect()
        };
        let cases: [(&str, u8, Vec<usize>); 5] = [
            ("[2a01:4f8::1]:30000/udp", 1, vec![1, 0, 2]),
            // The query has a port of its own.
            ("1.1.1.1:30001/udp", 2, vec![2, 0, 1]),
            ("8.8.8.8:30000/udp", 1, vec![0, 1, 2]),
            ("[2a01:4f8::1]:30000/udp", 0, vec![0, 1, 2]),
            ("9.9.9.9:30000/udp", 1, vec![0, 1, 2]),
        ];
        for (about, witnesses, expected) in cases {
            let seen: Vec<usize> = order(about, witnesses);
            assert_eq!(seen, expected, "{about} by {witnesses}");
        }
    }
}
