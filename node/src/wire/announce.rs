//! Hosting, directory and mesh: what runs here is signed and told to others, and
//! so are the keys that it is signed with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use homehost_directory::publisher::{OwnServer, Proposal, Publisher};
use homehost_directory::{Admission, DirectoryHandle, Refusal, Source};
use homehost_hosting::{ServerDefinition, ServerView, State};
use homehost_mesh::{MeshHandle, Published};
use homehost_protocol::chain::KeyChain;
use homehost_protocol::gossip::{Topic, encode_batches};
use homehost_protocol::limits::RPC_OFFER_MAX;
use homehost_protocol::record::listing::{ListingState, Visibility};
use homehost_protocol::record::{RecordSigner, SignError};
use homehost_protocol::rpc::Request;
use homehost_protocol::validate::IgnoreReason;
use homehost_protocol::{
    JoinAddress, NetworkName, NodeId, Presence, ReachAttest, Record, Scope, ServerId,
    ServerListing, UnixMillis, Verdict, validate,
};
use homehost_runtime::{Shutdown, wall_ms};
use homehost_store::{Batch, Ledger, Row, StoreError, Table};
use tokio::sync::{Notify, mpsc, watch};

use super::clock::ClockHandle;
use super::join::{ips_for, join_addresses, own_ips};
use crate::identity::keys::{OwnChain, SignerState, Signing};

mod chain;

use chain::{CHAIN_ROW, ChainSaid};

mod reach;

/// How often the publisher looks whether something is due.
const TICK: Duration = Duration::from_millis(500);

/// Things told to the announcer that may wait; what it does takes milliseconds.
const QUEUE: usize = 64;

/// Own records read at the start: all servers of a device, and those that were
/// removed since their tombstones were last cleared away.
const OWN_RECORDS_MAX: usize = 1024;

/// Why a server that runs is not listed, for its owner.
pub(crate) type Problems = Arc<BTreeMap<ServerId, String>>;

/// Running servers by id.
type Servers = Arc<BTreeMap<ServerId, ServerView>>;

enum Told {
    Rejoined,
    PeerJoined(NodeId, Scope),
    Proved(ServerId, Box<ReachAttest>),
}

/// The side that is told what happened on the mesh.
#[derive(Clone)]
pub(crate) struct Announcer {
    told: mpsc::Sender<Told>,
    speaking: watch::Receiver<bool>,
    problems: watch::Receiver<Problems>,
    said: Arc<Notify>,
}

impl Announcer {
    /// Others can hear this node again.
    pub(crate) fn rejoined(&self) {
        // A full queue already holds what makes it speak again.
        let _ = self.told.try_send(Told::Rejoined);
    }

    /// A peer that keeps a replica is here.
    pub(crate) fn peer_joined(&self, node: NodeId, scope: Scope) {
        let _ = self.told.try_send(Told::PeerJoined(node, scope));
    }

    /// Is told when something new was said.
    pub(crate) fn said(&self) -> Arc<Notify> {
        self.said.clone()
    }

    /// Witnesses were asked whether they reach a server.
    pub(crate) fn proved(&self, id: ServerId, reach: ReachAttest) {
        // Over the bound, the next proof is said.
        let _ = self.told.try_send(Told::Proved(id, Box::new(reach)));
    }

    /// Why servers that run are not listed.
    pub(crate) fn problems(&self) -> Problems {
        self.problems.borrow().clone()
    }

    /// Waits until nothing that others were told of is left standing, or the
    /// time is over.
    pub(crate) async fn silent(&self, within: Duration) -> bool {
        let mut speaking = self.speaking.clone();
        tokio::time::timeout(within, speaking.wait_for(|speaking| !speaking)).await.is_ok()
    }
}

/// Everything that announcing needs.
pub(crate) struct Announcement {
    pub(crate) clock: ClockHandle,
    pub(crate) network: NetworkName,
    pub(crate) keys: watch::Receiver<Arc<SignerState>>,
    pub(crate) ledger: Ledger,
    pub(crate) mesh: MeshHandle,
    pub(crate) directory: DirectoryHandle,
    pub(crate) servers: watch::Receiver<Servers>,
}

impl Announcement {
    /// Reads what was said before and makes both sides.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(crate) async fn open(mut self) -> Result<(Announcer, AnnounceTask), StoreError> {
        let state = self.keys.borrow_and_update().clone();
        let Recalled { mut publisher, chain, anew } = self.recall(&state).await?;
        if anew {
            publisher.rejoined();
        }
        let (told, inbox) = mpsc::channel(QUEUE);
        let said = Arc::<Notify>::default();
        let (speaking_in, speaking) = watch::channel(publisher.says_anything());
        let (problems_in, problems) = watch::channel(Problems::default());
        let task = AnnounceTask {
            chain: ChainSaid::at_start(chain, self.directory.now().wall),
            state,
            parts: self,
            publisher,
            inbox,
            speaking: speaking_in,
            problems: problems_in,
            reach: BTreeMap::new(),
            said: said.clone(),
            jumps: 0,
        };
        Ok((Announcer { told, speaking, problems, said }, task))
    }

    /// What this root said here before, as far as it can still be taken back or
    /// said anew. The rest is forgotten.
    async fn recall(&self, state: &SignerState) -> Result<Recalled, StoreError> {
        let mut recalled = Recalled::default();
        let now = self.directory.now();
        let signs_as = state.signer().map(|signer| (signer.key_epoch(), signer.dev()));
        let mut gone = Batch::new();
        let mut records = self.own_records().await?;
        // What is signed by later keys is refused where the chain is not known.
        records.sort_by_key(|(key, _)| *key != self.key(CHAIN_ROW));
        for (key, envelope) in records {
            match validate(&envelope, &self.network, &OwnChain(&state.chain), now.wall) {
                Verdict::Accept(validated) if validated.header.root == state.chain.root() => {
                    let header = validated.header;
                    match validated.record {
                        Record::ServerListing(listing) => {
                            let id = listing.id(&header.root);
                            let age = now.wall.since(header.issued);
                            recalled.publisher.remember(id, listing, age, now);
                            recalled.anew |= signs_as != Some((header.key_epoch, header.dev));
                        }
                        Record::KeyChain(body) => {
                            recalled.chain = Some((body, header.issued, envelope.clone()));
                        }
                        _ => {}
                    }
                    // The replica may have lost it; the ledger has not.
                    drop(self.directory.admit(vec![(envelope, Source::Own)]).await);
                }
                // The clock may be wrong, and be set in a moment.
                Verdict::Ignore(IgnoreReason::Future) => {}
                _ => gone = gone.delete(Table::OwnRecords, key),
            }
        }
        if !gone.is_empty() {
            self.ledger.commit(gone).await?;
        }
        Ok(recalled)
    }

    /// What this node said on this network; a folder may have been on others.
    async fn own_records(&self) -> Result<Vec<Row>, StoreError> {
        self.ledger.scan(Table::OwnRecords, &self.key(b""), OWN_RECORDS_MAX).await
    }

    /// Key of a row in the ledger.
    fn key(&self, row: &[u8]) -> Vec<u8> {
        [self.network.as_str().as_bytes(), b"/", row].concat()
    }
}

/// What the ledger tells of what was said before.
#[derive(Default)]
struct Recalled {
    publisher: Publisher,
    /// Body, issue and envelope of the record of the key chain.
    chain: Option<(KeyChain, UnixMillis, Vec<u8>)>,
    /// Whether some of it was signed by a key that has ended since.
    anew: bool,
}

/// The side that speaks.
pub(crate) struct AnnounceTask {
    parts: Announcement,
    state: Arc<SignerState>,
    publisher: Publisher,
    chain: ChainSaid,
    inbox: mpsc::Receiver<Told>,
    speaking: watch::Sender<bool>,
    problems: watch::Sender<Problems>,
    /// Who reached our servers, as it was said last, and its record.
    reach: BTreeMap<ServerId, (ReachAttest, Option<Vec<u8>>)>,
    said: Arc<Notify>,
    /// Jumps of the clock after which everything was said anew.
    jumps: u64,
}

impl AnnounceTask {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut servers = self.parts.servers.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return Ok(()),
                Ok(()) = self.parts.keys.changed() => self.keys_changed().await,
                Some(told) = self.inbox.recv() => self.told(told).await,
                Ok(()) = servers.changed() => self.tick().await,
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    async fn told(&mut self, told: Told) {
        match told {
            Told::Rejoined => {
                self.publisher.rejoined();
                self.chain.rejoined();
                self.tick().await;
            }
            Told::PeerJoined(node, scope) if scope != Scope::Global => self.offer(node).await,
            Told::PeerJoined(..) => {}
            Told::Proved(id, reach) => self.say_reach(id, *reach).await,
        }
    }

    /// Signs everything anew: what was said is worth nothing with a key that
    /// has ended.
    async fn keys_changed(&mut self) {
        self.state = self.parts.keys.borrow_and_update().clone();
        match self.parts.recall(&self.state).await {
            Ok(Recalled { publisher, .. }) => self.publisher = publisher,
            Err(error) => tracing::warn!("failed to read what was announced before: {error}"),
        }
        self.publisher.rejoined();
        self.problems.send_replace(Problems::default());
        self.tick().await;
        // The witnesses' word is about the server and not about our key.
        let said = self.reach.iter().map(|(id, (reach, _))| (*id, reach.clone()));
        for (id, reach) in said.collect::<Vec<_>>() {
            self.say_reach(id, reach).await;
        }
    }

    async fn tick(&mut self) {
        let jumps = self.parts.clock.jumps();
        if std::mem::replace(&mut self.jumps, jumps) != jumps {
            // What was said is dated by a clock that was wrong, or long ago.
            self.publisher.rejoined();
            self.chain.rejoined();
        }
        self.keep_chain().await;
        let chain = self.chain.due();
        if let Signing::Ended { why } = &self.state.signing {
            let why = format!("it cannot be listed: {why}");
            self.speaking.send_replace(false);
            self.fall_silent(&why);
            return self.publish(Topic::Listings, chain).await;
        }
        self.look();
        let listings = self.publisher.listings(self.parts.directory.now());
        let spoke = !listings.is_empty();
        self.say(listings, chain).await;
        let interval =
            homehost_directory::core::presence_interval(self.parts.directory.stats().listings);
        let presence = self.publisher.presence(interval, spoke, self.parts.directory.now());
        if let Some(presence) = presence {
            self.say(vec![presence], None).await;
        }
        let speaking = self.publisher.says_anything();
        self.speaking.send_if_modified(|said| std::mem::replace(said, speaking) != speaking);
    }

    /// Nothing is signed any more: tells the owners of all servers why.
    fn fall_silent(&self, why: &str) {
        let running = self.parts.servers.borrow().clone();
        let running = running.iter().filter(|(_, server)| server.state == State::Running);
        let problems: BTreeMap<_, _> = running.map(|(id, _)| (*id, why.to_owned())).collect();
        self.problems.send_if_modified(|told| {
            let changed = **told != problems;
            if changed {
                *told = Arc::new(problems);
            }
            changed
        });
    }

    /// Tells the publisher what runs here at this moment.
    fn look(&mut self) {
        let network = &self.parts.network;
        let mesh = self.parts.mesh.status().borrow().clone();
        let servers = self.parts.servers.borrow().clone();
        let mut running = BTreeMap::new();
        let mut undecided = BTreeSet::new();
        for (id, server) in servers.iter() {
            match server.state {
                State::Running => {
                    let ips = ips_for(server.definition.visibility, network, &mesh);
                    let mut addresses = join_addresses(server, &ips, &mesh);
                    if let Some((reach, _)) = self.reach.get(id) {
                        reach::reached_first(&mut addresses, reach);
                    }
                    // Until the mesh knows an address there is nothing to tell.
                    if addresses.is_empty() {
                        undecided.insert(*id);
                    } else {
                        running.insert(*id, own_server(server, addresses));
                    }
                }
                State::Starting | State::Backoff { .. } => drop(undecided.insert(*id)),
                State::Offline | State::Stopping | State::Crashed => {}
            }
        }
        self.publisher.set_running(running, undecided);
    }

    /// Signs, keeps and sends what was proposed, and tells the publisher how it went.
    /// The chain comes before what it proves.
    async fn say(&mut self, proposals: Vec<Proposal>, chain: Option<Vec<u8>>) {
        let mut far = BTreeMap::<Topic, Vec<Vec<u8>>>::new();
        // Before the presence that names servers of the LAN, too, so that this
        // one, which is for its link, stands there.
        if let [Proposal::Presence(presence)] = &proposals[..]
            && let Some(public) = self.public_part(presence)
        {
            match self.sign(&Proposal::Presence(public)).await {
                Ok(envelope) => far.entry(Topic::Presence).or_default().push(envelope),
                Err(error) => tracing::warn!("failed to announce: {error}"),
            }
        }
        // Together, so that one write to the disk serves many.
        let signed = join_all(proposals.iter().map(|proposal| self.sign(proposal))).await;
        let mut near = Vec::new();
        let mut unlisted = false;
        if let Some(chain) = &chain {
            far.entry(Topic::Listings).or_default().push(chain.clone());
        }
        let now = self.parts.directory.now();
        for (proposal, signed) in proposals.into_iter().zip(signed) {
            match signed {
                Ok(envelope) => {
                    self.problem(&proposal, None);
                    let topic = topic_of(&proposal);
                    if is_unlisted(&proposal) {
                        // The DHT has it as soon as the phone book looks.
                        unlisted = true;
                        self.publisher.said(proposal, now);
                        continue;
                    }
                    let to = if self.is_near_only(&proposal) {
                        &mut near
                    } else {
                        far.entry(topic).or_default()
                    };
                    if let Proposal::Listing(id, _) = &proposal {
                        to.extend(self.reach.get(id).and_then(|(_, envelope)| envelope.clone()));
                    }
                    to.push(envelope);
                    self.publisher.said(proposal, now);
                }
                Err(error) => {
                    let text = format!("it cannot be listed: {error}; this is tried again");
                    tracing::warn!("failed to announce: {error}");
                    self.problem(&proposal, Some(text));
                    self.publisher.failed(&proposal, now);
                }
            }
        }
        if far.contains_key(&Topic::Listings) || unlisted {
            self.said.notify_one();
        }
        for (topic, envelopes) in far {
            self.publish(topic, envelopes).await;
        }
        if !near.is_empty() {
            near.splice(0..0, chain);
            self.offer_to_link(&near);
        }
    }

    /// Notes what is wrong with a server's listing, or that nothing is.
    fn problem(&self, proposal: &Proposal, text: Option<String>) {
        let Proposal::Listing(id, _) = proposal else { return };
        self.problems.send_if_modified(|problems| {
            let changed = problems.get(id) != text.as_ref();
            if changed {
                let problems = Arc::make_mut(problems);
                match text {
                    Some(text) => drop(problems.insert(*id, text)),
                    None => drop(problems.remove(id)),
                }
            }
            changed
        });
    }

    async fn sign(&self, proposal: &Proposal) -> anyhow::Result<Vec<u8>> {
        let Announcement { ledger, directory, .. } = &self.parts;
        let signer = self.state.signer().context("this machine does not sign")?;
        let (row, record) = match proposal {
            Proposal::Listing(id, listing) => {
                (id.as_ref(), Record::ServerListing((**listing).clone()))
            }
            Proposal::Presence(presence) => {
                (b"presence".as_slice(), Record::Presence(presence.clone()))
            }
        };
        let key = self.parts.key(row);
        let now = wall_ms();
        // On disk before it is used: a number must never serve two bodies.
        let seq = self.parts.clock.next_seq(ledger, &key, now).await?;
        let envelope = signer.sign(&record, seq, UnixMillis(now))?;
        if matches!(proposal, Proposal::Listing(..)) {
            ledger.commit(Batch::new().put(Table::OwnRecords, key, envelope.clone())).await?;
        }
        let admitted = directory.admit(vec![(envelope.clone(), Source::Own)]).await?;
        match admitted.admissions.into_iter().next() {
            Some(Admission::Refused(Refusal::Ignored(IgnoreReason::Future))) => anyhow::bail!(
                "this machine's clock was once far ahead, and others ignore what is dated so; \
                 check the clock"
            ),
            // Others ask for the chain, and so will the own directory.
            Some(Admission::Refused(Refusal::NeedChain)) => Ok(envelope),
            // It is for the DHT alone.
            Some(Admission::Refused(Refusal::Unlisted)) => Ok(envelope),
            Some(Admission::Refused(refusal)) => Err(refusal.into()),
            _ => Ok(envelope),
        }
    }

    async fn publish(&self, topic: Topic, envelopes: impl IntoIterator<Item = Vec<u8>>) {
        for message in encode_batches(envelopes) {
            match self.parts.mesh.publish(topic, message).await {
                Ok(Published::Sent | Published::Duplicate) => {}
                // Everything is said again when somebody can hear it.
                Ok(Published::NoPeers) => {}
                Err(error) => tracing::warn!("failed to gossip: {error}"),
            }
        }
    }

    /// Whether a proposal may only go to peers on the link: rows with addresses
    /// that nobody else can use, and the presence that names them, which would
    /// make everybody else ask for rows they must not have. A tombstone has no
    /// addresses and goes to all: whoever has the row can drop it.
    fn is_near_only(&self, proposal: &Proposal) -> bool {
        match proposal {
            Proposal::Listing(_, listing) => {
                listing.visibility == Some(Visibility::Lan)
                    || (self.parts.network.is_main()
                        && listing.addresses.iter().any(|at| at.scope() != Scope::Global))
            }
            Proposal::Presence(presence) => {
                self.has_near_rows() || presence.servers.iter().any(|of| self.is_lan(&of.id))
            }
        }
    }

    /// Whether a server is for the link of this node alone.
    fn is_lan(&self, id: &ServerId) -> bool {
        let servers = self.parts.servers.borrow();
        servers.get(id).is_some_and(|of| of.definition.visibility == Some(Visibility::Lan))
    }

    /// What everybody may know of a presence that may not go to all as it is.
    fn public_part(&self, presence: &Presence) -> Option<Presence> {
        let mut servers = presence.servers.clone();
        servers.retain(|of| !self.is_lan(&of.id));
        let mixed = servers.len() < presence.servers.len() && !servers.is_empty();
        (mixed && !self.has_near_rows()).then_some(Presence { servers })
    }

    /// Whether own rows may only go to peers on the link.
    fn has_near_rows(&self) -> bool {
        let network = &self.parts.network;
        let ips = own_ips(network, &self.parts.mesh.status().borrow());
        network.is_main() && ips.iter().any(|ip| Scope::of(*ip) != Scope::Global)
    }

    /// Rows that gossip must not carry go to each peer on the link by itself.
    fn offer_to_link(&self, envelopes: &[Vec<u8>]) {
        let status = self.parts.mesh.status().borrow().clone();
        let near = status.peers.iter().filter(|peer| {
            peer.holds_replica && matches!(peer.scope, Scope::OnLink | Scope::Loopback)
        });
        for peer in near {
            self.offer_to(peer.node, envelopes);
        }
    }

    /// Offers a peer on the link all own rows that gossip must not carry.
    async fn offer(&self, node: NodeId) {
        let lan = self.parts.servers.borrow().keys().copied().collect::<Vec<_>>();
        if !self.has_near_rows() && !lan.iter().any(|id| self.is_lan(id)) {
            return;
        }
        let Ok(mut own) = self.parts.own_records().await else { return };
        own.retain(|(_, envelope)| {
            ServerListing::of_envelope(envelope)
                .is_none_or(|listing| listing.visibility != Some(Visibility::Unlisted))
        });
        own.sort_by_key(|(key, _)| *key != self.parts.key(CHAIN_ROW));
        let envelopes: Vec<_> = own.into_iter().map(|(_, envelope)| envelope).collect();
        self.offer_to(node, &envelopes);
    }

    fn offer_to(&self, node: NodeId, envelopes: &[Vec<u8>]) {
        for chunk in envelopes.chunks(RPC_OFFER_MAX) {
            let (mesh, envelopes) = (self.parts.mesh.clone(), chunk.to_vec());
            tokio::spawn(async move {
                if let Err(error) = mesh.request(node, Request::Offer { envelopes }).await {
                    tracing::debug!(%node, "failed to offer own rows: {error}");
                }
            });
        }
    }
}

/// Whether only those who have its id may find what is proposed.
fn is_unlisted(proposal: &Proposal) -> bool {
    matches!(proposal, Proposal::Listing(_, listing)
        if listing.visibility == Some(Visibility::Unlisted))
}

/// Where a proposal is said; listings come before presence in order.
fn topic_of(proposal: &Proposal) -> Topic {
    match proposal {
        Proposal::Listing(..) => Topic::Listings,
        Proposal::Presence(_) => Topic::Presence,
    }
}

fn own_server(server: &ServerView, addresses: Vec<JoinAddress>) -> OwnServer {
    OwnServer {
        listing: listing_of(&server.definition, addresses),
        players: server.players,
        slots: server.slots,
    }
}

/// What a definition says of itself to players.
fn listing_of(definition: &ServerDefinition, addresses: Vec<JoinAddress>) -> ServerListing {
    ServerListing {
        nonce: definition.nonce,
        state: ListingState::Live,
        game: definition.game.clone(),
        name: definition.name.clone(),
        description: definition.description.clone(),
        tags: definition.tags.clone(),
        region: definition.region.clone(),
        language: definition.language.clone(),
        game_version: definition.game_version.clone(),
        addresses,
        slots: definition.slots,
        flags: definition.flags,
        plugin_set: None,
        visibility: definition.visibility,
    }
}

/// Refuses a definition whose listing nobody would accept, naming the field.
///
/// # Errors
/// The field that is at fault or must be shortened.
pub(crate) fn check_listing(
    definition: &ServerDefinition,
    signer: &RecordSigner,
) -> Result<(), SignError> {
    // As many and as long addresses as it may ever get.
    let addresses = (1..=homehost_protocol::limits::JOIN_ADDRESSES_MAX as u16).map(|n| {
        let lan = definition.visibility == Some(Visibility::Lan);
        let first = if lan { 0xfd00 } else { 0x2001 };
        let ip = std::net::Ipv6Addr::new(first, 0xffff, 1, 1, 1, 1, 1, n);
        JoinAddress { socket: (ip, u16::MAX).into(), transport: homehost_protocol::Transport::Udp }
    });
    let listing = listing_of(definition, addresses.collect());
    signer.sign(&Record::ServerListing(listing), u64::MAX, UnixMillis(u64::MAX / 2)).map(drop)
}
