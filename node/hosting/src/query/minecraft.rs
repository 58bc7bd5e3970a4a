//! The status of a Minecraft Java server (minecraft.wiki, "Java Edition protocol
//! / Server List Ping"): one packet with JSON in it.

use std::io;
use std::net::SocketAddr;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Answer, answer};

/// The longest packet that is read. The protocol has room for a picture of 64
/// by 64 pixels and a text, which is some 20 KiB at most.
const PACKET_BYTES_MAX: u32 = 64 * 1024;

/// Bytes of the longest number.
const VARINT_BYTES_MAX: u32 = 5;

#[derive(Deserialize)]
struct Status {
    players: Players,
}

#[derive(Deserialize)]
struct Players {
    online: u32,
    max: i64,
}

/// Asks a server. The caller sets the deadline.
pub(super) async fn ask(address: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&question(address.port())).await?;
    read(&mut stream).await
}

/// A handshake that asks for the status, and the request for it.
fn question(port: u16) -> Vec<u8> {
    const HOST: &[u8] = b"localhost";
    // Packet 0, protocol -1: whichever the server speaks.
    let mut handshake = vec![0, 0xff, 0xff, 0xff, 0xff, 0x0f, HOST.len() as u8];
    handshake.extend_from_slice(HOST);
    handshake.extend_from_slice(&port.to_be_bytes());
    handshake.push(1);
    let mut question = vec![handshake.len() as u8];
    question.append(&mut handshake);
    question.extend_from_slice(&[1, 0]);
    question
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let length = varint(from).await?;
    if length > PACKET_BYTES_MAX {
        return Err(bad("the packet is too long"));
    }
    let mut packet = vec![0; length as usize];
    from.read_exact(&mut packet).await?;
    let mut packet = packet.as_slice();
    if varint(&mut packet).await? != 0 {
        return Err(bad("no status came"));
    }
    let length = varint(&mut packet).await? as usize;
    let text = packet.get(..length).ok_or_else(|| bad("the text is cut"))?;
    let status: Status = serde_json::from_slice(text).map_err(|_| bad("no status came"))?;
    // Some servers show a limit below zero for "none".
    let slots = status.players.max.clamp(0, u16::MAX.into());
    Ok(answer(status.players.online, slots.try_into().unwrap_or(u32::MAX)))
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
async fn varint(from: &mut (impl AsyncRead + Unpin)) -> io::Result<u32> {
    let mut number = 0;
    for at in 0..VARINT_BYTES_MAX {
        let byte = from.read_u8().await?;
        number |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the number is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    fn packet(json: &str) -> Vec<u8> {
        let body = [vec![0], number(json.len()), json.as_bytes().to_vec()].concat();
        [number(body.len()), body].concat()
    }

    #[tokio::test]
    async fn a_status_is_read_and_its_truncation_refused() {
        let pad = "x".repeat(300);
        let json =
            format!(r#"{{"description":"{pad}","players":{{"max":20,"online":3,"sample":[]}}}}"#);
        let bytes = packet(&json);
        assert_eq!(read(&mut bytes.as_slice()).await.unwrap(), answer(3, 20));
        for end in 0..bytes.len() {
            assert!(read(&mut &bytes[..end]).await.is_err(), "{end}");
        }
        let unlimited = packet(r#"{"players":{"max":-1,"online":3}}"#);
        assert_eq!(read(&mut unlimited.as_slice()).await.unwrap(), answer(3, 0));
    }

    #[tokio::test]
    async fn hostile_bytes_are_refused() {
        for bytes in [
            &[0xff; 64][..],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[3, 0, 0xff, 0xff],
            &[2, 1, 0],
            &[0],
            &packet("{}"),
            &packet(r#"{"players":{"max":1,"online":-1}}"#),
        ] {
            assert!(read(&mut &*bytes).await.is_err(), "{bytes:?}");
        }
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let bytes: Vec<u8> = (0..rng.usize(..80)).map(|_| rng.u8(..)).collect();
            let _ = read(&mut bytes.as_slice()).await;
        }
    }
}
