//! An identity in one file, sealed with a passphrase.
//!
//! The file is `homehost-backup/1` and a line feed, then memory in KiB, passes
//! and lanes of Argon2id (32 bits each, big endian), a salt of 16 bytes and a
//! nonce of 24, then XChaCha20-Poly1305 over a CBOR map of byte strings, with
//! all that stands before as associated data.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use homehost_protocol::UnixMillis;
use homehost_protocol::cbor::{self, Blob};
use homehost_protocol::chain::{Chain, KeyChain};
use homehost_runtime::files::{Access, create_private, make_folder, sync_folder};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use super::folder::{self, Folder};
use super::{Identity, IdentityError};

/// What every backup begins with; its version follows.
const MAGIC: &[u8] = b"homehost-backup/";

/// The version that is written here.
const VERSION: &[u8] = b"1\n";

/// Bytes of salt.
const SALT: usize = 16;
/// Bytes of nonce.
const NONCE: usize = 24;
/// Bytes before the sealed part.
const HEADER: usize = MAGIC.len() + VERSION.len() + 3 * 4 + SALT + NONCE;

/// Largest file: a chain, three keys and a generous margin.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Shortest passphrase in characters. Whoever has the file may try as many as a
/// machine can, at about ten a second and core.
pub(crate) const PASSPHRASE_CHARS_MIN: usize = 8;

/// How hard it is to try a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The second recommended choice of RFC 9106 §4, for machines with little
    /// memory.
    pub(crate) const USUAL: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// More than any backup has: a file from elsewhere must not take all memory
    /// of this machine.
    const MOST: Self = Self { memory_kib: 256 * 1024, passes: 16, lanes: 16 };
}

/// Why a backup was not written or read.
#[derive(Debug, Error)]
pub(crate) enum BackupError {
    /// A file could not be read or written.
    #[error("failed to use {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a file of that name.
    #[error("{} exists and is not replaced: choose another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// Something else than a backup.
    #[error("{} is not a backup of an identity", .0.display())]
    NotABackup(PathBuf),
    /// A version that is not known here.
    #[error("{} was written by a newer version: update homehost to read it", .0.display())]
    Newer(PathBuf),
    /// It cannot be opened.
    #[error("the passphrase is wrong, or {} is damaged: try again, or use another copy", .0.display())]
    Sealed(PathBuf),
    /// It was opened and makes no sense.
    #[error("{} is damaged: use another copy", .0.display())]
    Damaged(PathBuf),
    /// The identity itself.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What a backup holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(super) chain: Chain,
    pub(super) device: Zeroizing<Vec<u8>>,
    pub(super) node: Zeroizing<Vec<u8>>,
    pub(super) recovery: Option<Zeroizing<Vec<u8>>>,
    /// The record of a revocation, which others may still have to be told and
    /// which nobody can sign again.
    pub(super) revocation: Option<Vec<u8>>,
    pub(super) created: UnixMillis,
}

/// Which transport key a machine gets with a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// The one of the backup: it is the same machine, or takes its place.
    Same,
    /// A new one: the other may still run.
    Other,
}

impl Contents {
    /// When it was written.
    pub(crate) fn created(&self) -> UnixMillis {
        self.created
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut map = BTreeMap::from([
            (1_u8, Blob(cbor::encode(&self.chain.to_body()))),
            (2, Blob(self.device.to_vec())),
            (3, Blob(self.node.to_vec())),
            (5, Blob(self.created.0.to_be_bytes().to_vec())),
        ]);
        if let Some(recovery) = &self.recovery {
            map.insert(4, Blob(recovery.to_vec()));
        }
        if let Some(record) = &self.revocation {
            map.insert(6, Blob(record.clone()));
        }
        let bytes = Zeroizing::new(cbor::encode(&map));
        map.values_mut().for_each(|blob| blob.0.zeroize());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut map: BTreeMap<u8, Blob> = cbor::decode(bytes).ok()?;
        let chain = cbor::decode::<KeyChain>(&map.remove(&1)?.0).ok()?;
        let created = map.remove(&5)?.0.try_into().map(u64::from_be_bytes).ok()?;
        let revocation = map.remove(&6).map(|record| record.0);
        let mut secret = |key| map.remove(&key).map(|blob| Zeroizing::new(blob.0));
        let contents = Self {
            chain: Chain::verify(&chain).ok()?,
            device: secret(2).filter(|seed| seed.len() == 32)?,
            node: secret(3).filter(|seed| seed.len() == 32)?,
            recovery: secret(4),
            revocation,
            created: UnixMillis(created),
        };
        Some(contents)
    }

    /// Seals it.
    fn seal(&self, passphrase: &str, cost: Cost) -> io::Result<Vec<u8>> {
        let mut file = [MAGIC, VERSION].concat();
        for number in [cost.memory_kib, cost.passes, cost.lanes] {
            file.extend(number.to_be_bytes());
        }
        let mut random = [0; SALT + NONCE];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        file.extend(random);
        let plain = self.encode();
        let key = stretch(passphrase, &random[..SALT], cost)
            .ok_or_else(|| io::Error::other("not enough memory"))?;
        let cipher = XChaCha20Poly1305::new(key.as_ref().into());
        let payload = Payload { msg: &plain, aad: &file };
        let sealed = cipher
            .encrypt(XNonce::from_slice(&random[SALT..]), payload)
            .map_err(|_| io::Error::other("it is too long"))?;
        file.extend(sealed);
        Ok(file)
    }

    fn open(bytes: &[u8], passphrase: &str, path: &Path) -> Result<Self, BackupError> {
        let not_ours = || BackupError::NotABackup(path.to_owned());
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(not_ours)?;
        if !rest.starts_with(VERSION) {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let newer = digits > 0 && rest.get(digits) == Some(&b'\n');
            return Err(if newer { BackupError::Newer(path.to_owned()) } else { not_ours() });
        }
        let damaged = || BackupError::Damaged(path.to_owned());
        let (header, sealed) = bytes.split_at_checked(HEADER).ok_or_else(damaged)?;
        let mut numbers = header[MAGIC.len() + VERSION.len()..]
            .chunks_exact(4)
            .map(|four| u32::from_be_bytes(four.try_into().expect("chunks of four")));
        let mut number = || numbers.next().unwrap_or(u32::MAX);
        let cost = Cost { memory_kib: number(), passes: number(), lanes: number() };
        let random = &header[HEADER - SALT - NONCE..];
        let key = stretch(passphrase, &random[..SALT], cost).ok_or_else(damaged)?;
        let cipher = XChaCha20Poly1305::new(key.as_ref().into());
        let payload = Payload { msg: sealed, aad: header };
        let plain = cipher
            .decrypt(XNonce::from_slice(&random[SALT..]), payload)
            .map(Zeroizing::new)
            .map_err(|_| BackupError::Sealed(path.to_owned()))?;
        Self::decode(&plain).ok_or_else(damaged)
    }

    /// Writes the identity's files, all or none.
    ///
    /// # Errors
    /// See [`BackupError`]; an identity that exists is not replaced.
    pub(crate) fn restore(&self, path: &Path, machine: Machine) -> Result<Identity, BackupError> {
        if Identity::exists(path) {
            let text = format!(
                "there is an identity in {} already: move that folder away first, and keep it if \
                 it was ever used",
                path.display()
            );
            return Err(IdentityError::Taken(text).into());
        }
        let io_error = |source| BackupError::Io { path: path.to_owned(), source };
        if fs::read_dir(path).is_ok_and(|mut files| files.next().is_some()) {
            let text = format!(
                "{} holds files that are no whole identity: move that folder away first",
                path.display()
            );
            return Err(IdentityError::Taken(text).into());
        }
        let beside = path.with_extension("restoring");
        match fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        make_folder(&beside, Access::Private).map_err(io_error)?;
        let folder = Folder(beside);
        folder.write_chain(&self.chain)?;
        folder.write(folder::DEVICE_KEY, &self.device)?;
        if let Some(recovery) = &self.recovery {
            folder.write(folder::RECOVERY, recovery)?;
        }
        if let Some(record) = &self.revocation {
            folder.write(folder::REVOCATION, record)?;
        }
        if machine == Machine::Same {
            folder.write(folder::NODE_KEY, &self.node)?;
        }
        folder.write(folder::RESTORED, b"see `homehost id rotate`\n")?;
        // Whether it can be opened is known before it takes its place.
        drop(Identity::open(&folder.0)?);
        // There may be an empty folder, which some systems do not replace.
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        fs::rename(&folder.0, path).map_err(io_error)?;
        path.parent().map_or(Ok(()), sync_folder).map_err(io_error)?;
        Ok(Identity::open(path)?)
    }
}

/// The key that a passphrase gives.
fn stretch(passphrase: &str, salt: &[u8], cost: Cost) -> Option<Zeroizing<[u8; 32]>> {
    let Cost { memory_kib, passes, lanes } = cost;
    let most = Cost::MOST;
    if memory_kib > most.memory_kib || passes > most.passes || lanes > most.lanes {
        return None;
    }
    let params = Params::new(memory_kib, passes, lanes, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut())
        .ok()?;
    Some(key)
}

/// Writes a backup of an identity to a new file.
///
/// # Errors
/// See [`BackupError`]; what was begun is removed again.
pub(crate) fn write(
    identity: &Identity,
    path: &Path,
    passphrase: &str,
    cost: Cost,
) -> Result<(), BackupError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
        _ => BackupError::Io { path: path.to_owned(), source },
    };
    if path.exists() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let bytes = identity.secrets()?.seal(passphrase, cost).map_err(io_error)?;
    let mut file = create_private(path).map_err(io_error)?;
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        drop(file);
        // Half a backup is worse than none, which the error says in any case.
        let _ = fs::remove_file(path);
        return Err(io_error(error));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent).map_err(io_error),
        _ => Ok(()),
    }
}

/// Reads a backup.
///
/// # Errors
/// See [`BackupError`].
pub(crate) fn read(path: &Path, passphrase: &str) -> Result<Contents, BackupError> {
    let io_error = |source| BackupError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(io_error)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(BackupError::NotABackup(path.to_owned()));
    }
    Contents::open(&bytes, passphrase, path)
}

/// Whether a file is a backup at all, before anybody is asked for a passphrase.
///
/// # Errors
/// See [`BackupError`].
pub(crate) fn look(path: &Path) -> Result<(), BackupError> {
    let mut begin = [0; MAGIC.len()];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    match read {
        Ok(()) if begin == MAGIC => Ok(()),
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(BackupError::Io { path: path.to_owned(), source })
        }
        _ => Err(BackupError::NotABackup(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fast, for tests alone.
    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn backup(dir: &Path) -> (Identity, PathBuf) {
        let identity = Identity::open(&dir.join("identity")).unwrap();
        let file = dir.join("backup");
        write(&identity, &file, "correct horse", CHEAP).unwrap();
        (identity, file)
    }

    #[test]
    fn an_identity_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, file) = backup(dir.path());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for (name, machine) in [("same", Machine::Same), ("other", Machine::Other)] {
            let contents = read(&file, "correct horse").unwrap();
            let back = contents.restore(&dir.path().join(name), machine).unwrap();
            assert_eq!(back.chain(), identity.chain());
            assert_eq!(back.key(), identity.key());
            assert_eq!(back.node() == identity.node(), machine == Machine::Same);
            assert_eq!(back.phrase_state(), identity.phrase_state());
            let error = contents.restore(&dir.path().join(name), machine).unwrap_err();
            assert!(error.to_string().contains("move that folder away"), "{error}");
        }
        // An empty folder is no identity.
        fs::create_dir(dir.path().join("empty")).unwrap();
        let contents = read(&file, "correct horse").unwrap();
        contents.restore(&dir.path().join("empty"), Machine::Other).unwrap();
    }

    #[test]
    fn nothing_is_replaced_and_no_secret_is_in_the_open() {
        let dir = tempfile::tempdir().unwrap();
        let (identity, file) = backup(dir.path());
        let error = write(&identity, &file, "another", CHEAP).unwrap_err();
        assert!(matches!(error, BackupError::Exists(_)), "{error}");
        let bytes = fs::read(&file).unwrap();
        for name in ["device.key", "node.key", "recovery.seed"] {
            let secret = fs::read(dir.path().join("identity").join(name)).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{name}");
        }
    }

    #[test]
    fn no_byte_can_be_changed_or_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (_, file) = backup(dir.path());
        let bytes = fs::read(&file).unwrap();
        let open = |bytes: &[u8], word| Contents::open(bytes, word, &file);
        assert!(open(&bytes, "correct horse").is_ok());
        assert!(matches!(open(&bytes, "correct house"), Err(BackupError::Sealed(_))));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(open(&other, "correct horse").is_err(), "byte {at}");
            assert!(open(&bytes[..at], "correct horse").is_err(), "cut at {at}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(open(&longer, "correct horse").is_err());
    }

    #[test]
    fn what_is_no_backup_is_named_precisely() {
        let path = Path::new("f");
        let open = |bytes: &[u8]| Contents::open(bytes, "x", path).unwrap_err();
        assert!(matches!(open(b"PK\x03\x04"), BackupError::NotABackup(_)));
        assert!(matches!(open(b"homehost-backup/2\nxyz"), BackupError::Newer(_)));
        assert!(matches!(open(b"homehost-backup/17\n"), BackupError::Newer(_)));
        assert!(matches!(open(b"homehost-backup/x\n"), BackupError::NotABackup(_)));
        assert!(matches!(open(b"homehost-backup/1\n"), BackupError::Damaged(_)));
        // A file that wants more memory than any backup is not even tried.
        let mut greedy = b"homehost-backup/1\n".to_vec();
        greedy.extend([0xff; 4]);
        greedy.resize(HEADER + 40, 0);
        assert!(matches!(open(&greedy), BackupError::Damaged(_)));
    }
}
