//! The file for whoever helps: what the node says of itself, without secrets
//! and addresses.
//!
//! Nothing is copied from the disk as it is: everything goes through the
//! redactor, start lines keep their shape alone, and the environment stays out.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use homehost_api::{LogLine, Server};
use homehost_runtime::files::sync_folder;
use homehost_runtime::wall_ms;
use serde_json::{Value, json};

use super::Finding;
use super::gather::Answers;
use super::redact::Redactor;
use super::start_line;
use crate::cli::client::{Client, segment};
use crate::exit::{self, Failure, failure};

/// Console lines of each server.
const LINES: usize = 200;

/// Longest line in characters; what is longer is a dump.
const LINE_CHARS_MAX: usize = 400;

/// What is read from the end of the daemon's own log, if there is one.
const LOG_BYTES: u64 = 128 * 1024;

const ABOUT: &str = "\
What a HomeHost node says of itself, for whoever helps its owner.
IP addresses, names of hosts, ids and keys are replaced by stand-ins; one thing keeps one stand-in.
Start lines keep their options and no values. The environment is not in it.
Console lines are those of the games: whatever players wrote is in them.
";

/// Writes a bundle.
///
/// # Errors
/// One sentence; a file that is there already is not touched.
pub(crate) async fn write(
    path: &Path,
    data_dir: &Path,
    findings: &[Finding],
    answers: Answers,
) -> Result<(), Failure> {
    let mut logs = Vec::new();
    if let Ok(client) = Client::find(data_dir) {
        for (server, _) in &answers.servers {
            logs.push(console(&client, server).await);
        }
    }
    let own = own_log(data_dir);
    let parts = parts(data_dir, findings, &answers, &logs, own.as_deref());
    save(path, |file| pack(file, &parts)).map_err(|error| {
        let path = path.display();
        let text = match error.kind() {
            ErrorKind::AlreadyExists => format!("{path} is there already: name another file"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!(
                "failed to write {path}: {error}; free some space, or name a file on another disk"
            ),
            _ => format!("failed to write {path}: {error}; name a file in a folder of yours"),
        };
        failure(exit::of_io(&error), text)
    })
}

/// Writes a file that only its owner may read. It gets its name when it is whole
/// and on the disk: a bundle that was cut short helps nobody.
fn save(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let folder = path.parent().unwrap_or(&path);
    if fs::symlink_metadata(&path).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    // It is removed when it is dropped without its name.
    let mut file = tempfile::Builder::new().prefix(".homehost-bundle-").tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(&path).map_err(|refused| refused.error)?;
    // It is whole; of a folder that may not be read, its name is not certain yet.
    let _ = sync_folder(folder);
    Ok(())
}

async fn console(client: &Client, server: &Server) -> String {
    let path = format!("/api/v1/servers/{}/logs?tail={LINES}&follow=false", segment(&server.id));
    let mut lines = Vec::new();
    let read = client.events(&path, |line: LogLine| {
        lines.push(format!("{} {}", line.at, line.text));
    });
    // What came until then is worth having.
    drop(read.await);
    lines.join("\n")
}

/// The end of what a node in the background wrote, in whole lines: a secret that
/// is cut in two is not recognised.
fn own_log(data_dir: &Path) -> Option<String> {
    let mut file = File::open(data_dir.join("logs").join("homehost.log")).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    if from == 0 {
        return Some(text.into_owned());
    }
    Some(text.split_once('\n').map_or("", |(_, whole)| whole).to_owned())
}

/// The files of a bundle and what is in them.
fn parts(
    data_dir: &Path,
    findings: &[Finding],
    answers: &Answers,
    logs: &[String],
    own_log: Option<&str>,
) -> Vec<(String, String)> {
    let mut redactor = known(data_dir, answers);
    let mut parts = vec![("README.txt".to_owned(), ABOUT.to_owned())];
    let versions = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "node": answers.status.as_ref().map(|status| &status.version),
        "system": std::env::consts::OS,
        "machine": std::env::consts::ARCH,
        "written": homehost_protocol::UnixMillis(wall_ms()).to_string(),
    });
    parts.push(("versions.json".to_owned(), pretty(&versions)));
    let mut add = |name: &str, value: Value| {
        parts.push((name.to_owned(), pretty(&redactor.json(value))));
    };
    add("doctor.json", json!(findings));
    add("status.json", json!(answers.status));
    add("config.json", json!(answers.config));
    add("stats.json", json!(answers.stats));
    add("network.json", json!(answers.network));
    let identity = answers.identity.as_ref().map(|identity| {
        json!({
            "device": identity.device, "key_epoch": identity.key_epoch, "events": identity.events,
            "devices": identity.devices.len(), "phrase": identity.phrase, "ended": identity.ended,
            "conflict": identity.conflict, "joining": identity.joining.is_some(),
        })
    });
    add("identity.json", json!(identity));
    add("peers.json", json!(answers.peers));
    let servers = answers.servers.iter().map(|(server, reach)| {
        json!({
            "id": server.id, "name": server.name, "game": server.game, "state": server.state,
            "since": server.since, "ports": server.ports, "players": server.players,
            "slots": server.slots, "restarts": server.restarts, "last_exit": server.last_exit,
            "problem": server.problem, "note": server.note, "addresses": server.addresses,
            "query": server.query, "start_line": start_line::shape(&server.exec), "reach": reach,
        })
    });
    add("servers.json", servers.collect());
    for (at, log) in logs.iter().enumerate() {
        let name = format!("logs/server-{}.log", at + 1);
        parts.push((name, cut(&redactor.text(log))));
    }
    if let Some(log) = own_log {
        parts.push(("logs/homehost.log".to_owned(), redactor.text(log)));
    }
    parts
}

/// What is long, cut; a secret that is cut in two beforehand is not recognised.
fn cut(text: &str) -> String {
    let line = |line: &str| line.chars().take(LINE_CHARS_MAX).collect::<String>();
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A redactor that knows what is secret, and who is who, on this machine.
fn known(data_dir: &Path, answers: &Answers) -> Redactor {
    let mut redactor = Redactor::default();
    let token = fs::read_to_string(crate::place::token_file(data_dir));
    redactor.secret(&token.unwrap_or_default());
    for (name, value) in std::env::vars_os() {
        let (name, value) =
            (name.to_string_lossy().to_uppercase(), value.to_string_lossy().into_owned());
        if ["PASS", "PWD", "TOKEN", "SECRET", "KEY", "SEED", "CRED"].iter().any(|of| name.contains(of))
            // The folder that a shell is in.
            && name != "PWD" && name != "OLDPWD"
        {
            redactor.secret(&value);
        }
    }
    redactor.name(&data_dir.display().to_string(), "data folder");
    for (variable, stands) in [
        ("HOME", "home"),
        ("USERPROFILE", "home"),
        ("USER", "user"),
        ("LOGNAME", "user"),
        ("USERNAME", "user"),
        // Who asked root to look.
        ("SUDO_USER", "user"),
        ("DOAS_USER", "user"),
        ("HOSTNAME", "this machine"),
        ("COMPUTERNAME", "this machine"),
    ] {
        let value = std::env::var(variable).unwrap_or_default();
        // Too common in what a node writes to be anybody's.
        if !matches!(value.as_str(), "/" | "/root" | "root" | "homehost" | "user") {
            redactor.name(&value, stands);
        }
    }
    if let Ok(name) = fs::read_to_string("/proc/sys/kernel/hostname") {
        redactor.name(&name, "this machine");
    }
    // Every folder above the data may be called like a person, as may those of a
    // file of settings that lies elsewhere.
    let settings = answers.config.as_ref().and_then(|config| Path::new(&config.file).parent());
    let folders = data_dir.iter().chain(settings.into_iter().flat_map(Path::iter));
    for folder in folders.map(|part| part.to_string_lossy()) {
        let usual = [
            "home", "var", "lib", "usr", "tmp", "opt", "srv", "mnt", "data", "games", "node",
            "share", "users", "local", "homehost", "root", ".local", "appdata",
        ];
        if !usual.contains(&folder.to_lowercase().as_str()) {
            redactor.name(&folder, "folder");
        }
    }
    if let Some(status) = &answers.status {
        if !["main", "local"].contains(&status.network.as_str()) {
            redactor.name(&status.network, "network");
        }
        redactor.name(&status.node, "this node");
        redactor.name(&status.root, "this root");
    }
    for (at, (server, _)) in answers.servers.iter().enumerate() {
        let at = at + 1;
        redactor.name(&server.id, &format!("server id {at}"));
        redactor.name(&server.name, &format!("server {at}"));
        redactor.name(&server.folder, &format!("folder of server {at}"));
        if let Some(folder) = Path::new(&server.folder).file_name() {
            redactor.name(&folder.to_string_lossy(), &format!("folder of server {at}"));
        }
        start_line::learn(&mut redactor, &server.exec);
    }
    redactor
}

fn pack(file: &mut File, parts: &[(String, String)]) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(file);
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(wall_ms() / 1000);
        header.set_cksum();
        archive.append_data(&mut header, format!("homehost-bundle/{name}"), text.as_bytes())?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with this start line, of which nobody else is known.
    fn answers(exec: &[&str]) -> Answers {
        let server = serde_json::from_value(json!({
            "id": "i", "name": "Sunday", "game": "luanti", "state": "running", "since": "",
            "pid": null, "ports": {}, "players": null, "slots": null, "restarts": 0,
            "last_exit": null, "problem": null, "note": null, "addresses": [], "exec": exec,
            "query": "luanti", "tags": [], "region": null, "folder": "",
        }));
        Answers { servers: vec![(server.unwrap(), None)], ..Answers::default() }
    }

    /// All that a bundle would say.
    fn bundled(exec: &[&str], log: &str) -> String {
        let parts = parts(Path::new("/var"), &[], &answers(exec), &[log.to_owned()], None);
        parts.into_iter().map(|(name, text)| format!("{name}\n{text}\n")).collect()
    }

    #[test]
    fn values_of_a_start_line_are_nowhere() {
        for (exec, log, gone) in [
            (&["-phunter2pw"][..], "it is hunter2pw", "hunter2pw"),
            (&["-pw:hunter3"], "it is hunter3", "hunter3"),
            (&["-pwhunter4"], "it is hunter4", "hunter4"),
            (&["--pass", "12345678"], "it is 12345678", "12345678"),
            (&["--pin", "123"], "it is 123", "123 "),
            (&["-k=abc12"], "it is abc12", "abc12"),
            (&["--motd", "hey"], "they say hey", " hey"),
            (&["-c", "run --pass abc12; sleep 1"], "it is abc12", "abc12"),
        ] {
            let exec = [&["/home/berta/game"], exec].concat();
            let log = format!("{log} . of berta in /home/berta/game and /home/carla/x");
            let text = bundled(&exec, &log);
            for gone in [gone, "berta", "carla"] {
                assert!(!text.contains(gone), "{gone} of {exec:?} in {text}");
            }
        }
        let text = bundled(&["game", "--port", "25565", "--slots", "20"], "on 25565 for 20");
        assert!(text.contains("on 25565 for 20"), "{text}");
    }

    #[test]
    fn a_bundle_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.tar");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let full = |file: &mut File| {
            std::io::Write::write_all(file, b"half of it")?;
            Err(ErrorKind::StorageFull.into())
        };
        assert_eq!(save(&path, full).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(names(), 0);
        let parts = [("README.txt".to_owned(), ABOUT.to_owned())];
        save(&path, |file| pack(file, &parts)).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains(ABOUT));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = save(&path, |file| pack(file, &[])).unwrap_err();
        assert_eq!((again.kind(), names()), (ErrorKind::AlreadyExists, 1));
    }

    #[test]
    fn settings_of_another_folder_name_nobody() {
        let file = "/srv/planted-anna/other.toml";
        let problem = format!("{file}:2: mesh.mdsn is no setting");
        let config = homehost_api::ConfigView {
            file: file.to_owned(),
            problem: Some(problem),
            ..homehost_api::ConfigView::default()
        };
        let answers = Answers { config: Some(config), ..Answers::default() };
        let parts = parts(Path::new("/var"), &[], &answers, &[], None);
        let text: String = parts.into_iter().map(|(_, text)| text).collect();
        assert!(!text.contains("planted"), "{text}");
        assert!(text.contains("other.toml:2: "), "{text}");
    }

    #[test]
    fn what_is_cut_is_cut_without_secrets() {
        let log = format!("{}planted-value", "x ".repeat(LINE_CHARS_MAX / 2 - 5));
        let text = bundled(&["game", "--say", "planted-value"], &log);
        assert!(!text.contains("planted") && text.contains("x <left"), "{text}");

        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let line = "planted-value and more\n";
        let lines = usize::try_from(LOG_BYTES).unwrap() / line.len() + 2;
        fs::write(folder.path().join("logs/homehost.log"), line.repeat(lines)).unwrap();
        let log = own_log(folder.path()).unwrap();
        assert!(log.lines().all(|of| of == line.trim_end()), "{:?}", log.lines().next());
        fs::write(folder.path().join("logs/homehost.log"), line).unwrap();
        assert_eq!(own_log(folder.path()).unwrap(), line);
    }
}
