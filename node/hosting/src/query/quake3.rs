//! Quake 3 `getstatus`: a line of `\key\value`, then a line for each player.

use std::io;
use std::net::SocketAddr;

use super::datagram::Asker;
use super::{Answer, answer};

const QUESTION: &[u8] = b"\xff\xff\xff\xffgetstatus\n";
const HEAD: &[u8] = b"\xff\xff\xff\xffstatusResponse\n";

/// Asks a server. The caller sets the deadline.
pub(super) async fn ask(address: SocketAddr) -> io::Result<Option<Answer>> {
    Ok(parse(Asker::new(address).await?.ask(QUESTION).await?))
}

fn parse(datagram: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(datagram.strip_prefix(HEAD)?);
    let mut lines = text.lines();
    let words: Vec<&str> = lines.next()?.trim_start_matches('\\').split('\\').collect();
    let slots = words.chunks_exact(2).find_map(|pair| {
        let named = ["sv_maxclients", "maxclients"].contains(&pair[0].to_lowercase().as_str());
        named.then(|| pair[1].trim().parse().ok())?
    })?;
    // Score, ping and a name in quotes; what ends a datagram is none of these.
    let players =
        lines.filter(|line| line.starts_with(|char: char| char.is_ascii_digit() || char == '-'));
    Some(answer(players.count().try_into().ok()?, slots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_are_counted_and_hostile_bytes_refused() {
        let text = b"\xff\xff\xff\xffstatusResponse\n\\sv_hostname\\x\\sv_maxclients\\12\\mapname\\q3dm1\n3 50 \"ann\"\n-1 0 \"bob\"\n\0";
        assert_eq!(parse(text), Some(answer(2, 12)));
        for bytes in [&b""[..], HEAD, b"\xff\xff\xff\xffprint\n\\sv_maxclients\\1\n"] {
            assert_eq!(parse(bytes), None);
        }
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let bytes: Vec<u8> = (0..rng.usize(..80)).map(|_| rng.u8(..)).collect();
            let _ = parse(&[HEAD, &bytes].concat());
        }
    }
}
