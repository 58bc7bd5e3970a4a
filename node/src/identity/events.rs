//! The key events of the root: what changes its chain.

use std::collections::BTreeMap;

use homehost_protocol::chain::{Chain, ChainError, Device, Relation, SignedKeyEvent};
use homehost_protocol::keys::{DeviceKey, KeyEvent, KeyEventKind, PublicKey};

use super::folder;
use super::{Identity, IdentityError, Offered, Prepared, Standing};

impl Identity {
    /// Makes the key of the next rotation, or finds the one of a rotation that
    /// was begun and cut off.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn prepare(&self) -> Result<Prepared, IdentityError> {
        let pending = self.folder.key_or_new(folder::PENDING_KEY)?;
        Ok(Prepared { chain: self.chain.clone(), key: pending.public() })
    }

    /// Goes on with a rotation to the prepared key, or with a revocation and the
    /// record that carries it. After a rotation the machines of `keep` are added
    /// again.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn apply(
        &mut self,
        event: &SignedKeyEvent,
        keep: &[u8],
        revocation: Option<&[u8]>,
    ) -> Result<(), IdentityError> {
        let KeyEvent { kind, key, .. } = event
            .event()
            .map_err(|_| IdentityError::Wrong("this is not a key event".to_owned()))?;
        let mut chain = self.chain.clone();
        let before = chain.devices().clone();
        match kind {
            KeyEventKind::Rotate => {
                let pending = self.folder.key(folder::PENDING_KEY)?;
                let Some(pending) = pending.filter(|pending| Some(pending.public()) == key) else {
                    let text = "this rotation is to a key that this machine did not prepare: \
                                run `homehost id rotate` again";
                    return Err(IdentityError::NotNow(text.to_owned()));
                };
                chain.extend(event).map_err(not_next)?;
                add_again(&mut chain, &pending, &before, keep)?;
            }
            KeyEventKind::Revoke => chain.extend(event).map_err(not_next)?,
            KeyEventKind::Genesis | KeyEventKind::AddDevice | KeyEventKind::RevokeDevice => {
                let text = "only a rotation or a revocation is handed over signed";
                return Err(IdentityError::Wrong(text.to_owned()));
            }
        }
        if let Some(record) = revocation {
            self.folder.write(folder::REVOCATION, record)?;
        }
        self.adopt(chain)
    }

    /// Adds a machine; its number.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn add_device(&mut self, key: PublicKey) -> Result<u8, IdentityError> {
        self.is_device_zero("add a machine")?;
        if let Some(dev) = self.chain.device_of(&key) {
            let text = format!("this key is device {dev} already: see `homehost id devices`");
            return Err(IdentityError::Taken(text));
        }
        let dev = self.chain.free_device().ok_or_else(full)?;
        let event = self.chain.addition(dev, key);
        self.extend_as_device_zero(&event)?;
        Ok(dev)
    }

    /// Ends a machine's right to sign.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn revoke_device(&mut self, dev: u8) -> Result<(), IdentityError> {
        self.is_device_zero("revoke another")?;
        if dev == 0 {
            let text = "device 0 is this machine: `homehost id rotate` gives it a new key, \
                        `homehost id revoke` ends all keys";
            return Err(IdentityError::Wrong(text.to_owned()));
        }
        if self.chain.devices().get(&dev).is_none_or(|device| device.revoked) {
            let text = format!("device {dev} does not sign: see `homehost id devices`");
            return Err(IdentityError::NotNow(text));
        }
        let event = self.chain.removal(dev);
        self.extend_as_device_zero(&event)
    }

    fn is_device_zero(&self, to: &str) -> Result<(), IdentityError> {
        match self.standing() {
            Standing::Signs(0) => Ok(()),
            Standing::Signs(dev) => Err(IdentityError::NotNow(format!(
                "only device 0 can {to}, and this is device {dev}: do it there"
            ))),
            Standing::Ended(why) => Err(IdentityError::NotNow(why)),
        }
    }

    fn extend_as_device_zero(&mut self, event: &KeyEvent) -> Result<(), IdentityError> {
        let mut chain = self.chain.clone();
        let event = SignedKeyEvent::sign(event, &chain.root(), &self.device);
        chain.extend(&event).map_err(not_next)?;
        self.adopt(chain)
    }

    /// Takes over a chain that was learned: a newer one of the own root, or one
    /// of the root that this machine waits to join, once it names this machine.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) fn offer_chain(&mut self, chain: &Chain) -> Result<Offered, IdentityError> {
        if chain.root() == self.root() {
            return match chain.relation(&self.chain) {
                Relation::Same | Relation::Older => Ok(Offered::Unchanged),
                Relation::Conflict => Ok(Offered::Conflict),
                Relation::Newer => self.adopt(chain.clone()).map(|()| Offered::Changed),
            };
        }
        if self.joining != Some(chain.root()) || chain.device_of(&self.key()).is_none() {
            return Ok(Offered::Unchanged);
        }
        self.keep_former()?;
        self.adopt(chain.clone())?;
        Ok(Offered::Changed)
    }

    /// The chain is this from now on: after its file is written, all else
    /// follows from it.
    fn adopt(&mut self, chain: Chain) -> Result<(), IdentityError> {
        self.folder.write_chain(&chain)?;
        *self = Self::settle(self.folder.clone(), chain)?;
        Ok(())
    }
}

fn add_again(
    chain: &mut Chain,
    by: &DeviceKey,
    before: &BTreeMap<u8, Device>,
    keep: &[u8],
) -> Result<(), IdentityError> {
    for dev in keep {
        let Some(device) = before.get(dev).filter(|device| !device.revoked) else {
            let text = format!("there is no device {dev} to keep: see `homehost id devices`");
            return Err(IdentityError::Wrong(text));
        };
        let event = chain.addition(*dev, device.key);
        chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), by)).map_err(not_next)?;
    }
    Ok(())
}

/// Why an event does not go on from the chain.
pub(super) fn not_next(error: ChainError) -> IdentityError {
    match error {
        ChainError::Count => full(),
        ChainError::NotCommitted(_) => IdentityError::Wrong(
            "this event is not signed with the recovery key of this identity: look whether the \
             recovery phrase is that of the root that `homehost id` shows"
                .to_owned(),
        ),
        error => IdentityError::NotNow(format!(
            "{error}: the keys have changed meanwhile, so look at `homehost id` and try again"
        )),
    }
}

fn full() -> IdentityError {
    let text = "the key chain is full: `homehost id rotate` drops the events of devices and \
                makes room";
    IdentityError::NotNow(text.to_owned())
}
