//! A host announcement: where a device's node is and what it does for others
//! (spec/records §9).

use super::{FieldError, Header, check_text};
use crate::cbor::cbor_map;
use crate::ids::{NodeId, RootId, byte_id};
use crate::limits;
use crate::network::NetworkName;

byte_id! {
    /// An Ed25519 signature inside a body.
    CoSignature, 64
}

impl std::fmt::Debug for CoSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CoSignature({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// Capabilities of a node. Unknown bits are kept and ignored.
pub mod capabilities {
    /// Relays signalling for nodes behind routers.
    pub const RELAY: u32 = 1;
    /// Checks whether others can be reached.
    pub const WITNESS: u32 = 1 << 1;
    /// Helps new nodes to find their first peers.
    pub const BOOT: u32 = 1 << 2;
}

cbor_map! {
    /// Where a device's node is and what it does for others.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HostAnnouncement {
        /// The node's transport key.
        required 1 node: NodeId,
        /// Multiaddrs in text form.
        text_list 2 addresses: String,
        /// Program and version.
        text 3 agent: String,
        /// See [`capabilities`].
        optional 4 capabilities: u32,
        /// The node's signature over [`HostAnnouncement::co_signing_input`]: without
        /// it, anybody could claim anybody's node.
        required 5 co_signature: CoSignature,
    }
}

impl HostAnnouncement {
    /// What the node signs: a domain, the root, the device, the sequence number
    /// of the announcement (big endian) and the network. A co-signature is thus
    /// good for one announcement and not for ever.
    pub fn co_signing_input(root: &RootId, dev: u8, seq: u64, network: &NetworkName) -> Vec<u8> {
        let seq = seq.to_be_bytes();
        let network = network.as_str().as_bytes();
        [b"homehost-node/1".as_slice(), &root.0, &[dev], &seq, network].concat()
    }

    /// Checks the fields; the co-signature is checked by [`crate::validate()`],
    /// which knows the root.
    ///
    /// # Errors
    /// The first field that breaks its limit or rule.
    pub fn check(&self) -> Result<(), FieldError> {
        check_text("agent", &self.agent, limits::AGENT_BYTES_MAX)?;
        if self.addresses.len() > limits::HOST_ADDRESSES_MAX {
            let rule = format!("must be at most {}", limits::HOST_ADDRESSES_MAX);
            return Err(FieldError::new("addresses", rule));
        }
        for address in &self.addresses {
            check_text("address", address, limits::HOST_ADDRESS_BYTES_MAX)?;
        }
        Ok(())
    }

    pub(crate) fn verify_node(&self, header: &Header) -> bool {
        use ed25519_dalek::{Signature, VerifyingKey};
        VerifyingKey::from_bytes(&self.node.0).is_ok_and(|key| {
            let signature = Signature::from_bytes(&self.co_signature.0);
            let Header { root, dev, seq, network, .. } = header;
            let input = Self::co_signing_input(root, *dev, *seq, network);
            key.verify_strict(&input, &signature).is_ok()
        })
    }
}

impl crate::keys::DeviceKey {
    /// The co-signature of a node whose transport key this is.
    pub fn co_sign(&self, root: &RootId, dev: u8, seq: u64, network: &NetworkName) -> CoSignature {
        use ed25519_dalek::Signer as _;
        let input = HostAnnouncement::co_signing_input(root, dev, seq, network);
        CoSignature(self.signing().sign(&input).to_bytes())
    }
}
