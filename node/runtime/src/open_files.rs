//! How many files, and so connections, this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many open files as the system lets this process have, up to what it
/// needs: a shell's usual 1,024 would be the limit otherwise.
pub fn make_room_for_files(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(needed).min(needed);
    if limit.current.is_some_and(|now| now < most) {
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "cannot have more open files");
        }
    }
    if let Some(now) = getrlimit(Resource::Nofile).current.filter(|now| *now < needed) {
        tracing::warn!(
            "only {now} files may be open, and each connection is one: raise the limit to {needed}"
        );
    }
}
