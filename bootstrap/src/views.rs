//! What a running node tells its operator, as JSON and as text.

use serde::{Deserialize, Serialize};

/// The node as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StatusView {
    pub(crate) version: String,
    pub(crate) network: String,
    pub(crate) node: String,
    pub(crate) uptime_s: u64,
    pub(crate) listening: Vec<String>,
    pub(crate) hosts: usize,
    pub(crate) bootstrap_nodes: usize,
    pub(crate) clients: usize,
    pub(crate) joins: usize,
    pub(crate) join_ms_p50: u64,
    pub(crate) join_ms_p99: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) deny: DenyView,
}

/// The deny list that holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DenyView {
    pub(crate) file: String,
    pub(crate) entries: usize,
    /// Why the file as it is now does not hold.
    pub(crate) problem: Option<String>,
}

/// One connected peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerView {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) role: String,
    pub(crate) agent: String,
    pub(crate) dialled: bool,
    pub(crate) rtt_ms: Option<u64>,
    pub(crate) connected_s: u64,
}

impl std::fmt::Display for StatusView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "node      {}", self.node)?;
        writeln!(f, "network   {}", self.network)?;
        writeln!(f, "version   {}, up for {}", self.version, duration(self.uptime_s))?;
        for (at, address) in self.listening.iter().enumerate() {
            writeln!(f, "{}{address}", if at == 0 { "listens   " } else { "          " })?;
        }
        writeln!(
            f,
            "connected {}, {}, {}",
            count(self.hosts, "host", "hosts"),
            count(self.bootstrap_nodes, "bootstrap node", "bootstrap nodes"),
            count(self.clients, "client", "clients")
        )?;
        match self.joins {
            0 => writeln!(f, "joins     none yet")?,
            joins => writeln!(
                f,
                "joins     {joins} of late, half within {} ms, 99 in 100 within {} ms",
                self.join_ms_p50, self.join_ms_p99
            )?,
        }
        writeln!(
            f,
            "traffic   {} came, {} went",
            bytes(self.received_bytes),
            bytes(self.sent_bytes)
        )?;
        write!(f, "deny list {} of {}", entries(self.deny.entries), self.deny.file)?;
        match &self.deny.problem {
            Some(problem) => write!(f, "\n          {problem}; the list as it was before holds"),
            None => Ok(()),
        }
    }
}

/// The peers as a table.
pub(crate) fn table(peers: &[PeerView]) -> String {
    let mut rows = vec![["ADDRESS", "NODE", "ROLE", "PROGRAM", "RTT", "SINCE"].map(str::to_owned)];
    for peer in peers {
        rows.push([
            peer.address.clone(),
            peer.node.clone(),
            peer.role.clone(),
            peer.agent.clone(),
            peer.rtt_ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms")),
            duration(peer.connected_s),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A number of things.
pub(crate) fn count(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// A number of entries of the deny list.
pub(crate) fn entries(n: usize) -> String {
    count(n, "entry", "entries")
}

/// A time span in its two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// An amount of bytes in three digits or so.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut amount, mut unit) = (bytes as f64 / 1000.0, 0);
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(amount < 10.0);
    format!("{amount:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        let shown = [0, 999, 1000, 9_949, 99_999, 999_600, 4_200_000_000, u64::MAX].map(bytes);
        let expected =
            ["0 B", "999 B", "1.0 kB", "9.9 kB", "100 kB", "1.0 MB", "4.2 GB", "18447 PB"];
        assert_eq!(shown, expected);
        let shown = [59, 60, 3661, 90_000].map(duration);
        assert_eq!(shown, ["59 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]);
    }
}
