//! The start line of a game, for a stranger: its options without their values,
//! and what to look for in what the game prints.

use std::path::Path;

use super::redact::{Redactor, homes};

/// Shortest part of a script that is looked for by itself: of shorter ones,
/// nothing would be left of a log.
const PART_MIN: usize = 6;

/// Shortest value of an option that is looked for.
const VALUE_MIN: usize = 3;

/// Shortest number that is looked for, unless its option is one of secrets.
const NUMBER_MIN: usize = 4;

/// Names of options whose values are secret, whatever they look like.
const SECRET_OPTIONS: [&str; 10] =
    ["pass", "pw", "pwd", "secret", "token", "key", "rcon", "pin", "auth", "cred"];

/// Options of one dash and more than a letter. Of any other, what follows the
/// letter may be its value.
const USUAL_OPTIONS: [&str; 21] = [
    "-jar",
    "-server",
    "-client",
    "-port",
    "-game",
    "-map",
    "-world",
    "-name",
    "-config",
    "-log",
    "-logfile",
    "-console",
    "-dedicated",
    "-batchmode",
    "-nographics",
    "-nogui",
    "-maxplayers",
    "-usercon",
    "-password",
    "-public",
    "-savedir",
];

/// A start line without its values.
pub(super) fn shape(exec: &[String]) -> Vec<String> {
    let shape = |(at, word): (usize, &String)| {
        if at == 0 {
            // Whatever slash it was written with.
            return word.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
        }
        let placeholder = word.starts_with('{') && word.ends_with('}') && !word[1..].contains('{');
        match placeholder {
            true => word.clone(),
            false if word.starts_with('-') => option(word),
            false => "<value>".to_owned(),
        }
    };
    exec.iter().enumerate().map(shape).collect()
}

fn option(word: &str) -> String {
    let (name, value) = word.split_at(word.find(['=', ':']).unwrap_or(word.len()));
    if is_option(name) {
        let value = value.get(..1).map(|sign| format!("{sign}<value>"));
        return format!("{name}{}", value.unwrap_or_default());
    }
    match word.chars().nth(1).filter(char::is_ascii_alphabetic) {
        Some(letter) => format!("-{letter}<value>"),
        None => "<value>".to_owned(),
    }
}

/// Whether a word is the name of an option and nothing else.
fn is_option(word: &str) -> bool {
    let letters = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphabetic() || b"-_.".contains(&b))
    };
    match word.strip_prefix("--") {
        Some(name) => letters(name),
        None => {
            let short = word.strip_prefix('-').is_some_and(|name| name.len() == 1 && letters(name));
            short || USUAL_OPTIONS.contains(&word)
        }
    }
}

/// Tells the redactor what a game may print of what it was started with.
pub(super) fn learn(redactor: &mut Redactor, exec: &[String]) {
    for home in exec.iter().flat_map(|word| homes(word)) {
        redactor.name(home, "user");
    }
    let folder = exec.first().and_then(|program| Path::new(program).parent());
    // Not one such as /home, below which other things are.
    if let Some(folder) = folder.filter(|folder| folder.iter().count() > 2) {
        redactor.name(&folder.to_string_lossy(), "folder of a program");
    }
    let mut before = "";
    for word in exec.iter().skip(1) {
        if !word.contains(char::is_whitespace) {
            values(redactor, before, word, VALUE_MIN);
            before = word;
            continue;
        }
        // A sentence, or a script.
        redactor.secret(word);
        let mut before = "";
        for word in word.split_whitespace() {
            let word = word.trim_matches(['\'', '"', ';']);
            values(redactor, before, word, PART_MIN);
            before = word;
        }
    }
}

/// Looks for the values in a word that stands after another.
fn values(redactor: &mut Redactor, before: &str, word: &str, least: usize) {
    let option = match word.starts_with('-') || word.contains('=') {
        true => word,
        false if before.starts_with(['-', '+']) && !before.contains('=') => before,
        false => "",
    };
    let name = option.trim_start_matches(['-', '+']).split(['=', ':']).next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    // A short name may have its value behind it.
    let secret = SECRET_OPTIONS.iter().any(|of| name.contains(of));
    let port = name.ends_with("port");
    let mut look = |value: &str| {
        let length = value.chars().count();
        let number = value.bytes().all(|b| b.is_ascii_digit());
        let wanted = match number {
            _ if value.contains(['{', '}']) => false,
            _ if secret => length >= VALUE_MIN,
            true => length >= NUMBER_MIN.max(least) && !port,
            false => length >= least,
        };
        if wanted && length < PART_MIN {
            redactor.secret_word(value);
        } else if wanted {
            redactor.secret(value);
        }
    };
    if !word.starts_with('-') {
        look(word);
    }
    for part in word.split(['=', ':', ',', ';', '@', '&', '?']) {
        if !part.starts_with('-') {
            look(part);
        } else if !is_option(part) {
            // The value may begin after one letter or two.
            let rest = part.trim_start_matches('-');
            for (at, _) in rest.char_indices().skip(1).take(2) {
                look(&rest[at..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_line_keeps_its_shape_alone() {
        for (word, shown) in [
            ("--port", "--port"),
            ("{port.game}", "{port.game}"),
            ("--pass=hunter2", "--pass=<value>"),
            ("Anna", "<value>"),
            ("x=y", "<value>"),
            ("-phunter2pw", "-p<value>"),
            ("-pw:hunter3", "-p<value>"),
            ("-k=abc12", "-k=<value>"),
            ("--hunter2", "<value>"),
            ("-jar", "-jar"),
            ("-", "<value>"),
            ("-ß", "<value>"),
        ] {
            let exec = ["/home/anna/games/luanti".to_owned(), word.to_owned()];
            assert_eq!(shape(&exec), ["luanti", shown], "{word}");
        }
        assert_eq!(shape(&[r"C:\Users\anna\game.exe".to_owned()]), ["game.exe"]);
    }
}
