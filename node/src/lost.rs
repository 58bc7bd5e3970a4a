//! Servers whose definitions are gone while their files are still there.

use std::fs;
use std::path::Path;

use homehost_store::Ledger;

/// Folders that are named; the others are counted.
const NAMED_MAX: usize = 5;

/// The folders of servers in a data folder without a ledger, which is where
/// their definitions were; nothing when all is in order. Blocks.
pub(crate) fn servers_without_ledger(data_dir: &Path) -> Option<String> {
    if Ledger::exists(data_dir) {
        return None;
    }
    let entries = fs::read_dir(data_dir.join("servers")).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort_unstable();
    let more = folders.len().saturating_sub(NAMED_MAX);
    folders.truncate(NAMED_MAX);
    let named = folders.join(", ");
    match (folders.len(), more) {
        (0, _) => None,
        (_, 0) => Some(named),
        _ => Some(format!("{named} and {more} more")),
    }
}

/// What is said before a node begins with an empty ledger.
pub(crate) fn will_begin_anew(folders: &str) -> String {
    format!(
        "store/ledger.redb is missing, and servers/ still holds the files of {folders}: put the \
         ledger back from a backup before the next `homehost up`, which begins with an empty list \
         of servers"
    )
}

/// What is said once a node began with an empty ledger.
pub(crate) fn began_anew(folders: &str) -> String {
    format!(
        "store/ledger.redb was missing, so this node began with an empty list of servers; the files \
         of {folders} are still in servers/: stop the node and put the ledger back from a backup, or \
         add them anew with `homehost server add` and copy their data over"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_a_ledger_are_named_and_counted() {
        let temp = tempfile::tempdir().unwrap();
        let found = || servers_without_ledger(temp.path());
        assert_eq!(found(), None, "a new node");
        for n in 1..=7 {
            fs::create_dir_all(temp.path().join(format!("servers/{n}"))).unwrap();
        }
        assert_eq!(found().as_deref(), Some("1, 2, 3, 4, 5 and 2 more"));
        fs::create_dir(temp.path().join("store")).unwrap();
        fs::write(temp.path().join("store/ledger.redb"), "").unwrap();
        assert_eq!(found(), None, "a damaged one speaks for itself");
    }
}
