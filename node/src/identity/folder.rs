//! The files of an identity: read whole, written durably, wiped when a secret
//! leaves.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use homehost_protocol::cbor;
use homehost_protocol::chain::{Chain, KeyChain};
use homehost_protocol::keys::{DeviceKey, KeyEvent};
use homehost_runtime::files::{sync_folder, write_private};
use zeroize::{Zeroize as _, Zeroizing};

use super::IdentityError;

/// Seed of the transport key.
pub(super) const NODE_KEY: &str = "node.key";
/// Seed of the key that signs records.
pub(super) const DEVICE_KEY: &str = "device.key";
/// Seed of the key that will sign records once the chain names it.
pub(super) const PENDING_KEY: &str = "pending.key";
/// Says that the identity came from a backup and has not heard from others what
/// became of its keys since.
pub(super) const RESTORED: &str = "restored";
/// Seed of the interim recovery key, until its owner has a phrase.
pub(super) const RECOVERY: &str = "recovery.seed";
/// All key events of the root.
pub(super) const CHAIN: &str = "chain";
/// The first of them alone, as earlier versions wrote it.
pub(super) const GENESIS: &str = "genesis";
/// The record of a revocation, which nobody can sign again.
pub(super) const REVOCATION: &str = "revocation";
/// The root whose device this machine is to become.
pub(super) const JOINING: &str = "joining";

/// Longest file of an identity in bytes: a chain and some room. A larger one is
/// not ours.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Where the files of one identity lie.
#[derive(Clone, Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
        let path = self.path(name);
        match fs::File::open(&path) {
            Ok(file) => {
                // Of full size from the beginning: a buffer that grows leaves
                // copies behind.
                let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
                file.take(FILE_BYTES_MAX)
                    .read_to_end(&mut bytes)
                    .map_err(|source| IdentityError::Io { path, source })?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    /// Writes a file that after a crash is there whole or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        write_private(&self.path(name), bytes).map_err(|source| self.io(name, source))
    }

    /// Removes a file; one that is not there is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), IdentityError> {
        let removed = match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.and_then(|()| sync_folder(&self.0)),
        };
        removed.map_err(|source| self.io(name, source))
    }

    /// Overwrites a secret and removes it. A disk that writes elsewhere what is
    /// overwritten keeps a copy all the same; this is the best that a program
    /// can do.
    pub(super) fn shred(&self, name: &str) -> Result<(), IdentityError> {
        // Under its own name a half-wiped secret would be taken for one.
        let gone = format!("{name}.gone");
        match self.rename(name, &gone) {
            Err(IdentityError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !self.path(&gone).exists() =>
            {
                return Ok(());
            }
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        let path = self.path(&gone);
        let wiped = OpenOptions::new().write(true).open(&path).and_then(|mut file| {
            let length = file.metadata()?.len().min(FILE_BYTES_MAX);
            file.write_all(&vec![0; length as usize])?;
            file.sync_all()
        });
        match wiped {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(IdentityError::Io { path, source }),
            Ok(()) => self.remove(&gone),
        }
    }

    /// Puts one file in the place of another, at once.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), IdentityError> {
        fs::rename(self.path(from), self.path(to))
            .and_then(|()| sync_folder(&self.0))
            .map_err(|source| self.io(to, source))
    }

    pub(super) fn key(&self, name: &str) -> Result<Option<DeviceKey>, IdentityError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let mut seed: [u8; 32] = bytes.as_slice().try_into().map_err(|_| self.damaged(name))?;
        let key = DeviceKey::from_seed(seed);
        seed.zeroize();
        Ok(Some(key))
    }

    pub(super) fn key_or_new(&self, name: &str) -> Result<DeviceKey, IdentityError> {
        if let Some(key) = self.key(name)? {
            return Ok(key);
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| self.io(name, io::Error::other(error)))?;
        self.write(name, seed.as_ref())?;
        Ok(DeviceKey::from_seed(*seed))
    }

    /// The root's key events, checked.
    pub(super) fn chain(&self) -> Result<Option<Chain>, IdentityError> {
        if let Some(bytes) = self.read(CHAIN)? {
            let chain = cbor::decode::<KeyChain>(&bytes)
                .ok()
                .and_then(|chain| Chain::verify(&chain).ok())
                .ok_or_else(|| self.damaged(CHAIN))?;
            return Ok(Some(chain));
        }
        let Some(bytes) = self.read(GENESIS)? else { return Ok(None) };
        let event = cbor::decode::<KeyEvent>(&bytes).ok();
        let chain = event
            .and_then(|event| {
                let (key, next) = (event.key?, event.next?);
                (event == KeyEvent::genesis(key, next)).then(|| Chain::genesis(key, next))
            })
            .ok_or_else(|| self.damaged(GENESIS))?;
        Ok(Some(chain))
    }

    pub(super) fn write_chain(&self, chain: &Chain) -> Result<(), IdentityError> {
        self.write(CHAIN, &cbor::encode(&chain.to_body()))
    }

    pub(super) fn damaged(&self, name: &str) -> IdentityError {
        IdentityError::Damaged { path: self.path(name) }
    }

    pub(super) fn io(&self, name: &str, source: io::Error) -> IdentityError {
        IdentityError::Io { path: self.path(name), source }
    }
}
