//! Errors as a person meets them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What went wrong, in the classes that exit codes and HTTP statuses have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// A fault of the node or its disk.
    Internal,
    /// What was asked cannot be understood or is not allowed to be so.
    Usage,
    /// It is not there.
    NotFound,
    /// Not in this state.
    WrongState,
    /// Not by this person, or not on this disk.
    Denied,
    /// It took too long.
    Timeout,
    /// No node is running here, or no network.
    Unavailable,
    /// Something else has the name, the port or the folder.
    Conflict,
    /// It was looked at, and a person must act.
    Unhealthy,
}

impl ErrorKind {
    /// The exit code of a command that ends so.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::WrongState => 4,
            Self::Denied => 5,
            Self::Timeout => 6,
            Self::Unavailable => 7,
            Self::Conflict => 8,
            Self::Unhealthy => 9,
        }
    }
}

/// An error with a sentence that says what to do next.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("{message}")]
pub struct ApiError {
    /// Its class.
    pub kind: ErrorKind,
    /// What happened and what to do next.
    pub message: String,
}

impl ApiError {
    /// An error of a class.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
