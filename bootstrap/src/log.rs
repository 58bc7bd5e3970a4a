//! Logs on standard error: as lines or as JSON, and without anybody's address.
//!
//! What is written is looked through as bytes, after it was put together: so no
//! library, and no level of detail, gets an address past it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// What is logged unless `HOMEHOST_LOG` says otherwise.
const LOG_DEFAULT: &str = "error,homehost=info";

/// What stands in place of an address.
const REDACTED: &str = "<ip>";

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What becomes of IP addresses in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InLogs {
    /// They are replaced.
    Redacted,
    /// They are written: the operator asked for it.
    Written,
}

/// Starts logging, once for the process.
pub(crate) fn start(format: LogFormat, addresses: InLogs) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOMEHOST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Redacting { out: io::stderr(), addresses });
    // A program that contains this one may have set up its own.
    let _ = match format {
        LogFormat::Text => {
            builder.with_ansi(homehost_runtime::terminal::stderr_is_terminal()).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
}

/// Takes whole lines, as tracing writes them, and passes them on.
struct Redacting<W> {
    out: W,
    addresses: InLogs,
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.addresses {
            InLogs::Written => self.out.write_all(line)?,
            InLogs::Redacted => self.out.write_all(&redacted(line))?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A line without IP addresses.
fn redacted(line: &[u8]) -> Vec<u8> {
    let (mut clean, mut rest) = (Vec::with_capacity(line.len()), line);
    while let Some(first) = rest.first() {
        let taken = match first {
            // Colours of a terminal: they end in a letter that is no part of a word.
            0x1b => 1 + rest.iter().skip(1).take_while(|b| !b.is_ascii_alphabetic()).count() + 1,
            // The letter after it is no part of a word either.
            b'\\' => 2,
            byte if !is_of_word(*byte) => 1,
            _ => {
                let length = rest.iter().take_while(|byte| is_of_word(**byte)).count();
                let word = &rest[..length];
                // Words are of ASCII, so this is one.
                clean_word(std::str::from_utf8(word).unwrap_or_default(), &mut clean);
                rest = &rest[length..];
                continue;
            }
        };
        let taken = taken.min(rest.len());
        clean.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    clean
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'_')
}

/// Writes a word, or what is left of it without an address.
fn clean_word(word: &str, clean: &mut Vec<u8>) {
    // The end of a sentence, or what announces the next word.
    let bare = word.trim_end_matches('.');
    let bare = if bare.ends_with("::") { bare } else { bare.trim_end_matches(':') };
    let starts = std::iter::once(0).chain(bare.match_indices(':').map(|(at, _)| at + 1));
    for start in starts {
        let (before, rest) = bare.split_at(start);
        let Some(length) = address_at(rest) else { continue };
        clean.extend_from_slice(before.as_bytes());
        clean.extend_from_slice(REDACTED.as_bytes());
        return clean_word(&word[start + length..], clean);
    }
    clean.extend_from_slice(word.as_bytes());
}

/// How many bytes of an address a text begins with, if it is one, alone or with
/// a port or something else behind a colon.
fn address_at(text: &str) -> Option<usize> {
    if text.len() > 2 && text.parse::<IpAddr>().is_ok() {
        return Some(text.len());
    }
    let (first, _) = text.split_once(':')?;
    let v4 = text.parse::<SocketAddrV4>().is_ok() || first.parse::<Ipv4Addr>().is_ok();
    v4.then_some(first.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(line: &str) -> String {
        String::from_utf8(redacted(line.as_bytes())).unwrap()
    }

    #[test]
    fn addresses_are_gone_wherever_they_stand() {
        for (line, expected) in [
            ("a=/ip4/8.8.8.8/tcp/4001/p2p/12D3 b", "a=/ip4/<ip>/tcp/4001/p2p/12D3 b"),
            ("/ip6/2a01:4f8::1/udp/1/quic-v1", "/ip6/<ip>/udp/1/quic-v1"),
            ("from 8.8.8.8:4001.", "from <ip>:4001."),
            ("from [2a01:4f8::1]:4001,", "from [<ip>]:4001,"),
            ("peer ::1", "peer <ip>"),
            ("peer=::ffff:8.8.8.8:", "peer=<ip>:"),
            ("addr:8.8.8.8 addr:2a01::1 at:8.8.8.8:80:x", "addr:<ip> addr:<ip> at:<ip>:80:x"),
            ("Ip4(8.8.8.8), V6(fe80::1%2)", "Ip4(<ip>), V6(<ip>%2)"),
            ("{\"a\":\"x\\n8.8.8.8\\t\"}", "{\"a\":\"x\\n<ip>\\t\"}"),
            (
                "\u{1b}[3maddr\u{1b}[0m\u{1b}[2m=\u{1b}[0m8.8.8.8",
                "\u{1b}[3maddr\u{1b}[0m\u{1b}[2m=\u{1b}[0m<ip>",
            ),
            ("198.51.100.0/24 is denied", "<ip>/24 is denied"),
            ("8.8.8.8 9.9.9.9\n", "<ip> <ip>\n"),
        ] {
            assert_eq!(clean(line), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for line in [
            "2026-11-24T13:52:44.123456Z  INFO homehost_bootstrap::run: introducing hosts",
            "homehost/0.1.0 (host), libp2p 0.57.1, 12:30:01, 1.5s, 100%",
            "libp2p_swarm::connection: :: : . ä \u{1b}",
            "node=12D3KooWHsTDTjGQPoupTMu5nQzaKzdLF2QqwqG2mBrS5HxKoDHM",
            "",
            "\\",
        ] {
            assert_eq!(clean(line), line);
        }
        assert_eq!(redacted(b"\xff 8.8.8.8 \xc3"), b"\xff <ip> \xc3");
    }

    #[test]
    fn seeded_addresses_never_get_past_it() {
        for seed in 0..3000 {
            let mut random = fastrand(seed);
            let ip: IpAddr = if seed % 2 == 0 {
                Ipv4Addr::from(random() as u32).into()
            } else {
                std::net::Ipv6Addr::from(u128::from(random()) << 64 | u128::from(random())).into()
            };
            let [before, after] = [" ", "/", "=", "(", "\"", ",", "x:", "\u{1b}[0m"]
                .map(|around| around.to_owned())
                .into_iter()
                .cycle()
                .skip(usize::try_from(seed % 8).unwrap())
                .take(2)
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            let line = format!("seen{before}{ip}{}", after.replace("x:", ": "));
            assert!(!clean(&line).contains(&ip.to_string()), "{line}");
        }
    }

    /// Numbers that look random; the same for the same seed.
    fn fastrand(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }
}
