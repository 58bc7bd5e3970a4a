//! `status`, `peers` and `discover`: what a node knows, for a person.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use homehost_api::{
    DirectoryChange, DirectoryRow, DiscoverQuery, ErrorKind, NodeStatus, PathKind, Peer, Reach,
    RowStatus, SortBy,
};

use super::client::query_string;
use super::output::{Cell, Colour, fields};
use super::{Client, Output, via};
use crate::control::count;
use crate::exit::{Failure, failure};
use homehost_mesh::Multiaddr;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    /// Most players first
    Players,
    /// By name
    Name,
    /// Newest first
    New,
    /// Most witnesses first
    Proved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Flag {
    /// Players need a password
    Password,
    /// Only invited players get in
    Whitelist,
    /// The game is modified
    Modded,
    /// Players fight each other
    Pvp,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// Game, as in luanti
    #[arg(long)]
    game: Option<String>,
    /// Tag that must be there; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Region, as in eu
    #[arg(long)]
    region: Option<String>,
    /// Language, as in de
    #[arg(long)]
    lang: Option<String>,
    /// Version of the game: 5.6 finds 5.6.1 as well, but not 5.60
    #[arg(long)]
    version: Option<String>,
    /// What a server must be; may be repeated
    #[arg(long = "with", value_name = "FLAG", value_enum)]
    with: Vec<Flag>,
    /// What a server must not be; may be repeated
    #[arg(long = "without", value_name = "FLAG", value_enum)]
    without: Vec<Flag>,
    /// Only servers that others got through to
    #[arg(long)]
    proved: bool,
    /// Words in name, description, game or tags
    #[arg(long)]
    text: Option<String>,
    /// Only servers where somebody plays
    #[arg(long)]
    has_players: bool,
    /// Also servers whose host is silent or took them back
    #[arg(long)]
    all: bool,
    /// Order
    #[arg(long, value_enum, default_value = "players")]
    sort: Sort,
    /// Most rows
    #[arg(long)]
    limit: Option<usize>,
    /// Where the page before ended, as it was told
    #[arg(long, conflicts_with = "watch")]
    cursor: Option<String>,
    /// Go on with changes
    #[arg(long)]
    watch: bool,
    /// Ask the node at this address instead of the one of this machine, and
    /// check every row here; with several, see what one of them leaves out
    #[arg(long, value_name = "ADDR", conflicts_with = "watch")]
    via: Vec<Multiaddr>,
}

impl DiscoverArgs {
    /// The node to ask, if it is another than the own.
    pub(crate) fn is_via(&self) -> bool {
        !self.via.is_empty()
    }
}

/// Asks other nodes, without one of our own.
pub(crate) async fn discover_via(args: DiscoverArgs, output: &Output) -> Result<(), Failure> {
    let addresses = args.via.clone();
    if addresses.len() > 1 && args.cursor.is_some() {
        let text = "a --cursor belongs to one node: give one --via with it";
        return Err(failure(ErrorKind::Usage, text));
    }
    let query = crate::control::views::query(query_of(args))?;
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for address in &addresses {
        match via::discover(address, query.clone()).await {
            Ok(found) => answers.push((address, found)),
            Err(failure) => failures.push(failure),
        }
    }
    // Several are asked because one may be gone.
    match failures.pop() {
        Some(failure) if answers.is_empty() => return Err(failure),
        last => failures.extend(last),
    }
    let rows = via::union(answers.iter().map(|(_, found)| found));
    output.show(&rows, || directory_table(&rows, output));
    for failure in failures {
        output.hint(&failure.message);
    }
    for (address, found) in answers {
        let network = found.network.as_str();
        output.hint(&format!("on the network {network:?}, as told by {address}"));
        for (reason, records) in &found.refused {
            output.hint(&format!("refused {} of it: {reason}", count(*records, "record")));
        }
        if found.is_cut {
            output.hint("it gave little at a time and was left: these may not be all");
        }
        let omitted = rows.len() - found.rows.len().min(rows.len());
        match &found.next {
            Some(next) => output.hint(&format!("there are more: add --cursor {next}")),
            None if omitted > 0 => output
                .hint(&format!("it leaves out {} that another tells of", count(omitted, "server"))),
            None => {}
        }
    }
    Ok(())
}

fn query_of(args: DiscoverArgs) -> DiscoverQuery {
    let tags = (!args.tags.is_empty()).then(|| args.tags.join(","));
    let flag = |flag: Flag| match (args.with.contains(&flag), args.without.contains(&flag)) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    };
    DiscoverQuery {
        password: flag(Flag::Password),
        whitelist: flag(Flag::Whitelist),
        modded: flag(Flag::Modded),
        pvp: flag(Flag::Pvp),
        language: args.lang,
        version: args.version,
        proved: args.proved,
        cursor: args.cursor,
        game: args.game,
        tags,
        region: args.region,
        text: args.text,
        has_players: args.has_players,
        all: args.all,
        sort: match args.sort {
            Sort::Players => SortBy::Players,
            Sort::Name => SortBy::Name,
            Sort::New => SortBy::New,
            Sort::Proved => SortBy::Proved,
        },
        limit: args.limit,
    }
}

pub(crate) async fn discover(
    args: DiscoverArgs,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let watching = args.watch;
    let query = query_string(&query_of(args))?;
    if watching {
        return watch(&query, client, output).await;
    }
    let (rows, next): (Vec<DirectoryRow>, _) =
        client.page(&format!("/api/v1/discover{query}")).await?;
    output.show(&rows, || directory_table(&rows, output));
    if let Some(next) = next {
        output.hint(&format!("there are more: add --cursor {next}"));
    }
    Ok(())
}

async fn watch(query: &str, client: &Client, output: &Output) -> Result<(), Failure> {
    let path = format!("/api/v1/discover/watch{query}");
    let mut names = BTreeMap::new();
    let stream = client.events(&path, move |change: DirectoryChange| match &change {
        _ if output.is_json() => output.json_line(&change),
        DirectoryChange::Put { row } => {
            names.insert(row.id.clone(), row.name.clone());
            let row = row_cells(row);
            output.line(output.table(&[""; 8], &[row]).trim());
        }
        DirectoryChange::Gone { id } => {
            let name = names.remove(id).unwrap_or_else(|| id.clone());
            output.line(&output.paint(Colour::Dim, &format!("{name} gone")));
        }
    });
    stream_until_asked(stream, true, output).await
}

/// Prints a stream until Ctrl-C or until nobody reads it. One that should go on
/// without end and ends all the same means that the node has.
pub(crate) async fn stream_until_asked(
    stream: impl Future<Output = Result<(), Failure>>,
    endless: bool,
    output: &Output,
) -> Result<(), Failure> {
    tokio::select! {
        result = stream => match result {
            Ok(()) if endless => {
                Err(failure(ErrorKind::Unavailable, "the node has stopped: start it with `homehost up`"))
            }
            result => result,
        },
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = output.reader_gone() => Ok(()),
    }
}

/// Rows of the directory as a table.
pub(crate) fn directory_table(rows: &[DirectoryRow], output: &Output) -> String {
    if rows.is_empty() {
        return output.nothing("no server matches; --all also shows silent and withdrawn ones");
    }
    let cells: Vec<Vec<Cell>> = rows.iter().map(row_cells).collect();
    let heading = ["NAME", "GAME", "PLAYERS", "REGION", "STATUS", "REACH", "JOIN", "TAGS"];
    output.table(&heading, &cells)
}

fn row_cells(row: &DirectoryRow) -> Vec<Cell> {
    let (word, colour) = match (row.status, row.confirmed) {
        (RowStatus::Live, true) => ("live", Colour::Good),
        (RowStatus::Live, false) => ("live?", Colour::Bold),
        (RowStatus::Stale, _) => ("stale", Colour::Bad),
        (RowStatus::Withdrawn, _) => ("withdrawn", Colour::Dim),
    };
    vec![
        Cell::of(&row.name).colour(Colour::Bold),
        Cell::of(&row.game),
        Cell::of(players(row.players, row.slots)),
        Cell::of(row.region.as_deref().unwrap_or("—")),
        Cell::of(word).colour(colour),
        reach(row),
        Cell::of(row.addresses.first().map_or("—", String::as_str)),
        Cell::of(row.tags.join(" ")),
    ]
}

/// How many witnesses of how many asked got through.
fn reach(row: &DirectoryRow) -> Cell {
    if row.key_conflict {
        return Cell::of("key conflict").colour(Colour::Bad);
    }
    match (row.reach, row.reach_said) {
        (Reach::Proved, _) => {
            let age = row.reach_age_s.map(|age| format!(" {}", short_span(age)));
            let of = format!("{}/{}", row.reach_proved, row.reach_asked);
            Cell::of(format!("proved {of}{}", age.unwrap_or_default())).colour(Colour::Good)
        }
        (Reach::Claimed, 0) => Cell::of("claimed"),
        // By witnesses that this node does not know.
        (Reach::Claimed, said) => Cell::of(format!("said {said}/{}", row.reach_asked)),
    }
}

/// `now`, `4m`, `2h`: how long ago something was.
fn short_span(seconds: u64) -> String {
    match seconds {
        0..60 => "now".into(),
        60..3600 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

/// `3/20`, with — for what is not known.
pub(crate) fn players(players: Option<u16>, slots: Option<u16>) -> String {
    let text = |n: Option<u16>| n.map_or_else(|| "—".to_owned(), |n| n.to_string());
    match slots {
        Some(_) => format!("{}/{}", text(players), text(slots)),
        None => text(players),
    }
}

/// One a line, or a dash.
pub(crate) fn alternatives(list: &[String]) -> String {
    if list.is_empty() { "—".to_owned() } else { list.join("\n") }
}

pub(crate) fn status(status: &NodeStatus) -> String {
    let peers = match &status.alone {
        Some(alone) => alone.clone(),
        None => format!("{}; {} remembered", count(status.peers, "peer"), status.peers_remembered),
    };
    let refused: Vec<String> =
        status.refused.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let mut rows = vec![
        ("version", status.version.clone()),
        ("node", status.node.clone()),
        ("network", status.network.clone()),
        ("peers", peers),
        ("directory", format!("{} known", count(status.listings, "server"))),
        ("refused", if refused.is_empty() { "—".into() } else { refused.join(", ") }),
        ("servers", format!("{} of {} running", status.servers_running, status.servers)),
        ("listens", alternatives(&status.addresses)),
        ("since", status.started.clone()),
        ("process", status.pid.to_string()),
        ("folder", status.data_dir.clone()),
    ];
    if !status.attention.is_empty() {
        rows.push(("attention", status.attention.join("\n")));
    }
    fields(&rows)
}

pub(crate) fn peers(peers: &[Peer], output: &Output) -> String {
    if peers.is_empty() {
        return output.nothing(crate::control::ALONE);
    }
    let rows: Vec<Vec<Cell>> = peers
        .iter()
        .map(|peer| {
            let node = &peer.node;
            vec![
                Cell::of(format!("…{}", &node[node.len().saturating_sub(8)..])),
                Cell::of(&peer.role),
                Cell::of(&peer.direction),
                Cell::of(path(peer)),
                Cell::of(peer.rtt_ms.map_or("—".into(), |ms| format!("{ms} ms"))),
                Cell::of(format!("{} s", peer.connected_s)),
                Cell::of(&peer.agent),
                Cell::of(&peer.address),
            ]
        })
        .collect();
    let heading = ["NODE", "ROLE", "DIRECTION", "PATH", "RTT", "CONNECTED", "AGENT", "ADDRESS"];
    output.table(&heading, &rows)
}

fn path(peer: &Peer) -> String {
    let path = match peer.path {
        PathKind::Direct => "direct",
        PathKind::HolePunched => "hole-punched",
        PathKind::Relayed => "relayed",
    };
    match &peer.transport {
        Some(transport) => format!("{path} {transport}"),
        None => path.to_owned(),
    }
}
