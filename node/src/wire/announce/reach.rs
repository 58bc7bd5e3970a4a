//! Who reached our servers: signed, and said before the rows that it proves.

use anyhow::Context as _;
use homehost_directory::Source;
use homehost_protocol::gossip::Topic;
use homehost_protocol::{ReachAttest, Record, Scope, ServerId, UnixMillis};
use homehost_runtime::wall_ms;

use super::AnnounceTask;

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
