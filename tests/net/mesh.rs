//! Nodes of one network on the internet of a test.

use homehost_tests::{Bootstrap, Node, Place, Test};

use crate::home::Home;

/// The public network, because its rules are the strictest. These nodes cannot
/// meet others of that name: they are in namespaces without a way out.
const NETWORK: &str = "main";

/// A bootstrap node, and the nodes that join it.
#[derive(Debug)]
pub(crate) struct Mesh<'a> {
    test: &'a Test,
    _boots: Vec<Bootstrap<'a>>,
    addresses: Vec<String>,
}

impl<'a> Mesh<'a> {
    /// Bootstrap nodes in open homes.
    #[track_caller]
    pub(crate) fn new(test: &'a Test, homes: &[&Home]) -> Self {
        let (mut boots, mut addresses) = (Vec::new(), Vec::new());
        for (n, home) in homes.iter().enumerate() {
            let boot = test.bootstrap_at(&format!("boot{n}"), NETWORK, &home.place());
            addresses.extend(home.multiaddrs(boot.id()));
            boots.push(boot);
        }
        Self { test, _boots: boots, addresses }
    }

    /// Starts a node somewhere.
    #[track_caller]
    pub(crate) fn node(&self, name: &str, place: Place) -> Node<'a> {
        let addresses: Vec<&str> = self.addresses.iter().map(String::as_str).collect();
        let mut node = self.test.stopped_node(name, &addresses);
        node.set_network(NETWORK);
        node.set_place(place);
        node.start();
        node
    }
}
