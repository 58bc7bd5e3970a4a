//! The program with which many home routers answer UPnP, NAT-PMP and PCP
//! (Debian's `miniupnpd`; `cargo xtask test --only setup` unpacks it).

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use homehost_tests::{Namespace, eventually, target_dir};
use tempfile::TempDir;

/// For how long a router that is short of memory forwards a port.
pub(crate) const SHORT: Duration = Duration::from_secs(60);

/// It puts what it forwards into these chains of the router's own table.
const CONFIG: &str = "\
ext_ifname=wan
listening_ip=lan
secure_mode=yes
upnp_table_name=home
upnp_nat_table_name=home
upnp_forward_chain=asked
upnp_nat_chain=asked_in
upnp_nat_postrouting_chain=asked_out
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";

/// A running one.
#[derive(Debug)]
pub(crate) struct Upnpd {
    child: Child,
    _folder: TempDir,
}

impl Upnpd {
    /// Starts it on a router and waits until it takes requests.
    ///
    /// It answers UPnP alone; or PCP and NAT-PMP, of which whoever speaks both
    /// takes PCP, and promises a port for [`SHORT`].
    #[track_caller]
    pub(crate) fn start(router: &Namespace, upnp: bool) -> Self {
        Self::start_at(router, upnp, 5000)
    }

    /// The same, with UPnP at another port: after an update, say.
    #[track_caller]
    pub(crate) fn start_at(router: &Namespace, upnp: bool, port: u16) -> Self {
        let program = target_dir().join("test-net/miniupnpd");
        assert!(
            program.exists(),
            "{}: `cargo xtask test --only setup` unpacks it",
            program.display()
        );
        let folder = TempDir::new().expect("a temporary folder can be made");
        let [config, log, pid] = ["config", "log", "pid"].map(|name| folder.path().join(name));
        let more = match upnp {
            true => format!(
                "enable_upnp=yes\nenable_natpmp=no\nport={port}\nmin_lifetime=120\n\
                 max_lifetime=86400\n"
            ),
            false => {
                let short = SHORT.as_secs();
                format!(
                    "enable_upnp=no\nenable_natpmp=yes\nport={port}\nmin_lifetime={}\n\
                     max_lifetime={short}\n",
                    short - 1
                )
            }
        };
        // What is allowed comes last, as in every such file.
        let (options, rules) = CONFIG.split_once("allow").expect("it allows something");
        let text = format!("{options}{more}allow{rules}");
        fs::write(&config, text).expect("the folder is ours");
        let output = fs::File::create(&log).expect("the folder is ours");
        let mut command = router.command(&program);
        command.arg("-d").arg("-f").arg(&config).arg("-P").arg(pid);
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file has two handles"));
        let child = command.stderr(output).spawn().expect("it can be run");
        let started = Self { child, _folder: folder };
        eventually(Duration::from_secs(20), "miniupnpd takes requests", || ready(&log, upnp));
        started
    }
}

fn ready(log: &Path, upnp: bool) -> Result<(), String> {
    let said = fs::read_to_string(log).unwrap_or_default();
    let word = if upnp { "HTTP listening on port" } else { "Listening for NAT-PMP" };
    if said.contains(word) { Ok(()) } else { Err(said) }
}

impl Drop for Upnpd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
