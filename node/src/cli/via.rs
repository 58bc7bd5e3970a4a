//! `--via`: asks one node or a few, keeps nothing, believes nothing.
//!
//! The rows of a search go through the same admission as those of a running node, in a
//! directory that lives as long as the question; what the node says about them
//! beyond their signatures — how many match, whom it would trust as a witness —
//! is shown as its word.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use homehost_api::{DirectoryRow, ErrorKind};
use homehost_directory::core::{MONO_ORIGIN, Output as Told};
use homehost_directory::{Admission, Directory, Moment, Query, Refusal, Source};
use homehost_mesh::Multiaddr;
use homehost_mesh::ask::{AskConnection, AskError};
use homehost_protocol::chain::Chain;
use homehost_protocol::limits::{QUERY_ROWS_MAX, RPC_CHAINS_MAX};
use homehost_protocol::rpc::{Request, Response};
use homehost_protocol::validate::NoChains;
use homehost_protocol::{NetworkName, Record, RootId, ServerId, UnixMillis, Verdict, validate};
use homehost_runtime::wall_ms;

use crate::control::views;
use crate::exit::{Failure, failure};

/// Longest wait for the connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Rows that are shown when nothing is said: as many as a person scrolls.
const ROWS: usize = 200;

/// Questions at once; after that a node answers clients one a second.
const AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(1100);

/// After this no further page is asked for: what came by then is shown. An honest
/// node gives some thousand rows in that time; a liar could give one row a page.
const ENOUGH: Duration = Duration::from_secs(30);

/// What one node answered.
pub(crate) struct Found {
    pub(crate) rows: Vec<DirectoryRow>,
    /// Where the result goes on, if it does.
    pub(crate) next: Option<String>,
    /// Whether it was left before it came to an end.
    pub(crate) is_cut: bool,
    /// The node's network.
    pub(crate) network: NetworkName,
    /// Records that do not hold, by reason.
    pub(crate) refused: BTreeMap<String, usize>,
}

/// Asks the node at an address.
///
/// # Errors
/// When it cannot be asked, or does not answer.
pub(crate) async fn discover(address: &Multiaddr, query: Query) -> Result<Found, Failure> {
    let unsaid = |error: AskError| explain(address, &error);
    let mut node = AskConnection::connect(address, CONNECT).await.map_err(unsaid)?;
    let mut reading: Option<Reading> = None;
    let wanted = query.limit.unwrap_or(ROWS);
    let mut cursor = query.cursor.as_ref().map(homehost_directory::Cursor::to_bytes);
    let (mut asked, began) = (0, Instant::now());
    let is_cut = loop {
        pace(&mut asked).await;
        let have = reading.as_ref().map_or(0, |reading| reading.ids.len());
        let limit = wanted.saturating_sub(have).min(QUERY_ROWS_MAX);
        let ask = query.to_peer(u16::try_from(limit).unwrap_or(u16::MAX));
        let request = Request::Query { query: ask, cursor: cursor.clone() };
        let response = node.request(request).await.map_err(unsaid)?;
        let network = answered(address, &node, &response)?;
        let reading = reading.get_or_insert_with(|| Reading::new(network, is_near(address)));
        let next = response.cursor.clone();
        let before = reading.ids.len();
        let missing = reading.take(response);
        for roots in missing.chunks(RPC_CHAINS_MAX) {
            if began.elapsed() >= ENOUGH {
                break;
            }
            pace(&mut asked).await;
            let request = Request::Chains { roots: roots.to_vec() };
            let chains = node.request(request).await.map_err(unsaid)?;
            reading.take(chains);
        }
        // A page that brings no server or does not move on would be asked for
        // again without end.
        let stuck = next == cursor || reading.ids.len() == before;
        cursor = next;
        if cursor.is_none() || stuck || reading.ids.len() >= wanted {
            break false;
        }
        if began.elapsed() >= ENOUGH {
            break true;
        }
    };
    let Some(reading) = reading else { unreachable!("the loop has run once") };
    Ok(Found { is_cut, ..reading.found(query, cursor) })
}

/// Waits until a node answers one more question of a client.
async fn pace(asked: &mut usize) {
    *asked += 1;
    if *asked > AT_ONCE {
        tokio::time::sleep(PAUSE).await;
    }
}

/// The rows of several answers, each once, in the order of the first that has
/// it.
pub(crate) fn union<'a>(answers: impl Iterator<Item = &'a Found>) -> Vec<DirectoryRow> {
    let mut rows: Vec<DirectoryRow> = Vec::new();
    for row in answers.flat_map(|found| &found.rows) {
        if !rows.iter().any(|known| known.id == row.id) {
            rows.push(row.clone());
        }
    }
    rows
}

/// A root's key chain, as a node gave it.
#[derive(Debug)]
pub(crate) struct KnownChain {
    pub(crate) chain: Chain,
    /// The node's network.
    pub(crate) network: NetworkName,
    /// When it was signed.
    pub(crate) issued: UnixMillis,
}

/// Asks the node at an address for the key chains of a root: none when it knows
/// none, two when it knows two that contradict each other.
///
/// # Errors
/// When it cannot be asked, does not answer, or answers what does not hold.
pub(crate) async fn chains(address: &Multiaddr, root: RootId) -> Result<Vec<KnownChain>, Failure> {
    let unsaid = |error: AskError| explain(address, &error);
    let mut node = AskConnection::connect(address, CONNECT).await.map_err(unsaid)?;
    let response = node.request(Request::Chains { roots: vec![root] }).await.map_err(unsaid)?;
    let network = answered(address, &node, &response)?;
    let mut chains = Vec::new();
    for held in response.records {
        let now = UnixMillis(wall_ms());
        let wrong = |why: &dyn std::fmt::Display| {
            let text = format!(
                "the node at {address} gave a key chain that does not hold: {why}; is the clock \
                 of this machine right? Otherwise ask another node"
            );
            failure(ErrorKind::Denied, text)
        };
        let validated = match validate(&held.envelope, &network, &NoChains, now) {
            Verdict::Accept(validated) => validated,
            Verdict::Reject(reason) => return Err(wrong(&reason)),
            Verdict::Ignore(reason) => return Err(wrong(&reason)),
            Verdict::NeedChain(_) => return Err(wrong(&"it is no key chain")),
        };
        let Record::KeyChain(body) = &validated.record else {
            return Err(wrong(&"it is no key chain"));
        };
        let chain = Chain::verify(body).map_err(|error| wrong(&error))?;
        if chain.root() != root {
            return Err(wrong(&"it is of another root"));
        }
        let issued = validated.header.issued;
        chains.push(KnownChain { chain, network: network.clone(), issued });
    }
    Ok(chains)
}

/// The network of an answer, if it is one.
fn answered(
    address: &Multiaddr,
    node: &AskConnection,
    response: &Response,
) -> Result<NetworkName, Failure> {
    if let Some(trouble) = response.trouble {
        let text = format!("the node at {address} has no answer: {trouble}");
        return Err(failure(ErrorKind::Unavailable, text));
    }
    let network = response.network.clone().or_else(|| node.network().cloned());
    network.ok_or_else(|| {
        let text = format!("the node at {address} does not say which network it is in");
        failure(ErrorKind::Unavailable, text)
    })
}

/// What came, as far as it holds.
struct Reading {
    directory: Directory,
    network: NetworkName,
    on_link: bool,
    began: Instant,
    /// Servers in the order of the answer.
    ids: Vec<ServerId>,
    refused: BTreeMap<String, usize>,
}

impl Reading {
    fn new(network: NetworkName, on_link: bool) -> Self {
        Self {
            directory: Directory::of_one_answer(network.clone()),
            network,
            on_link,
            began: Instant::now(),
            ids: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    fn now(&self) -> Moment {
        Moment { wall: UnixMillis(wall_ms()), mono: MONO_ORIGIN + self.began.elapsed() }
    }

    /// Takes in what holds; returns the roots whose key chains are missing.
    fn take(&mut self, response: Response) -> Vec<RootId> {
        let now = self.now();
        let mut missing = Vec::new();
        for held in response.records {
            let age = held.age_s.map(|seconds| Duration::from_secs(seconds.into()));
            let source = Source::Peer { on_link: self.on_link, age };
            let (admission, told) = self.directory.admit(&held.envelope, source, now);
            for told in told {
                match told {
                    Told::Learned(id) => self.ids.push(id),
                    Told::FetchChain(root) if !missing.contains(&root) => missing.push(root),
                    _ => {}
                }
            }
            match admission {
                // What comes before its row or chain is taken in with it, and
                // what a page repeats is no fault.
                Admission::New
                | Admission::Refused(
                    Refusal::Known | Refusal::Old | Refusal::NoListing | Refusal::NeedChain,
                ) => {}
                Admission::Refused(refusal) => {
                    *self.refused.entry(refusal.to_string()).or_default() += 1;
                }
            }
        }
        missing
    }

    fn found(mut self, query: Query, cursor: Option<Vec<u8>>) -> Found {
        let now = self.now();
        let limit = query.limit.unwrap_or(ROWS);
        // Whom this client would believe as a witness it cannot say.
        let wanted = Query { proved: false, cursor: None, limit: None, ..query };
        let mut rows = Vec::new();
        for id in std::mem::take(&mut self.ids) {
            let Some(row) = self.directory.view(&id, now) else { continue };
            if wanted.matches(&row) {
                rows.push(views::directory_row(row));
            } else {
                let why = "a server that was not asked for".to_owned();
                *self.refused.entry(why).or_default() += 1;
            }
        }
        rows.truncate(limit);
        let next =
            cursor.and_then(|bytes| homehost_directory::Cursor::try_from(bytes.as_slice()).ok());
        Found {
            rows,
            next: next.map(|cursor| cursor.to_string()),
            is_cut: false,
            network: self.network,
            refused: self.refused,
        }
    }
}

/// Whether the far end of an address is on this machine or link.
fn is_near(address: &Multiaddr) -> bool {
    let ip = crate::wire::join::ip_of(address);
    ip.is_some_and(|ip| homehost_protocol::Scope::of(ip) != homehost_protocol::Scope::Global)
}

fn explain(address: &Multiaddr, error: &AskError) -> Failure {
    let (kind, next) = match error {
        AskError::Dial { .. } => {
            (ErrorKind::Unavailable, "; is the address right, and the node up?")
        }
        AskError::WrongPeer { .. } => {
            (ErrorKind::Denied, "; leave /p2p/… away to ask whoever it is")
        }
        AskError::NotHomeHost(_) | AskError::Unsupported(_) => {
            (ErrorKind::Usage, "; ask another node")
        }
        AskError::Timeout => (ErrorKind::Timeout, "; try again, or ask another node"),
        AskError::Refused | AskError::Closed => {
            (ErrorKind::Unavailable, "; wait a moment, or ask another node")
        }
        AskError::Setup(_) => (ErrorKind::Internal, ""),
    };
    let place = if error.to_string().contains(&address.to_string()) {
        String::new()
    } else {
        format!(" at {address}")
    };
    failure(kind, format!("failed to ask the node{place}: {error}{next}"))
}
