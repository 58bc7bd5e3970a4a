//! Valve's A2S_INFO (developer.valvesoftware.com, "Server queries").
//!
//! Only an answer in one datagram is read. A split or compressed one says itself
//! how much memory it wants, and no honest A2S_INFO needs it.

use std::io;
use std::net::SocketAddr;

use super::datagram::Asker;
use super::{Answer, answer};

const QUESTION: &[u8] = b"\xff\xff\xff\xffTSource Engine Query\0";

/// Head of a datagram that is a whole answer; split ones begin with `fe ff ff ff`.
const WHOLE: [u8; 4] = [0xff; 4];

/// A server may change its challenge between two datagrams, but not for ever.
const CHALLENGES_MAX: usize = 3;

/// A server's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Challenge([u8; 4]),
    Info(Answer),
}

/// Asks a server. The caller sets the deadline.
pub(super) async fn ask(address: SocketAddr) -> io::Result<Option<Answer>> {
    let mut asker = Asker::new(address).await?;
    let mut question = QUESTION.to_vec();
    for _ in 0..=CHALLENGES_MAX {
        match parse(asker.ask(&question).await?) {
            Some(Reply::Info(answer)) => return Ok(Some(answer)),
            Some(Reply::Challenge(challenge)) => {
                question.truncate(QUESTION.len());
                question.extend_from_slice(&challenge);
            }
            None => break,
        }
    }
    Ok(None)
}

fn parse(datagram: &[u8]) -> Option<Reply> {
    let (kind, rest) = datagram.strip_prefix(&WHOLE)?.split_first()?;
    match kind {
        b'A' => Some(Reply::Challenge(*rest.first_chunk()?)),
        b'I' => {
            // After the protocol: name, map, folder and game.
            let mut rest = rest.get(1..)?;
            for _ in 0..4 {
                let end = rest.iter().position(|byte| *byte == 0)?;
                rest = &rest[end + 1..];
            }
            // After the application's number.
            let [players, slots, bots] = *rest.get(2..)?.first_chunk()?;
            Some(Reply::Info(answer(players.saturating_sub(bots).into(), slots.into())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"\xff\xff\xff\xffI\x11name\0map\0folder\0game\0\x0a\x00\x05\x10\x02dl\0\0";

    #[test]
    fn players_are_people_without_bots() {
        assert_eq!(parse(INFO), Some(Reply::Info(answer(3, 16))));
        assert_eq!(
            parse(b"\xff\xff\xff\xffA\x01\x02\x03\x04"),
            Some(Reply::Challenge([1, 2, 3, 4]))
        );
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let needed = INFO.len() - 4;
        for end in 0..needed {
            assert_eq!(parse(&INFO[..end]), None, "{end}");
        }
        // Split, and compressed on top of it: four gigabytes, it says.
        assert_eq!(parse(b"\xfe\xff\xff\xff\x01\x00\x00\x80\x01\x00\xff\xff\xff\xff"), None);
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let mut bytes: Vec<u8> = (0..rng.usize(..80)).map(|_| rng.u8(..)).collect();
            let _ = parse(&bytes);
            bytes.splice(0..0, *b"\xff\xff\xff\xffI");
            let _ = parse(&bytes);
        }
    }

    #[tokio::test]
    async fn a_server_that_always_challenges_is_left() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let asked = tokio::spawn(ask(address));
        let mut datagram = [0; 64];
        let mut count = 0;
        while !asked.is_finished() {
            let heard = tokio::time::timeout(
                std::time::Duration::from_millis(200),
                server.recv_from(&mut datagram),
            );
            let Ok(Ok((_, from))) = heard.await else { continue };
            count += 1;
            server.send_to(b"\xff\xff\xff\xffA\x01\x02\x03\x04", from).await.unwrap();
        }
        assert_eq!((asked.await.unwrap().unwrap(), count), (None, CHALLENGES_MAX + 1));
    }
}
