//! A network namespace of Linux: a machine of its own, as far as packets can tell.

use std::ffi::OsStr;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

/// A namespace that `ip netns` knows by its name. Whoever made it removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace with this name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs in it. The process has the id that its starter sees.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Does some work on a thread that is in it. Sockets that are made there
    /// stay in it, whoever uses them later.
    ///
    /// # Panics
    /// When it cannot be entered, which needs root, or when the work panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.move_in();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|why| resume_unwind(why))
    }

    #[cfg(target_os = "linux")]
    fn move_in(&self) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd as _;
        let path = std::path::Path::new("/run/netns").join(&self.name);
        let entered = std::fs::File::open(&path).and_then(|file| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).map_err(Into::into)
        });
        entered.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    #[cfg(not(target_os = "linux"))]
    fn move_in(&self) {
        panic!("{}: only Linux has network namespaces", self.name);
    }
}
