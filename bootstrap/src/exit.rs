//! Failures that a person can do something about, and the exit codes by which a
//! supervisor tells them apart.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// What stopped the node, where that is not a fault of ours.
#[derive(Debug, Error)]
pub enum Failure {
    /// The command line asks for something that is not done. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The folder cannot be written. Exit code 5.
    #[error(
        "cannot write {}; make the folder writable for this user, \
         or name another with --data-dir",
        path.display()
    )]
    ReadOnly {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another bootstrap node runs on this folder. Exit code 8.
    #[error(
        "another bootstrap node is using {}; stop it first, or name another folder with --data-dir",
        .0.display()
    )]
    SecondDaemon(PathBuf),
    /// Another program has a port. Exit code 8.
    #[error("{address} is in use by another program; stop it, or choose another with {option}")]
    PortInUse {
        /// The address.
        address: String,
        /// The option that sets it.
        option: &'static str,
    },
    /// The deny list cannot be read, and there is no good one. Exit code 2.
    #[error("{0}; mend the file, or name another with --deny-list")]
    DenyList(String),
    /// A command is for a node that does not run. Exit code 7.
    #[error(
        "no node is running on {}; start it, or name its folder with --data-dir",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The key file is not a key. Exit code 1.
    #[error(
        "{} is damaged: {what}; put back a copy of it, or move it away to begin \
         with a new key, which changes the address of this node",
        path.display()
    )]
    DamagedKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The exit code of an error: 1 internal or disk full, 2 usage or deny list, 5
/// read-only folder, 7 no node is running, 8 port or folder in use.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(Failure::Usage(_) | Failure::DenyList(_)) => 2,
        Some(Failure::ReadOnly { .. }) => 5,
        Some(Failure::NotRunning(_)) => 7,
        Some(Failure::SecondDaemon(_) | Failure::PortInUse { .. }) => 8,
        Some(Failure::DamagedKey { .. }) | None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn codes_are_found_below_other_words() {
        let error: anyhow::Error = Failure::Usage("no".into()).into();
        assert_eq!(exit_code(&error), 2);
        let wrapped = Err::<(), _>(Failure::SecondDaemon("x".into())).context("start").unwrap_err();
        assert_eq!(exit_code(&wrapped), 8);
        assert_eq!(exit_code(&anyhow::anyhow!("disk full")), 1);
    }
}
