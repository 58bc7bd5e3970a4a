//! What is printed: tables and colour for a person, plain text for a pipe, JSON
//! for a program.

use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use homehost_api::Receipt;
use homehost_runtime::terminal;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::exit::{self, Failure, failure};

/// Why a write to standard output has failed, the first time.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// How often [`LOST`] is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Colours with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Bad,
    Dim,
    Bold,
}

/// Where and how this process prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
    tables: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = terminal::stdout_is_terminal() && !json;
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { json, terminal, tables: terminal, colour }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person sees it on a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What a camera reads: black on white, whatever colours a terminal has.
    pub(crate) fn black_on_white(&self, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        text.lines().map(|line| format!("\x1b[30;107m{line}\x1b[0m\n")).collect()
    }

    /// One answer: as JSON, or as the text that `text` makes.
    pub(crate) fn show(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(value);
        } else {
            let text = text();
            if !text.is_empty() {
                self.line(text.trim_end());
            }
        }
    }

    /// What a person is told instead of an empty table; a pipe gets nothing.
    pub(crate) fn nothing(&self, text: &str) -> String {
        if self.tables { text.to_owned() } else { String::new() }
    }

    pub(crate) fn json_line(&self, value: &impl Serialize) {
        self.line(&serde_json::to_string(value).unwrap_or_default());
    }

    pub(crate) fn receipt(&self, receipt: &Receipt) {
        self.show(receipt, || receipt.message.clone());
    }

    /// A line on standard output. A failure is remembered; what runs goes on until
    /// it looks at [`Output::reader_gone`].
    pub(crate) fn line(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            // The first one counts.
            let _ = LOST.set(error);
        }
    }

    /// Why an answer did not get to where it should. A reader that has enough, as
    /// in `| head`, is no such case.
    pub(crate) fn lost(&self) -> Option<Failure> {
        LOST.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe).map(unwritten)
    }

    /// Resolves when nobody reads standard output any more, which shows at the
    /// next line.
    pub(crate) async fn reader_gone(&self) {
        while LOST.get().is_none() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A line that the next one replaces; only on a terminal.
    pub(crate) fn progress(&self, text: &str) {
        if self.terminal {
            let mut stdout = io::stdout().lock();
            let _ = write!(stdout, "\r\x1b[K{text}").and_then(|()| stdout.flush());
        }
    }

    /// What is worth knowing beside the answer, which a program reads alone.
    pub(crate) fn hint(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", plain_lines(text));
    }

    pub(crate) fn failure(&self, error: &Failure) {
        if self.json {
            let body = serde_json::json!({ "error": error });
            let _ = writeln!(io::stderr(), "{body}");
        } else {
            let _ = writeln!(io::stderr(), "error: {}", plain_lines(&error.message));
        }
    }

    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => 32,
            Colour::Bad => 31,
            Colour::Dim => 2,
            Colour::Bold => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Tables also where nobody sees a terminal: for what is made to be shown.
    pub(crate) fn always_tables(self) -> Self {
        Self { tables: true, ..self }
    }

    /// A table with a heading; for a pipe, cells with tabs between and no heading.
    pub(crate) fn table(&self, heading: &[&str], rows: &[Vec<Cell>]) -> String {
        if !self.tables {
            let line = |row: &Vec<Cell>| {
                let cells: Vec<&str> = row.iter().map(|cell| cell.text.as_str()).collect();
                cells.join("\t") + "\n"
            };
            return rows.iter().map(line).collect();
        }
        let mut widths: Vec<usize> = heading.iter().map(|text| text.width()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let mut text = String::new();
        let heading: Vec<Cell> = heading.iter().map(|t| Cell::of(*t).colour(Colour::Dim)).collect();
        for row in std::iter::once(&heading).chain(rows) {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(&match cell.colour {
                    Some(colour) => self.paint(colour, &cell.text),
                    None => cell.text.clone(),
                });
                if at + 1 < row.len() {
                    line.push_str(&" ".repeat(width - cell.text.width() + 2));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What is said of an answer that could not be written.
pub(super) fn unwritten(error: &io::Error) -> Failure {
    let text = format!(
        "failed to write to standard output: {error}; what was asked for is done, and its answer \
         is lost"
    );
    failure(exit::of_io(error), text)
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self { text: plain(&text.into()), colour: None }
    }

    pub(crate) fn colour(self, colour: Colour) -> Self {
        Self { colour: Some(colour), ..self }
    }
}

/// A text that shows and does nothing else: what a stranger or a game wrote must
/// not move the cursor of this terminal. Whole escape sequences go, tabs become
/// spaces.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                // A control sequence ends with a letter or one of `@[\]^_\`{|}~`.
                while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                chars.next();
            }
            '\t' => plain.push_str("    "),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Lines of which each is [`plain`]; those after the first are set in, so that no
/// stranger begins one like a sentence of ours.
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n  ")
}

/// `key   value` lines.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(key, _)| key.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value) in fields {
        let mut lines = value.lines().map(plain);
        let first = lines.next().unwrap_or_else(|| "—".into());
        text.push_str(&format!("{key:width$}  {first}\n"));
        for line in lines {
            text.push_str(&format!("{:width$}  {line}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_by_what_shows_and_never_obey_a_stranger() {
        let piped = Output { json: false, terminal: false, tables: false, colour: false };
        let output = piped.always_tables();
        let rows =
            [vec![Cell::of("日本"), Cell::of("1")], vec![Cell::of("a\x1b[2Jb"), Cell::of("—")]];
        let table = output.table(&["NAME", "N"], &rows);
        assert_eq!(table, "NAME  N\n日本  1\nab    —\n");
        assert_eq!(piped.table(&["NAME", "N"], &rows), "日本\t1\nab\t—\n");
    }
}
