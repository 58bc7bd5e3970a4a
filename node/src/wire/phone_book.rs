//! The DHT from this node's side: what it says of itself is put there and kept
//! there, and what others look for by id is found (spec/mesh §8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_directory::{DirectoryHandle, Source};
use homehost_mesh::{
    AddressSource, AddressState, DhtAnswer, DhtError, MeshHandle, Multiaddr, OwnAddress,
};
use homehost_protocol::dht::DhtKey;
use homehost_protocol::keys::DeviceKey;
use homehost_protocol::limits::{HOST_ADDRESS_BYTES_MAX, HOST_ADDRESSES_MAX};
use homehost_protocol::record::host::{HostAnnouncement, capabilities};
use homehost_protocol::record::listing::Visibility;
use homehost_protocol::{
    NetworkName, NodeId, RecId, Record, Scope, ServerId, UnixMillis, Verdict, validate,
};
use homehost_runtime::{Shutdown, wall_ms};
use homehost_store::{Ledger, Table};
use tokio::sync::{Notify, watch};

use super::clock::ClockHandle;
use super::join::ip_of;
use crate::identity::keys::SignerState;

/// How often everything is put anew: holders come and go.
const AGAIN: Duration = Duration::from_secs(3600);

/// How often it is looked for what is due.
const LOOK: Duration = Duration::from_secs(30);

/// A host announcement is signed anew at half of its life.
const HOST_AGAIN: Duration = Duration::from_secs(12 * 3600);

/// Own records that are looked through.
const OWN_RECORDS_MAX: usize = 1024;

/// Keeps this node's records in the DHT.
pub(crate) struct PhoneBook {
    pub(crate) clock: ClockHandle,
    pub(crate) mesh: MeshHandle,
    pub(crate) directory: DirectoryHandle,
    pub(crate) ledger: Ledger,
    pub(crate) network: NetworkName,
    /// The node's own key, which co-signs announcements.
    pub(crate) node: DeviceKey,
    pub(crate) keys: watch::Receiver<Arc<SignerState>>,
    /// Something was said, and may have to be put.
    pub(crate) said: Arc<Notify>,
}

/// What was put last under a key.
struct Put {
    id: RecId,
    at: Instant,
}

/// What was said last of this host.
struct Host {
    addresses: Vec<String>,
    order: (u16, u8),
    at: Instant,
}

impl PhoneBook {
    /// Runs until the node stops.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut status = self.mesh.status();
        let mut put = BTreeMap::new();
        let mut host = None;
        let mut alone = true;
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                _ = looks.tick() => {}
                () = self.said.notified() => {}
                Ok(()) = status.changed() => {
                    let now_alone = status.borrow().peers.is_empty();
                    let was_alone = std::mem::replace(&mut alone, now_alone);
                    if !was_alone || now_alone {
                        continue;
                    }
                    // What was put while nobody was there is nowhere else.
                    put.clear();
                    if let Err(error) = self.mesh.dht_provide().await {
                        tracing::debug!("failed to say that a replica is held here: {error}");
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                () = self.look(&mut put, &mut host) => {}
            }
        }
    }

    async fn look(&self, put: &mut BTreeMap<DhtKey, Put>, host: &mut Option<Host>) {
        if let Err(error) = self.announce_host(host).await {
            tracing::warn!("failed to announce this host: {error}");
        }
        let own = match self.own_records().await {
            Ok(own) => own,
            Err(error) => return tracing::warn!("failed to read own records: {error}"),
        };
        put.retain(|key, _| own.contains_key(key));
        for (key, envelope) in own {
            let id = RecId::of(&envelope);
            let stands = put.get(&key).is_some_and(|p| p.id == id && p.at.elapsed() < AGAIN);
            if stands {
                continue;
            }
            match self.mesh.dht_put(key, envelope).await {
                Ok(_) => drop(put.insert(key, Put { id, at: Instant::now() })),
                Err(error) => tracing::debug!(%key, "failed to put into the DHT: {error}"),
            }
        }
    }

    /// Own records that the DHT keeps, and that everyone may have.
    async fn own_records(&self) -> anyhow::Result<BTreeMap<DhtKey, Vec<u8>>> {
        let prefix = [self.network.as_str().as_bytes(), b"/"].concat();
        let rows = self.ledger.scan(Table::OwnRecords, &prefix, OWN_RECORDS_MAX).await?;
        let now = UnixMillis(wall_ms());
        let chains = self.directory.keys();
        let mut own = BTreeMap::new();
        for (_, envelope) in rows {
            let Verdict::Accept(record) = validate(&envelope, &self.network, &chains, now) else {
                continue;
            };
            let near = matches!(&record.record, Record::ServerListing(listing)
                if listing.visibility == Some(Visibility::Lan)
                    || (self.network.is_main()
                        && listing.addresses.iter().any(|a| a.scope() != Scope::Global)));
            if let Some(key) = DhtKey::of(&record).filter(|_| !near) {
                own.insert(key, envelope);
            }
        }
        Ok(own)
    }

    /// Says where this node is, when that has changed or was said long ago.
    async fn announce_host(&self, last: &mut Option<Host>) -> anyhow::Result<()> {
        let state = self.keys.borrow().clone();
        let Some(signer) = state.signer() else { return Ok(()) };
        let addresses = self.addresses();
        let order = (signer.key_epoch(), signer.dev());
        let stands = last.as_ref().is_some_and(|last| {
            last.addresses == addresses && last.order == order && last.at.elapsed() < HOST_AGAIN
        });
        if stands {
            return Ok(());
        }
        let key = [self.network.as_str().as_bytes(), b"/host"].concat();
        let now = wall_ms();
        let seq = self.clock.next_seq(&self.ledger, &key, now).await?;
        let record = Record::HostAnnouncement(HostAnnouncement {
            node: NodeId(self.node.public().0),
            addresses: addresses.clone(),
            agent: concat!("homehost/", env!("CARGO_PKG_VERSION")).into(),
            capabilities: Some(capabilities::WITNESS),
            co_signature: self.node.co_sign(&signer.root(), signer.dev(), seq, &self.network),
        });
        let envelope = signer.sign(&record, seq, UnixMillis(now))?;
        let batch = homehost_store::Batch::new().put(Table::OwnRecords, key, envelope);
        self.ledger.commit(batch).await?;
        *last = Some(Host { addresses, order, at: Instant::now() });
        Ok(())
    }

    /// Where this node listens, as far as that helps others on this network.
    fn addresses(&self) -> Vec<String> {
        let status = self.mesh.status().borrow().clone();
        let helps = |address: &&Multiaddr| match ip_of(address).map(Scope::of) {
            Some(Scope::Global) => true,
            Some(Scope::OnLink | Scope::Loopback) => !self.network.is_main(),
            Some(Scope::Nowhere) | None => false,
        };
        let listening = status.listening.iter().filter(helps).map(Multiaddr::to_string);
        // What the world reaches besides, and the relays that lead here.
        let outside = status.network.addresses.iter().filter(|own| {
            own.source == AddressSource::Relay
                || (own.state == AddressState::Confirmed && own.source != AddressSource::Listen)
        });
        let fits = |address: &String| address.len() <= HOST_ADDRESS_BYTES_MAX;
        let node = self.mesh.node();
        let full = |own: &OwnAddress| match own.source {
            // It is long enough without.
            AddressSource::Relay => own.address.to_string(),
            _ => format!("{}/p2p/{node}", own.address),
        };
        let outside = outside.map(full).filter(fits);
        listening.chain(outside).take(HOST_ADDRESSES_MAX).collect()
    }
}

/// Key chains that one lookup asks for: a listing has one, and liars near its key
/// may name others.
const CHAINS_MAX: usize = 2;

/// Looks for a server's listing in the DHT; takes in what is found, and the key
/// chain that it needs.
///
/// # Errors
/// See [`DhtError`].
pub(crate) async fn look_up(
    mesh: &MeshHandle,
    directory: &DirectoryHandle,
    id: ServerId,
) -> Result<DhtAnswer, DhtError> {
    let key = DhtKey::Listing(id);
    let mut answer = mesh.dht_get(key).await?;
    if !answer.need_chains.is_empty() {
        for root in std::mem::take(&mut answer.need_chains).into_iter().take(CHAINS_MAX) {
            if let Some(chain) = mesh.dht_get(DhtKey::Chain(root)).await?.best {
                take_in(directory, chain).await;
            }
        }
        answer = mesh.dht_get(key).await?;
    }
    if let Some(best) = &answer.best {
        take_in(directory, best.clone()).await;
    }
    Ok(answer)
}

/// What the DHT knows confirms nothing: its holders were told hours ago.
pub(super) async fn take_in(directory: &DirectoryHandle, envelope: Vec<u8>) {
    let source = Source::Peer { on_link: false, age: None };
    // A directory that is shutting down needs nothing more.
    drop(directory.admit(vec![(envelope, source)]).await);
}
