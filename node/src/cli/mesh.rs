//! `lookup`, `mesh stats` and `server reach`: the network, for a person.

use clap::Subcommand;
use homehost_api::{Action, Invitation, Lookup, MeshStats, ServerReach, Witness};
use homehost_protocol::Invite;

use super::client::segment;
use super::output::{Cell, Colour, fields};
use super::{Client, Output, invite, usage, views};
use crate::control::count;
use crate::exit::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Show what the mesh costs and what came of it
    Stats,
    /// Make one string that gets anyone into this network
    Invite,
    /// Join at the addresses of such a string
    Join {
        /// The invitation
        invite: String,
    },
}

pub(crate) async fn run(
    command: MeshCommand,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        MeshCommand::Stats => {
            let stats: MeshStats = client.get("/api/v1/mesh/stats").await?;
            output.show(&stats, || table(&stats, output));
        }
        MeshCommand::Invite => {
            let invitation: Invitation = client.get("/api/v1/mesh/invite").await?;
            output.show(&invitation, || invite::text(&invitation, output));
        }
        MeshCommand::Join { invite } => {
            // What is far too long would not get to the node at all.
            invite.parse::<Invite>().map_err(|error| usage(error.to_string()))?;
            let receipt = client.act(Action::MeshJoin { invite: invite.clone() }).await?;
            output.receipt(&receipt);
            invite::wait(&invite, client, output).await?;
        }
    }
    Ok(())
}

pub(crate) async fn lookup(id: &str, client: &Client, output: &Output) -> Result<(), Failure> {
    let path = format!("/api/v1/lookup/{}", segment(id));
    let lookup: Lookup = client.get_from_afar(&path).await?;
    output.show(&lookup, || {
        let rows = lookup.row.as_slice();
        let table = views::directory_table(rows, output);
        let answers = if lookup.answers == 0 {
            "no other peer keeps it; this node knows it".to_owned()
        } else {
            format!(
                "{} of {} agree, in {}",
                lookup.agree,
                count(lookup.answers, "answer"),
                count(lookup.voices, "independent voice")
            )
        };
        format!("{table}{answers}; {} ms\n", lookup.took_ms)
    });
    Ok(())
}

pub(crate) async fn reach(server: &str, client: &Client, output: &Output) -> Result<(), Failure> {
    let reach: ServerReach =
        client.get(&format!("/api/v1/servers/{}/reach", segment(server))).await?;
    output.show(&reach, || {
        let mut rows = vec![("server", reach.name.clone()), ("reach", reach.summary.clone())];
        rows.extend(reach.asked.clone().map(|asked| ("asked for", asked)));
        rows.extend(reach.at.clone().map(|at| ("at", at)));
        let witnesses: Vec<_> = reach.witnesses.iter().map(witness).collect();
        let heading = ["WITNESS", "FROM", "REACHED IT AT", "PLAYERS", "WHY NOT"];
        let table = if witnesses.is_empty() {
            String::new()
        } else {
            format!("\n{}", output.table(&heading, &witnesses))
        };
        fields(&rows) + &table
    });
    Ok(())
}

fn witness(witness: &Witness) -> Vec<Cell> {
    let node = &witness.node;
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "—".into());
    let colour = if witness.reached.is_some() { Colour::Good } else { Colour::Bad };
    vec![
        Cell::of(format!("…{}", &node[node.len().saturating_sub(8)..])),
        Cell::of(text(&witness.from)),
        Cell::of(text(&witness.reached)).colour(colour),
        Cell::of(witness.players.map_or("—".into(), |players| players.to_string())),
        Cell::of(text(&witness.problem)),
    ]
}

fn table(stats: &MeshStats, output: &Output) -> String {
    let rate = |bytes: u64| {
        let per_second = bytes as f64 / stats.seconds.max(1) as f64;
        format!("{per_second:.0} B/s")
    };
    let rows: Vec<Vec<Cell>> = stats
        .traffic
        .iter()
        .filter(|of| of.received + of.sent > 0)
        .map(|of| {
            vec![
                Cell::of(&of.protocol),
                Cell::of(bytes(of.received)),
                Cell::of(bytes(of.sent)),
                Cell::of(rate(of.received)),
                Cell::of(rate(of.sent)),
            ]
        })
        .collect();
    let refused: Vec<String> =
        stats.refused.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let repairs = &stats.repairs;
    let mut lines = vec![
        (
            "rows",
            format!(
                "{} ({} proved), {}, {}",
                count(stats.listings, "server"),
                stats.proved,
                count(stats.tombstones, "tombstone"),
                count(stats.hosts, "host")
            ),
        ),
        (
            "keys",
            format!(
                "{}, {}, {} waiting for one",
                count(stats.key_chains, "key chain"),
                count(stats.key_conflicts, "conflict"),
                count(stats.penned, "record")
            ),
        ),
        ("taken in", count(stats.admitted.try_into().unwrap_or(usize::MAX), "record")),
        ("refused", if refused.is_empty() { "—".into() } else { refused.join(", ") }),
    ];
    let counted = |name: &str| {
        let counts = stats.counted.get(name).into_iter().flatten();
        let counts: Vec<_> = counts.map(|(what, n)| format!("{n} {what}")).collect();
        if counts.is_empty() { "—".into() } else { counts.join(", ") }
    };
    lines.extend([
        ("gossip", counted("gossip")),
        ("unanswered", counted("rpc_refused")),
        ("misdeeds", counted("misdeeds")),
        ("peers left", counted("connections_refused")),
        ("DHT puts", counted("dht_puts")),
    ]);
    lines.push((
        "repairs",
        format!(
            "{} done, {} failed, {} round trips, {} records found, {} withheld",
            repairs.done, repairs.failed, repairs.rounds, repairs.records, repairs.withheld
        ),
    ));
    if rows.is_empty() {
        return fields(&lines);
    }
    let table = output.table(&["PROTOCOL", "RECEIVED", "SENT", "IN", "OUT"], &rows);
    format!("{table}\n{}", fields(&lines))
}

/// A number of bytes as people read it.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
