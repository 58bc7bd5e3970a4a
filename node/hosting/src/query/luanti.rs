//! Luanti (Minetest) has no query of its own: whether it answers is seen from
//! its connection handshake, who plays from its console.

use std::net::SocketAddr;
use std::time::Duration;

use crate::shim::log::stripped;

/// Protocol id of the game's UDP protocol, first in every datagram.
const PROTOCOL: [u8; 4] = [0x4f, 0x45, 0x74, 0x03];

/// Sender 0 (no number yet), channel 0, type 1 (plain) and nothing in it: what a
/// client opens a connection with.
const OPEN: [u8; 8] = [0x4f, 0x45, 0x74, 0x03, 0, 0, 0, 1];

/// Sender of every datagram of a server.
const SERVER: [u8; 2] = [0, 1];

/// In a reliable control message "your number is": where the number stands, and
/// what stands before it.
const NUMBER_AT: std::ops::Range<usize> = 12..14;
const NUMBER_HEAD: [u8; 2] = [0, 1];

/// Whether a server answers. The connection that this opens is closed at once,
/// or the server would hold a place for it.
pub(super) async fn probe(address: SocketAddr, timeout: Duration) -> bool {
    tokio::time::timeout(timeout, handshake(address)).await.is_ok_and(|answered| answered.is_ok())
}

async fn handshake(address: SocketAddr) -> std::io::Result<()> {
    let socket = super::datagram::connected(address).await?;
    socket.send(&OPEN).await?;
    let mut answer = [0; 64];
    loop {
        let length = socket.recv(&mut answer).await?;
        if let Some(number) = assigned(&answer[..length]) {
            // Control message "disconnect", from the number that we were given.
            let [high, low] = number;
            let [a, b, c, d] = PROTOCOL;
            socket.send(&[a, b, c, d, high, low, 0, 0, 3]).await?;
            return Ok(());
        }
    }
}

/// The number that a server's answer assigns; zero when it answers otherwise.
fn assigned(datagram: &[u8]) -> Option<[u8; 2]> {
    (datagram.get(..4)? == PROTOCOL && datagram.get(4..6)? == SERVER).then_some(())?;
    let number = datagram.get(NUMBER_AT).filter(|_| datagram.get(10..12) == Some(&NUMBER_HEAD[..]));
    Some(number.and_then(|number| number.try_into().ok()).unwrap_or_default())
}

/// Counts players by what the console says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlayersFromLog {
    players: Option<u16>,
}

impl PlayersFromLog {
    /// For a run that is seen from its beginning: nobody is there yet.
    pub(crate) fn fresh() -> Self {
        Self { players: Some(0) }
    }

    /// Players now; `None` until a line has told.
    pub(crate) fn players(self) -> Option<u16> {
        self.players
    }

    /// Takes in a line of the console.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(count) = players_in(&stripped(line)) {
            self.players = Some(count);
        }
    }
}

/// The server's lines on joining and leaving end in a list of who is there then.
/// They begin with a time and a level, which keeps chat, where a player could
/// write such words, apart.
fn players_in(line: &str) -> Option<u16> {
    let (head, said) = line.split_once("ACTION[Server]: ")?;
    // Anything but a time before it is somebody's message.
    head.chars().all(|char| char.is_ascii_digit() || "-: ".contains(char)).then_some(())?;
    if let Some((who, list)) = said.split_once(" joins game. List of players: ") {
        is_who(who).then(|| count(list))
    } else if let Some((who, list)) = said.split_once(" leaves game. List of players: ") {
        is_who(who).then(|| count(list))
    } else {
        None
    }
}

/// `name`, or `name [address]`; chat begins with `CHAT:`.
fn is_who(text: &str) -> bool {
    let mut words = text.split(' ');
    words.next().is_some_and(is_name)
        && words.next().is_none_or(|address| address.starts_with('['))
        && words.next().is_none()
}

/// Names have letters, digits, dashes and underscores only.
fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn count(list: &str) -> u16 {
    list.split_ascii_whitespace().count().try_into().unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UdpSocket;

    #[test]
    fn joins_and_leaves_are_counted() {
        for (line, players) in [
            (
                "2026-11-20 11:10:31: ACTION[Server]: ann [127.0.0.1] joins game. List of players: ann",
                Some(1),
            ),
            (
                "2026-11-20 11:10:32: ACTION[Server]: ann [::1] joins game. List of players: bob ann",
                Some(2),
            ),
            ("2026-11-20 11:10:33: ACTION[Server]: ann leaves game. List of players: bob", Some(1)),
            ("2026-11-20 11:10:34: ACTION[Server]: bob leaves game. List of players: ", Some(0)),
            (
                "\u{1b}[36m2026-11-20 11:10:34: ACTION[Server]: a_b joins game. List of players: a_b x-y",
                Some(2),
            ),
            (
                "2026-11-20 11:10:35: ACTION[Server]: CHAT: <eve> x joins game. List of players: 1 2 3",
                None,
            ),
            (
                "2026-11-20 11:10:35: ACTION[Server]: CHAT: eve joins game. List of players: 1 2 3",
                None,
            ),
            (
                "2026-11-20 11:10:35: [Server]: ACTION[Server]: x joins game. List of players: 1 2",
                None,
            ),
            ("2026-11-20 11:10:31: ACTION[Main]: World at [/w]", None),
            ("", None),
        ] {
            let mut counter = PlayersFromLog::default();
            counter.line(line);
            assert_eq!(counter.players(), players, "{line}");
        }
    }

    #[test]
    fn unknown_is_not_zero() {
        let mut players = PlayersFromLog::default();
        players.line("2026-11-20 11:10:31: ACTION[Main]: World at [/w]");
        assert_eq!(players.players(), None);
        assert_eq!(PlayersFromLog::fresh().players(), Some(0));
    }

    #[test]
    fn answers_are_recognised() {
        // From a server of version 5.6.1.
        let answer = [0x4f, 0x45, 0x74, 0x03, 0, 1, 0, 3, 0xff, 0xdc, 0, 1, 0, 2];
        assert_eq!(assigned(&answer), Some([0, 2]));
        assert_eq!(assigned(&answer[..8]), Some([0, 0]));
        assert_eq!(assigned(b"OEt\x03\0\x02\0"), None);
        assert_eq!(assigned(b""), None);
    }

    #[tokio::test]
    async fn a_probe_closes_what_it_opened() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let probe = tokio::spawn(probe(address, Duration::from_secs(5)));
        let mut datagram = [0; 64];
        let (length, from) = server.recv_from(&mut datagram).await.unwrap();
        assert_eq!(datagram[..length], OPEN);
        let answer = [0x4f, 0x45, 0x74, 0x03, 0, 1, 0, 3, 0xff, 0xdc, 0, 1, 0, 2];
        server.send_to(&answer, from).await.unwrap();
        let goodbye = server.recv_from(&mut datagram);
        let (length, _) =
            tokio::time::timeout(Duration::from_secs(5), goodbye).await.unwrap().unwrap();
        assert_eq!(datagram[..length], [0x4f, 0x45, 0x74, 0x03, 0, 2, 0, 0, 3]);
        assert!(probe.await.unwrap());
    }
}
