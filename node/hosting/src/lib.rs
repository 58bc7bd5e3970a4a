//! Game servers: definitions, lifecycle, shim, ports, query.
//!
//! A daemon calls [`start`] once and talks to the [`HostingHandle`]. Each server
//! has an actor that owns its lifecycle (a core, [`lifecycle`]) and a line to
//! its shim. The shim ([`shim`]) is a process of its own, made from a copy of
//! this program by the hidden subcommand of [`shim_main`]: it owns the game, so
//! that a daemon can crash, end or be replaced while players play.
//!
//! The crate never decides whom to tell of a server, keeps no definition (see
//! [`DefinitionStore`]), and sends nothing to anyone but its own games.

mod a2s_game;
mod account;
mod actor;
mod console;
mod definition;
mod error;
mod folder;
mod handle;
mod lifecycle;
mod link;
mod port;
mod ports;
mod query;
mod shim;
mod shim_store;
mod start_line;
mod view;

pub use a2s_game::a2s_game_main;
pub use account::{Account, RunAs};
pub use console::TAIL_MAX;
pub use definition::{
    PORTS_MAX, PortRequest, PortWant, Query, QueryKind, SERVERS_MAX, STOP_STEP, ServerDefinition,
    UnknownQuery, Wanted,
};
pub use error::{AddError, ErrorClass, LogsError, PowerError, RemoveError, StartError};
pub use handle::{HostingConfig, HostingHandle, KeepData, Servers, start};
pub use port::{DefinitionStore, StoreFailure};
pub use ports::{AUTO_PORTS, PortConflict, PortError, parse_port};
pub use query::probe;
pub use shim::shim_main;
pub use start_line::{ExecError, LINE_BYTES_MAX, WORDS_MAX, parse_exec};
pub use view::{ExitReport, LogLine, ServerView, State};
