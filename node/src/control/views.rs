//! The node's own types, made into what a person sees.

use std::path::Path;

use homehost_api::{
    ApiError, DirectoryRow, DiscoverQuery, ErrorKind, LogLine, Peer, Reach, RowStatus, Server,
    ServerState, SortBy,
};
use homehost_directory::{Query, RowView, SearchError, Sort};
use homehost_hosting::{ServerView, State};
use homehost_mesh::PeerInfo;
use homehost_protocol::record::listing::flags;

use super::{Control, reachability as network};
use crate::wire::join::{join_addresses, own_ips};

impl Control {
    pub(super) fn server_view(&self, server: &ServerView) -> Server {
        let definition = &server.definition;
        let ips = own_ips(self.keys.network(), &self.mesh.status().borrow());
        let port = |(name, port): (&String, &u16)| {
            let transport = definition.ports.get(name).map(|request| request.transport);
            let text = transport.map_or_else(|| port.to_string(), |t| format!("{port}/{t}"));
            (name.clone(), text)
        };
        Server {
            id: definition.id.to_string(),
            name: definition.name.clone(),
            game: definition.game.clone(),
            state: state(server.state),
            since: server.since.to_string(),
            pid: server.pid,
            ports: server.ports.iter().map(port).collect(),
            players: server.players,
            slots: server.slots,
            restarts: server.restarts,
            last_exit: server.last_exit.as_ref().map(|exit| match &exit.rung {
                Some(rung) => format!("{exit} after {rung}"),
                None => exit.to_string(),
            }),
            problem: server
                .problem
                .clone()
                .or_else(|| self.announcer.problems().get(&definition.id).cloned()),
            note: server.note.clone(),
            addresses: join_addresses(server, &ips).iter().map(ToString::to_string).collect(),
            exec: definition.exec.clone(),
            query: definition.query.kind.to_string(),
            tags: definition.tags.clone(),
            region: definition.region.clone(),
            folder: folder(&self.data_dir, server),
        }
    }
}

/// Where a server's files lie.
pub(super) fn folder(data_dir: &Path, server: &ServerView) -> String {
    let name = server.definition.folder.clone().unwrap_or_default();
    data_dir.join("servers").join(name).display().to_string()
}

fn state(state: State) -> ServerState {
    match state {
        State::Offline => ServerState::Offline,
        State::Starting => ServerState::Starting,
        State::Running => ServerState::Running,
        State::Stopping => ServerState::Stopping,
        State::Backoff { .. } => ServerState::Backoff,
        State::Crashed => ServerState::Crashed,
    }
}

pub(super) fn peer(peer: &PeerInfo) -> Peer {
    Peer {
        node: peer.node.to_string(),
        address: peer.address.to_string(),
        role: peer.role.to_string(),
        agent: peer.agent.clone(),
        direction: if peer.outgoing { "outgoing" } else { "incoming" }.to_owned(),
        path: network::path(peer.path),
        transport: peer.transport.map(str::to_owned),
        rtt_ms: peer.rtt.map(|rtt| rtt.as_millis().try_into().unwrap_or(u64::MAX)),
        connected_s: peer.since.elapsed().as_secs(),
    }
}

pub(super) fn log_line(line: homehost_hosting::LogLine) -> LogLine {
    LogLine { seq: line.seq, at: line.at.to_string(), text: line.text }
}

/// Longest free text; a search box holds no more.
const TEXT_BYTES_MAX: usize = 256;

pub(crate) fn query(query: DiscoverQuery) -> Result<Query, ApiError> {
    let texts =
        [&query.game, &query.tags, &query.region, &query.language, &query.version, &query.text];
    if texts.into_iter().flatten().any(|text| text.len() > TEXT_BYTES_MAX) {
        let text = format!("a filter has at most {TEXT_BYTES_MAX} bytes: shorten it");
        return Err(ApiError::new(ErrorKind::Usage, text));
    }
    let cursor = query.cursor.map(|cursor| cursor.parse()).transpose();
    let cursor = cursor.map_err(|error| ApiError::new(ErrorKind::Usage, format!("{error}")))?;
    let flag = |bit: u32, wanted: Option<bool>| match wanted {
        Some(true) => (bit, 0),
        Some(false) => (0, bit),
        None => (0, 0),
    };
    let wanted = [
        flag(flags::PASSWORD, query.password),
        flag(flags::WHITELIST, query.whitelist),
        flag(flags::MODDED, query.modded),
        flag(flags::PVP, query.pvp),
    ];
    let tags = query.tags.unwrap_or_default().to_lowercase();
    Ok(Query {
        game: query.game.map(|game| game.to_lowercase()),
        tags: tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        region: query.region.map(|region| region.to_lowercase()),
        language: query.language.map(|language| language.to_lowercase()),
        version: query.version,
        flags: wanted.iter().map(|(with, _)| with).sum(),
        without_flags: wanted.iter().map(|(_, without)| without).sum(),
        proved: query.proved,
        text: query.text,
        has_players: query.has_players,
        all: query.all,
        sort: match query.sort {
            SortBy::Players => Sort::Players,
            SortBy::Name => Sort::Name,
            SortBy::New => Sort::New,
            SortBy::Proved => Sort::Proved,
        },
        limit: query.limit,
        cursor,
    })
}

pub(super) fn no_result(error: SearchError) -> ApiError {
    match error {
        SearchError::Closed(closed) => super::closed(closed),
        SearchError::Cursor(error) => ApiError::new(ErrorKind::Usage, error.to_string()),
    }
}

pub(crate) fn directory_row(row: RowView) -> DirectoryRow {
    let listing = row.listing;
    let has = |bit: u32| listing.flags.is_some_and(|flags| flags & bit != 0);
    DirectoryRow {
        id: row.id.to_string(),
        host: row.host.to_string(),
        key_epoch: row.key_epoch,
        name: listing.name,
        game: listing.game,
        tags: listing.tags,
        region: listing.region,
        players: row.players,
        slots: row.slots,
        addresses: listing.addresses.iter().map(ToString::to_string).collect(),
        status: match row.status {
            homehost_directory::RowStatus::Live => RowStatus::Live,
            homehost_directory::RowStatus::Stale => RowStatus::Stale,
            homehost_directory::RowStatus::Withdrawn => RowStatus::Withdrawn,
        },
        reach: if row.reach.proved > 0 { Reach::Proved } else { Reach::Claimed },
        reach_proved: row.reach.proved,
        reach_said: row.reach.said,
        reach_asked: row.reach.asked,
        reach_at: row.reach.at.map(|at| at.to_string()),
        key_conflict: row.key_conflict,
        issued: row.issued.to_string(),
        seen: row.seen.to_string(),
        confirmed: row.confirmed,
        description: listing.description,
        language: listing.language,
        version: listing.game_version,
        password: has(flags::PASSWORD),
        whitelist: has(flags::WHITELIST),
        modded: has(flags::MODDED),
        pvp: has(flags::PVP),
    }
}
