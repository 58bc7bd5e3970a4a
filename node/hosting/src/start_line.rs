//! The start line of a game: split into words without a shell, and filled in.
//!
//! Words are split first and placeholders replaced afterwards, so that a folder
//! with a space or a name with a quote can never become two words or a command.

use std::collections::BTreeMap;
use std::path::Path;

use thiserror::Error;

/// Words of one start line: generous for any game, small for a store.
pub const WORDS_MAX: usize = 256;

/// Bytes of one start line.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// A start line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExecError {
    /// Nothing was given.
    #[error("the start line is empty: give the program and its arguments")]
    Empty,
    /// A quotation mark without its partner.
    #[error(
        "the {quote} at character {at} of the start line is never closed: add the closing {quote}{}",
        if cfg!(windows) { "" } else { " or write a backslash before it" }
    )]
    Unbalanced {
        /// The mark.
        quote: char,
        /// Its place, counted from 1.
        at: usize,
    },
    /// The line ends in the middle of an escape.
    #[error("the start line ends with a lone backslash: remove it or double it")]
    LoneBackslash,
    /// `{something}` that the hosting does not fill in.
    #[error(
        "the start line has the unknown placeholder {{{name}}}: known are {{data}}, {{name}}, {{slots}} and {known}"
    )]
    UnknownPlaceholder {
        /// What was between the braces.
        name: String,
        /// The port placeholders that can be used here.
        known: String,
    },
    /// A value that the definition lacks.
    #[error("the start line uses {{slots}}, but the server has no number of slots: set it")]
    NoSlots,
    /// Too long or too many words.
    #[error(
        "the start line is too long: keep it under {LINE_BYTES_MAX} bytes and {WORDS_MAX} words"
    )]
    TooLong,
    /// A character that no program can be given.
    #[error("the start line contains a NUL character: remove it")]
    Nul,
}

/// Splits a start line into words and checks its placeholders.
///
/// `'…'` is literal; in `"…"` and outside quotes a backslash takes the next
/// character as it is. On Windows a backslash is literal unless a `"` follows.
///
/// # Errors
/// Names what is wrong, where, and what to do.
pub fn parse_exec(line: &str) -> Result<Vec<String>, ExecError> {
    let words = split(line, if cfg!(windows) { Backslash::Path } else { Backslash::Escape })?;
    for word in &words {
        fill(word, &|name| match name {
            "data" | "name" | "slots" => Ok(String::new()),
            _ if name.strip_prefix("port.").is_some_and(|port| !port.is_empty()) => {
                Ok(String::new())
            }
            _ => Err(unknown(name, "{port.NAME}".into())),
        })?;
    }
    Ok(words)
}

fn unknown(name: &str, known: String) -> ExecError {
    ExecError::UnknownPlaceholder { name: name.chars().take(40).collect(), known }
}

/// What a backslash means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    /// Takes the next character as it is.
    Escape,
    /// Separates folders, unless before a `"`.
    Path,
}

fn split(line: &str, backslash: Backslash) -> Result<Vec<String>, ExecError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(ExecError::TooLong);
    }
    if line.contains('\0') {
        return Err(ExecError::Nul);
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut open: Option<(char, usize)> = None;
    let mut chars = line.chars().enumerate().peekable();
    while let Some((at, char)) = chars.next() {
        match (open, char) {
            (Some((quote, _)), _) if char == quote => open = None,
            (Some(('\'', _)), _) => word.get_or_insert_default().push(char),
            (_, '\\') => {
                let word = word.get_or_insert_default();
                let next = chars.peek().map(|(_, next)| *next);
                match backslash {
                    Backslash::Path if next != Some('"') => word.push('\\'),
                    _ => {
                        word.push(next.ok_or(ExecError::LoneBackslash)?);
                        chars.next();
                    }
                }
            }
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                open = Some((char, at + 1));
            }
            (None, _) if char.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    if let Some((quote, at)) = open {
        return Err(ExecError::Unbalanced { quote, at });
    }
    words.extend(word);
    if words.first().is_none_or(String::is_empty) {
        return Err(ExecError::Empty);
    }
    if words.len() > WORDS_MAX {
        return Err(ExecError::TooLong);
    }
    Ok(words)
}

/// Replaces every `{name}`. A brace that no name follows stays as it is, so
/// that JSON in an argument survives.
fn fill(
    word: &str,
    value: &dyn Fn(&str) -> Result<String, ExecError>,
) -> Result<String, ExecError> {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        match from.find('}').map(|close| (&from[1..close], &from[close + 1..])) {
            Some((name, after)) if is_name(name) => {
                out.push_str(&value(name)?);
                rest = after;
            }
            _ => {
                out.push('{');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-'))
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(crate) data: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) slots: Option<u16>,
    pub(crate) ports: &'a BTreeMap<String, u16>,
}

/// The words with every placeholder replaced.
pub(crate) fn substitute(words: &[String], values: Values<'_>) -> Result<Vec<String>, ExecError> {
    let value = |name: &str| match name {
        "data" => Ok(values.data.to_string_lossy().into_owned()),
        "name" => Ok(values.name.to_owned()),
        "slots" => values.slots.map(|slots| slots.to_string()).ok_or(ExecError::NoSlots),
        _ => name
            .strip_prefix("port.")
            .and_then(|port| values.ports.get(port))
            .map(u16::to_string)
            .ok_or_else(|| {
                let known = values.ports.keys().map(|port| format!("{{port.{port}}}"));
                let known = known.collect::<Vec<_>>().join(", ");
                unknown(
                    name,
                    if known.is_empty() { "no port, for none is declared".into() } else { known },
                )
            }),
    };
    words.iter().map(|word| fill(word, &value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(line: &str) -> Result<Vec<String>, ExecError> {
        split(line, Backslash::Escape)
    }

    #[test]
    fn words_are_split_as_a_person_means_them() {
        for (line, words) in [
            ("a b  c", vec!["a", "b", "c"]),
            ("a 'b c' \"d e\"", vec!["a", "b c", "d e"]),
            ("a '' \"\"", vec!["a", "", ""]),
            (r"a b\ c", vec!["a", "b c"]),
            (r#"a "b \" c""#, vec!["a", r#"b " c"#]),
            (r"a 'b\c'", vec!["a", r"b\c"]),
            ("a b'c'd", vec!["a", "bcd"]),
            ("\ta\n", vec!["a"]),
            ("a $HOME `b` | c", vec!["a", "$HOME", "`b`", "|", "c"]),
        ] {
            assert_eq!(unix(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn windows_paths_survive() {
        for (line, words) in [
            (r"C:\games\a.exe -x", vec![r"C:\games\a.exe", "-x"]),
            (r#""C:\my games\a.exe" b"#, vec![r"C:\my games\a.exe", "b"]),
            (r#"a \"b"#, vec!["a", "\"b"]),
            (r"a \\share\b\", vec!["a", r"\\share\b\"]),
        ] {
            assert_eq!(split(line, Backslash::Path).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_split_is_explained() {
        assert_eq!(unix("a \"b c"), Err(ExecError::Unbalanced { quote: '"', at: 3 }));
        assert_eq!(unix("a it's"), Err(ExecError::Unbalanced { quote: '\'', at: 5 }));
        assert_eq!(unix("a \\"), Err(ExecError::LoneBackslash));
        assert_eq!(unix("  "), Err(ExecError::Empty));
        assert_eq!(unix("''"), Err(ExecError::Empty));
        assert_eq!(unix("a\0"), Err(ExecError::Nul));
        assert_eq!(unix(&"a ".repeat(WORDS_MAX + 1)), Err(ExecError::TooLong));
    }

    #[test]
    fn placeholders_are_known_or_refused() {
        assert!(parse_exec("a {data} {name} {slots} {port.game} {} {\"x\":1}").is_ok());
        let error = parse_exec("a {prot.game}").unwrap_err().to_string();
        assert!(error.contains("{prot.game}") && error.contains("{port.NAME}"), "{error}");
    }

    #[test]
    fn values_never_make_new_words() {
        let ports = BTreeMap::from([("game".to_owned(), 30_000)]);
        let values =
            Values { data: Path::new("/a b/c"), name: "x; rm {data}", slots: None, ports: &ports };
        let words = unix("g --w={data}/w {name} {port.game}").unwrap();
        assert_eq!(
            substitute(&words, values).unwrap(),
            ["g", "--w=/a b/c/w", "x; rm {data}", "30000"]
        );
        let error = substitute(&["{port.query}".to_owned()], values).unwrap_err().to_string();
        assert!(error.contains("{port.game}"), "{error}");
        assert_eq!(substitute(&["{slots}".to_owned()], values), Err(ExecError::NoSlots));
    }
}
