//! What the ledger promises: nothing acknowledged is lost, numbers never repeat,
//! and whatever is wrong with the file is explained.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::engine::Opener;
use super::*;

fn put(key: &str, value: &str) -> Batch {
    Batch::new().put(Table::Servers, key, value)
}

fn open(path: &Path) -> Ledger {
    let dir = DataDir::open(path).unwrap();
    Ledger::open(&dir, &Tasks::default()).unwrap()
}

/// What a `kill -9` would leave behind: the files as they are at this moment.
fn killed_copy(path: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("store")).unwrap();
    let file = "store/ledger.redb";
    fs::copy(path.join(file), copy.path().join(file)).unwrap();
    copy
}

async fn closed(path: &Path) -> std::path::PathBuf {
    let ledger = open(path);
    for n in 0..200 {
        ledger.commit(put(&format!("key {n}"), &"x".repeat(100))).await.unwrap();
    }
    ledger.close().await;
    path.join("store/ledger.redb")
}

#[tokio::test]
async fn rows_are_put_deleted_and_scanned() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    let batch = Batch::new()
        .put(Table::Audit, [1, 1], "a")
        .put(Table::Audit, [1, 2], "b")
        .put(Table::Audit, [1, 255], "c")
        .put(Table::Audit, [2], "d")
        .put(Table::Audit, [255, 255], "e")
        .put(Table::Meta, [1, 1], "elsewhere")
        .delete(Table::Audit, [2])
        .put(Table::Audit, [1, 2], "b again");
    ledger.commit(batch).await.unwrap();
    assert_eq!(ledger.get(Table::Audit, &[1, 2]).await.unwrap(), Some(b"b again".to_vec()));
    assert_eq!(ledger.get(Table::Audit, &[2]).await.unwrap(), None);
    let values = |rows: Vec<Row>| {
        rows.into_iter().map(|row| String::from_utf8(row.1).unwrap()).collect::<Vec<_>>()
    };
    let all = ledger.scan(Table::Audit, &[], usize::MAX).await.unwrap();
    assert_eq!(values(all), ["a", "b again", "c", "e"]);
    let some = ledger.scan(Table::Audit, &[1], 2).await.unwrap();
    assert_eq!(values(some), ["a", "b again"]);
    let last = ledger.scan_back(Table::Audit, &[1], 2).await.unwrap();
    assert_eq!(values(last), ["c", "b again"]);
    let edge = ledger.scan_back(Table::Audit, &[255], 9).await.unwrap();
    assert_eq!(values(edge), ["e"]);
}

#[tokio::test]
async fn a_kill_keeps_every_acknowledged_commit() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    for n in 0..20 {
        ledger.commit(put("a", &n.to_string())).await.unwrap();
        let seq = ledger.next_seq(b"row", 0).await.unwrap();
        let copy = killed_copy(temp.path());
        let after = open(copy.path());
        assert_eq!(
            after.get(Table::Servers, b"a").await.unwrap(),
            Some(n.to_string().into_bytes())
        );
        assert!(after.next_seq(b"row", 0).await.unwrap() > seq);
    }
}

#[tokio::test]
async fn what_is_dropped_without_a_shutdown_is_there_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    ledger.commit(put("a", "1")).await.unwrap();
    drop(ledger);
    // Its thread gives the folder up as soon as it sees that nobody is left.
    let ledger = loop {
        match DataDir::open(temp.path()) {
            Ok(dir) => break Ledger::open(&dir, &Tasks::default()).unwrap(),
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(ledger.get(Table::Servers, b"a").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test]
async fn a_second_ledger_of_one_folder_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let _first = Ledger::open(&dir, &Tasks::default()).unwrap();
    assert!(matches!(Ledger::open(&dir, &Tasks::default()), Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn sequence_numbers_grow_also_when_the_clock_goes_back() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    assert_eq!(ledger.next_seq(b"a", 1000).await.unwrap(), 1000);
    assert_eq!(ledger.next_seq(b"a", 1000).await.unwrap(), 1001);
    assert_eq!(ledger.next_seq(b"a", 5).await.unwrap(), 1002);
    assert_eq!(ledger.next_seq(b"b", 5).await.unwrap(), 5);
    ledger.close().await;
    let ledger = open(temp.path());
    assert_eq!(ledger.next_seq(b"a", 5).await.unwrap(), 1003);
    assert_eq!(ledger.next_seq(b"a", 2000).await.unwrap(), 2000);
    assert_eq!(ledger.next_seq(b"top", u64::MAX).await.unwrap(), u64::MAX);
    assert!(matches!(ledger.next_seq(b"top", 1).await, Err(StoreError::Damaged(_))));
    assert_eq!(ledger.next_seq(b"a", 0).await.unwrap(), 2001);
    assert_eq!(ledger.restart_seq(b"a", 50).await.unwrap(), 50);
    assert_eq!(ledger.next_seq(b"a", 0).await.unwrap(), 51);
}

#[tokio::test]
async fn many_at_once_get_different_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let ledger = ledger.clone();
        asked.spawn(async move { ledger.next_seq(b"a", 7).await.unwrap() });
    }
    let mut numbers = asked.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (7..307).collect::<Vec<_>>());
}

#[test]
fn what_waits_is_one_transaction_in_the_order_of_sending() {
    let temp = tempfile::tempdir().unwrap();
    let mut engine = Engine::open(&DataDir::open(temp.path()).unwrap()).unwrap();
    let mut round = Vec::new();
    let mut answers = Vec::new();
    for n in 0..50 {
        let (reply, answer) = oneshot::channel();
        round.push(Command::Commit { batch: put("a", &n.to_string()), reply });
        answers.push(answer);
    }
    assert!(engine.serve(round.into_iter()).is_none());
    assert_eq!(engine.transactions, 1);
    for mut answer in answers {
        answer.try_recv().unwrap().unwrap();
    }
    let (reply, mut answer) = oneshot::channel();
    engine.serve([Command::Get { table: Table::Servers, key: b"a".to_vec(), reply }].into_iter());
    assert_eq!(answer.try_recv().unwrap().unwrap(), Some(b"49".to_vec()));
}

#[tokio::test]
async fn batches_sent_at_once_take_effect_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    // On this runtime tasks begin in the order in which they were spawned, and a
    // full queue lets them in again in that order.
    let mut sent = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let batch = put("a", &n.to_string()).put(Table::Meta, format!("{n:04}"), "");
        let ledger = ledger.clone();
        sent.spawn(async move { ledger.commit(batch).await.unwrap() });
    }
    sent.join_all().await;
    assert_eq!(ledger.get(Table::Servers, b"a").await.unwrap(), Some(b"999".to_vec()));
    assert_eq!(ledger.scan(Table::Meta, b"", 2000).await.unwrap().len(), 1000);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    let batch = Batch::new().put(Table::Meta, "a", vec![0; BATCH_BYTES_MAX]);
    assert!(matches!(ledger.commit(batch).await, Err(StoreError::TooLarge { .. })));
    assert_eq!(ledger.get(Table::Meta, b"a").await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_ledger_says_so_and_can_be_opened_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path());
    ledger.commit(put("a", "1")).await.unwrap();
    ledger.close().await;
    ledger.close().await;
    assert!(matches!(ledger.get(Table::Servers, b"a").await, Err(StoreError::Closed)));
    assert!(matches!(ledger.commit(put("a", "2")).await, Err(StoreError::Closed)));
    let ledger = open(temp.path());
    assert_eq!(ledger.get(Table::Servers, b"a").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test]
async fn the_ledger_serves_while_other_tasks_drain() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let tasks = Tasks::default();
    let ledger = Ledger::open(&dir, &tasks).unwrap();
    tasks.handle().stop();
    tasks.drained().await;
    ledger.commit(put("a", "1")).await.unwrap();
    assert!(tasks.failure().is_none());
}

#[tokio::test]
async fn a_damaged_ledger_is_an_error_that_explains_itself_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let file = closed(temp.path()).await;
    let sound = fs::read(&file).unwrap();
    let garbled = |from: usize, to: usize| {
        let mut bytes = sound.clone();
        bytes[from..to].fill(0xa5);
        bytes
    };
    let damaged = [
        ("magic", garbled(0, 16)),
        ("header", garbled(0, 4096)),
        ("all pages", garbled(4096, sound.len())),
        ("truncated", sound[..sound.len() / 2].to_vec()),
        ("a few bytes", sound[..100].to_vec()),
        ("not one byte", Vec::new()),
        ("another file", b"this is not a database at all".repeat(400)),
    ];
    for (name, bytes) in damaged {
        fs::write(&file, &bytes).unwrap();
        let checked = Ledger::check(temp.path());
        assert!(matches!(checked, Err(OpenError::Damaged { .. })), "{name}: {checked:?}");
        let dir = DataDir::open(temp.path()).unwrap();
        match Ledger::open(&dir, &Tasks::default()) {
            Err(error @ OpenError::Damaged { .. }) => {
                assert!(error.to_string().contains("ledger.redb"), "{error}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(fs::read(&file).unwrap() == bytes, "{name}: the damaged file was changed");
    }
    fs::write(&file, &sound).unwrap();
    let ledger = open(temp.path());
    assert!(ledger.get(Table::Servers, b"key 7").await.unwrap().is_some());
}

#[tokio::test]
async fn a_check_finds_nothing_wrong_where_nothing_is_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    Ledger::check(temp.path()).unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    let ledger = open(temp.path());
    for n in 0..20 {
        ledger.commit(put("a", &n.to_string())).await.unwrap();
        // Not closed in order, and sound all the same.
        let copy = killed_copy(temp.path());
        let file = copy.path().join("store/ledger.redb");
        let before = fs::read(&file).unwrap();
        Ledger::check(copy.path()).unwrap();
        assert!(fs::read(&file).unwrap() == before, "a check changed the ledger");
    }
}

#[tokio::test]
async fn a_ledger_is_made_only_where_there_is_none() {
    let temp = tempfile::tempdir().unwrap();
    assert!(!Ledger::exists(temp.path()));
    let file = closed(temp.path()).await;
    assert!(Ledger::exists(temp.path()));
    fs::write(&file, "").unwrap();
    assert!(Ledger::exists(temp.path()), "an empty one is there, too");
    fs::remove_file(&file).unwrap();
    let ledger = open(temp.path());
    assert_eq!(ledger.get(Table::Servers, b"key 7").await.unwrap(), None);
}

#[tokio::test]
async fn flipped_bytes_never_panic_and_never_become_rows() {
    let temp = tempfile::tempdir().unwrap();
    let file = closed(temp.path()).await;
    let sound = fs::read(&file).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let mut bytes = sound.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u32(..8);
        fs::write(&file, &bytes).unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let Ok(ledger) = Ledger::open(&dir, &Tasks::default()) else { continue };
        for (key, value) in ledger.scan(Table::Servers, b"", 1000).await.unwrap() {
            assert!(key.starts_with(b"key ") && value == b"x".repeat(100), "flipped at {at}");
        }
        ledger.close().await;
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let temp = tempfile::tempdir().unwrap();
    let file = closed(temp.path()).await;
    schema::write_version(&file, schema::VERSION + 1);
    let before = fs::read(&file).unwrap();
    assert!(matches!(Ledger::check(temp.path()), Err(OpenError::Newer { found: 2, .. })));
    let dir = DataDir::open(temp.path()).unwrap();
    match Ledger::open(&dir, &Tasks::default()) {
        Err(OpenError::Newer { found: 2, known: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(fs::read(&file).unwrap() == before, "a newer ledger was changed");
}

#[tokio::test]
async fn a_schema_that_never_was_is_damage() {
    let temp = tempfile::tempdir().unwrap();
    let file = closed(temp.path()).await;
    schema::write_version(&file, 0);
    let dir = DataDir::open(temp.path()).unwrap();
    assert!(matches!(Ledger::open(&dir, &Tasks::default()), Err(OpenError::Damaged { .. })));
}

/// A file on a disk that can be filled up.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
    /// Writes that still fit when it is full.
    budget: Arc<AtomicUsize>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        let fits = !self.full.load(Ordering::SeqCst)
            || self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        if fits { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn opener(full: Arc<AtomicBool>) -> Opener {
    opener_with(full, Arc::default())
}

fn opener_with(full: Arc<AtomicBool>, budget: Arc<AtomicUsize>) -> Opener {
    Box::new(move |path| {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let file = FileBackend::new(file)?;
        let disk = Disk { file, full: full.clone(), budget: budget.clone() };
        Ok(Database::builder().create_with_backend(disk)?)
    })
}

#[test]
fn a_full_disk_is_an_error_until_there_is_room_again() {
    let temp = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let mut engine = Engine::open_with(temp.path(), opener(full.clone())).unwrap();
    let trouble = engine.trouble();
    let mut commit = |n: u32| {
        let (reply, mut answer) = oneshot::channel();
        let batch = Batch::new().put(Table::Servers, "a", n.to_string());
        engine.serve([Command::Commit { batch, reply }].into_iter());
        let (reply, mut read) = oneshot::channel();
        let get = Command::Get { table: Table::Servers, key: b"a".to_vec(), reply };
        engine.serve([get].into_iter());
        (answer.try_recv().unwrap(), read.try_recv().unwrap())
    };
    assert!(commit(1).0.is_ok());
    assert!(trouble.borrow().is_none());
    full.store(true, Ordering::SeqCst);
    for n in 2..5 {
        assert!(matches!(commit(n).0, Err(StoreError::Full)));
        assert!(matches!(*trouble.borrow(), Some(StoreError::Full)));
    }
    full.store(false, Ordering::SeqCst);
    let (written, read) = commit(5);
    written.unwrap();
    assert!(trouble.borrow().is_none());
    assert_eq!(read.unwrap(), Some(b"5".to_vec()));
}

#[test]
fn a_start_on_a_full_disk_is_explained_and_the_next_one_works() {
    let temp = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(true));
    for room in 0..40 {
        let budget = Arc::new(AtomicUsize::new(room));
        let opener = opener_with(full.clone(), budget);
        match Engine::open_with(temp.path(), opener) {
            Err(OpenError::Full { .. }) => {}
            Err(other) => panic!("room for {room} writes: {other:?}"),
            // It needs a certain number of writes.
            Ok(_) => assert!(room > 5),
        }
    }
    full.store(false, Ordering::SeqCst);
    Engine::open_with(temp.path(), opener(full)).unwrap();
}
