//! Filters of the log: what `tracing` takes, without what is a slip.
//!
//! There, a word that is no level is a part of the program of which all is logged:
//! `debgu` would be taken, and nothing be logged at all.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::with_causes;

/// Longest filter in bytes.
const BYTES_MAX: usize = 1024;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Parts of the program that people name. Others are taken as they are: any crate
/// that is compiled in may log.
const PARTS: [&str; 11] = [
    "homehost",
    "homehost_api",
    "homehost_bootstrap",
    "homehost_dashboard",
    "homehost_directory",
    "homehost_hosting",
    "homehost_mesh",
    "homehost_protocol",
    "homehost_runtime",
    "homehost_store",
    "libp2p",
];

/// A filter without needless white space, which `tracing` would take for a part of
/// a name.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &str) -> Result<String, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    items.iter().try_for_each(|item| check(item))?;
    let filter = items.join(",");
    if filter.is_empty() {
        return Err("it is empty".to_owned());
    }
    EnvFilter::builder().parse(&filter).map_err(|error| with_causes(&error))?;
    Ok(filter)
}

fn check(item: &str) -> Result<(), String> {
    match item.split_once('=') {
        // One of [spans] has a grammar of its own.
        _ if item.contains('[') => Ok(()),
        Some((part, level)) if is_level(level) => check_part(part.trim()),
        Some((_, level)) => Err(no_level(level.trim())),
        None if is_level(item) => Ok(()),
        None if near_level(item).is_some() => Err(no_level(item)),
        None => check_part(item),
    }
}

fn is_level(text: &str) -> bool {
    text.parse::<LevelFilter>().is_ok()
}

fn no_level(text: &str) -> String {
    let shown: String = text.chars().take(80).collect();
    match near_level(text) {
        Some(near) => format!("{shown} is no level; did you mean {near}?"),
        None => format!("{shown} is no level: there are {}", LEVELS.join(", ")),
    }
}

/// The level that was likely meant, as by `warning` or `debgu`.
fn near_level(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let slips = if text.chars().count() > 4 { 2 } else { 1 };
    LEVELS.into_iter().find(|level| {
        text.starts_with(level)
            || (text.len() > 2 && level.starts_with(&text))
            || strsim::damerau_levenshtein(&text, level) <= slips
    })
}

fn check_part(part: &str) -> Result<(), String> {
    let name = part.split("::").next().unwrap_or_default();
    // The beginning of a name stands for all that begin so.
    if PARTS.into_iter().any(|known| known.starts_with(name)) {
        return Ok(());
    }
    let distance = |known: &&str| strsim::damerau_levenshtein(known, name);
    let near = PARTS.into_iter().min_by_key(distance);
    match near.filter(|near| name.starts_with("homehost") || distance(near) <= 2) {
        Some(near) => {
            let shown: String = name.chars().take(80).collect();
            Err(format!("{shown} is no part of the program; did you mean {near}?"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tracing_takes_is_taken() {
        for (text, same) in [
            ("warn,libp2p=error,homehost=info", true),
            ("DEBUG", true),
            ("4", true),
            ("homehost_mesh::actor=trace", true),
            ("homehost_mesh", true),
            ("libp2p_kad=debug,quinn_proto=off", true),
            ("hyper,h2,rustls", true),
            ("warn,homehost[node{id=1}]=debug", true),
            ("warn, homehost=debug ,", false),
        ] {
            let read = read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(read == text, same, "{read}");
        }
        assert_eq!(super::read("warn, homehost=debug ,").unwrap(), "warn,homehost=debug");
    }

    #[test]
    fn a_slip_is_named_with_what_was_meant() {
        for (text, said) in [
            ("debgu", "debgu is no level; did you mean debug?"),
            ("warning", "warning is no level; did you mean warn?"),
            ("warn,homehost=err", "err is no level; did you mean error?"),
            ("homehost=loud", "loud is no level: there are off, error, warn"),
            ("homhost=debug", "homhost is no part of the program; did you mean homehost?"),
            ("homehost_msh::actor=info", "did you mean homehost_mesh?"),
            ("lip2p=debug", "did you mean libp2p?"),
            (" , ", "it is empty"),
            ("homehost[node=debug", "invalid filter directive"),
        ] {
            let why = read(text).expect_err(text);
            assert!(why.contains(said), "{text}: {why}");
        }
        assert!(read(&"a".repeat(2000)).unwrap_err().contains("1024"));
    }
}
