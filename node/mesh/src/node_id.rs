//! Between our [`NodeId`] and libp2p's peer id: the same 32 bytes of an Ed25519
//! key, with and without a prefix.

use homehost_protocol::NodeId;
use libp2p::PeerId;
use libp2p::identity::{PublicKey, ed25519};

/// A peer id of an Ed25519 key: identity multihash of the protobuf public key.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The node that a peer id names, unless its key is of another type.
pub(crate) fn node_of(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    bytes.strip_prefix(&PREFIX)?.try_into().ok().map(NodeId)
}

/// The peer id of a node, unless its bytes are no point on the curve.
pub(crate) fn peer_of(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn ids_survive_both_ways() {
        let peer = Keypair::ed25519_from_bytes([7; 32]).unwrap().public().to_peer_id();
        let node = node_of(&peer).unwrap();
        assert_eq!(peer_of(node), Some(peer));
        assert_eq!(node.to_string(), peer.to_string());
    }

    #[test]
    fn other_ids_are_no_nodes() {
        assert_eq!(node_of(&PeerId::random()), None);
    }
}
