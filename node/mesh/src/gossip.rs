//! Settings of gossip (spec/mesh §3), and the names of topics on the wire.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use homehost_protocol::NetworkName;
use homehost_protocol::gossip::Topic;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAuthenticity, MessageId,
    PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams, ValidationMode,
    WhitelistSubscriptionFilter,
};
use sha2::{Digest, Sha256};

/// Gossip that takes our topics only.
pub(crate) type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Degree of the mesh: with 8 a message crosses 10,000 nodes in five hops, and
/// three lost neighbours change nothing.
const D: usize = 8;
const D_LOW: usize = 6;
const D_HIGH: usize = 12;

/// Neighbours that we dialled ourselves: who crowds in cannot surround us.
const D_OUT: usize = 3;

const HEARTBEAT: Duration = Duration::from_secs(1);

/// The default of five seconds would make every start slow.
const HEARTBEAT_DELAY: Duration = Duration::from_millis(500);

/// How long a message is known: longer than it can stay on its way through
/// slow peers, so that nothing circulates.
const DUPLICATE_CACHE: Duration = Duration::from_secs(300);

/// A whole gossip frame; a batch and its control messages.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// What gossipsub is told instead: it compares with this not a frame but all
/// bytes that it has read (`validate_rpc_limits` of libp2p-gossipsub 0.50.1),
/// which are at most a frame that lacks a byte, its length, and one read more.
/// Whoever is over it is not heard any more on that connection and does not
/// learn of it, so two long frames in a row must fit.
const READ_BYTES_MAX: usize = FRAME_BYTES_MAX + 3 + 8 * 1024;

/// Message ids of one control message: each has 22 bytes on the wire, and with
/// the default of 5,000 a busy node would send frames that nobody takes.
const CONTROL_IDS_MAX: usize = 512;

/// Messages that wait for one slow peer.
const QUEUE_MAX: usize = 256;

/// Bytes of a message id; 160 bits cannot be collided in five minutes.
const ID_BYTES: usize = 20;

/// Peers of one address before they cost each other score: a family or a
/// student house behind one router.
const COLOCATION_MAX: f64 = 4.0;

/// Weight of the peers of one address beyond those, whose number is squared.
/// Eight, as many as may connect to us from one address (`crowd.rs`), are at
/// −0.5 · (8 − 4)² = −8 each, and still get all gossip, which ends at −10. Nine
/// are at −12.5 until they have earned a little; a peer is no longer heard at
/// −80, which takes seventeen: −0.5 · 13² = −84.5.
const COLOCATION_WEIGHT: f64 = -0.5;

/// Weight of invalid messages, whose count is squared. One puts a newcomer
/// below the graylist threshold for a quarter of a minute, three for a minute
/// and a half; a peer with a good record survives one.
const INVALID_WEIGHT: f64 = -100.0;

/// Our topics by their name on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Topics(Vec<(TopicHash, Topic)>);

impl Topics {
    pub(crate) fn new(network: &NetworkName) -> Self {
        Self(Topic::ALL.map(|topic| (ident(topic, network).hash(), topic)).to_vec())
    }

    pub(crate) fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        self.0.iter().find(|(known, _)| known == hash).map(|(_, topic)| *topic)
    }

    pub(crate) fn hash(&self, topic: Topic) -> Option<TopicHash> {
        self.0.iter().find(|(_, known)| *known == topic).map(|(hash, _)| hash.clone())
    }
}

fn ident(topic: Topic, network: &NetworkName) -> IdentTopic {
    IdentTopic::new(topic.name(network))
}

/// SHA-256 of topic and data, cut to 20 bytes: equal content is one message,
/// whoever sends it.
fn message_id(message: &Message) -> MessageId {
    let mut hasher = Sha256::new();
    hasher.update(message.topic.as_str().as_bytes());
    hasher.update(&message.data);
    MessageId::new(&hasher.finalize()[..ID_BYTES])
}

/// Gossip, subscribed to all topics of a network.
///
/// # Errors
/// A setting that gossipsub refuses, in words.
pub(crate) fn behaviour(network: &NetworkName) -> Result<Gossip, String> {
    let config = ConfigBuilder::default()
        .mesh_n(D)
        .mesh_n_low(D_LOW)
        .mesh_n_high(D_HIGH)
        .mesh_outbound_min(D_OUT)
        .gossip_lazy(D)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(HEARTBEAT_DELAY)
        .duplicate_cache_time(DUPLICATE_CACHE)
        .max_transmit_size(READ_BYTES_MAX)
        .max_control_messages_sent(CONTROL_IDS_MAX)
        .connection_handler_queue_len(QUEUE_MAX)
        .flood_publish(true)
        .validate_messages()
        // Records are signed by their authors; a second signature by whoever
        // passes them on would cost more than it tells.
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(message_id)
        .build()
        .map_err(|error| error.to_string())?;
    let topics = Topic::ALL.map(|topic| ident(topic, network));
    let ours: HashSet<TopicHash> = topics.iter().map(IdentTopic::hash).collect();
    let filter = WhitelistSubscriptionFilter(ours.clone());
    let mut gossip =
        Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)?;
    gossip.with_peer_score(score(ours), PeerScoreThresholds::default())?;
    for topic in &topics {
        gossip.subscribe(topic).map_err(|error| error.to_string())?;
    }
    Ok(gossip)
}

fn score(topics: HashSet<TopicHash>) -> PeerScoreParams {
    let topic = TopicScoreParams {
        topic_weight: 1.0,
        // Staying earns at most 10, within half an hour.
        time_in_mesh_weight: 10.0 / 1800.0,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 1800.0,
        // Bringing news first earns at most 40; a minute halves it.
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: 0.9885,
        first_message_deliveries_cap: 40.0,
        // Our topics are quiet: counting what a peer did not bring would punish
        // the innocent.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: INVALID_WEIGHT,
        // About ten minutes until one invalid message is forgotten.
        invalid_message_deliveries_decay: 0.9925,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: topics.into_iter().map(|hash| (hash, topic.clone())).collect::<HashMap<_, _>>(),
        topic_score_cap: 100.0,
        // `standing.rs` says it in points already.
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: COLOCATION_WEIGHT,
        ip_colocation_factor_threshold: COLOCATION_MAX,
        ip_colocation_factor_whitelist: HashSet::from([
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
        ]),
        ..PeerScoreParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_accepted() {
        let network = NetworkName::main();
        let gossip = behaviour(&network).unwrap();
        assert_eq!(gossip.topics().count(), Topic::ALL.len());
        let topics = Topics::new(&network);
        for topic in Topic::ALL {
            assert_eq!(topics.topic(&topics.hash(topic).unwrap()), Some(topic));
        }
        assert_eq!(topics.topic(&TopicHash::from_raw("/homehost/1/other/list/0/0")), None);
    }

    #[test]
    fn all_who_may_connect_from_one_address_are_heard() {
        let score = score(HashSet::new());
        let penalty = |peers: f64| {
            let surplus = (peers - score.ip_colocation_factor_threshold).max(0.0);
            score.ip_colocation_factor_weight * surplus * surplus
        };
        let thresholds = PeerScoreThresholds::default();
        let most = f64::from(crate::crowd::PER_ADDRESS_MAX);
        assert!(penalty(most) > thresholds.gossip_threshold);
        assert!(penalty(2.0 * most) > thresholds.graylist_threshold);
        assert!(penalty(3.0 * most) < thresholds.graylist_threshold, "a crowd is not");
    }

    #[test]
    fn the_message_id_is_as_specified() {
        let topic = Topic::Listings.name(&NetworkName::main());
        let message = Message {
            source: None,
            data: b"data".to_vec(),
            sequence_number: None,
            topic: TopicHash::from_raw(topic),
        };
        let whole = Sha256::digest(b"/homehost/1/main/list/0/0data");
        assert_eq!(message_id(&message).0, whole[..20]);
    }
}
