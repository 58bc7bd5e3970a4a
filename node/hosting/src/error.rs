//! What can go wrong, by what a person asked for.

use thiserror::Error;

use crate::port::StoreFailure;
use crate::ports::PortConflict;
use crate::start_line::ExecError;

/// What kind of trouble an error is; programs report it as their exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The machine's or our own fault, as in a full disk.
    Internal,
    /// What was asked for makes no sense.
    BadConfig,
    /// There is no such server.
    NotFound,
    /// Not in this state.
    WrongState,
    /// The rights do not suffice.
    Denied,
    /// It took too long.
    Timeout,
    /// A name or a port belongs to something else.
    Conflict,
}

impl ErrorClass {
    /// The exit code of this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::BadConfig => 2,
            Self::NotFound => 3,
            Self::WrongState => 4,
            Self::Denied => 5,
            Self::Timeout => 6,
            Self::Conflict => 8,
        }
    }
}

/// Why the hosting did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The definitions cannot be read.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The program cannot be copied for its shims.
    #[error("cannot keep a copy of {exe} in {store}: free some space or correct the rights")]
    ShimStore {
        /// The program.
        exe: String,
        /// Where copies are kept.
        store: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// What kind of trouble it is.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Internal
    }
}

/// Why a server was not added.
#[derive(Debug, Error)]
pub enum AddError {
    /// The name or the id is in use.
    #[error("a server called {0:?} exists: choose another name or remove that one")]
    Duplicate(String),
    /// A field that cannot be.
    #[error("the {field} {rule}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it must be.
        rule: String,
    },
    /// The start line cannot be used.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortConflict),
    /// As many as a node can have.
    #[error("this node has {0} servers, which is the most it can list: remove one first")]
    TooMany(usize),
    /// The folder cannot be made.
    #[error("{0}")]
    Folder(String),
    /// The definition cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

impl AddError {
    /// What kind of trouble it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Duplicate(_) | Self::Port(_) => ErrorClass::Conflict,
            Self::Invalid { .. } | Self::Exec(_) => ErrorClass::BadConfig,
            Self::TooMany(_) => ErrorClass::WrongState,
            Self::Folder(_) => ErrorClass::Denied,
            Self::Store(_) => ErrorClass::Internal,
        }
    }
}

/// Why a server was not started, stopped, restarted, killed or written to.
#[derive(Debug, Error)]
pub enum PowerError {
    /// There is no such server.
    #[error("there is no such server: see the list of servers")]
    Unknown,
    /// Not in this state.
    #[error("{0}")]
    WrongState(String),
    /// It was tried and failed; the text is a whole sentence.
    #[error("{problem}")]
    Failed {
        /// What kind of trouble it is.
        class: ErrorClass,
        /// What happened and what to do.
        problem: String,
    },
    /// What is wanted cannot be stored, so it was not done.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The daemon is ending; the game goes on as it is.
    #[error("the daemon is ending: start it and try again")]
    Ending,
}

impl PowerError {
    /// What kind of trouble it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unknown => ErrorClass::NotFound,
            Self::WrongState(_) => ErrorClass::WrongState,
            Self::Failed { class, .. } => *class,
            Self::Store(_) | Self::Ending => ErrorClass::Internal,
        }
    }
}

/// Why a server was not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// There is no such server.
    #[error("there is no such server: see the list of servers")]
    Unknown,
    /// It runs.
    #[error("the server {0} is running: stop it first")]
    Running(String),
    /// It is gone from the list, but its folder is still there.
    #[error("the server was removed, but not all of its folder {folder}: remove that yourself")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The definition cannot be forgotten.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The daemon is ending.
    #[error("the daemon is ending: start it and try again")]
    Ending,
}

impl RemoveError {
    /// What kind of trouble it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unknown => ErrorClass::NotFound,
            Self::Running(_) => ErrorClass::WrongState,
            Self::Folder { .. } | Self::Store(_) | Self::Ending => ErrorClass::Internal,
        }
    }
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogsError {
    /// There is no such server.
    #[error("there is no such server: see the list of servers")]
    Unknown,
}

impl LogsError {
    /// What kind of trouble it is.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::NotFound
    }
}
