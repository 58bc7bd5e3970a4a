//! The program itself, on 127.0.0.1, on free ports.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

struct Daemon {
    child: Child,
    out: BufReader<ChildStdout>,
}

fn command(folder: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_homehost-bootstrap"));
    command.args(["--data-dir", folder.to_str().unwrap(), "--network", "test", "--listen", listen]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

impl Daemon {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "nothing is announced");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_first_line_is_an_address_with_a_stable_id() {
    let folder = tempfile::tempdir().unwrap();
    let id = |line: &str| {
        let (address, id) = line.split_once("/p2p/").expect("an id");
        let port = address.strip_prefix("/ip4/127.0.0.1/tcp/").expect("the listen address");
        assert_ne!(port.parse::<u16>().unwrap(), 0);
        id.to_owned()
    };
    let first = id(&Daemon::start(command(folder.path(), ANY_PORT)).line());
    let mut with_external = command(folder.path(), ANY_PORT);
    with_external.args(["--external-address", "/dns4/boot.example.org/tcp/4001"]);
    let mut again = Daemon::start(with_external);
    assert_eq!(again.line(), format!("/dns4/boot.example.org/tcp/4001/p2p/{first}"));
    assert_eq!(id(&again.line()), first);
}

#[test]
fn a_second_daemon_and_a_taken_port_are_told_apart_from_other_failures() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Daemon::start(command(folder.path(), ANY_PORT));
    let address = first.line();
    let (code, text) = refused(command(folder.path(), ANY_PORT));
    assert_eq!(code, Some(8), "{text}");
    assert!(text.contains("--data-dir"), "{text}");

    let other = tempfile::tempdir().unwrap();
    let (code, text) = refused(command(other.path(), address.split("/p2p/").next().unwrap()));
    assert_eq!(code, Some(8), "{text}");
    assert!(text.contains("--listen"), "{text}");

    let mut open = command(other.path(), ANY_PORT);
    open.args(["--metrics", "0.0.0.0:0"]);
    assert_eq!(refused(open).0, Some(2));

    let (code, text) = refused(command(other.path(), "/ip4/127.0.0.1/udp/0"));
    assert_eq!(code, Some(2), "{text}");

    std::fs::write(other.path().join("bootstrap.key"), "short").unwrap();
    let (code, text) = refused(command(other.path(), ANY_PORT));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("bootstrap.key"), "{text}");
}

#[test]
fn addresses_that_make_no_sense_are_refused_before_a_key_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let relayed = format!("/ip4/8.8.8.8/tcp/4001/p2p/{ID}/p2p-circuit");
    for external in ["/ip4/8.8.8.8/tcp/0", relayed.as_str()] {
        let mut asked = command(&data, ANY_PORT);
        asked.args(["--external-address", external]);
        let (code, text) = refused(asked);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("--external-address"), "{text}");
    }
    // An address that is set aside for documentation, and so is no machine's.
    for listen in ["/ip4/127.0.0.1/udp/0", "/memory/1", "/ip4/192.0.2.1/tcp/0"] {
        let (code, text) = refused(command(&data, listen));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("--listen") && text.lines().count() == 1, "{text}");
    }
    assert!(!data.exists());
}

const ID: &str = "12D3KooWHsTDTjGQPoupTMu5nQzaKzdLF2QqwqG2mBrS5HxKoDHM";

#[cfg(unix)]
#[test]
fn a_folder_that_others_may_enter_is_spoken_of_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;

    for (mode, warnings) in [(0o755, 1), (0o700, 0)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let mut child = command(folder.path(), ANY_PORT).spawn().unwrap();
        let errors = child.stderr.take().unwrap();
        let mut daemon = Daemon { out: BufReader::new(child.stdout.take().unwrap()), child };
        daemon.line();
        daemon.child.kill().unwrap();
        let lines = BufReader::new(errors).lines().map(Result::unwrap);
        assert_eq!(lines.filter(|line| line.contains("chmod 700")).count(), warnings);
        let now = std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(now, mode);
    }
}

#[test]
fn metrics_and_health_are_served_on_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let mut with_metrics = command(folder.path(), ANY_PORT);
    with_metrics.args(["--metrics", "127.0.0.1:0"]);
    let mut daemon = Daemon::start(with_metrics);
    daemon.line();
    let line = daemon.line();
    let at = line.strip_prefix("metrics http://").and_then(|l| l.strip_suffix("/metrics"));
    let get = |path: &str| {
        let mut stream = TcpStream::connect(at.unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.contains("homehost_mesh_peers{role=\"host\"} 0"), "{metrics}");
    assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
    // The snapshot that health is read from is up to a tenth of a second old.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !get("/healthz").starts_with("HTTP/1.1 200") {
        assert!(std::time::Instant::now() < deadline, "never healthy");
    }
    assert!(get("/other").starts_with("HTTP/1.1 404"));
}

#[cfg(unix)]
#[test]
fn signals_stop_it_within_two_seconds() {
    use std::time::{Duration, Instant};

    for signal in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start(command(folder.path(), ANY_PORT));
        daemon.line();
        let begun = Instant::now();
        let killed = Command::new("kill").args([signal, &daemon.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
