//! Every limit that two nodes must agree on, with its reason.
//!
//! A limit is checked before the work it bounds. Field limits are in UTF-8 bytes.

use std::time::Duration;

/// A whole envelope. Large enough for a key chain of 32 events, small enough
/// that a full batch of gossip stays under one send window.
pub const ENVELOPE_BYTES_MAX: usize = 8 * 1024;

/// A whole listing envelope. 32,768 rows then fit in 23 MB, and a change costs
/// a home uplink less than one packet.
pub const LISTING_BYTES_MAX: usize = 700;

/// A presence envelope: 64 servers of one device and the overhead.
pub const PRESENCE_BYTES_MAX: usize = 4 * 1024;

/// A host announcement: eight addresses and the overhead.
pub const HOST_BYTES_MAX: usize = 2 * 1024;

/// A reach record: seven witnesses and the overhead.
pub const REACH_BYTES_MAX: usize = 2 * 1024;

/// Events of a key chain: they fit one envelope, and nobody rotates weekly.
pub const KEY_EVENTS_MAX: usize = 32;

/// Witnesses of one server. With a fifth of all witnesses lying, five of seven
/// lie together once in two hundred times.
pub const WITNESSES_MAX: usize = 7;

/// Nesting of CBOR containers. Records need four; the rest is room to grow.
pub const CBOR_DEPTH_MAX: usize = 8;

/// Name of a network: it is part of every topic and protocol name.
pub const NETWORK_BYTES_MAX: usize = 24;

/// Game slug, as in `luanti`.
pub const GAME_BYTES_MAX: usize = 24;
/// Server name as a player sees it; 48 bytes fit a table column.
pub const NAME_BYTES_MAX: usize = 48;
/// Description: one sentence.
pub const DESCRIPTION_BYTES_MAX: usize = 120;
/// Number of tags of one listing.
pub const TAGS_MAX: usize = 8;
/// One tag.
pub const TAG_BYTES_MAX: usize = 16;
/// Region slug, as in `eu` or `us-west`.
pub const REGION_BYTES_MAX: usize = 12;
/// Language tag, as in `de` or `pt-br`.
pub const LANGUAGE_BYTES_MAX: usize = 8;
/// Version of the game that players need.
pub const GAME_VERSION_BYTES_MAX: usize = 16;
/// Join addresses of one listing: IPv4 and IPv6, two ways in each.
pub const JOIN_ADDRESSES_MAX: usize = 4;

/// Servers of one device: what one presence record can carry.
pub const SERVERS_PER_DEVICE_MAX: usize = 64;

/// Nodes that one invitation names: who invites, and a few that are always there.
pub const INVITE_NODES_MAX: usize = 4;
/// Addresses of one node in an invitation: two families, two transports, and as
/// many of its LAN.
pub const INVITE_ADDRESSES_MAX: usize = 8;
/// An invitation in characters: the most nodes at the most IPv6 addresses, and
/// still one QR code.
pub const INVITE_CHARS_MAX: usize = 1280;
/// A name of the DNS in an invitation: longer ones do not belong on paper.
pub const NAME_OF_HOST_BYTES_MAX: usize = 100;

/// Addresses of one host announcement.
pub const HOST_ADDRESSES_MAX: usize = 8;
/// One multiaddr in text form.
pub const HOST_ADDRESS_BYTES_MAX: usize = 128;
/// Agent string.
pub const AGENT_BYTES_MAX: usize = 48;

/// How far `seq` and `issued` may lie ahead of the reader's clock. Home PCs
/// drift by minutes; more than ten would let one writer pin a row for good.
pub const AHEAD_MAX: Duration = Duration::from_secs(10 * 60);

/// Longest life of a live listing. A host refreshes at half of it.
pub const LISTING_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Life of a tombstone: no earlier version of the row can outlive
/// `LISTING_TTL_MAX` plus the clock error on both ends, so an hour is added.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(25 * 3600);

/// Longest life of a presence record. Staleness is decided by the reader
/// (spec/mesh §5); this bounds how old a presence may be passed on.
pub const PRESENCE_TTL_MAX: Duration = Duration::from_secs(3600);

/// Longest life of a host announcement.
pub const HOST_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest life of a key chain's record. Its host says it anew every week; a
/// reader that forgot it would take revoked keys for good again.
pub const KEY_CHAIN_TTL_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Longest life of a reach record, and of a witness's statement in it.
pub const REACH_TTL_MAX: Duration = Duration::from_secs(6 * 3600);

/// Envelopes in one gossip message, all of one root.
pub const GOSSIP_ENVELOPES_MAX: usize = 16;
/// Bytes of one gossip message: one envelope of the largest kind and framing.
pub const GOSSIP_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + 64;

/// Bytes of one RPC request: what reconciliation says in one step. Small steps
/// would need many round trips.
pub const RPC_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one RPC response; about 150 rows. Larger pages would hold a slow
/// uplink for more than a second.
pub const RPC_RESPONSE_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one reconciliation message; it and its frame fit a request.
pub const RECONCILE_BYTES_MAX: usize = 60 * 1024;
/// Record ids in one `Records`: as many listings as fit a response.
pub const RPC_RECORDS_MAX: usize = 256;
/// Roots in one `Chains`: as many of the longest chains as fit a response.
pub const RPC_CHAINS_MAX: usize = 15;
/// Rows of one `Query`.
pub const QUERY_ROWS_MAX: usize = 200;
/// Bytes of a query's free text.
pub const QUERY_TEXT_BYTES_MAX: usize = 128;
/// Bytes of a query's cursor.
pub const CURSOR_BYTES_MAX: usize = 160;
/// Ids in one `Get`.
pub const RPC_IDS_MAX: usize = 64;
/// Envelopes in one `Offer`.
pub const RPC_OFFER_MAX: usize = 16;

/// Rows that a node keeps (spec/directory §3).
pub const REPLICA_ROWS_MAX: usize = 32_768;
