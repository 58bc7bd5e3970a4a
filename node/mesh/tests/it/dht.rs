//! Records in the DHT: put, found, repaired, refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use homehost_mesh::{
    DhtConfig, DhtError, DhtFacts, DhtKeeper, DhtRefusal, DhtRules, EnvelopeRules, Misdeed,
    Multiaddr, Role,
};
use homehost_protocol::chain::SignedKeyEvent;
use homehost_protocol::dht::DhtKey;
use homehost_protocol::keys::KeyDigest;
use homehost_protocol::record::RecordSigner;
use homehost_protocol::record::listing::ListingState;
use homehost_protocol::validate::{KeyState, NoChains};
use homehost_protocol::{
    Chain, DeviceKey, KeyChains, NetworkName, NodeId, RecId, Record, RootId, ServerListing,
    ServerNonce, UnixMillis,
};

use crate::node::{Node, PATIENCE, config};

fn network() -> NetworkName {
    "mesh-test".parse().unwrap()
}

fn device(seed: u8) -> DeviceKey {
    DeviceKey::from_seed([seed; 32])
}

fn next(seed: u8) -> KeyDigest {
    KeyDigest::of(&device(seed + 100).public())
}

fn signer(seed: u8) -> RecordSigner {
    RecordSigner::genesis(device(seed), next(seed), network())
}

fn now() -> u64 {
    homehost_runtime::wall_ms()
}

/// A listing of this signer, as the version `age` milliseconds ago.
fn listing(signer: &RecordSigner, nonce: u8, age: u64) -> (DhtKey, Vec<u8>) {
    let listing = ServerListing {
        nonce: ServerNonce([nonce; 16]),
        state: ListingState::Live,
        game: "luanti".into(),
        name: "Sunday Luanti".into(),
        description: None,
        tags: vec![],
        region: None,
        language: None,
        game_version: None,
        addresses: vec!["8.8.8.8:30000/udp".parse().unwrap()],
        slots: None,
        flags: None,
        plugin_set: None,
        visibility: None,
    };
    let key = DhtKey::Listing(listing.id(&signer.root()));
    let seq = now() - age;
    (key, signer.sign(&Record::ServerListing(listing), seq, UnixMillis(seq)).unwrap())
}

fn rules(chains: Arc<dyn KeyChains + Send + Sync>) -> Arc<dyn DhtRules> {
    Arc::new(EnvelopeRules::new(network(), chains))
}

fn host(seed: u8, bootstrap: &[Multiaddr], dht: DhtConfig) -> Node {
    let mut config = config(seed, Role::Host, bootstrap);
    config.dht = dht;
    Node::start(config)
}

fn honest(seed: u8, bootstrap: &[Multiaddr]) -> Node {
    host(seed, bootstrap, DhtConfig::new(rules(Arc::new(NoChains))))
}

fn holding(seed: u8, bootstrap: &[Multiaddr], key: DhtKey, value: &[u8]) -> Node {
    let held = vec![(key.to_string().into_bytes(), value.to_vec())];
    let dht = DhtConfig { held, ..DhtConfig::new(rules(Arc::new(NoChains))) };
    host(seed, bootstrap, dht)
}

async fn all_know_all(nodes: &[&Node]) {
    for node in nodes {
        node.knows(nodes.iter().map(|other| other.id()).filter(|id| *id != node.id())).await;
    }
}

/// Waits until a node keeps this value.
async fn keeps(node: &Node, value: &[u8]) {
    let wait = async {
        while !node.handle.dht_export().await.iter().any(|(_, held)| held == value) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is kept");
}

async fn counts(node: &Node, metric: &str) {
    let wait = async {
        while node.metric(metric) == "absent" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_is_found_by_others_and_the_newest_version_stands() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = [boot.address().await];
    let [a, b, c] = [1, 2, 3].map(|seed| honest(seed, &at));
    all_know_all(&[&a, &b, &c, &boot]).await;
    let signer = signer(7);
    let (key, old) = listing(&signer, 1, 1000);
    assert_eq!(a.handle.dht_put(key, old.clone()).await.unwrap(), 2, "not the bootstrap node");
    for node in [&b, &c] {
        keeps(node, &old).await;
    }
    let answer = c.handle.dht_get(key).await.unwrap();
    assert_eq!(answer.best, Some(old.clone()));
    let mut who: Vec<_> = answer.answers.iter().map(|vote| vote.node).collect();
    let mut others = [a.id(), b.id()];
    who.sort();
    others.sort();
    assert_eq!(who, others);
    assert!(answer.answers.iter().all(|vote| vote.agrees && vote.rec_id == Some(RecId::of(&old))));
    assert_eq!(answer.voices(), 2, "each near peer is a voice");

    let (_, new) = listing(&signer, 1, 0);
    b.handle.dht_put(key, new.clone()).await.unwrap();
    // The older one comes back, and changes nothing.
    a.handle.dht_put(key, old.clone()).await.unwrap();
    for node in [&a, &b, &c] {
        keeps(node, &new).await;
        assert_eq!(node.handle.dht_get(key).await.unwrap().best, Some(new.clone()));
    }
    assert_eq!(boot.handle.dht_export().await, [], "it keeps nothing");
    let from_boot = boot.handle.dht_put(key, new).await;
    assert!(matches!(from_boot, Err(DhtError::Role)), "{from_boot:?}");
    let nothing = DhtKey::Chain(RootId([9; 32]));
    assert_eq!(a.handle.dht_get(nothing).await.unwrap().best, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_gives_the_best_to_those_who_have_less() {
    let signer = signer(7);
    let (key, old) = listing(&signer, 1, 1000);
    let (_, new) = listing(&signer, 1, 0);
    let fresh = holding(1, &[], key, &new);
    let at = [fresh.address().await];
    let stale = holding(2, &at, key, &old);
    let empty = honest(3, &at);
    let asker = holding(4, &at, key, &old);
    all_know_all(&[&fresh, &stale, &empty, &asker]).await;
    let answer = asker.handle.dht_get(key).await.unwrap();
    assert_eq!(answer.best, Some(new.clone()));
    let vote = |id: NodeId| answer.answers.iter().find(|vote| vote.node == id).cloned();
    let [of_fresh, of_stale, of_empty] = [&fresh, &stale, &empty].map(|node| vote(node.id()));
    assert!(of_fresh.unwrap().agrees);
    let of_stale = of_stale.unwrap();
    assert_eq!((of_stale.agrees, of_stale.rec_id), (false, Some(RecId::of(&old))));
    assert!(of_empty.is_none_or(|vote| vote.rec_id.is_none() && !vote.agrees));
    assert_eq!(answer.voices(), 1);
    for node in [&stale, &empty, &asker] {
        keeps(node, &new).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blamed_often_is_left() {
    let node = honest(1, &[]);
    let at = [node.address().await];
    let peer = honest(2, &at);
    all_know_all(&[&node, &peer]).await;
    node.handle.set_truth(peer.id(), 0.9).await;
    for _ in 0..4 {
        node.handle.blame(peer.id(), Misdeed::Withheld).await;
    }
    node.status(|status| status.peers.is_empty().then_some(())).await;
    assert_eq!(node.metric("homehost_mesh_misdeeds_total{kind=\"withheld\"}"), "4");
}

/// Takes whatever it is given.
struct Lax;

impl DhtRules for Lax {
    fn check(&self, _: &[u8], value: &[u8]) -> Result<DhtFacts, DhtRefusal> {
        Ok(DhtFacts {
            id: RecId::of(value),
            issuer: RootId([0; 32]),
            order: (u16::MAX, u64::MAX),
            expires: UnixMillis(now() + 1_000_000),
            chain: None,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_records_are_refused_and_who_keeps_sending_them_is_left() {
    let honest_node = honest(1, &[]);
    let at = [honest_node.address().await];
    let liar = host(2, &at, DhtConfig::new(Arc::new(Lax)));
    all_know_all(&[&honest_node, &liar]).await;
    let (key, mut forged) = listing(&signer(7), 1, 0);
    *forged.last_mut().unwrap() ^= 1;
    let refused = honest_node.handle.dht_put(key, forged.clone()).await;
    assert!(matches!(refused, Err(DhtError::Refused(DhtRefusal::Invalid(_)))), "{refused:?}");
    // Its note of receipt proves nothing.
    liar.handle.dht_put(key, forged.clone()).await.unwrap();
    counts(&honest_node, "homehost_mesh_dht_puts_total{fate=\"invalid\"}").await;
    assert_eq!(honest_node.handle.dht_export().await, []);
    // Nor is it believed when it is asked.
    let answer = honest_node.handle.dht_get(key).await.unwrap();
    assert_eq!((answer.best, answer.answers), (None, vec![]));
    assert_eq!(honest_node.metric("homehost_mesh_dht_puts_total{fate=\"found_invalid\"}"), "1");
    honest_node.knows([liar.id()]).await;
    for _ in 0..2 {
        // Whoever is cut off in between gets no receipt.
        let _ = liar.handle.dht_put(key, forged.clone()).await;
    }
    honest_node.status(|status| status.peers.is_empty().then_some(())).await;
    let left = "homehost_mesh_connections_refused_total{reason=\"misdeeds\"}";
    assert_eq!(honest_node.metric(left), "1");
    assert_eq!(honest_node.metric("homehost_mesh_misdeeds_total{kind=\"invalid_record\"}"), "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_puts_no_more_than_its_budget() {
    let keeper = honest(1, &[]);
    let at = [keeper.address().await];
    let eager = honest(2, &at);
    all_know_all(&[&keeper, &eager]).await;
    let (signer, begun) = (signer(7), Instant::now());
    for nonce in 0..40 {
        let (key, value) = listing(&signer, nonce, 0);
        eager.handle.dht_put(key, value).await.unwrap();
    }
    let most = 20 + usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let kept = keeper.handle.dht_export().await.len();
    assert!((20..=most).contains(&kept), "{kept} of at most {most}");
    counts(&keeper, "homehost_mesh_dht_puts_total{fate=\"budget\"}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_holders_say_so_and_are_found() {
    let boot = Node::start(config(100, Role::Bootstrap, &[]));
    let at = [boot.address().await];
    let [a, b, c] = [1, 2, 3].map(|seed| honest(seed, &at));
    all_know_all(&[&a, &b, &c, &boot]).await;
    assert_eq!(c.handle.dht_providers().await.unwrap(), []);
    a.handle.dht_provide().await.unwrap();
    b.handle.dht_provide().await.unwrap();
    let wait = async {
        loop {
            let mut found = c.handle.dht_providers().await.unwrap();
            found.sort();
            let mut both = vec![a.id(), b.id()];
            both.sort();
            if found == both {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("both are found");
    assert_eq!(a.handle.dht_providers().await.unwrap(), [b.id()], "not itself");
    let refused = boot.handle.dht_provide().await;
    assert!(matches!(refused, Err(DhtError::Role)), "{refused:?}");
    counts(&boot, "homehost_mesh_dht_providers_total{fate=\"no\"}").await;
    assert_eq!(c.metric("homehost_mesh_dht_providers_total{fate=\"new\"}"), "2");
    // Who comes later learns it too, also of one who has gone.
    let gone = a.id();
    a.stop().await;
    let d = honest(4, &at);
    d.knows([b.id(), c.id()]).await;
    let found = d.handle.dht_providers().await.unwrap();
    assert!(found.len() == 2 && found.contains(&gone), "{found:?}");
}

/// Knows one chain.
struct Knows(Chain);

impl KeyChains for Knows {
    fn signing_key(&self, root: &RootId, key_epoch: u16, dev: u8) -> KeyState {
        if *root == self.0.root() { self.0.signing_key(key_epoch, dev) } else { KeyState::Unknown }
    }
}

fn chain_record(chain: &Chain, key: DeviceKey) -> Vec<u8> {
    let signer = RecordSigner::carrier_of(key, chain, network()).unwrap();
    let now = now();
    signer.sign(&Record::KeyChain(chain.to_body()), now, UnixMillis(now)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_chain_is_said_and_the_chain_is_found() {
    let born = Chain::genesis(device(7).public(), next(7));
    let mut chain = born.clone();
    let event = chain.addition(1, device(8).public());
    chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &device(7))).unwrap();
    let (key, value) =
        listing(&RecordSigner::of_chain(device(8), &chain, network()).unwrap(), 1, 0);
    let held = vec![(key.to_string().into_bytes(), value.clone())];
    let knowing = DhtConfig { held, ..DhtConfig::new(rules(Arc::new(Knows(chain.clone())))) };
    let holder = host(1, &[], knowing);
    let at = [holder.address().await];
    let asker = honest(2, &at);
    all_know_all(&[&holder, &asker]).await;
    let answer = asker.handle.dht_get(key).await.unwrap();
    assert_eq!((&answer.best, answer.need_chains.as_slice()), (&None, &[chain.root()][..]));
    assert_eq!(asker.metric("homehost_mesh_misdeeds_total{kind=\"invalid_record\"}"), "absent");
    let needs = asker.handle.dht_put(key, value).await;
    let Err(DhtError::Refused(DhtRefusal::NeedChain(root))) = needs else { panic!("{needs:?}") };

    // The longer chain stands, in whichever order they come.
    let about = DhtKey::Chain(root);
    let (long, short) = (chain_record(&chain, device(7)), chain_record(&born, device(7)));
    holder.handle.dht_put(about, long.clone()).await.unwrap();
    holder.handle.dht_put(about, short).await.unwrap();
    assert_eq!(asker.handle.dht_get(about).await.unwrap().best, Some(long.clone()));
    keeps(&holder, &long).await;
    keeps(&asker, &long).await;
}

#[derive(Default)]
struct Disk(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl DhtKeeper for Disk {
    fn kept(&self, key: &[u8], value: &[u8]) {
        self.0.lock().unwrap().insert(key.to_vec(), value.to_vec());
    }

    fn dropped(&self, key: &[u8]) {
        self.0.lock().unwrap().remove(key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_survives_a_restart() {
    let disk = Arc::new(Disk::default());
    let (key, value) = listing(&signer(7), 1, 0);
    let start = || {
        let held = disk.0.lock().unwrap().clone().into_iter().collect();
        let keeper = Arc::clone(&disk) as Arc<dyn DhtKeeper>;
        host(1, &[], DhtConfig { rules: rules(Arc::new(NoChains)), keeper, held })
    };
    let first = start();
    assert_eq!(first.handle.dht_put(key, value.clone()).await.unwrap(), 0, "nobody is there");
    first.stop().await;
    disk.0.lock().unwrap().insert(b"/hhl/rubbish".to_vec(), vec![1; 9]);
    let second = start();
    assert_eq!(second.handle.dht_get(key).await.unwrap().best, Some(value));
    assert_eq!(disk.0.lock().unwrap().len(), 1, "what does not hold is forgotten");
}
