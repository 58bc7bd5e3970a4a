//! With whose rights a game runs, and what it may see of its surroundings.
//!
//! A daemon that runs as root gives its games an ordinary account: keys, tokens
//! and the folders of other servers' shims are then out of their reach. A daemon
//! of an ordinary user has no account to give; its games run as that user.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// With whose rights games run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunAs {
    /// As the daemon; if that is root, as the user `homehost`, or `nobody` where
    /// there is none.
    #[default]
    Auto,
    /// As this user. Only root can give its games to someone else.
    User(Account),
    /// As the daemon, even if that is root.
    Daemon,
}

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Name, for messages and the environment.
    pub name: String,
}

/// The account that root's games get where no better one exists: the numbers of
/// `nobody` on every Linux.
#[cfg(unix)]
const NOBODY: u32 = 65_534;

impl RunAs {
    /// The account that games are given; `None` for the daemon's own.
    pub(crate) fn account(&self) -> Option<Account> {
        match self {
            Self::Daemon => None,
            Self::User(account) => Some(account.clone()),
            Self::Auto => ordinary_account(),
        }
    }
}

#[cfg(unix)]
fn ordinary_account() -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Some(find_user(&users, "homehost").unwrap_or_else(|| Account {
        uid: NOBODY,
        gid: NOBODY,
        name: "nobody".into(),
    }))
}

#[cfg(not(unix))]
fn ordinary_account() -> Option<Account> {
    None
}

/// A line of passwd(5): name, password, uid, gid, …
#[cfg(unix)]
fn find_user(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let mut numbers = fields.skip(1).map(|field| field.parse().ok());
        Some(Account { uid: numbers.next()??, gid: numbers.next()??, name: name.to_owned() })
    })
}

/// What games may inherit of the daemon's environment. Everything else stays
/// behind: tokens and keys are handed to daemons in variables.
const INHERITED: &[&str] = if cfg!(windows) {
    &[
        "PATH",
        "PATHEXT",
        "SystemRoot",
        "SystemDrive",
        "ComSpec",
        "TEMP",
        "TMP",
        "ProgramData",
        "ProgramFiles",
        "ProgramFiles(x86)",
        "CommonProgramFiles",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "OS",
    ]
} else {
    &["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "JAVA_HOME", "LD_LIBRARY_PATH"]
};

/// The whole environment of a game.
pub(crate) fn environment(data: &Path, account: Option<&Account>) -> BTreeMap<String, String> {
    environment_from(&|name| std::env::var(name).ok(), data, account)
}

fn environment_from(
    daemon: &dyn Fn(&str) -> Option<String>,
    data: &Path,
    account: Option<&Account>,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<_, _> =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), daemon(name)?))).collect();
    let home = data.to_string_lossy().into_owned();
    if cfg!(windows) {
        for name in ["USERPROFILE", "APPDATA", "LOCALAPPDATA"] {
            env.insert(name.into(), home.clone());
        }
    } else {
        let user = account.map(|account| account.name.clone()).or_else(|| daemon("USER"));
        if let Some(user) = user {
            env.insert("LOGNAME".into(), user.clone());
            env.insert("USER".into(), user);
        }
        env.entry("PATH".into()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
        env.entry("LANG".into()).or_insert_with(|| "C.UTF-8".into());
        // No terminal is there: nothing should try to paint on one.
        env.entry("TERM".into()).or_insert_with(|| "dumb".into());
    }
    env.insert("HOME".into(), home);
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_daemon_stay_behind() {
        let daemon = |name: &str| Some(format!("daemon's {name}"));
        let env = environment_from(&daemon, Path::new("/d"), None);
        assert_eq!(env["HOME"], "/d");
        assert_eq!(env["PATH"], "daemon's PATH");
        assert!(!env.contains_key("HOMEHOST_TOKEN") && !env.contains_key("AWS_SECRET_ACCESS_KEY"));
        let env = environment_from(&|_| None, Path::new("/d"), None);
        assert!(env.contains_key("HOME"));
    }

    #[cfg(unix)]
    #[test]
    fn users_are_found_by_name() {
        let users = "root:x:0:0::/root:/bin/sh\nbad\nhomehost:x:997:996::/:/x\nhalf:x:1\n";
        let account = find_user(users, "homehost").unwrap();
        assert_eq!((account.uid, account.gid), (997, 996));
        assert_eq!(find_user(users, "half"), None);
        assert_eq!(find_user(users, "absent"), None);
    }
}
