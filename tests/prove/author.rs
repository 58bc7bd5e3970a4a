//! Roots of which no node has the keys, by the thousand.

use homehost_protocol::chain::{Chain, SignedKeyEvent};
use homehost_protocol::keys::KeyDigest;
use homehost_protocol::record::RecordSigner;
use homehost_protocol::record::listing::{ListingState, ServerListing};
use homehost_protocol::record::presence::{Presence, ServerPresence};
use homehost_protocol::{
    DeviceKey, JoinAddress, NetworkName, Record, ServerId, ServerNonce, Transport, UnixMillis,
};
use homehost_runtime::wall_ms;

/// A root with all its keys.
pub(crate) struct Author {
    number: u32,
    network: NetworkName,
    signer: RecordSigner,
}

/// Keys that no other number gives; `epoch` 0 signs, 1 is the recovery key.
fn key(number: u32, epoch: u8) -> DeviceKey {
    let mut seed = [epoch; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    DeviceKey::from_seed(seed)
}

pub(crate) fn now() -> UnixMillis {
    UnixMillis(wall_ms())
}

impl Author {
    pub(crate) fn new(network: &str, number: u32) -> Self {
        let network: NetworkName = network.parse().expect("a network name");
        let next = KeyDigest::of(&key(number, 1).public());
        let signer = RecordSigner::genesis(key(number, 0), next, network.clone());
        Self { number, network, signer }
    }

    /// Its server, at an address.
    pub(crate) fn server(&self, game: &str, address: [u8; 4]) -> ServerListing {
        ServerListing {
            nonce: ServerNonce([7; 16]),
            state: ListingState::Live,
            game: game.into(),
            name: format!("Free Diamonds {}", self.number),
            description: Some("The best server of the whole world, join now".into()),
            tags: vec!["creative".into(), "pvp".into()],
            region: Some("eu".into()),
            language: None,
            game_version: None,
            addresses: vec![JoinAddress {
                socket: (std::net::Ipv4Addr::from(address), 30_000).into(),
                transport: Transport::Udp,
            }],
            slots: Some(64),
            flags: None,
            plugin_set: None,
            visibility: None,
        }
    }

    pub(crate) fn id(&self, listing: &ServerListing) -> ServerId {
        listing.id(&self.signer.root())
    }

    /// A listing, as version `seq`, issued then.
    pub(crate) fn listing(&self, listing: &ServerListing, seq: u64, issued: UnixMillis) -> Vec<u8> {
        self.sign(Record::ServerListing(listing.clone()), seq, issued)
    }

    /// Players of servers that need not exist.
    pub(crate) fn presence(&self, mut ids: Vec<ServerId>) -> Vec<u8> {
        ids.sort_unstable();
        let of = |id| ServerPresence { id, players: Some(64), slots: None };
        let servers = ids.into_iter().map(of).collect();
        self.sign(Record::Presence(Presence { servers }), now().0, now())
    }

    fn sign(&self, record: Record, seq: u64, issued: UnixMillis) -> Vec<u8> {
        self.signer.sign(&record, seq, issued).expect("it keeps the rules")
    }

    /// The key chain with which it ends all its keys.
    pub(crate) fn revocation(&self) -> Vec<u8> {
        let by = key(self.number, 1);
        let next = KeyDigest::of(&key(self.number, 2).public());
        let genesis = KeyDigest::of(&by.public());
        let mut chain = Chain::genesis(key(self.number, 0).public(), genesis);
        let event = chain.revocation(by.public(), next);
        let event = SignedKeyEvent::sign(&event, &chain.root(), &by);
        chain.extend(&event).expect("it is committed to");
        let signer = RecordSigner::carrier_of(by, &chain, self.network.clone());
        let signer = signer.expect("who revokes carries the chain");
        signer.sign(&Record::KeyChain(chain.to_body()), now().0, now()).expect("it is short")
    }
}
