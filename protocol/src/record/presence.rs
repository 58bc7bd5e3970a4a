//! Presence: who is playing now on the servers of one device (spec/records §8).
//!
//! One record speaks for all servers of a device, so a host costs the mesh one
//! message per interval. A server that the newest presence does not name is
//! not running.

use serde::de::{self, SeqAccess};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FieldError;
use crate::cbor::cbor_map;
use crate::ids::ServerId;
use crate::limits;

/// One running server: `[id, players or null, slots or null]` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerPresence {
    /// Which server.
    pub id: ServerId,
    /// Players now; `None` when the host cannot tell, which is not zero.
    pub players: Option<u16>,
    /// Places, when the game reports another number than the listing.
    pub slots: Option<u16>,
}

impl Serialize for ServerPresence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&self.id)?;
        tuple.serialize_element(&self.players)?;
        tuple.serialize_element(&self.slots)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for ServerPresence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ServerPresence;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("[id, players or null, slots or null]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ServerPresence, A::Error> {
                let missing = || de::Error::custom("server presence is too short");
                Ok(ServerPresence {
                    id: seq.next_element()?.ok_or_else(missing)?,
                    players: seq.next_element()?.ok_or_else(missing)?,
                    slots: seq.next_element()?.ok_or_else(missing)?,
                })
            }
        }
        deserializer.deserialize_tuple(3, Visitor)
    }
}

cbor_map! {
    /// The running servers of one device.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Presence {
        /// Sorted by id, each once.
        list 1 servers: ServerPresence,
    }
}

impl Presence {
    /// Checks number and order of the servers.
    ///
    /// # Errors
    /// When there are too many, or they are unsorted or repeated.
    pub fn check(&self) -> Result<(), FieldError> {
        if self.servers.len() > limits::SERVERS_PER_DEVICE_MAX {
            let rule = format!("must be at most {}", limits::SERVERS_PER_DEVICE_MAX);
            return Err(FieldError::new("servers", rule));
        }
        if !self.servers.is_sorted_by(|a, b| a.id < b.id) {
            return Err(FieldError::new("servers", "must be sorted by id and without repetition"));
        }
        Ok(())
    }
}
