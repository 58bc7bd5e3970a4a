//! A2S as a server speaks it: three questions, each behind a challenge.
//!
//! Without a challenge that belongs to the asking address, no answer is larger
//! than the question: nobody can use this to flood another.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Instant;

const HEAD: [u8; 4] = [0xff; 4];
const INFO: &[u8] = b"TSource Engine Query\0";

/// The longest answer; more would be split on its way.
const ANSWER_BYTES_MAX: usize = 1_400;

/// One name in the list.
#[derive(Clone, Debug)]
pub(super) struct Player {
    pub(super) name: String,
    pub(super) since: Instant,
}

/// What there is to tell.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) name: String,
    pub(super) slots: u8,
    pub(super) port: u16,
    pub(super) players: Vec<Player>,
}

/// Challenges that are computed, not stored: a keyed hash of the address.
#[derive(Debug, Default)]
pub(super) struct Challenges(RandomState);

impl Challenges {
    fn of(&self, address: SocketAddr) -> [u8; 4] {
        let hash = self.0.hash_one(address).to_le_bytes();
        // All ones asks for a challenge, so it cannot be one.
        [hash[0], hash[1], hash[2], hash[3] & 0x7f]
    }
}

/// The answer to a datagram, if it deserves one.
pub(super) fn answer(
    request: &[u8],
    from: SocketAddr,
    challenges: &Challenges,
    world: &World,
) -> Option<Vec<u8>> {
    let question = request.strip_prefix(&HEAD)?;
    let challenge = challenges.of(from);
    let (kind, proof) = match question.strip_prefix(INFO) {
        Some(proof) => (b'T', proof),
        None => (*question.first()?, &question[1..]),
    };
    if !matches!(kind, b'T' | b'U' | b'V') {
        return None;
    }
    let mut out = HEAD.to_vec();
    if proof == challenge {
        match kind {
            b'T' => info(&mut out, world),
            b'U' => players(&mut out, world),
            _ => rules(&mut out),
        }
        out.truncate(ANSWER_BYTES_MAX);
    } else {
        out.push(b'A');
        out.extend_from_slice(&challenge);
        if out.len() > request.len() {
            return None;
        }
    }
    Some(out)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0).take(200));
    out.push(0);
}

fn info(out: &mut Vec<u8>, world: &World) {
    out.extend_from_slice(b"I\x11");
    for part in [world.name.as_str(), "meadow", "stand-in", "HomeHost stand-in"] {
        text(out, part);
    }
    out.extend_from_slice(&[0, 0, count(world), world.slots, 0, b'd']);
    out.push(if cfg!(windows) { b'w' } else { b'l' });
    out.extend_from_slice(&[0, 0]);
    text(out, env!("CARGO_PKG_VERSION"));
    // One extra field follows: the port.
    out.push(0x80);
    out.extend_from_slice(&world.port.to_le_bytes());
}

fn players(out: &mut Vec<u8>, world: &World) {
    out.extend_from_slice(&[b'D', count(world)]);
    for player in world.players.iter().take(usize::from(u8::MAX)) {
        out.push(0);
        text(out, &player.name);
        out.extend_from_slice(&0_i32.to_le_bytes());
        out.extend_from_slice(&player.since.elapsed().as_secs_f32().to_le_bytes());
    }
}

fn rules(out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'E', 1, 0]);
    text(out, "stand_in");
    text(out, "1");
}

fn count(world: &World) -> u8 {
    world.players.len().try_into().unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let players = vec![Player { name: "ann".into(), since: Instant::now() }; 40];
        World { name: "a".into(), slots: 50, port: 7, players }
    }

    fn from(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn nothing_is_amplified_without_a_challenge() {
        let (world, challenges) = (world(), Challenges::default());
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let mut request = HEAD.to_vec();
            match rng.u8(..4) {
                0 => request.extend_from_slice(INFO),
                1 => request.push(*rng.choice(b"TUVWi").unwrap()),
                _ => {}
            }
            request.extend((0..rng.usize(..12)).map(|_| rng.u8(..)));
            if let Some(answer) = answer(&request, from(1), &challenges, &world) {
                assert!(answer.len() <= request.len(), "{request:?}");
            }
        }
    }

    #[test]
    fn a_challenge_belongs_to_one_address() {
        let (world, challenges) = (world(), Challenges::default());
        let ask = [&HEAD[..], b"U\xff\xff\xff\xff"].concat();
        let challenge = answer(&ask, from(1), &challenges, &world).unwrap();
        let ask = [&HEAD[..], b"U", &challenge[5..]].concat();
        assert_eq!(answer(&ask, from(1), &challenges, &world).unwrap()[4], b'D');
        assert_eq!(answer(&ask, from(2), &challenges, &world).unwrap()[4], b'A');
    }

    #[test]
    fn truncated_questions_are_survived() {
        let ask = [&HEAD[..], INFO, &[1, 2, 3, 4]].concat();
        for end in 0..ask.len() {
            let _ = answer(&ask[..end], from(1), &Challenges::default(), &world());
        }
    }
}
