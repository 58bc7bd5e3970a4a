//! Who this node is: keys as files, readable by their owner alone.
//!
//! `node.key` is the machine's transport identity and may be replaced at will.
//! `device.key` signs records. `recovery.seed` is the key that may take over
//! from it: the genesis commits to it from the first day, and until the owner
//! has it as a phrase it lies here. `genesis` is public and names the root.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use homehost_protocol::cbor;
use homehost_protocol::keys::{DeviceKey, KeyDigest, KeyEvent};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::{NetworkName, NodeId};
use homehost_runtime::files::{Access, make_folder, write_private};
use thiserror::Error;

/// Why the identity could not be opened. Nothing was changed.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// A file could not be read or written.
    #[error("failed to use {}: {source}; the folder must belong to you and have free space", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: restore it from a backup, or move the folder `identity` away to begin as somebody new", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// The keys of this node.
#[derive(Debug)]
pub(crate) struct Identity {
    folder: PathBuf,
    node_seed: Secret,
    device: DeviceKey,
    next: KeyDigest,
}

/// 32 secret bytes that are never printed.
struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Identity {
    /// Opens the identity in a folder, or creates it there on the first start.
    ///
    /// # Errors
    /// See [`IdentityError`]. A file that is damaged is never replaced.
    pub(crate) fn open(folder: &Path) -> Result<Self, IdentityError> {
        make_folder(folder, Access::Private).map_err(|source| io_error(folder, source))?;
        let genesis_path = folder.join("genesis");
        let genesis = read(&genesis_path)?;
        let recovery = match genesis {
            // Before the genesis exists nothing was ever signed, so what a
            // crash left behind is used and what it left out is made.
            None => Some(seed(&folder.join("recovery.seed"), true)?),
            Some(_) => None,
        };
        let device = DeviceKey::from_seed(seed(&folder.join("device.key"), genesis.is_none())?.0);
        let next = match (genesis, recovery) {
            (None, Some(recovery)) => {
                let next = KeyDigest::of(&DeviceKey::from_seed(recovery.0).public());
                let event = cbor::encode(&KeyEvent::genesis(device.public(), next));
                write_new(&genesis_path, &event)?;
                next
            }
            (genesis, _) => genesis
                .and_then(|bytes| cbor::decode::<KeyEvent>(&bytes).ok())
                .filter(|event| event.key == Some(device.public()))
                .and_then(|event| event.next)
                .ok_or(IdentityError::Damaged { path: genesis_path })?,
        };
        let node_seed = seed(&folder.join("node.key"), true)?;
        Ok(Self { folder: folder.to_owned(), node_seed, device, next })
    }

    /// Where the keys lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Seed of the transport key.
    pub(crate) fn node_seed(&self) -> [u8; 32] {
        self.node_seed.0
    }

    /// The machine on the mesh.
    pub(crate) fn node(&self) -> NodeId {
        NodeId(DeviceKey::from_seed(self.node_seed.0).public().0)
    }

    /// Signs this owner's records for a network.
    pub(crate) fn signer(&self, network: NetworkName) -> RecordSigner {
        RecordSigner::genesis(self.device.clone(), self.next, network)
    }
}

fn io_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { path: path.to_owned(), source }
}

/// Reads 32 secret bytes, or makes them where that is allowed.
fn seed(path: &Path, create: bool) -> Result<Secret, IdentityError> {
    if let Some(bytes) = read(path)? {
        return bytes
            .try_into()
            .map(Secret)
            .map_err(|_| IdentityError::Damaged { path: path.to_owned() });
    }
    if !create {
        return Err(IdentityError::Damaged { path: path.to_owned() });
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io_error(path, io::Error::other(error)))?;
    write_new(path, &bytes)?;
    Ok(Secret(bytes))
}

/// Longest file of an identity in bytes; a larger one is not ours.
const FILE_BYTES_MAX: u64 = 4096;

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(|source| io_error(path, source))?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
    }
}

/// Writes a file that after a crash is there whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    write_private(path, bytes).map_err(|source| io_error(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(identity: &Identity) -> homehost_protocol::RootId {
        identity.signer(NetworkName::main()).root()
    }

    #[test]
    fn an_identity_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("identity");
        let first = Identity::open(&folder).unwrap();
        let again = Identity::open(&folder).unwrap();
        assert_eq!((root(&first), first.node()), (root(&again), again.node()));
        #[cfg(unix)]
        for name in ["node.key", "device.key", "recovery.seed"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn the_owner_survives_a_new_machine_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("node.key")).unwrap();
        // The recovery seed leaves the machine once the owner has it as a phrase.
        fs::remove_file(dir.path().join("recovery.seed")).unwrap();
        let again = Identity::open(dir.path()).unwrap();
        assert_eq!(root(&first), root(&again));
        assert_ne!(first.node(), again.node());
    }

    #[test]
    fn a_crash_at_any_moment_of_the_first_start_loses_nothing() {
        for present in [&["recovery.seed"][..], &["recovery.seed", "device.key"]] {
            let dir = tempfile::tempdir().unwrap();
            Identity::open(dir.path()).unwrap();
            for file in fs::read_dir(dir.path()).unwrap() {
                let file = file.unwrap();
                if !present.contains(&file.file_name().to_str().unwrap()) {
                    fs::remove_file(file.path()).unwrap();
                }
            }
            let recovery = fs::read(dir.path().join("recovery.seed")).unwrap();
            Identity::open(dir.path()).unwrap();
            assert_eq!(fs::read(dir.path().join("recovery.seed")).unwrap(), recovery);
        }
    }

    #[test]
    fn damage_is_explained_and_never_overwritten() {
        for (name, bytes) in [
            ("device.key", &b"short"[..]),
            ("device.key", &[7; 32]),
            ("genesis", b"?"),
            ("node.key", &[1; 33]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            Identity::open(dir.path()).unwrap();
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = Identity::open(dir.path()).unwrap_err();
            assert!(error.to_string().contains("restore it from a backup"), "{name}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("device.key")).unwrap();
        assert!(matches!(Identity::open(dir.path()), Err(IdentityError::Damaged { .. })));
    }
}
