//! What the replica promises: it opens whatever became of its files, and loses
//! no more than it says.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::*;

/// Opens the replica of a folder; a replica that was just dropped may hold the
/// folder for a moment.
fn try_open(path: &Path) -> Result<(Replica, Opened), OpenError> {
    let dir = loop {
        match DataDir::open(path) {
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    Replica::open(&dir, &Tasks::default())
}

fn open(path: &Path) -> Replica {
    let (replica, opened) = try_open(path).unwrap();
    assert_eq!(opened, Opened::default());
    replica
}

async fn filled(path: &Path, rows: u32) {
    let replica = open(path);
    for n in 0..rows {
        replica.put(n.to_be_bytes(), vec![7; 500]).await;
    }
    replica.close().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn rows_are_there_after_a_clean_end() {
    let temp = tempfile::tempdir().unwrap();
    let replica = open(temp.path());
    replica.put("b", "1").await;
    replica.put("a", "2").await;
    replica.put("c", "3").await;
    replica.put("b", "4").await;
    replica.remove("c").await;
    replica.remove("never").await;
    let expected: Vec<Row> = vec![("a".into(), "2".into()), ("b".into(), "4".into())];
    assert_eq!(replica.load_all().await, expected);
    replica.close().await;
    replica.close().await;
    replica.put("late", "x").await;
    assert!(replica.load_all().await.is_empty());
    assert!(matches!(replica.flush().await, Err(StoreError::Closed)));
    assert_eq!(open(temp.path()).load_all().await, expected);
}

#[tokio::test]
async fn handles_that_are_dropped_flush_too() {
    let temp = tempfile::tempdir().unwrap();
    let replica = open(temp.path());
    replica.put("a", "1").await;
    drop(replica);
    assert_eq!(open(temp.path()).load_all().await.len(), 1);
}

#[tokio::test]
async fn a_kill_keeps_what_was_flushed() {
    let temp = tempfile::tempdir().unwrap();
    let replica = open(temp.path());
    for n in 0..10_u32 {
        replica.put(n.to_be_bytes(), "x").await;
        replica.flush().await.unwrap();
        let after = tempfile::tempdir().unwrap();
        copy(&temp.path().join("store"), &after.path().join("store"));
        assert_eq!(open(after.path()).load_all().await.len(), n as usize + 1);
    }
}

#[tokio::test]
async fn a_second_passes_and_changes_are_flushed() {
    let temp = tempfile::tempdir().unwrap();
    let (mut engine, _) = Engine::open(temp.path()).unwrap();
    engine.change(b"a".to_vec(), Some(b"1".to_vec()));
    engine.tick(Instant::now());
    let after = tempfile::tempdir().unwrap();
    copy(temp.path(), &after.path().join("store"));
    assert_eq!(open(after.path()).load_all().await.len(), 1);
}

#[tokio::test]
async fn a_shutdown_flushes_and_what_still_comes_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let tasks = Tasks::default();
    let (replica, _) = Replica::open(&dir, &tasks).unwrap();
    replica.put("a", "1").await;
    tasks.handle().stop();
    tasks.drained().await;
    replica.put("b", "2").await;
    // Nobody flushes it by name, and no tick comes any more.
    let deadline = Instant::now() + std::time::Duration::from_secs(5);
    loop {
        replica.load_all().await;
        let after = tempfile::tempdir().unwrap();
        copy(&temp.path().join("store"), &after.path().join("store"));
        if open(after.path()).load_all().await.len() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "the second row was not flushed");
    }
    assert!(tasks.failure().is_none());
}

#[tokio::test]
async fn damaged_files_are_moved_aside_and_a_new_replica_begins() {
    let sound = tempfile::tempdir().unwrap();
    filled(sound.path(), 3000).await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("database of noise", |folder| {
            let length = fs::metadata(folder.join("db")).unwrap().len();
            let mut noise = vec![0; length as usize];
            fastrand::Rng::with_seed(1).fill(&mut noise);
            fs::write(folder.join("db"), noise).unwrap();
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_str().unwrap().starts_with("snap.") {
                    fs::write(path, [9; 64]).unwrap();
                }
            }
        }),
        ("configuration of noise", |folder| fs::write(folder.join("conf"), [0xff; 64]).unwrap()),
        ("schema of noise", |folder| fs::write(folder.join("SCHEMA"), "one").unwrap()),
        ("schema missing", |folder| fs::remove_file(folder.join("SCHEMA")).unwrap()),
        ("schema that never was", |folder| fs::write(folder.join("SCHEMA"), "0").unwrap()),
    ];
    for (name, damage) in damages {
        let temp = tempfile::tempdir().unwrap();
        let store = temp.path().join("store");
        copy(&sound.path().join("store"), &store);
        damage(&store.join("replica"));
        let (replica, opened) = try_open(temp.path()).unwrap();
        let healed = opened.healed.unwrap_or_else(|| panic!("{name} was not noticed"));
        assert!(healed.contains("replica.damaged-1"), "{healed}");
        assert!(replica.load_all().await.is_empty());
        replica.put("a", "1").await;
        replica.close().await;
        assert_eq!(open(temp.path()).load_all().await.len(), 1, "{name}");
        // Once more: only the latest is kept.
        damage(&store.join("replica"));
        let (_replica, opened) = try_open(temp.path()).unwrap();
        assert!(opened.healed.is_some_and(|healed| healed.contains("replica.damaged-2")), "{name}");
        assert!(!store.join("replica.damaged-1").exists());
        assert!(store.join("replica.damaged-2").exists());
    }
}

#[tokio::test]
async fn truncated_and_garbled_files_always_open_and_work() {
    let sound = tempfile::tempdir().unwrap();
    filled(sound.path(), 3000).await;
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..24 {
        let temp = tempfile::tempdir().unwrap();
        copy(&sound.path().join("store"), &temp.path().join("store"));
        let file = temp.path().join("store/replica/db");
        let mut bytes = fs::read(&file).unwrap();
        if round % 2 == 0 {
            bytes.truncate(random.usize(..bytes.len()));
        } else {
            let at = random.usize(..bytes.len());
            let end = (at + random.usize(1..65_536)).min(bytes.len());
            random.fill(&mut bytes[at..end]);
        }
        fs::write(&file, bytes).unwrap();
        let (replica, _) = try_open(temp.path()).unwrap();
        for (_, value) in replica.load_all().await {
            assert_eq!(value, vec![7; 500]);
        }
        replica.put("new", "row").await;
        replica.close().await;
        let rows = open(temp.path()).load_all().await;
        assert!(rows.contains(&("new".into(), "row".into())), "round {round}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let temp = tempfile::tempdir().unwrap();
    filled(temp.path(), 10).await;
    let folder = temp.path().join("store/replica");
    fs::write(folder.join("SCHEMA"), "2\n").unwrap();
    let before = fs::read(folder.join("db")).unwrap();
    assert!(matches!(Replica::check(temp.path()), Err(OpenError::Newer { found: 2, .. })));
    match try_open(temp.path()) {
        Err(OpenError::Newer { found: 2, known: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(fs::read(folder.join("db")).unwrap() == before, "a newer replica was changed");
}

#[tokio::test]
async fn a_bloated_replica_is_rewritten_at_the_start() {
    let temp = tempfile::tempdir().unwrap();
    let replica = open(temp.path());
    for n in 0..60_000_u32 {
        replica.put(n.to_be_bytes(), vec![1; 700]).await;
    }
    for n in 100..60_000_u32 {
        replica.remove(n.to_be_bytes()).await;
    }
    replica.close().await;
    let folder = temp.path().join("store/replica");
    let before = fs::metadata(folder.join("db")).unwrap().len();
    assert!(before > 16 << 20, "{before}");
    let replica = open(temp.path());
    let after = fs::metadata(folder.join("db")).unwrap().len();
    assert!(after < before / 8, "{after}");
    let rows = replica.load_all().await;
    assert_eq!(rows.len(), 100);
    assert!(rows.iter().all(|(_, value)| *value == vec![1; 700]));
    assert_eq!(fs::read_dir(temp.path().join("store")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_rewrite_that_was_cut_short_is_ended() {
    for old_is_gone in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        filled(temp.path(), 5).await;
        let store = temp.path().join("store");
        let (path, new) = (store.join("replica"), store.join("replica.new"));
        if old_is_gone {
            fs::rename(&path, &new).unwrap();
            fs::create_dir(store.join("replica.old")).unwrap();
        } else {
            fs::create_dir(&new).unwrap();
        }
        assert_eq!(open(temp.path()).load_all().await.len(), 5);
        assert_eq!(fs::read_dir(store).unwrap().count(), 1);
    }
}

#[test]
fn a_database_that_failed_is_opened_anew_and_nothing_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let (mut engine, _) = Engine::open(temp.path()).unwrap();
    engine.change(b"before".to_vec(), Some(b"1".to_vec()));
    engine.flush().unwrap();
    engine.change(b"unflushed".to_vec(), Some(b"2".to_vec()));
    let trouble = engine.trouble();
    engine.fail(crate::error::Fault::Full);
    assert!(matches!(*trouble.borrow(), Some(StoreError::Full)));
    engine.change(b"meanwhile".to_vec(), Some(b"3".to_vec()));
    engine.change(b"before".to_vec(), None);
    assert_eq!(engine.load_all().len(), 2);
    let now = Instant::now();
    engine.tick(now);
    assert!(trouble.borrow().is_none());
    let keys: Vec<_> = engine.load_all().into_iter().map(|row| row.0).collect();
    assert_eq!(keys, [b"meanwhile".to_vec(), b"unflushed".to_vec()]);
}

#[test]
fn too_much_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (mut engine, _) = Engine::open(temp.path()).unwrap();
    engine.change(b"long".to_vec(), Some(vec![0; ROW_BYTES_MAX]));
    assert!(engine.load_all().is_empty());
    for n in 0..ROWS_MAX as u32 + 5 {
        engine.change(n.to_be_bytes().to_vec(), Some(vec![0]));
    }
    // One that is there may still change, and one that goes makes room.
    engine.change(3_u32.to_be_bytes().to_vec(), Some(vec![1]));
    engine.change(4_u32.to_be_bytes().to_vec(), None);
    engine.change(u32::MAX.to_be_bytes().to_vec(), Some(vec![2]));
    let rows = engine.load_all();
    assert_eq!(rows.len(), ROWS_MAX);
    assert_eq!(rows[3].1, [1]);
    assert_eq!(rows.last().unwrap().1, [2]);
}
