//! Which shape the ledger's tables have.
//!
//! **1** (0.1.0). The tables of [`Table`], bytes to bytes.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, TableDefinition, TableError, TableHandle as _};

use super::{Table, engine::rows};
use crate::OpenError;
use crate::error::Fault;

/// The schema that this program writes.
pub(super) const VERSION: u32 = 1;

const TABLE: TableDefinition<'static, &'static str, u32> = TableDefinition::new("schema");
const KEY: &str = "version";

/// A ledger of a newer program.
pub(super) struct Newer {
    pub(super) found: u32,
}

/// Refuses a newer ledger without writing to it. One that cannot be opened for
/// reading only, as after a crash, is left to [`prepare`].
pub(super) fn refuse_newer(path: &Path) -> Result<(), OpenError> {
    let found = Fault::guard(|| {
        let read = || -> Result<Option<u32>, redb::Error> {
            let database = Database::builder().open_read_only(path)?;
            Ok(database.begin_read()?.open_table(TABLE)?.get(KEY)?.map(|row| row.value()))
        };
        Ok(read().ok().flatten())
    });
    match found {
        Ok(Some(found)) if found > VERSION => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        _ => Ok(()),
    }
}

/// Makes the tables of an empty ledger, or brings an older one to [`VERSION`].
pub(super) fn prepare(database: &Database) -> Result<Result<(), Newer>, Fault> {
    match read(database).map_err(Fault::of_redb)? {
        Found::Version(VERSION) => Ok(Ok(())),
        Found::Version(found) if found > VERSION => Ok(Err(Newer { found })),
        Found::Version(older) => migrate(database, older).map(Ok),
        Found::Empty => create(database).map(Ok).map_err(Fault::of_redb),
        Found::Strange => Err(Fault::Damaged("it has tables but no schema version".to_owned())),
    }
}

enum Found {
    Empty,
    Version(u32),
    Strange,
}

fn read(database: &Database) -> Result<Found, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(TABLE) {
        Ok(table) => Ok(match table.get(KEY)? {
            Some(row) => Found::Version(row.value()),
            None => Found::Strange,
        }),
        // Both come in one transaction, so without a version there is nothing.
        Err(TableError::TableDoesNotExist(_)) => {
            let any = transaction.list_tables()?.any(|table| table.name() != TABLE.name());
            Ok(if any { Found::Strange } else { Found::Empty })
        }
        Err(error) => Err(error.into()),
    }
}

fn create(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?.insert(KEY, VERSION)?;
    for table in Table::ALL {
        transaction.open_table(rows(table))?;
    }
    transaction.commit()?;
    Ok(())
}

/// Brings the tables of `older` to [`VERSION`] in one transaction. There is no
/// older schema yet.
fn migrate(_database: &Database, older: u32) -> Result<(), Fault> {
    Err(Fault::Damaged(format!("there never was a schema {older}")))
}

#[cfg(test)]
pub(super) fn write_version(path: &Path, version: u32) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TABLE).unwrap().insert(KEY, version).unwrap();
    transaction.commit().unwrap();
}
