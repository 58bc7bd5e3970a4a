//! Where a node keeps its things, and how a client finds a running one.

use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use homehost_api::ErrorKind;
use homehost_runtime::files::write_private;
use homehost_store::DataDir;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, failure};

/// Environment variable that names the data folder.
pub(crate) const DATA_DIR_VARIABLE: &str = "HOMEHOST_DATA_DIR";

/// Where the running daemon's API is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ApiPlace {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
}

/// The data folder of this user.
///
/// # Errors
/// When neither an option, a variable nor the system names one.
pub(crate) fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let dir = given.or_else(default_dir).ok_or_else(|| {
        let text = format!("no home folder is known: give --data-dir or set {DATA_DIR_VARIABLE}");
        failure(ErrorKind::Usage, text)
    })?;
    // Games are started in folders of their own; a relative path would mean
    // something else there.
    std::path::absolute(&dir)
        .map_err(|error| failure(ErrorKind::Usage, format!("{}: {error}", dir.display())))
}

#[cfg(unix)]
fn default_dir() -> Option<PathBuf> {
    // Games of a system-wide node run as another user, who may not enter root's home.
    let owner = fs::metadata("/proc/self").map(|own| own.uid());
    if owner.is_ok_and(|uid| uid == 0) {
        return Some("/var/lib/homehost".into());
    }
    let share = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    share.or_else(home).map(|dir| dir.join("homehost"))
}

#[cfg(windows)]
fn default_dir() -> Option<PathBuf> {
    env::var_os("LOCALAPPDATA").map(|dir| PathBuf::from(dir).join("HomeHost"))
}

/// Refuses a data folder of another user, into which this one cannot look: all in
/// it would seem to be absent.
///
/// # Errors
/// [`ErrorKind::Denied`], with what to do.
pub(crate) fn refuse_others(data_dir: &Path) -> Result<(), Failure> {
    let closed = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    // A node's lock and its place are its user's alone, and so is its identity.
    let files = [DataDir::lock_file(data_dir), place_file(data_dir)];
    let is_closed = files.iter().any(|path| fs::File::open(path).is_err_and(closed))
        || fs::metadata(data_dir.join("identity").join("chain")).is_err_and(closed);
    if !is_closed {
        return Ok(());
    }
    let text = format!(
        "the node in {} belongs to another user: run this as the node's user, or with sudo, or \
         give another folder with --data-dir",
        data_dir.display()
    );
    Err(failure(ErrorKind::Denied, text))
}

fn place_file(data_dir: &Path) -> PathBuf {
    data_dir.join("api.json")
}

/// The file that holds the owner's token.
pub(crate) fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("api.token")
}

/// Tells clients where the API is.
pub(crate) fn publish(data_dir: &Path, address: SocketAddr) -> io::Result<()> {
    let place = ApiPlace { address, pid: std::process::id() };
    write_private(&place_file(data_dir), &serde_json::to_vec(&place).map_err(io::Error::other)?)
}

/// Tells clients that there is none.
pub(crate) fn withdraw(data_dir: &Path) {
    // It is removed for tidiness; a client finds out by itself.
    let _ = fs::remove_file(place_file(data_dir));
}

/// Where the API is, if a daemon said so.
pub(crate) fn find(data_dir: &Path) -> Option<ApiPlace> {
    serde_json::from_slice(&fs::read(place_file(data_dir)).ok()?).ok()
}

/// Makes a token for this run of the daemon and stores it where only its owner
/// can read it. An old one is worthless afterwards: a client that finds another
/// program on the port of a daemon that died has told it nothing.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn new_token(data_dir: &Path) -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let token = data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
    write_private(&token_file(data_dir), token.as_bytes())?;
    Ok(token)
}
