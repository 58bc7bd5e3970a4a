//! Where a process of a test lives: on loopback, or in a namespace with
//! addresses of its own.

use std::ffi::OsStr;
use std::process::Command;

use crate::Namespace;

/// Where a node or a bootstrap node is. Its HTTP API is on the loopback
/// address of the same place.
#[derive(Clone, Debug, Default)]
pub struct Place {
    namespace: Option<Namespace>,
    listen: Vec<String>,
    mdns: bool,
    env: Vec<(String, String)>,
}

impl Place {
    /// In a namespace, listening at the given multiaddrs, where it has none of
    /// its neighbours to mind.
    pub fn new(namespace: &Namespace, listen: &[&str]) -> Self {
        let listen = listen.iter().map(|&address| address.to_owned()).collect();
        Self { namespace: Some(namespace.clone()), listen, ..Self::default() }
    }

    /// The same place, where what runs all the time has an environment variable;
    /// commands that ask it something do not.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same place, where the node also looks for others on its link.
    pub fn with_mdns(mut self) -> Self {
        self.mdns = true;
        self
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        }
    }

    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.namespace {
            Some(namespace) => namespace.enter(work),
            None => work(),
        }
    }

    /// Where to listen; on free ports of loopback unless something was said.
    pub(crate) fn listen<'a>(&'a self, otherwise: &[&'a str]) -> Vec<&'a str> {
        if self.listen.is_empty() {
            return otherwise.to_vec();
        }
        self.listen.iter().map(String::as_str).collect()
    }

    pub(crate) fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn has_mdns(&self) -> bool {
        self.mdns
    }
}
