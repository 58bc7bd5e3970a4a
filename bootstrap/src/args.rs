//! The command line.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use homehost_mesh::Multiaddr;
use homehost_mesh::address::{ip_of, is_listenable, is_reachable};
use homehost_protocol::NetworkName;

use crate::Failure;
use crate::log::LogFormat;

/// Run a bootstrap node: it introduces hosts to one another.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "homehost-bootstrap", version)]
pub struct Args {
    /// What to do with a node that runs; without it, run one.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Folder for the node's key. It is made if it is missing; keep a copy of
    /// it, the node's address depends on it.
    #[arg(long, value_name = "PATH", env = "HOMEHOST_BOOTSTRAP_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// Where to listen.
    #[arg(
        long,
        value_name = "MULTIADDR",
        num_args = 1..,
        default_values = [
            "/ip4/0.0.0.0/tcp/4001",
            "/ip4/0.0.0.0/udp/4001/quic-v1",
            "/ip6/::/tcp/4001",
            "/ip6/::/udp/4001/quic-v1",
        ],
    )]
    pub listen: Vec<Multiaddr>,

    /// Address at which others reach this node, if it differs: behind a
    /// forwarded port, or by name as in /dns4/boot.example.org/tcp/4001.
    #[arg(long, value_name = "MULTIADDR", num_args = 1..)]
    pub external_address: Vec<Multiaddr>,

    /// Serve a page, /metrics and /healthz at this loopback address, as in
    /// 127.0.0.1:9464. Without it, none of them is served.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,

    /// Let --metrics be an address that others reach. They see how many
    /// connections and bytes there are, and nobody's address.
    #[arg(long, requires = "metrics")]
    pub metrics_open: bool,

    /// The network whose hosts this node introduces.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub network: NetworkName,

    /// File of node ids, IP addresses and prefixes to keep out, one on a line.
    /// It is read again when it changes. [default: deny.txt in the folder]
    #[arg(long, value_name = "PATH")]
    pub deny_list: Option<PathBuf>,

    /// Kilobytes a second, each way, that all connections together may use.
    #[arg(long, value_name = "KB", default_value_t = 8000, value_parser = clap::value_parser!(u32).range(RATES))]
    pub bandwidth: u32,

    /// Kilobytes a second, each way, that one block of addresses may use, a /24
    /// of IPv4 or a /48 of IPv6.
    #[arg(long, value_name = "KB", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(RATES))]
    pub bandwidth_per_block: u32,

    /// How to write logs.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Write IP addresses into logs, where they are left out otherwise.
    #[arg(long)]
    pub log_addresses: bool,
}

/// What bandwidth may be given: with less, connections would end because nobody
/// answers in time; more is none at all.
const RATES: std::ops::RangeInclusive<i64> = 32..=4_000_000;

/// What to do with a node that runs.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// How the node is: connections, joins, traffic, the deny list.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Who is connected, with addresses.
    Peers {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Keep somebody out. A running node leaves them at once.
    Ban {
        /// A node id, an IP address, or a prefix as in 198.51.100.0/24.
        who: String,
        /// The list, if it is not the one that the running node reads.
        #[arg(long, value_name = "PATH")]
        deny_list: Option<PathBuf>,
    },
    /// Let somebody in again.
    Unban {
        /// As it stands on the list.
        who: String,
        /// The list, if it is not the one that the running node reads.
        #[arg(long, value_name = "PATH")]
        deny_list: Option<PathBuf>,
    },
}

impl Args {
    /// The node's folder.
    ///
    /// # Errors
    /// [`Failure::Usage`] when none is named.
    pub(crate) fn folder(&self) -> Result<&Path, Failure> {
        self.data_dir.as_deref().ok_or_else(|| {
            Failure::Usage(
                "name the node's folder with --data-dir, as in \
                 --data-dir /var/lib/homehost-bootstrap"
                    .into(),
            )
        })
    }

    /// Checks what the types cannot say, before anything is written.
    ///
    /// # Errors
    /// [`Failure::Usage`], with what to write instead.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for address in &self.listen {
            if !is_listenable(address) {
                return Err(Failure::Usage(format!(
                    "--listen {address}: only an IP address with /tcp/PORT or \
                     /udp/PORT/quic-v1 can be listened on, as in /ip4/0.0.0.0/tcp/4001"
                )));
            }
        }
        if let Some(address) = self.listen.first()
            && self.listen.iter().filter_map(ip_of).all(is_elsewhere)
        {
            return Err(Failure::Usage(format!(
                "--listen {address}: this machine does not have this address; name one that \
                 it has, or all of them with 0.0.0.0 or ::, and tell others with \
                 --external-address"
            )));
        }
        for address in &self.external_address {
            if !is_reachable(address) {
                return Err(Failure::Usage(format!(
                    "--external-address {address}: hosts cannot dial it; give an IP address \
                     or a name with its port, as in /dns4/boot.example.org/tcp/4001 or \
                     /ip4/198.51.100.7/udp/4001/quic-v1"
                )));
            }
        }
        if let Some(metrics) = self.metrics
            && !metrics.ip().is_loopback()
            && !self.metrics_open
        {
            return Err(Failure::Usage(format!(
                "--metrics {metrics}: metrics are served on loopback only, as in 127.0.0.1:{}; \
                 put a proxy with access control in front of it to read them from elsewhere, or \
                 add --metrics-open to let everybody who reaches it",
                metrics.port()
            )));
        }
        Ok(())
    }
}

/// Whether an address is certainly not one of this machine.
fn is_elsewhere(ip: IpAddr) -> bool {
    // Over TCP: Wine lets a UDP socket have any address.
    TcpListener::bind((ip, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["homehost-bootstrap", "--data-dir", "x"].iter().chain(more))
    }

    #[test]
    fn everything_but_the_folder_has_a_default() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.listen.len(), args.external_address.len()), (4, 0));
        assert!(args.network.is_main() && args.metrics.is_none());
        let nowhere = Args::try_parse_from(["homehost-bootstrap"]).unwrap();
        assert!(matches!(nowhere.folder(), Err(Failure::Usage(_))));
    }

    #[test]
    fn lists_are_given_at_once_or_one_by_one() {
        let [a, b] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        let at_once = parse(&["--listen", a, b, "--network", "test"]).unwrap();
        let one_by_one = parse(&["--listen", a, "--listen", b]).unwrap();
        assert_eq!(at_once.listen, one_by_one.listen);
        assert_eq!(at_once.listen.len(), 2);
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused() {
        let check = |address: &str| parse(&["--listen", address]).unwrap().check();
        for good in ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/1"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/0",
            "/ip4/127.0.0.1/tcp/0/ws",
            "/dns4/localhost/tcp/4001",
            "/memory/1",
            "/ip4/192.0.2.1/tcp/0",
        ] {
            assert!(matches!(check(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn an_external_address_can_be_dialled() {
        let check = |address: &str| parse(&["--external-address", address]).unwrap().check();
        let id = "12D3KooWHsTDTjGQPoupTMu5nQzaKzdLF2QqwqG2mBrS5HxKoDHM";
        for good in [
            "/dns4/boot.example.org/tcp/4001".to_owned(),
            "/ip4/8.8.8.8/udp/4001/quic-v1".to_owned(),
            format!("/ip6/2a01:4f8::1/tcp/4001/p2p/{id}"),
        ] {
            assert!(check(&good).is_ok(), "{good}");
        }
        for bad in [
            "/ip4/8.8.8.8/tcp/0".to_owned(),
            "/ip4/0.0.0.0/tcp/4001".to_owned(),
            "/ip4/8.8.8.8".to_owned(),
            "/ip4/8.8.8.8/udp/4001".to_owned(),
            format!("/ip4/8.8.8.8/tcp/4001/p2p/{id}/p2p-circuit"),
            "/ip4/8.8.8.8/tcp/4001/p2p-circuit".to_owned(),
            format!("/p2p/{id}"),
            "/memory/1".to_owned(),
        ] {
            assert!(matches!(check(&bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn metrics_stay_on_loopback() {
        assert!(parse(&["--metrics", "127.0.0.1:0"]).unwrap().check().is_ok());
        assert!(parse(&["--metrics", "[::1]:9464"]).unwrap().check().is_ok());
        for open in ["0.0.0.0:9464", "192.168.1.2:9464", "[::]:9464"] {
            let refused = parse(&["--metrics", open]).unwrap().check();
            assert!(matches!(refused, Err(Failure::Usage(_))), "{open}");
            assert!(parse(&["--metrics", open, "--metrics-open"]).unwrap().check().is_ok());
        }
        assert!(parse(&["--metrics-open"]).is_err(), "open what?");
    }

    #[test]
    fn the_folder_may_stand_before_or_after_the_command() {
        for line in ["--data-dir x peers", "peers --data-dir x", "peers --json --data-dir x"] {
            let args = std::iter::once("homehost-bootstrap").chain(line.split(' '));
            let args = Args::try_parse_from(args).unwrap();
            assert_eq!(args.folder().unwrap(), Path::new("x"));
            assert!(matches!(args.command, Some(Command::Peers { .. })));
        }
        assert!(parse(&["ban"]).is_err());
    }
}
