//! Which game the demo runs.

use std::path::Path;

use homehost_api::NewServer;

/// Where Debian puts Luanti's server. The wrapper in `/usr/games` forces a log
/// file that only root may write.
const LUANTI: &str = "/usr/lib/minetest/minetestserver";

/// Names of the demo's servers.
pub(crate) const NAMES: [&str; 3] = ["Sunday Luanti", "Castle Builders", "Quiet Valley"];

const TAGS: [&[&str]; 3] = [&["creative"], &["pvp", "survival"], &["creative", "peaceful"]];
const REGIONS: [&str; 3] = ["eu", "us-west", "eu"];

/// A game that can be run here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Game {
    /// Real Luanti.
    Luanti,
    /// Our own small server, where Luanti is not installed.
    Own,
}

impl Game {
    /// The best game that is installed.
    pub(crate) fn installed() -> Self {
        if Path::new(LUANTI).exists() { Self::Luanti } else { Self::Own }
    }

    /// For the person who watches.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Luanti => "real Luanti servers",
            Self::Own => {
                "small stand-ins that speak A2S (install `minetest-server` to see real ones)"
            }
        }
    }

    /// The server of host `n` of `hosts`.
    pub(crate) fn server(self, n: usize, hosts: usize) -> NewServer {
        let at = n % NAMES.len().min(hosts.max(1));
        let slots = 20 + u16::try_from(n).unwrap_or(0) * 4;
        let (game, query, exec) = match self {
            Self::Luanti => (
                "luanti",
                "luanti",
                format!(
                    "{LUANTI} --world {{data}}/world --gameid minetest --port {{port.game}} \
                     --logfile {{data}}/server.log"
                ),
            ),
            Self::Own => (
                "stand-in",
                "a2s",
                format!(
                    "{} __a2s-game --port {{port.game}} --name {{name}} --slots {{slots}} \
                     --players {n}",
                    quoted_program()
                ),
            ),
        };
        NewServer {
            name: NAMES[at].to_owned(),
            game: game.to_owned(),
            exec,
            ports: [("game".to_owned(), "auto/udp".to_owned())].into(),
            query: query.to_owned(),
            tags: TAGS[at].iter().map(|tag| (*tag).to_owned()).collect(),
            region: Some(REGIONS[at].to_owned()),
            slots: Some(slots),
            start: true,
            ..NewServer::default()
        }
    }
}

/// This program's own file as one word of a start line.
fn quoted_program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "homehost".into());
    format!("\"{}\"", program.display())
}
