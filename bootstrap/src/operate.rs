//! The operator's commands: `status`, `peers`, `ban`, `unban`.
//!
//! Whom to keep out is in the file alone: `ban` and `unban` edit it, with or
//! without a running node, and tell a running one to read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use homehost_mesh::deny::{Denied, DenyList, with_entry, without_entry};
use homehost_runtime::files::own_as;
use serde::de::DeserializeOwned;

use crate::control::Place;
use crate::deny_file::{DENY_FILE, text};
use crate::views::{DenyView, PeerView, StatusView, entries, table};
use crate::{Args, Command, Failure};

/// Longest wait for the running node, which is on this machine.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer: 2,564 peers are about a megabyte.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Does what a command says, and writes what it has to say.
///
/// # Errors
/// With a [`Failure`] in its chain where a person can help.
pub(crate) fn run(command: &Command, args: &Args, out: &mut impl io::Write) -> anyhow::Result<()> {
    let folder = args.folder()?;
    match command {
        Command::Status { json } => {
            let answer = ask(folder, "GET", "/status")?;
            if *json {
                return raw(out, &answer);
            }
            writeln!(out, "{}", parse::<StatusView>(&answer)?)?;
        }
        Command::Peers { json } => {
            let answer = ask(folder, "GET", "/peers")?;
            if *json {
                return raw(out, &answer);
            }
            writeln!(out, "{}", table(&parse::<Vec<PeerView>>(&answer)?))?;
        }
        Command::Ban { who, deny_list } => {
            let denied = entry(who)?;
            let path = list_path(deny_list.as_ref(), folder);
            let lock = lock(&path, folder)?;
            let text = current(&path, folder)?;
            if without_entry(&text, denied).1 > 0 {
                writeln!(out, "{denied} is on {} already", path.display())?;
            } else {
                append(&path, folder, &text, denied).map_err(|error| writing(&path, error))?;
                writeln!(out, "{denied} is on {} now", path.display())?;
            }
            drop(lock);
            take_effect(folder, &path, out)?;
        }
        Command::Unban { who, deny_list } => {
            let denied = entry(who)?;
            let path = list_path(deny_list.as_ref(), folder);
            let lock = lock(&path, folder)?;
            let text = current(&path, folder)?;
            let (left, gone) = without_entry(&text, denied);
            if gone == 0 {
                return Err(not_there(&path, &text, denied).into());
            }
            replace(&path, &left).map_err(|error| writing(&path, error))?;
            drop(lock);
            writeln!(out, "{denied} is no longer on {}", path.display())?;
            take_effect(folder, &path, out)?;
        }
    }
    Ok(())
}

fn entry(who: &str) -> Result<Denied, Failure> {
    who.parse().map_err(|why| Failure::Usage(format!("{who:?} {why}")))
}

/// The list: the one that is named, or that the running node reads, or the
/// folder's own.
fn list_path(named: Option<&PathBuf>, folder: &Path) -> PathBuf {
    named
        .cloned()
        .or_else(|| Place::find(folder).map(|place| place.deny_list))
        .unwrap_or_else(|| folder.join(DENY_FILE))
}

fn not_there(path: &Path, text: &str, denied: Denied) -> Failure {
    let path = path.display();
    let wider = match (DenyList::parse(text), denied) {
        (Ok(list), Denied::Block(block)) if list.denies_ip(block.addr()) => {
            "; a wider prefix keeps it out"
        }
        _ => "",
    };
    Failure::Usage(format!("{denied} is not on {path}{wider}"))
}

/// Keeps other commands from the list until the file is dropped, so that none
/// writes over what another has just written. A file beside it, as the list
/// itself is replaced.
fn lock(path: &Path, folder: &Path) -> anyhow::Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let locked = || {
        let is_new = !beside.exists();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&beside)?;
        if is_new {
            // Whoever may write the list shall be able to lock it.
            own_as(&file, if path.exists() { path } else { folder })?;
        }
        file.lock()?;
        Ok(file)
    };
    locked().map_err(|error| writing(&beside, error))
}

/// What the list says now; an empty one is begun only when nobody is let in by it.
fn current(path: &Path, folder: &Path) -> anyhow::Result<String> {
    if let Some(text) = text(path).map_err(Failure::DenyList)? {
        return Ok(text);
    }
    let deny = match ask(folder, "GET", "/status") {
        Ok(answer) => parse::<StatusView>(&answer)?.deny,
        Err(error) if is_not_running(&error) => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if deny.entries == 0 || deny.file != path.to_string_lossy() {
        return Ok(String::new());
    }
    let text = format!(
        "{} is gone, and a new one would let in whom the running node still keeps out, which is \
         {}; put a copy of the file back, or make an empty one to let everybody in",
        path.display(),
        entries(deny.entries)
    );
    Err(Failure::Usage(text).into())
}

fn is_not_running(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|failure| matches!(failure, Failure::NotRunning(_)))
}

/// Writes one line at the end; what stands there stays whatever happens.
fn append(path: &Path, folder: &Path, text: &str, denied: Denied) -> io::Result<()> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if is_new {
        own_as(&file, folder)?;
    }
    file.write_all(&with_entry(text, denied).as_bytes()[text.len()..])?;
    file.sync_all()
}

/// Replaces the list as a whole, with the permissions that it has.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.set_permissions(fs::metadata(path)?.permissions())?;
    own_as(&file, path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)
}

fn writing(path: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::ReadOnly { path: path.to_owned(), source: error }.into()
        }
        _ => anyhow::Error::new(error).context(format!("write {}", path.display())),
    }
}

/// Has the running node read the list, and says what holds.
fn take_effect(folder: &Path, path: &Path, out: &mut impl io::Write) -> anyhow::Result<()> {
    let answer = match ask(folder, "POST", "/reload") {
        Ok(answer) => answer,
        Err(error) if is_not_running(&error) => {
            writeln!(out, "no node is running; it holds from the next start on")?;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let state: DenyView = parse(&answer)?;
    if state.file != path.to_string_lossy() {
        writeln!(out, "the running node reads another list, {}", state.file)?;
        return Ok(());
    }
    match state.problem {
        Some(problem) => Err(Failure::DenyList(problem).into()),
        None => Ok(writeln!(out, "the running node keeps out {}", entries(state.entries))?),
    }
}

fn raw(out: &mut impl io::Write, answer: &[u8]) -> anyhow::Result<()> {
    out.write_all(answer)?;
    Ok(writeln!(out)?)
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(answer).context("the running node is of another version; restart it")
}

/// Asks the node that runs on a folder.
fn ask(folder: &Path, method: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let not_running = || Failure::NotRunning(folder.to_owned());
    let place = Place::find(folder).ok_or_else(not_running)?;
    let mut stream =
        TcpStream::connect_timeout(&place.address, TIMEOUT).map_err(|_| not_running())?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
        place.token
    )?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .context("the running node did not answer")?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.map_or(answer.len(), |end| end + 4));
    let head = String::from_utf8_lossy(head);
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_vec()),
        // Another program has the port of a node that has ended.
        Some("401") | None => Err(not_running().into()),
        Some(code) => anyhow::bail!("the running node answered {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_words_and_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DENY_FILE);
        let denied: Denied = "8.8.8.8".parse().unwrap();
        append(&path, folder.path(), "", denied).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "8.8.8.8\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            replace(&path, "# mine").unwrap();
            assert_eq!(mode(&path), 0o640);
        }
        replace(&path, "# mine").unwrap();
        append(&path, folder.path(), "# mine", denied).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n8.8.8.8\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_not_there_cannot_be_taken_away() {
        let path = Path::new("deny.txt");
        let one: Denied = "8.8.8.8".parse().unwrap();
        assert!(!not_there(path, "9.9.9.9", one).to_string().contains("wider"));
        assert!(not_there(path, "8.8.0.0/16", one).to_string().contains("wider"));
    }
}
