//! Which processes belong to a game: its group, and the session that its shim
//! made for it. A group can be left with one call; a session only by a process
//! that makes one of its own.

use rustix::process::Pid;

/// The session of this process, if this process made it. Otherwise strangers
/// are in it, as the shell that started the daemon.
pub(super) fn own_session() -> Option<u32> {
    let us = rustix::process::getpid();
    let ours = rustix::process::getsid(None).is_ok_and(|session| session == us);
    ours.then(|| us.as_raw_pid().unsigned_abs())
}

/// The living processes of a group and a session.
pub(super) fn members(group: Pid, session: Option<u32>) -> Vec<Pid> {
    let group = group.as_raw_pid().unsigned_abs();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
            let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
            let (its_group, its_session) = group_and_session(&stat)?;
            (its_group == group || Some(its_session) == session).then_some(pid)
        })
        .collect()
}

/// Fields 5 and 6 of proc(5) `stat`; `None` for a process that has ended.
fn group_and_session(stat: &str) -> Option<(u32, u32)> {
    // The second field is the program's name and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut fields = fields.skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_sessions_are_read_whatever_the_name() {
        assert_eq!(group_and_session("12 (a) 1 b) S 1 7 8 9"), Some((7, 8)));
        for stat in ["", "12 (a)", "12 (a) Z 1 7 8", "12 (a) S 1 7", "12 (a) S x y z"] {
            assert_eq!(group_and_session(stat), None, "{stat}");
        }
    }

    #[test]
    fn this_process_is_in_its_group() {
        let us = rustix::process::getpid();
        assert!(members(rustix::process::getpgrp(), None).contains(&us));
        assert!(members(Pid::from_raw(i32::MAX).unwrap(), None).is_empty());
    }
}
