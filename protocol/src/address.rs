//! Addresses at which players join a server, and how far an address reaches.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::de::{self, SeqAccess};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Transport of a game's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams; 0 on the wire.
    Udp,
    /// Streams; 1 on the wire.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl FromStr for Transport {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            "udp" => Ok(Self::Udp),
            "tcp" => Ok(Self::Tcp),
            _ => Err(AddressError),
        }
    }
}

/// Where players connect: `203.0.113.7:30000/udp`.
///
/// On the wire `[ip bytes (4 or 16), port, transport]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinAddress {
    /// Address and port.
    pub socket: SocketAddr,
    /// Transport of the port.
    pub transport: Transport,
}

/// A text that is not a join address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a join address looks like 203.0.113.7:30000/udp or [2001:db8::1]:30000/tcp")]
pub struct AddressError;

impl JoinAddress {
    /// Whether it survives the wire as it is.
    pub(crate) fn is_sound(&self) -> bool {
        self.socket.port() != 0 && has_one_spelling(self.socket)
    }

    /// How far this address reaches.
    pub fn scope(&self) -> Scope {
        Scope::of(self.socket.ip())
    }
}

impl fmt::Display for JoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket, self.transport)
    }
}

impl fmt::Debug for JoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for JoinAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (socket, transport) = text.rsplit_once('/').ok_or(AddressError)?;
        let socket: SocketAddr = socket.parse().map_err(|_| AddressError)?;
        if socket.port() == 0 || !has_one_spelling(socket) {
            return Err(AddressError);
        }
        Ok(Self { socket, transport: transport.parse()? })
    }
}

/// IPv4 addresses in IPv6 clothing and zones of one machine do not survive the
/// wire as they are.
fn has_one_spelling(socket: SocketAddr) -> bool {
    match socket {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_none() && v6.scope_id() == 0,
    }
}

struct IpBytes(IpAddr);

impl Serialize for IpBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            IpAddr::V4(ip) => serializer.serialize_bytes(&ip.octets()),
            IpAddr::V6(ip) => serializer.serialize_bytes(&ip.octets()),
        }
    }
}

impl<'de> Deserialize<'de> for IpBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = IpBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("4 or 16 bytes of an IP address")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<IpBytes, E> {
                if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
                    return Ok(IpBytes(Ipv4Addr::from(v4).into()));
                }
                let v6 = <[u8; 16]>::try_from(bytes)
                    .map_err(|_| E::invalid_length(bytes.len(), &self))?;
                let v6 = Ipv6Addr::from(v6);
                // Otherwise one IPv4 address would have two spellings.
                if v6.to_ipv4_mapped().is_some() {
                    return Err(E::custom("IPv4 address in IPv6 clothing"));
                }
                Ok(IpBytes(v6.into()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

impl Serialize for JoinAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&IpBytes(self.socket.ip()))?;
        tuple.serialize_element(&self.socket.port())?;
        tuple.serialize_element(&u8::from(self.transport == Transport::Tcp))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for JoinAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = JoinAddress;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[ip bytes, port, transport]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<JoinAddress, A::Error> {
                let missing = || de::Error::custom("join address is too short");
                let ip: IpBytes = seq.next_element()?.ok_or_else(missing)?;
                let port: u16 = seq.next_element()?.ok_or_else(missing)?;
                let transport = match seq.next_element::<u8>()?.ok_or_else(missing)? {
                    0 => Transport::Udp,
                    1 => Transport::Tcp,
                    _ => return Err(de::Error::custom("unknown transport")),
                };
                if port == 0 {
                    return Err(de::Error::custom("port 0"));
                }
                Ok(JoinAddress { socket: SocketAddr::new(ip.0, port), transport })
            }
        }
        deserializer.deserialize_tuple(3, Visitor)
    }
}

/// How far an address reaches, from the machine itself to everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This machine only.
    Loopback,
    /// The same link or private network.
    OnLink,
    /// Everywhere.
    Global,
    /// Nowhere: unspecified, multicast, documentation, reserved.
    Nowhere,
}

impl Scope {
    /// The scope of an address, after the IANA special-purpose registries
    /// (RFC 6890 and its updates).
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(v4) => Self::of_v4(v4),
                None => Self::of_v6(ip),
            },
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        match (a, b, c) {
            (127, ..) => Self::Loopback,
            // 100.64/10 is a carrier's own network: its customers may reach each other.
            (10, ..) | (192, 168, _) | (169, 254, _) => Self::OnLink,
            (172, 16..=31, _) | (100, 64..=127, _) => Self::OnLink,
            (0, ..)
            | (192, 0, 0)
            | (192, 0, 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224.., ..) => Self::Nowhere,
            _ => Self::Global,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let segments = ip.segments();
        match segments[0] {
            _ if ip.is_loopback() => Self::Loopback,
            // Unique local (fc00::/7) and link local (fe80::/10).
            0xfc00..=0xfdff | 0xfe80..=0xfebf => Self::OnLink,
            // Documentation (2001:db8::/32).
            0x2001 if segments[1] == 0x0db8 => Self::Nowhere,
            // Global unicast is 2000::/3.
            0x2000..=0x3fff => Self::Global,
            _ => Self::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_text_and_wire() {
        for text in ["8.8.8.8:30000/udp", "[2a01:4f8::1]:25565/tcp"] {
            let address: JoinAddress = text.parse().expect("an address");
            assert_eq!(address.to_string(), text);
            let bytes = crate::cbor::encode(&address);
            assert_eq!(crate::cbor::decode::<JoinAddress>(&bytes).expect("own bytes"), address);
        }
    }

    #[test]
    fn other_texts_and_bytes_are_refused() {
        for text in [
            "",
            "8.8.8.8:1",
            "8.8.8.8/udp",
            "8.8.8.8:0/udp",
            "host:1/udp",
            "8.8.8.8:1/ip",
            "[::ffff:8.8.8.8]:1/udp",
            "[fe80::1%3]:1/udp",
        ] {
            assert_eq!(text.parse::<JoinAddress>(), Err(AddressError), "{text}");
        }
        let mapped = (IpBytes("::ffff:8.8.8.8".parse().expect("an address")), 1_u16, 0_u8);
        assert!(crate::cbor::decode::<JoinAddress>(&crate::cbor::encode(&mapped)).is_err());
        // Port 0, an unknown transport, an element too many.
        for bytes in [
            &[0x83, 0x44, 8, 8, 8, 8, 0, 0][..],
            &[0x83, 0x44, 8, 8, 8, 8, 1, 2],
            &[0x84, 0x44, 8, 8, 8, 8, 1, 0, 0],
        ] {
            assert!(crate::cbor::decode::<JoinAddress>(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn scopes_follow_the_registries() {
        for (ip, scope) in [
            ("127.0.0.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("10.1.2.3", Scope::OnLink),
            ("100.64.0.1", Scope::OnLink),
            ("172.31.0.1", Scope::OnLink),
            ("172.32.0.1", Scope::Global),
            ("fe80::1", Scope::OnLink),
            ("fd00::1", Scope::OnLink),
            ("8.8.8.8", Scope::Global),
            ("2a01:4f8::1", Scope::Global),
            ("203.0.113.7", Scope::Nowhere),
            ("2001:db8::1", Scope::Nowhere),
            ("0.0.0.0", Scope::Nowhere),
            ("::", Scope::Nowhere),
            ("255.255.255.255", Scope::Nowhere),
            ("ff02::1", Scope::Nowhere),
            ("::ffff:192.168.0.1", Scope::OnLink),
        ] {
            assert_eq!(Scope::of(ip.parse().expect("an address")), scope, "{ip}");
        }
    }
}
