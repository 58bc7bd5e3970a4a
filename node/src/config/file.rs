//! `config.toml` as it is written: unknown keys refused, lines named, and
//! changed without touching what else stands in it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use homehost_api::ErrorKind;
use homehost_mesh::Multiaddr;
use homehost_protocol::NetworkName;
use homehost_runtime::files::{Access, make_folder, replace};
use toml_edit::{Document, DocumentMut, Item, Table, TableLike};

use super::{Given, Layer, Origin, Problem, SETTINGS, Setting, Value, nearest, setting};
use crate::exit::{self, Failure, failure};

/// Longest file in bytes: every setting at its longest fits many times.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The text of a file; `None` when there is no such file.
///
/// # Errors
/// One sentence.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Failure> {
    let refused = |error: io::Error| {
        let text = format!("failed to read {}: {error}; {}", path.display(), exit::next(&error));
        failure(exit::of_io(&error), text)
    };
    let nothing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::metadata(path) {
        Err(error) if nothing(&error) => return dangling(path).map_or(Ok(None), Err),
        // To open a FIFO waits for whoever writes to it, to read a device may not end.
        Ok(of) if !of.is_file() => {
            let what = if of.is_dir() { "a folder" } else { "a FIFO, a device or the like" };
            let text = format!("{} is {what}: settings are read from a plain file", path.display());
            return Err(failure(ErrorKind::Usage, text));
        }
        Err(error) => return Err(refused(error)),
        Ok(_) => {}
    }
    let file = match File::open(path) {
        Err(error) if nothing(&error) => return Ok(None),
        opened => opened.map_err(refused)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("{} has more than {FILE_BYTES_MAX} bytes: shorten it", path.display());
        return Err(failure(ErrorKind::Usage, text));
    }
    // What Windows editors put in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let text = format!("{}:{line}: this is not UTF-8: save it as such", path.display());
            Err(failure(ErrorKind::Usage, text))
        }
    }
}

/// Why a name that leads nowhere is more than no file.
fn dangling(path: &Path) -> Option<Failure> {
    let target = fs::read_link(path).ok()?;
    let text = format!(
        "{} is a link to {}, which is not there: put the file there, or remove the link",
        path.display(),
        target.display()
    );
    Some(failure(ErrorKind::NotFound, text))
}

/// What a text says; `name` is how the file is called in messages.
///
/// # Errors
/// All that cannot be taken, in the order of the lines.
pub(crate) fn parse(name: &str, text: &str) -> Result<Layer, Vec<Problem>> {
    let document = Document::parse(text).map_err(|error| {
        let line = line_of(text, error.span());
        let what = error.message().trim().replace('\n', "; ");
        vec![Problem { place: format!("{name}:{line}"), text: format!("this is not TOML: {what}") }]
    })?;
    let mut reader = Reader { name, text, layer: Layer::new(), problems: Vec::new() };
    reader.section("", document.as_table());
    reader.problems.sort_by_key(|(line, _)| *line);
    match reader.problems.is_empty() {
        true => Ok(reader.layer),
        false => Err(reader.problems.into_iter().map(|(_, problem)| problem).collect()),
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    layer: Layer,
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn section(&mut self, prefix: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let key = format!("{prefix}{name}");
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let line = line_of(self.text, span);
            if let Some(setting) = setting(&key) {
                self.setting(setting, item, line);
                continue;
            }
            let inner = format!("{key}.");
            match item.as_table_like() {
                // What stands in an unknown section is told one by one.
                Some(section) if !section.is_empty() || is_section(&inner) => {
                    self.section(&inner, section);
                }
                _ if is_section(&inner) => {
                    let text = format!("{key} is a section: expected [{key}] on a line of its own");
                    self.problem(line, text);
                }
                _ => self.problem(line, unknown(&key)),
            }
        }
    }

    fn setting(&mut self, setting: &'static Setting, item: &Item, line: usize) {
        match setting.kind.read_item(item) {
            // As "mesh.mdns", in quotes, and mdns of [mesh].
            Ok(_) if self.layer.contains_key(setting.key) => {
                self.problem(line, format!("{} is set twice: remove one of them", setting.key));
            }
            Ok(value) => {
                let origin = Origin::File(self.name.to_owned(), line);
                self.layer.insert(setting.key, Given { value, origin });
            }
            Err(text) => self.problem(line, format!("{}: {text}", setting.key)),
        }
    }

    fn problem(&mut self, line: usize, text: String) {
        self.problems.push((line, Problem { place: format!("{}:{line}", self.name), text }));
    }
}

fn is_section(prefix: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.starts_with(prefix))
}

/// What is said of a key that nobody knows.
pub(crate) fn unknown(key: &str) -> String {
    let shown: String = key.chars().take(80).collect();
    match nearest(key) {
        Some(near) => format!("{shown} is not a setting; did you mean {near}?"),
        None => format!("{shown} is not a setting; `homehost config show` lists them all"),
    }
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let end = span.map_or(0, |span| span.start).min(text.len());
    1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
}

/// The name of a file in messages.
pub(crate) fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into())
}

/// What a file says; nothing when it is not there and need not be.
///
/// # Errors
/// One sentence.
pub(crate) fn load(path: &Path, must_exist: bool) -> Result<Layer, Failure> {
    layer(path, read(path)?.as_deref(), must_exist)
}

/// [`load`] of a text that was read.
///
/// # Errors
/// One sentence.
pub(crate) fn layer(path: &Path, text: Option<&str>, must_exist: bool) -> Result<Layer, Failure> {
    match text {
        Some(text) => parse(&name(path), text).map_err(|problems| super::refused(&problems)),
        None if must_exist => {
            let text = format!(
                "there is no {}: `homehost config show --docs` prints one to begin with",
                path.display()
            );
            Err(failure(ErrorKind::NotFound, text))
        }
        None => Ok(Layer::new()),
    }
}

/// The text with one value changed; everything else stays as it is.
///
/// # Errors
/// When the text cannot be taken as it is.
pub(crate) fn with(
    name: &str,
    text: &str,
    key: &str,
    value: &Value,
) -> Result<String, Vec<Problem>> {
    // What is broken is mended by its owner, not written around.
    parse(name, text)?;
    let syntax = |error: toml_edit::TomlError| {
        vec![Problem { place: name.to_owned(), text: error.message().to_owned() }]
    };
    // What is edited has line ends of one kind only.
    let windows =
        text.contains("\r\n") && text.matches('\n').count() == text.matches("\r\n").count();
    let text = if windows { text.replace("\r\n", "\n") } else { text.to_owned() };
    let mut document = text.parse::<DocumentMut>().map_err(syntax)?;
    let mut parts = found(document.as_table(), key)
        .unwrap_or_else(|| key.split('.').map(str::to_owned).collect());
    let mut table: &mut dyn TableLike = document.as_table_mut();
    let last = parts.pop().unwrap_or_default();
    for part in &parts {
        let section = table.entry(part).or_insert_with(|| Item::Table(Table::new()));
        table = section.as_table_like_mut().ok_or_else(|| {
            vec![Problem { place: name.to_owned(), text: format!("{part} is not a section") }]
        })?;
    }
    let mut new = value.to_toml();
    match table.get_mut(&last) {
        Some(item) => {
            // The comment at the end of its line stays.
            if let Some(old) = item.as_value() {
                *new.decor_mut() = old.decor().clone();
            }
            *item = Item::Value(new);
        }
        None => drop(table.insert(&last, Item::Value(new))),
    }
    let mut text = document.to_string();
    if windows {
        text = text.replace('\n', "\r\n");
    }
    // Whatever happened, nothing is written that does not read.
    parse(name, &text)?;
    Ok(text)
}

/// Where a setting stands: in quotes, a name may have dots in it.
fn found(table: &dyn TableLike, key: &str) -> Option<Vec<String>> {
    if table.contains_key(key) {
        return Some(vec![key.to_owned()]);
    }
    key.match_indices('.').find_map(|(at, _)| {
        let (section, rest) = (&key[..at], &key[at + 1..]);
        let mut path = found(table.get(section)?.as_table_like()?, rest)?;
        path.insert(0, section.to_owned());
        Some(path)
    })
}

/// Puts a text in the place of a file, whole or not at all.
///
/// # Errors
/// One sentence; the old file is then as it was.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    // Whoever keeps it elsewhere and has a link here keeps it there.
    let target: PathBuf = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|folder| !folder.is_dir());
    let made = folder.map_or(Ok(()), |folder| make_folder(folder, Access::Passage));
    made.and_then(|()| replace(&target, text.as_bytes())).map_err(|error| {
        let text = format!("failed to write {}: {error}; {}", path.display(), exit::next(&error));
        failure(exit::of_io(&error), text)
    })
}

/// Changes one value of a file.
///
/// # Errors
/// One sentence; the old file is then as it was.
pub(crate) fn set(path: &Path, key: &'static str, value: &Value) -> Result<(), Failure> {
    let text = read(path)?.unwrap_or_default();
    let text =
        with(&name(path), &text, key, value).map_err(|problems| super::refused(&problems))?;
    write(path, &text)
}

/// Writes down where an invitation leads, for later starts: its network, if it has
/// to be said and the file names none, and its addresses, as far as they are
/// missing. Returns what the file says of the network where that is another.
///
/// # Errors
/// One sentence; the old file is then as it was.
pub(crate) fn keep_invitation(
    path: &Path,
    network: Option<&NetworkName>,
    addresses: &[Multiaddr],
) -> Result<Option<Given>, Failure> {
    let before = read(path)?.unwrap_or_default();
    let name = name(path);
    let refused = |problems: Vec<Problem>| super::refused(&problems);
    let config = super::Config::of([parse(&name, &before).map_err(refused)?]);
    let mut text = before.clone();
    let given = config.given(super::NETWORK);
    let network = network.cloned().map(Value::Network);
    if let Some(network) = network.as_ref().filter(|_| given.is_none()) {
        text = with(&name, &text, super::NETWORK, network).map_err(refused)?;
    }
    let mut all = config.bootstrap();
    let known = all.len();
    for address in addresses {
        if !all.contains(address) {
            all.push(address.clone());
        }
    }
    if all.len() > known {
        // The newest are worth more than the oldest, which were replaced by them.
        let over = all.len().saturating_sub(super::settings::ADDRESSES_MAX);
        all.drain(..over);
        text = with(&name, &text, super::BOOTSTRAP, &Value::Addresses(all)).map_err(refused)?;
    }
    if text != before {
        write(path, &text)?;
    }
    Ok(given.filter(|given| network.is_some_and(|of| of != given.value)).cloned())
}
