//! A root of which no node has the key: it signs rows that JavaScript passes on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use homehost_protocol::chain::{Chain, SignedKeyEvent};
use homehost_protocol::keys::KeyDigest;
use homehost_protocol::record::RecordSigner;
use homehost_protocol::record::listing::{ListingState, ServerListing};
use homehost_protocol::record::presence::{Presence, ServerPresence};
use homehost_protocol::{
    DeviceKey, JoinAddress, Record, RootId, ServerNonce, Transport, UnixMillis,
};
use homehost_tests::Test;
use serde_json::{Value, json};

/// A root with its key.
pub(crate) struct Author {
    pub(crate) seed: [u8; 32],
    signer: RecordSigner,
}

/// A row that it signed.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) envelope: Vec<u8>,
    /// As nodes show it.
    pub(crate) id: Value,
}

/// The time by the clock of this machine, which its nodes have too.
#[expect(clippy::disallowed_methods, reason = "it signs by the clock, as its peers would")]
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    UnixMillis(0).plus(since)
}

fn address(ip: [u8; 4]) -> JoinAddress {
    JoinAddress { socket: (ip, 30_000).into(), transport: Transport::Udp }
}

impl Author {
    /// Authors with other numbers are other roots.
    pub(crate) fn new(test: &Test, number: u16) -> Self {
        Self::of_network(test.network(), number)
    }

    pub(crate) fn of_network(network: &str, number: u16) -> Self {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        // Nobody ever uses it.
        let next = KeyDigest::of(&DeviceKey::from_seed([0; 32]).public());
        let network = network.parse().expect("a network name");
        Self { seed, signer: RecordSigner::genesis(DeviceKey::from_seed(seed), next, network) }
    }

    /// The same root after a rotation, and the chain that says so.
    pub(crate) fn rotated(self, seq: u64) -> (Self, Vec<u8>) {
        let committed = DeviceKey::from_seed([0; 32]);
        let digest = |seed| KeyDigest::of(&DeviceKey::from_seed([seed; 32]).public());
        let key = DeviceKey::from_seed(self.seed);
        let mut chain = Chain::genesis(key.public(), digest(0));
        let mut seed = self.seed;
        seed[31] = 2;
        let key = DeviceKey::from_seed(seed);
        let event = chain.rotation(key.public(), committed.public(), digest(3));
        let event = SignedKeyEvent::sign(&event, &chain.root(), &committed);
        chain.extend(&event).expect("the committed key rotates");
        let network = self.signer.network().clone();
        let signer = RecordSigner::of_chain(key, &chain, network).expect("it is device 0");
        let record = Record::KeyChain(chain.to_body());
        let envelope = signer.sign(&record, seq, now()).expect("it keeps the rules");
        (Self { seed, signer }, envelope)
    }

    pub(crate) fn root(&self) -> RootId {
        self.signer.root()
    }

    /// A server of this author; another nonce is another server, at an address of
    /// another block.
    pub(crate) fn server(&self, nonce: u8, name: &str) -> ServerListing {
        let [high, low, ..] = self.seed;
        ServerListing {
            nonce: ServerNonce([nonce; 16]),
            state: ListingState::Live,
            game: "foreign".into(),
            name: name.into(),
            description: None,
            tags: vec![],
            region: None,
            language: None,
            game_version: None,
            addresses: vec![address([11 + high % 64, low, nonce, 8])],
            slots: Some(16),
            flags: None,
            plugin_set: None,
            visibility: None,
        }
    }

    /// A row, signed now.
    pub(crate) fn row(&self, nonce: u8, name: &str) -> Row {
        self.row_at(&self.server(nonce, name), now(), now().0)
    }

    /// So many rows, each as long as sixteen in one message may be.
    pub(crate) fn long_rows(&self, count: u8) -> Vec<Row> {
        let row = |nonce| {
            let server = ServerListing {
                description: Some("all-that-fits-into-a-description-".repeat(4)[..120].into()),
                region: Some("eu-central-1".into()),
                game_version: Some("5.9.0-dev-142857".into()),
                ..self.server(
                    nonce,
                    &format!("Server {nonce:02} with a name as long as they may be now"),
                )
            };
            self.row_at(&server, now(), now().0)
        };
        (0..count).map(row).collect()
    }

    /// A row, signed at some time as some version.
    pub(crate) fn row_at(&self, listing: &ServerListing, issued: UnixMillis, seq: u64) -> Row {
        let id = json!(listing.id(&self.root()).to_string());
        let record = Record::ServerListing(listing.clone());
        let envelope = self.signer.sign(&record, seq, issued).expect("it keeps the rules");
        Row { envelope, id }
    }

    /// Who plays on a server.
    pub(crate) fn presence(&self, listing: &ServerListing, players: u16) -> Vec<u8> {
        let id = listing.id(&self.root());
        let servers = vec![ServerPresence { id, players: Some(players), slots: None }];
        let record = Record::Presence(Presence { servers });
        self.signer.sign(&record, now().0, now()).expect("it keeps the rules")
    }

    /// A time that is not now.
    pub(crate) fn ago(span: Duration) -> UnixMillis {
        UnixMillis(now().0 - u64::try_from(span.as_millis()).expect("not before 1970"))
    }
}
