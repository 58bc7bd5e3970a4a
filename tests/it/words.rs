//! Identities whose recovery phrase a test knows.

use std::fs;
use std::path::Path;

use homehost_protocol::cbor;
use homehost_protocol::chain::Chain;
use homehost_protocol::keys::{DeviceKey, KeyDigest};

/// The phrase of sixteen zero bytes.
pub(crate) const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// Digest of its first recovery key, as spec/records §5 has it.
const NEXT: [u8; 32] = [
    0x43, 0xaa, 0x19, 0xbe, 0x8c, 0xa8, 0x03, 0x5f, 0xbb, 0x42, 0xa6, 0x5f, 0xe9, 0x53, 0x29, 0x5d,
    0x8a, 0x4b, 0x60, 0x4d, 0xc8, 0x39, 0x9b, 0x62, 0x69, 0x06, 0x70, 0x28, 0x64, 0xfe, 0x95, 0x73,
];

/// An identity as a first start in a terminal leaves it, with [`WORDS`] on paper.
pub(crate) fn born(folder: &Path) {
    let mut seed = [0; 32];
    fastrand::fill(&mut seed);
    let device = DeviceKey::from_seed(seed);
    let chain = Chain::genesis(device.public(), KeyDigest(NEXT));
    fs::create_dir_all(folder).expect("the folder is ours");
    fs::write(folder.join("device.key"), seed).expect("the folder is ours");
    let chain = cbor::encode(&chain.to_body());
    fs::write(folder.join("chain"), chain).expect("the folder is ours");
}
