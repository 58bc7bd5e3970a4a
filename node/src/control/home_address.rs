//! Whether the owner was told that public servers show the address of the home.
//!
//! It is said before the first of them is added, or, when they were added while
//! the node listened on its own machine alone, once it listens beyond it. It is
//! said once: that it was is kept in the ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use homehost_mesh::MeshStatus;
use homehost_store::{Batch, Ledger, Table};

use crate::wire::join::ip_of;

/// What is said before the first server is listed for everybody.
const BEFORE_PUBLIC: &str = "a public server is listed with the address of your home, for everybody \
                             and as long as it runs; --visibility unlisted shows it to those who \
                             have its id, and lan to those on your LAN";

/// What is said when public servers were there before the address was.
const NOW_PUBLIC: &str = "your public servers are listed with the address of your home, for everybody \
                          and as long as they run: `homehost server set NAME --visibility unlisted` shows one to \
                          those who have its id, and lan to those on your LAN";

/// Longest wait for the ledger.
const KEPT: Duration = Duration::from_secs(2);

/// The row that says that it was said.
const TOLD: &[u8] = b"told/home-address";

/// What the owner was told.
#[derive(Debug)]
pub(crate) struct HomeAddress {
    ledger: Ledger,
    told: AtomicBool,
    /// Whether it is said for as long as this run of the node lasts.
    in_this_run: AtomicBool,
}

impl HomeAddress {
    /// As it was at the last stop.
    pub(crate) async fn open(ledger: Ledger) -> Self {
        // What cannot be read is said again.
        let told = ledger.get(Table::Meta, TOLD).await.is_ok_and(|row| row.is_some());
        Self { ledger, told: told.into(), in_this_run: false.into() }
    }

    /// The sentence for whoever is about to add a public server, unless it was said
    /// before, or no address of a home would be told.
    pub(super) fn before_public(&self, mesh: &MeshStatus) -> Option<&'static str> {
        (!self.told.load(Ordering::Acquire) && !is_local(mesh)).then_some(BEFORE_PUBLIC)
    }

    /// A public server is about to be added by whoever was told.
    pub(super) async fn becomes_public(&self, mesh: &MeshStatus) {
        if !is_local(mesh) && !self.told.swap(true, Ordering::AcqRel) {
            self.keep().await;
        }
    }

    /// The sentence when there are public servers of before.
    pub(super) async fn attention(
        &self,
        has_public: bool,
        mesh: &MeshStatus,
    ) -> Option<&'static str> {
        if has_public && !is_local(mesh) && !self.told.swap(true, Ordering::AcqRel) {
            self.in_this_run.store(true, Ordering::Release);
            self.keep().await;
        }
        (has_public && self.in_this_run.load(Ordering::Acquire)).then_some(NOW_PUBLIC)
    }

    async fn keep(&self) {
        let batch = Batch::new().put(Table::Meta, TOLD, b"1".as_slice());
        // Nobody waits long for a disk to hear a sentence.
        let kept = tokio::time::timeout(KEPT, self.ledger.commit(batch)).await;
        if !matches!(kept, Ok(Ok(()))) {
            // It is said again after the next start.
            tracing::debug!(?kept, "it was not kept that the owner was told");
        }
    }
}

/// Whether the node listens on this machine alone, or not yet.
fn is_local(mesh: &MeshStatus) -> bool {
    mesh.listening.iter().filter_map(ip_of).all(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use homehost_runtime::Tasks;
    use homehost_store::DataDir;

    use super::*;

    fn listening(addresses: &[&str]) -> MeshStatus {
        MeshStatus {
            listening: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..MeshStatus::default()
        }
    }

    fn ledger(folder: &tempfile::TempDir) -> Ledger {
        let dir = DataDir::open(folder.path()).unwrap();
        Ledger::open(&dir, &Tasks::default()).unwrap()
    }

    #[tokio::test]
    async fn it_is_spoken_of_only_where_there_is_an_address_to_tell() {
        let folder = tempfile::tempdir().unwrap();
        let home = HomeAddress::open(ledger(&folder)).await;
        for (addresses, told) in [
            (&["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"][..], false),
            (&["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.9/tcp/1"], true),
            (&["/ip4/8.8.8.8/tcp/1"], true),
            (&[], false),
        ] {
            let said = home.before_public(&listening(addresses));
            assert_eq!(said.is_some(), told, "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn servers_that_were_public_on_this_machine_alone_are_spoken_of_once_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(&folder);
        let local = listening(&["/ip4/127.0.0.1/tcp/1"]);
        let open = listening(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.9/tcp/1"]);
        let home = HomeAddress::open(ledger.clone()).await;
        home.becomes_public(&local).await;
        assert_eq!(home.attention(true, &local).await, None);

        let home = HomeAddress::open(ledger.clone()).await;
        for _ in 0..2 {
            assert_eq!(home.attention(true, &open).await, Some(NOW_PUBLIC));
        }
        assert_eq!(home.attention(false, &open).await, None, "they were hidden");
        assert_eq!(home.before_public(&open), None, "it was said");
        let home = HomeAddress::open(ledger).await;
        assert_eq!(home.attention(true, &open).await, None, "once");
    }

    #[tokio::test]
    async fn who_was_told_before_the_first_is_not_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(&folder);
        let open = listening(&["/ip4/8.8.8.8/tcp/1"]);
        let home = HomeAddress::open(ledger.clone()).await;
        assert_eq!(home.attention(false, &open).await, None);
        assert_eq!(home.before_public(&open), Some(BEFORE_PUBLIC));
        home.becomes_public(&open).await;
        for home in [home, HomeAddress::open(ledger).await] {
            assert_eq!(home.before_public(&open), None);
            assert_eq!(home.attention(true, &open).await, None);
        }
    }
}
