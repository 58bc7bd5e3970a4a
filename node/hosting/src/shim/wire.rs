//! What shim and daemon say to each other over the control socket.
//!
//! Both begin with a hello of sixteen bytes whose form never changes: a magic
//! and the newest version that the writer speaks. Both then use the lower of the
//! two versions. After it come frames: length as four bytes, big-endian, then
//! that many bytes of JSON. Fields that a reader does not know are ignored, and
//! so is a message that it does not know.
//!
//! Version 1: the messages below.

use std::io;

use homehost_protocol::UnixMillis;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::view::{ExitReport, LogLine};

/// The version that this program speaks.
pub(crate) const VERSION: u16 = 1;

const MAGIC: &[u8; 14] = b"homehost-shim\0";

/// A frame holds one line of the console at most: 8 KiB that JSON may escape to
/// six times that.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// What a daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToShim {
    /// Send every line after this one, and go on.
    Follow { after: u64 },
    /// Write a line to the game's input.
    Stdin { line: String },
    /// Begin the stop ladder.
    Stop,
    /// End the group now.
    Kill,
}

/// What a shim tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// First after the hello, and after each change.
    Status(Status),
    /// A line of the console.
    Line(LogLine),
    /// The input was not taken; says why.
    StdinRefused { why: String },
    /// The last message: the game ended and `exit.json` is written.
    Exited(ExitReport),
}

/// How the game is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) run: u64,
    pub(crate) pid: u32,
    pub(crate) started: UnixMillis,
    /// Number of the first line of this run.
    pub(crate) first_seq: u64,
    /// The step of the stop that is under way.
    #[serde(default)]
    pub(crate) rung: Option<String>,
    /// What keeps the shim from its work, as in a full disk.
    #[serde(default)]
    pub(crate) trouble: Option<String>,
}

/// Exchanges hellos; the version that both speak.
pub(crate) async fn hello<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<u16> {
    let mut ours = [0; 16];
    ours[..14].copy_from_slice(MAGIC);
    ours[14..].copy_from_slice(&VERSION.to_be_bytes());
    stream.write_all(&ours).await?;
    stream.flush().await?;
    let mut theirs = [0; 16];
    stream.read_exact(&mut theirs).await?;
    let version = u16::from_be_bytes([theirs[14], theirs[15]]);
    if &theirs[..14] != MAGIC || version == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a shim of this program"));
    }
    Ok(version.min(VERSION))
}

/// Writes one frame.
pub(crate) async fn send<W: AsyncWrite + Unpin, T: Serialize>(
    to: &mut W,
    message: &T,
) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    if body.len() > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame).await?;
    to.flush().await
}

/// Reads one frame; `None` for a message that this version does not know.
///
/// # Cancel safety
/// Not cancel safe: a frame may be half read.
pub(crate) async fn receive<R: AsyncRead + Unpin, T: DeserializeOwned>(
    from: &mut R,
) -> io::Result<Option<T>> {
    let length = from.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hello_agrees_on_the_lower_version() {
        let (mut a, mut b) = tokio::io::duplex(64);
        let (mut newer, mut bytes) = ([0; 16], [0; 16]);
        newer[..14].copy_from_slice(MAGIC);
        newer[14..].copy_from_slice(&9_u16.to_be_bytes());
        let (version, ()) = tokio::join!(hello(&mut a), async {
            b.write_all(&newer).await.unwrap();
            b.read_exact(&mut bytes).await.unwrap();
        });
        assert_eq!(version.unwrap(), VERSION);
        assert_eq!(&bytes, b"homehost-shim\0\x00\x01", "these bytes never change");
    }

    #[tokio::test]
    async fn strangers_and_long_frames_are_refused() {
        for bytes in [[0; 16], *b"homehost-shim\0\x00\x00", *b"HTTP/1.1 400 Bad"] {
            let (mut a, mut b) = tokio::io::duplex(64);
            b.write_all(&bytes).await.unwrap();
            assert!(hello(&mut a).await.is_err());
        }
        let mut bytes: &[u8] = &[0xff; 64];
        assert!(receive::<_, ToShim>(&mut bytes).await.is_err());
    }

    #[tokio::test]
    async fn unknown_messages_and_fields_are_ignored() {
        for (body, expected) in [
            (r#"{"Stop":{}}"#, None),
            (r#""Stop""#, Some(ToShim::Stop)),
            (r#"{"Dance":{}}"#, None),
            (r#"{"Follow":{"after":7,"newer":1}}"#, Some(ToShim::Follow { after: 7 })),
        ] {
            let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            frame.extend_from_slice(body.as_bytes());
            assert_eq!(receive(&mut frame.as_slice()).await.unwrap(), expected, "{body}");
        }
    }

    #[tokio::test]
    async fn truncated_frames_are_errors() {
        let mut frame = Vec::new();
        send(&mut frame, &ToShim::Follow { after: 1 }).await.unwrap();
        for end in 0..frame.len() {
            assert!(receive::<_, ToShim>(&mut &frame[..end]).await.is_err());
        }
    }
}
