//! How a command ends: a class with an exit code, and one sentence.

use std::error::Error;

use homehost_api::{ApiError, ErrorKind};
use homehost_mesh::StartError as MeshError;
use homehost_store::{OpenError, StoreError};

use crate::identity::IdentityError;
use crate::identity::backup::BackupError;

/// Why a command failed, for the person who gave it.
pub(crate) type Failure = ApiError;

pub(crate) fn failure(kind: ErrorKind, text: impl Into<String>) -> Failure {
    ApiError::new(kind, text)
}

/// An error with all that caused it, in one sentence.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors repeat what caused them.
        if !text.contains(&said) {
            text.push_str(&format!(": {said}"));
        }
        cause = error.source();
    }
    text
}

pub(crate) fn opening(error: &OpenError) -> Failure {
    let kind = match error {
        OpenError::InUse { .. } => ErrorKind::Conflict,
        OpenError::Denied { .. } => ErrorKind::Denied,
        OpenError::Newer { .. } => ErrorKind::Usage,
        _ => ErrorKind::Internal,
    };
    let mut text = with_causes(error);
    if let OpenError::Other { .. } = error {
        text.push_str("; look at that path and its disk, or give another folder with --data-dir");
    }
    failure(kind, text)
}

pub(crate) fn storing(error: &StoreError) -> Failure {
    crate::wire::audit::store_error(error)
}

pub(crate) fn identity(error: &IdentityError) -> Failure {
    let kind = match error {
        IdentityError::Io { source, .. } => of_io(source),
        IdentityError::Damaged { .. } => ErrorKind::Internal,
        IdentityError::NotNow(_) => ErrorKind::WrongState,
        IdentityError::Wrong(_) => ErrorKind::Usage,
        IdentityError::Taken(_) => ErrorKind::Conflict,
    };
    failure(kind, error.to_string())
}

pub(crate) fn backup(error: &BackupError) -> Failure {
    let kind = match error {
        BackupError::Io { source, .. } => of_io(source),
        BackupError::Exists(_) => ErrorKind::Conflict,
        BackupError::NotABackup(_) | BackupError::Newer(_) => ErrorKind::Usage,
        BackupError::Sealed(_) => ErrorKind::Denied,
        BackupError::Damaged(_) => ErrorKind::Internal,
        BackupError::Identity(error) => return identity(error),
    };
    failure(kind, error.to_string())
}

pub(crate) fn mesh(error: &MeshError) -> Failure {
    if error.is_address_in_use() {
        let text = format!("{error}; choose another port with --listen, or stop the other program");
        return failure(ErrorKind::Conflict, text);
    }
    let MeshError::Listen { source, .. } = error else {
        return failure(ErrorKind::Internal, error.to_string());
    };
    let next = match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "choose a port above 1023, as in --listen /ip4/0.0.0.0/tcp/4011"
        }
        _ => {
            "name an address that this machine has, or all of them as in \
             --listen /ip4/0.0.0.0/tcp/4011"
        }
    };
    failure(ErrorKind::Usage, format!("{error}: {source}; {next} (or mesh.listen)"))
}

/// The class of an error of the operating system.
pub(crate) fn of_io(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::AddrInUse => ErrorKind::Conflict,
        Io::NotFound => ErrorKind::NotFound,
        Io::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Internal,
    }
}

/// What to do about an error of the operating system.
pub(crate) fn next(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => "free some space and try again",
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            "the folder must belong to you and be writable, or give another with --data-dir"
        }
        _ => "look at the folder, or give another with --data-dir",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_caused_an_error_is_said_with_it() {
        let cause = || Arc::new(std::io::Error::other("the cable is out"));
        let opened = OpenError::Other { path: PathBuf::from("/srv/homehost"), source: cause() };
        let text = opening(&opened).message;
        assert!(text.starts_with("/srv/homehost could not be opened: the cable is out;"), "{text}");
        assert!(text.contains("--data-dir"), "{text}");
        let text = storing(&StoreError::Other(cause())).message;
        assert!(text.ends_with(": the cable is out"), "{text}");
    }
}
