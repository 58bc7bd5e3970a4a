//! The identity of a running node: changed in one place, told to all.

use std::sync::{Arc, Mutex, PoisonError};

use homehost_protocol::chain::{Chain, SignedKeyEvent};
use homehost_protocol::keys::{DeviceKey, KeyDigest, PublicKey};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::validate::{KeyChains, KeyState};
use homehost_protocol::{NetworkName, NodeId, RootId};
use tokio::sync::watch;

use super::{Fork, Identity, IdentityError, Offered, Prepared, Standing};

/// Whether this node signs.
#[derive(Clone, Debug)]
pub(crate) enum Signing {
    /// With this.
    As(RecordSigner),
    /// Not; the sentence says why and what to do.
    Ended {
        /// For the owner.
        why: String,
    },
}

/// What the parts of a node must know of its keys.
#[derive(Clone, Debug)]
pub(crate) struct SignerState {
    /// The network that records are signed for.
    pub(crate) network: NetworkName,
    /// The root's key events.
    pub(crate) chain: Chain,
    /// Whether this node signs.
    pub(crate) signing: Signing,
    /// The record that carries a revocation, which nobody can sign again.
    pub(crate) revocation: Option<Vec<u8>>,
}

impl SignerState {
    fn of(identity: &Identity, network: &NetworkName) -> Self {
        let signing = match (identity.signer(network.clone()), identity.standing()) {
            (Some(signer), _) => Signing::As(signer),
            (None, Standing::Ended(why)) => Signing::Ended { why },
            (None, Standing::Signs(_)) => unreachable!("whoever signs has a signer"),
        };
        Self {
            network: network.clone(),
            chain: identity.chain().clone(),
            signing,
            revocation: identity.revocation(),
        }
    }

    /// The signer, while this node signs.
    pub(crate) fn signer(&self) -> Option<&RecordSigner> {
        match &self.signing {
            Signing::As(signer) => Some(signer),
            Signing::Ended { .. } => None,
        }
    }

    /// The signer of the record that carries the chain: device 0's.
    pub(crate) fn carrier(&self) -> Option<&RecordSigner> {
        self.signer().filter(|signer| signer.dev() == 0)
    }

    /// A signer whose records are as long as this node's ever get, and which
    /// nobody would accept: for measuring.
    pub(crate) fn measure(&self) -> RecordSigner {
        let key = DeviceKey::from_seed([0; 32]);
        RecordSigner::genesis(key, KeyDigest([0; 32]), self.network.clone())
    }
}

/// The own chain, and nothing else: also for what the own root signed with keys
/// that have ended since.
pub(crate) struct OwnChain<'a>(pub(crate) &'a Chain);

impl KeyChains for OwnChain<'_> {
    fn signing_key(&self, root: &RootId, key_epoch: u16, dev: u8) -> KeyState {
        if *root != self.0.root() {
            return KeyState::Unknown;
        }
        if key_epoch >= self.0.epoch() || dev != 0 {
            return self.0.signing_key(key_epoch, dev);
        }
        // Epoch events come first, one an epoch.
        let event = self.0.to_body().events.into_iter().nth(usize::from(key_epoch));
        let key = event.and_then(|event| event.event().ok()).and_then(|event| event.key);
        key.map_or(KeyState::Revoked, KeyState::Valid)
    }
}

/// A cloneable handle on the identity of a running node.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    identity: Arc<Mutex<Identity>>,
    state: watch::Sender<Arc<SignerState>>,
    conflict: watch::Sender<Option<Fork>>,
    network: NetworkName,
    node: NodeId,
}

impl Keys {
    pub(crate) fn new(identity: Identity, network: NetworkName) -> Self {
        let state = Arc::new(SignerState::of(&identity, &network));
        Self {
            node: identity.node(),
            identity: Arc::new(Mutex::new(identity)),
            state: watch::Sender::new(state),
            conflict: watch::Sender::new(None),
            network,
        }
    }

    /// The machine on the mesh.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// The network that records are signed for.
    pub(crate) fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The state of the keys, and its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<SignerState>> {
        self.state.subscribe()
    }

    /// The state of the keys now.
    pub(crate) fn state(&self) -> Arc<SignerState> {
        self.state.borrow().clone()
    }

    /// What contradicts the chain of this node, if something was seen.
    pub(crate) fn conflict(&self) -> Option<Fork> {
        *self.conflict.borrow()
    }

    /// Looks at the identity.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Identity) -> T) -> T {
        look(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`Identity::prepare`].
    pub(crate) async fn prepare(&self) -> Result<Prepared, IdentityError> {
        self.change(|identity| identity.prepare()).await
    }

    /// See [`Identity::apply`].
    pub(crate) async fn apply(
        &self,
        event: SignedKeyEvent,
        keep: Vec<u8>,
        revocation: Option<Vec<u8>>,
    ) -> Result<(), IdentityError> {
        self.change(move |identity| identity.apply(&event, &keep, revocation.as_deref())).await
    }

    /// See [`Identity::add_device`].
    pub(crate) async fn add_device(&self, key: PublicKey) -> Result<u8, IdentityError> {
        self.change(move |identity| identity.add_device(key)).await
    }

    /// See [`Identity::revoke_device`].
    pub(crate) async fn revoke_device(&self, dev: u8) -> Result<(), IdentityError> {
        self.change(move |identity| identity.revoke_device(dev)).await
    }

    /// See [`Identity::join`].
    pub(crate) async fn join(&self, root: Option<RootId>) -> Result<(), IdentityError> {
        self.change(move |identity| identity.join(root)).await
    }

    /// Takes over a chain that was learned; see [`Identity::offer_chain`]. A
    /// contradiction is remembered until the node ends and shown to its owner.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) async fn offer_chain(&self, chain: Chain) -> Result<Offered, IdentityError> {
        let offer = move |identity: &mut Identity| {
            let offered = identity.offer_chain(&chain)?;
            Ok((offered, Fork::of(identity.chain(), &chain)))
        };
        let (offered, fork) = self.change(offer).await?;
        if offered == Offered::Conflict {
            self.note_conflict(fork);
        }
        Ok(offered)
    }

    /// Notes that others hold a chain of this root that denies the own one; what
    /// cannot be mended stays.
    pub(crate) fn note_conflict(&self, fork: Fork) {
        self.conflict.send_if_modified(|noted| {
            let worse = *noted != Some(Fork::Epochs) && *noted != Some(fork);
            if worse {
                *noted = Some(fork);
            }
            worse
        });
    }

    /// Changes the identity and tells everybody. Files are written, which blocks.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Identity) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let this = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let mut identity = this.identity.lock().unwrap_or_else(PoisonError::into_inner);
            let done = change(&mut identity)?;
            let state = SignerState::of(&identity, &this.network);
            this.state.send_if_modified(|told| {
                let changed = told.chain != state.chain
                    || told.signer().is_some() != state.signer().is_some();
                if changed {
                    *told = Arc::new(state);
                }
                changed
            });
            Ok(done)
        });
        changed.await.expect("changing an identity does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::phrase::Phrase;

    #[tokio::test]
    async fn a_change_is_told_to_all_and_nothing_is_told_twice() {
        let dir = tempfile::tempdir().unwrap();
        let phrase = Phrase::of_entropy(&[7; 16]);
        let identity = Identity::create(dir.path(), &phrase).unwrap();
        let keys = Keys::new(identity, NetworkName::main());
        let mut watch = keys.watch();
        let other = DeviceKey::from_seed([9; 32]);
        keys.prepare().await.unwrap();
        keys.join(Some(RootId([1; 32]))).await.unwrap();
        assert!(!watch.has_changed().unwrap(), "the chain is as it was");
        assert_eq!(keys.add_device(other.public()).await.unwrap(), 1);
        assert!(watch.has_changed().unwrap());
        let state = watch.borrow_and_update().clone();
        assert_eq!(state.chain.device_of(&other.public()), Some(1));
        assert_eq!(state.carrier().map(RecordSigner::dev), Some(0));

        // Another machine rotated, and this one hears of it.
        let mut chain = state.chain.clone();
        let by = phrase.key(1);
        let event = chain.rotation(other.public(), by.public(), phrase.commitment(2));
        chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &by)).unwrap();
        assert_eq!(keys.offer_chain(chain.clone()).await.unwrap(), Offered::Changed);
        assert!(keys.state().signer().is_none());
        assert_eq!(keys.offer_chain(chain).await.unwrap(), Offered::Unchanged);
        assert_eq!(keys.conflict(), None);
        let mut fork = state.chain.clone();
        let event = fork.rotation(
            DeviceKey::from_seed([8; 32]).public(),
            by.public(),
            phrase.commitment(2),
        );
        fork.extend(&SignedKeyEvent::sign(&event, &fork.root(), &by)).unwrap();
        assert_eq!(keys.offer_chain(fork).await.unwrap(), Offered::Conflict);
        assert_eq!(keys.conflict(), Some(Fork::Epochs));
        // A rotation would mend one about devices, and what is worse stays noted.
        keys.note_conflict(Fork::Devices);
        assert_eq!(keys.conflict(), Some(Fork::Epochs));
    }

    #[test]
    fn own_records_of_ended_keys_are_known_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let phrase = Phrase::of_entropy(&[7; 16]);
        let mut identity = Identity::create(dir.path(), &phrase).unwrap();
        let first = identity.key();
        let Prepared { chain, key } = identity.prepare().unwrap();
        let by = phrase.key(1);
        let event = chain.rotation(key, by.public(), phrase.commitment(2));
        identity.apply(&SignedKeyEvent::sign(&event, &chain.root(), &by), &[], None).unwrap();
        let own = OwnChain(identity.chain());
        let root = identity.root();
        assert_eq!(own.signing_key(&root, 0, 0), KeyState::Valid(first));
        assert_eq!(own.signing_key(&root, 1, 0), KeyState::Valid(key));
        assert_eq!(own.signing_key(&root, 0, 1), KeyState::Revoked);
        assert_eq!(own.signing_key(&root, 2, 0), KeyState::Unknown);
        assert_eq!(own.signing_key(&RootId([1; 32]), 1, 0), KeyState::Unknown);
    }
}
