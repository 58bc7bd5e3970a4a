//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use homehost_mesh::Multiaddr;
use homehost_protocol::NetworkName;

use crate::Failure;

/// Run a bootstrap node: it introduces hosts to one another.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "homehost-bootstrap", version)]
pub struct Args {
    /// Folder for the node's key. It is made if it is missing; keep a copy of
    /// it, the node's address depends on it.
    #[arg(long, value_name = "PATH")]
    pub data_dir: PathBuf,

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

    /// Serve /metrics and /healthz at this loopback address, as in
    /// 127.0.0.1:9464. Without it, nothing is served.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,

    /// The network whose hosts this node introduces.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub network: NetworkName,
}

impl Args {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`Failure::Usage`], with what to write instead.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(metrics) = self.metrics
            && !metrics.ip().is_loopback()
        {
            return Err(Failure::Usage(format!(
                "--metrics {metrics}: metrics are served on loopback only, as in 127.0.0.1:{}; \
                 put a proxy with access control in front of it to read them from elsewhere",
                metrics.port()
            )));
        }
        Ok(())
    }
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
        assert!(Args::try_parse_from(["homehost-bootstrap"]).is_err());
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
    fn metrics_stay_on_loopback() {
        assert!(parse(&["--metrics", "127.0.0.1:0"]).unwrap().check().is_ok());
        assert!(parse(&["--metrics", "[::1]:9464"]).unwrap().check().is_ok());
        for open in ["0.0.0.0:9464", "192.168.1.2:9464", "[::]:9464"] {
            let refused = parse(&["--metrics", open]).unwrap().check();
            assert!(matches!(refused, Err(Failure::Usage(_))), "{open}");
        }
    }
}
