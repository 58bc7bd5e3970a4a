//! The protocols that one node speaks, and their settings (spec/mesh §1, §2).

use std::num::NonZeroUsize;
use std::time::Duration;

use homehost_protocol::NetworkName;
use libp2p::allow_block_list::BlockedPeers;
use libp2p::connection_limits::ConnectionLimits;
use libp2p::identity::Keypair;
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, allow_block_list, connection_limits, dcutr, identify, kad, mdns, ping,
    relay, request_response,
};

use crate::autonat_server;
use crate::codec::{self, AttestCodec, DirectoryCodec, PxCodec};
use crate::crowd;
use crate::deny::{self, Deny};
use crate::dial_gate::DialRules;
use crate::direct_only::DirectOnly;
use crate::gossip::{self, Gossip};
use crate::handle::REQUEST_TIMEOUT;
use crate::introduce;
use crate::record_store::Records;
use crate::relay_limits;
use crate::{DhtConfig, Role};

/// Connections that others opened to a host. About 85 kB each, and a home
/// router's table has room for some thousands in all.
const HOST_INCOMING_MAX: u32 = 64;
/// Connections that a host opened: four meshes' worth.
const HOST_OUTGOING_MAX: u32 = 32;
/// Connections to a bootstrap node: what 512 MB can hold with room to spare.
const BOOTSTRAP_INCOMING_MAX: u32 = 2_500;
/// Connections that a bootstrap node opens, for its routing table.
const BOOTSTRAP_OUTGOING_MAX: u32 = 64;
/// Two ends that dial each other at the same moment make two connections.
/// Beside them there may be one through a relay, and some that try addresses:
/// one that is refused would make a public node look unreachable.
const PER_PEER_MAX: u32 = 8;
/// Half-open incoming connections of a host.
const HOST_PENDING_MAX: u32 = 32;
/// Half-open incoming connections of a bootstrap node, which many meet at once.
const BOOTSTRAP_PENDING_MAX: u32 = 256;
/// Half-open outgoing connections: a DHT query dials up to twenty.
const PENDING_OUTGOING_MAX: u32 = 32;

/// Peers for which a host relays: each holds a connection of its sixty-four.
const HOST_RESERVATIONS_MAX: usize = 8;
/// Circuits of a host at once, of 128 KiB and two minutes at most: less than one
/// page of a web site a minute.
const HOST_CIRCUITS_MAX: usize = 4;

/// How long a ping may take. libp2p passes over the first that fails, so that a
/// dead connection is noticed within forty seconds.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of the directory RPC that one connection may have at once. A whole
/// burst of the peer's budget (`actor/rpc.rs`) fits, so that a request over it
/// is refused and counted, and is not lost unseen.
const RPC_STREAMS_MAX: usize = 32;

/// A whole DHT query: it is worth nothing to a waiting person after that.
const KAD_QUERY_TIMEOUT: Duration = Duration::from_secs(8);
/// One question to one DHT peer.
const KAD_STREAM_TIMEOUT: Duration = Duration::from_secs(3);
/// Peers of one answer and of one bucket (Kademlia's k).
const KAD_K: NonZeroUsize = NonZeroUsize::new(20).expect("20 is not 0");

/// How long libp2p takes what it is sent to hold. The store (`record_store.rs`)
/// keeps nothing for longer.
const KAD_RECORD_TTL: Duration = Duration::from_secs(36 * 3600);
/// How long a provider record holds, and how often ours is told again: the home
/// machines that keep it come and go.
const KAD_PROVIDER_TTL: Duration = Duration::from_secs(24 * 3600);
const KAD_PROVIDE_EVERY: Duration = Duration::from_secs(3600);
/// Peers near a key without the record, which are given it after a search.
const KAD_REPAIRED_MAX: u16 = 8;

/// All protocols of one node. The order matters: the first may deny a
/// connection before the others see it.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    deny: deny::Behaviour,
    limits: connection_limits::Behaviour,
    crowd: crowd::Behaviour,
    /// Peers of other networks, for a while.
    pub(crate) refused: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) identify: introduce::Behaviour,
    ping: ping::Behaviour,
    pub(crate) kad: kad::Behaviour<Records>,
    pub(crate) gossip: Toggle<DirectOnly<Gossip>>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) directory: request_response::Behaviour<DirectoryCodec>,
    pub(crate) attest: Toggle<request_response::Behaviour<AttestCodec>>,
    /// Where some hosts are.
    pub(crate) px: request_response::Behaviour<PxCodec>,
    /// Lets others reach us through relays, and us them.
    relay_client: relay::client::Behaviour,
    /// Relays for others.
    pub(crate) relay: Toggle<relay::Behaviour>,
    /// Makes direct connections of relayed ones.
    dcutr: Toggle<dcutr::Behaviour>,
    /// Tells others whether the world reaches them.
    pub(crate) autonat_server: autonat_server::Behaviour,
    /// Asks others whether they reach us (`reach_probe.rs`).
    pub(crate) streams: libp2p_stream::Behaviour,
}

/// What a client says of itself: it is in no network.
pub(crate) const CLIENT_VERSION: &str = "/homehost/1";

/// The identify protocol version by which networks know their own.
pub(crate) fn identify_version(network: &NetworkName) -> String {
    format!("/homehost/1/{network}")
}

fn kad_protocol(network: &NetworkName) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/homehost/{network}/kad/1.0.0"))
        .expect("the name begins with a slash")
}

/// What [`Behaviour::new`] needs.
pub(crate) struct Settings<'a> {
    pub(crate) keypair: &'a Keypair,
    pub(crate) network: &'a NetworkName,
    pub(crate) role: Role,
    pub(crate) agent: &'a str,
    pub(crate) mdns: bool,
    pub(crate) dht: DhtConfig,
    pub(crate) deny: Deny,
    /// Of the gate that every dial passes.
    pub(crate) rules: DialRules,
}

impl Behaviour {
    /// # Errors
    /// A setting that a protocol refuses, in words.
    pub(crate) fn new(
        settings: &Settings<'_>,
        relay_client: relay::client::Behaviour,
    ) -> Result<Self, String> {
        let peer = settings.keypair.public().to_peer_id();
        let gossip = match settings.role {
            Role::Host => Some(DirectOnly::new(gossip::behaviour(settings.network)?)),
            Role::Bootstrap => None,
        };
        let attest = match settings.role {
            Role::Host => Some(attest(settings.network)),
            Role::Bootstrap => None,
        };
        Ok(Self {
            deny: deny::Behaviour::new(settings.deny.clone()),
            limits: connection_limits::Behaviour::new(limits(settings.role)),
            crowd: crowd::Behaviour::new(pending_max(settings.role)),
            refused: allow_block_list::Behaviour::default(),
            identify: identify(settings),
            ping: ping::Behaviour::new(ping::Config::new().with_timeout(PING_TIMEOUT)),
            kad: kad(settings, peer),
            gossip: gossip.into(),
            mdns: settings.mdns.then(|| mdns(peer)).flatten().into(),
            directory: directory(settings),
            attest: attest.into(),
            px: px(settings),
            relay_client,
            relay: Some(relay_server(settings.role, peer)).into(),
            dcutr: (settings.role == Role::Host).then(|| dcutr::Behaviour::new(peer)).into(),
            autonat_server: autonat_server::Behaviour::new(
                settings.role == Role::Bootstrap,
                settings.rules.clone(),
            ),
            streams: libp2p_stream::Behaviour::new(),
        })
    }
}

/// Relays for whoever cannot be reached, for signalling only: the circuits are
/// short and small (spec/mesh §13). A bootstrap node always does, a host once the
/// world reaches it (`actor/network.rs`), and for a few.
fn relay_server(role: Role, peer: PeerId) -> relay::Behaviour {
    let (config, status) = match role {
        Role::Host => {
            let config = relay::Config {
                max_reservations: HOST_RESERVATIONS_MAX,
                max_reservations_per_peer: 1,
                max_circuits: HOST_CIRCUITS_MAX,
                max_circuits_per_peer: 2,
                ..relay::Config::default()
            };
            (config, relay::Status::Disable)
        }
        Role::Bootstrap => (relay_limits::config(), relay::Status::Enable),
    };
    let mut relay = relay::Behaviour::new(peer, config);
    relay.set_status(Some(status));
    relay
}

fn pending_max(role: Role) -> u32 {
    match role {
        Role::Host => HOST_PENDING_MAX,
        Role::Bootstrap => BOOTSTRAP_PENDING_MAX,
    }
}

fn limits(role: Role) -> ConnectionLimits {
    let (incoming, outgoing) = match role {
        Role::Host => (HOST_INCOMING_MAX, HOST_OUTGOING_MAX),
        Role::Bootstrap => (BOOTSTRAP_INCOMING_MAX, BOOTSTRAP_OUTGOING_MAX),
    };
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(pending_max(role)))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established_incoming(Some(incoming))
        .with_max_established_outgoing(Some(outgoing))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
}

fn identify(settings: &Settings<'_>) -> introduce::Behaviour {
    let agent = format!("{}{}", settings.agent, settings.role.marker());
    let version = identify_version(settings.network);
    introduce::Behaviour::new(
        identify::Config::new(version, settings.keypair.public())
            .with_agent_version(agent)
            .with_push_listen_addr_updates(true)
            // Its cache would offer addresses for dialling that no scope rule
            // has seen.
            .with_cache_size(0),
    )
}

fn kad(settings: &Settings<'_>, peer: PeerId) -> kad::Behaviour<Records> {
    let mut config = kad::Config::new(kad_protocol(settings.network));
    config
        .set_query_timeout(KAD_QUERY_TIMEOUT)
        .set_substreams_timeout(KAD_STREAM_TIMEOUT)
        .set_kbucket_size(KAD_K)
        .set_replication_factor(KAD_K)
        .disjoint_query_paths(true)
        // Nothing is stored unseen.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(Some(KAD_RECORD_TTL))
        // Whoever is alive puts its records again, and searches repair. A
        // holder that did so for others would turn one put of a stranger into
        // twenty an hour.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_record_ttl(Some(KAD_PROVIDER_TTL))
        .set_provider_publication_interval(Some(KAD_PROVIDE_EVERY))
        // Tells who had nothing; `actor/dht.rs` gives it to them.
        .set_caching(kad::Caching::Enabled { max_peers: KAD_REPAIRED_MAX })
        // `actor/routing.rs` decides who enters the table.
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    let takes = settings.role == Role::Host;
    let records = Records::new(peer, settings.dht.clone(), takes);
    let mut kad = kad::Behaviour::with_config(peer, records, config);
    // By itself it would wait for a proof that the world reaches us, and a
    // LAN or a single machine would have no table at all.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

fn mdns(peer: PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
        .inspect_err(|error| tracing::warn!(%error, "peers on the local link are not looked for"))
        .ok()
}

fn rpc_config() -> request_response::Config {
    request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(RPC_STREAMS_MAX)
}

/// A bootstrap node asks hosts in the name of clients, and has no directory of
/// its own to be asked about.
fn directory(settings: &Settings<'_>) -> request_response::Behaviour<DirectoryCodec> {
    let for_peers = match settings.role {
        Role::Host => ProtocolSupport::Full,
        Role::Bootstrap => ProtocolSupport::Outbound,
    };
    let protocols = [
        (codec::protocol(settings.network), for_peers),
        (codec::QUERY_PROTOCOL, ProtocolSupport::Inbound),
    ];
    request_response::Behaviour::with_codec(DirectoryCodec, protocols, rpc_config())
}

fn attest(network: &NetworkName) -> request_response::Behaviour<AttestCodec> {
    let protocols = [(codec::attest_protocol(network), ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(AttestCodec, protocols, rpc_config())
}

/// Hosts ask, bootstrap nodes answer.
fn px(settings: &Settings<'_>) -> request_response::Behaviour<PxCodec> {
    let support = match settings.role {
        Role::Host => ProtocolSupport::Outbound,
        Role::Bootstrap => ProtocolSupport::Inbound,
    };
    let protocols = [(codec::px_protocol(settings.network), support)];
    request_response::Behaviour::with_codec(PxCodec, protocols, rpc_config())
}
