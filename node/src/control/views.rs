//! The node's own types, made into what a person sees.

use std::path::Path;

use homehost_api::{
    ApiError, DirectoryRow, DiscoverQuery, ErrorKind, LogLine, Peer, Reach, RowStatus, Server,
    ServerState, SortBy, Visibility,
};
use homehost_directory::{Query, RowView, SearchError, Sort};
use homehost_hosting::{ServerView, State};
use homehost_mesh::PeerInfo;
use homehost_protocol::UnixMillis;
use homehost_protocol::limits::{
    GAME_BYTES_MAX, GAME_VERSION_BYTES_MAX, LANGUAGE_BYTES_MAX, QUERY_TEXT_BYTES_MAX,
    REGION_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX,
};
use homehost_protocol::record::listing::{Visibility as wire, flags};
use homehost_protocol::{Record, Validated};
use homehost_runtime::wall_ms;

use super::{Control, reachability as network};
use crate::wire::join::{ips_for, join_addresses};

impl Control {
    pub(super) fn server_view(&self, server: &ServerView) -> Server {
        let definition = &server.definition;
        let mesh = self.mesh.status().borrow().clone();
        let ips = ips_for(definition.visibility, self.keys.network(), &mesh);
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
            addresses: join_addresses(server, &ips, &mesh)
                .iter()
                .map(ToString::to_string)
                .collect(),
            exec: definition.exec.clone(),
            query: definition.query.kind.to_string(),
            tags: definition.tags.clone(),
            region: definition.region.clone(),
            visibility: visibility(definition.visibility),
            folder: folder(&self.data_dir, server),
        }
    }
}

/// Who learns of a server, for a person.
pub(super) fn visibility(of: Option<wire>) -> Visibility {
    match of {
        None => Visibility::Public,
        Some(wire::Unlisted) => Visibility::Unlisted,
        Some(wire::Lan) => Visibility::Lan,
    }
}

/// What a visibility means, in a sentence about a server.
pub(super) fn told(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Public => "public: everybody finds it",
        Visibility::Unlisted => "unlisted: whoever has its id finds it with `homehost lookup`",
        Visibility::Lan => "for your LAN alone",
    }
}

/// Who learns of a server, for its listing.
pub(super) fn visibility_of(told: Visibility) -> Option<wire> {
    match told {
        Visibility::Public => None,
        Visibility::Unlisted => Some(wire::Unlisted),
        Visibility::Lan => Some(wire::Lan),
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

fn check_bounds(query: &DiscoverQuery) -> Result<(), ApiError> {
    if query.limit == Some(0) {
        return Err(ApiError::new(ErrorKind::Usage, "a limit of 0 shows nothing: give 1 or more"));
    }
    let texts = [
        ("game", &query.game, GAME_BYTES_MAX),
        ("region", &query.region, REGION_BYTES_MAX),
        ("language", &query.language, LANGUAGE_BYTES_MAX),
        ("version", &query.version, GAME_VERSION_BYTES_MAX),
        ("text", &query.text, QUERY_TEXT_BYTES_MAX),
    ];
    let is_long = |(_, text, most): &(_, &Option<String>, usize)| {
        text.as_ref().is_some_and(|text| text.len() > *most)
    };
    let tags = || query.tags.iter().flat_map(|tags| tags.split(','));
    let text = if let Some((name, _, most)) = texts.into_iter().find(is_long) {
        format!("no server has a {name} of more than {most} bytes: shorten the filter")
    } else if tags().count() > TAGS_MAX || tags().any(|tag| tag.len() > TAG_BYTES_MAX) {
        format!("a server has at most {TAGS_MAX} tags of {TAG_BYTES_MAX} bytes: give fewer")
    } else {
        return Ok(());
    };
    Err(ApiError::new(ErrorKind::Usage, text))
}

/// A search as it was asked for.
///
/// # Errors
/// A filter that no server can match, or a cursor that is none.
pub(crate) fn query(query: DiscoverQuery) -> Result<Query, ApiError> {
    check_bounds(&query)?;
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

/// A server that the DHT knows and no directory keeps.
pub(super) fn unlisted_row(record: Validated) -> Option<DirectoryRow> {
    let Validated { header, record: Record::ServerListing(listing), .. } = record else {
        return None;
    };
    if listing.visibility != Some(wire::Unlisted) {
        return None;
    }
    let id = listing.id(&header.root);
    let has = |bit: u32| listing.flags.is_some_and(|flags| flags & bit != 0);
    Some(DirectoryRow {
        id: id.to_string(),
        host: header.root.to_string(),
        key_epoch: header.key_epoch,
        status: if listing.is_withdrawn() { RowStatus::Withdrawn } else { RowStatus::Live },
        name: listing.name.clone(),
        game: listing.game.clone(),
        tags: listing.tags.clone(),
        region: listing.region.clone(),
        players: None,
        slots: listing.slots,
        addresses: listing.addresses.iter().map(ToString::to_string).collect(),
        reach: Reach::Claimed,
        reach_proved: 0,
        reach_said: 0,
        reach_asked: 0,
        reach_at: None,
        reach_age_s: None,
        key_conflict: false,
        issued: header.issued.to_string(),
        seen: header.issued.to_string(),
        confirmed: true,
        description: listing.description.clone(),
        language: listing.language.clone(),
        version: listing.game_version.clone(),
        password: has(flags::PASSWORD),
        whitelist: has(flags::WHITELIST),
        modded: has(flags::MODDED),
        pvp: has(flags::PVP),
    })
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
        reach_age_s: row.reach.at.map(|at| UnixMillis(wall_ms()).since(at).as_secs()),
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
