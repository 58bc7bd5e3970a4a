//! One test: its folder, its network, its logs, and the end of all it started.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{process, thread};

use tempfile::TempDir;

use crate::binaries::{binaries, target_dir};
use crate::node::System;
use crate::process::sweep;
use crate::wine::Wine;
use crate::{Bootstrap, Node, Place};

/// Declared first in a test, so that it is dropped last.
#[derive(Debug)]
pub struct Test {
    folder: TempDir,
    logs: PathBuf,
    network: String,
    program: PathBuf,
}

impl Test {
    /// Prepares a test with the name of its thread.
    ///
    /// # Panics
    /// When the programs cannot be built or a folder cannot be made.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let built = binaries();
        let thread = thread::current();
        let name = thread.name().unwrap_or("test").replace("::", "-");
        let logs = target_dir().join("test-logs").join(format!("{name}-{}-{count}", process::id()));
        fs::create_dir_all(&logs).expect("target can be written");
        let folder = tempfile::Builder::new()
            .prefix("homehost-test-")
            .tempdir()
            .expect("a temporary folder can be made");
        passable(folder.path());
        // Root's games run as an ordinary user, who may not enter every place
        // in which people build.
        let program = folder.path().join(format!("homehost{}", std::env::consts::EXE_SUFFIX));
        if fs::hard_link(&built.homehost, &program).is_err() {
            fs::copy(&built.homehost, &program).expect("the program fits into the folder");
        }
        let network = format!("test-{:x}-{count:x}", process::id());
        Self { folder, logs, network, program }
    }

    /// The temporary folder; others may pass through it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The network of this test.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The program `homehost`, where any user may run it.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The program `homehost-bootstrap`.
    pub fn bootstrap_program(&self) -> &Path {
        &binaries().bootstrap
    }

    /// A log file of this test, for appending.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn log(&self, name: &str) -> File {
        let path = self.logs.join(format!("{name}.log"));
        OpenOptions::new().create(true).append(true).open(path).expect("a log can be opened")
    }

    /// Puts a file or a folder into the folder of this test, where games of any
    /// user may read it; returns its place there. Large files become links.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    pub fn give(&self, from: &Path) -> PathBuf {
        let to = self.folder().join(from.file_name().expect("a name"));
        if let Err(error) = give(from, &to) {
            panic!("{} is missing ({error}): `cargo xtask test` installs it", from.display());
        }
        to
    }

    /// Starts a bootstrap node.
    pub fn bootstrap(&self) -> Bootstrap<'_> {
        Bootstrap::start(self, "bootstrap", self.network(), &Place::default())
    }

    /// Starts a bootstrap node of a network somewhere else.
    pub fn bootstrap_at(&self, name: &str, network: &str, place: &Place) -> Bootstrap<'_> {
        Bootstrap::start(self, name, network, place)
    }

    /// Starts a node that joins `bootstrap`, which may be empty.
    pub fn node(&self, name: &str, bootstrap: &[&str]) -> Node<'_> {
        let mut node = self.stopped_node(name, bootstrap);
        node.start();
        node
    }

    /// A node that is still to be started.
    pub fn stopped_node(&self, name: &str, bootstrap: &[&str]) -> Node<'_> {
        Node::new(self, name, bootstrap, System::Here)
    }

    /// Starts a node on Windows, under Wine, that joins `bootstrap`.
    pub fn windows_node(&self, name: &str, bootstrap: &[&str]) -> Node<'_> {
        let mut node = self.stopped_windows_node(name, bootstrap);
        node.start();
        node
    }

    /// A node on Windows that is still to be started.
    pub fn stopped_windows_node(&self, name: &str, bootstrap: &[&str]) -> Node<'_> {
        Node::new(self, name, bootstrap, System::Windows)
    }

    /// `homehost.exe`, to be given arguments.
    #[track_caller]
    pub fn windows_command(&self) -> Command {
        let mut command = Wine::get().command(self.windows_program());
        command.env_remove("HOMEHOST_DATA_DIR");
        command
    }

    /// A program that Windows brings.
    #[track_caller]
    pub fn windows_tool(&self, name: &str) -> Command {
        Wine::get().command(name)
    }

    /// What was logged so far under a name.
    ///
    /// # Panics
    /// When nothing was.
    #[track_caller]
    pub fn read_log(&self, name: &str) -> String {
        let log = fs::read(self.logs.join(format!("{name}.log"))).expect("there is a log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The program `homehost.exe`, in the folder of this test.
    ///
    /// # Panics
    /// When it was not built.
    #[track_caller]
    pub fn windows_program(&self) -> PathBuf {
        let program = self.folder().join("homehost.exe");
        if !program.exists() {
            let built = Wine::get().homehost();
            if fs::hard_link(&built, &program).is_err() {
                fs::copy(&built, &program).expect("`cargo xtask test` builds it");
            }
        }
        program
    }
}

impl Default for Test {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        sweep(self.folder.path());
        if thread::panicking() {
            self.keep_consoles();
            eprintln!("logs of this test: {}", self.logs.display());
        } else {
            // They are in nobody's way should that fail.
            let _ = fs::remove_dir_all(&self.logs);
        }
    }
}

impl Test {
    /// Copies what games printed to the logs, before the folder goes.
    fn keep_consoles(&self) {
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "log") {
                    let name = path.strip_prefix(self.folder.path()).unwrap_or(&path);
                    let name = name.to_string_lossy().replace(['/', '\\'], "-");
                    let _ = fs::copy(&path, self.logs.join(name));
                }
            }
        }
    }
}

fn give(from: &Path, to: &Path) -> std::io::Result<()> {
    let about = fs::metadata(from)?;
    if about.is_dir() {
        fs::create_dir_all(to)?;
        open_to_all(to);
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            give(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Lets other users pass through a folder to what they may use in it.
#[cfg(unix)]
fn passable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let passage = fs::Permissions::from_mode(0o711);
    fs::set_permissions(folder, passage).expect("the folder is ours");
}

#[cfg(unix)]
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
}

#[cfg(not(unix))]
fn open_to_all(_folder: &Path) {}

#[cfg(not(unix))]
fn passable(_folder: &Path) {}
