//! What a person sees of the keys and does with them. Whatever needs the
//! recovery phrase is signed elsewhere and handed over: no secret comes here.

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use homehost_api::{
    Action, ApiError, Device, ErrorKind, Identity as View, PhraseState, PreparedKeys, Receipt,
};
use homehost_protocol::chain::{KeyChain, SignedKeyEvent};
use homehost_protocol::validate::NoChains;
use homehost_protocol::{Record, RootId, UnixMillis, Verdict, cbor, validate};
use homehost_runtime::wall_ms;

use super::{Control, count};
use crate::exit;
use crate::identity::{Fork, Identity, IdentityError, Prepared, Standing, key_text, parse_key};
use crate::wire::storage::Unwritable;

/// An identity for a person.
pub(crate) fn view(identity: &Identity) -> View {
    let chain = identity.chain();
    let own = identity.key();
    let device = |dev: u8, key, revoked| Device {
        device: dev,
        key: key_text(&key),
        revoked,
        this: key == own && !revoked,
    };
    let zero = chain.operating_key().map(|key| device(0, key, false));
    let others = chain.devices().iter().map(|(dev, other)| device(*dev, other.key, other.revoked));
    let (dev, ended) = match identity.standing() {
        Standing::Signs(dev) => (Some(dev), None),
        Standing::Ended(why) => (None, Some(why)),
    };
    View {
        node: identity.node().to_string(),
        root: chain.root().to_string(),
        device: dev,
        key_epoch: chain.epoch(),
        network: None,
        folder: identity.folder().display().to_string(),
        key: key_text(&own),
        ended,
        devices: zero.into_iter().chain(others).collect(),
        events: chain.to_body().events.len(),
        phrase: identity.phrase_state(),
        joining: identity.joining().map(|root| root.to_string()),
        conflict: None,
        conflict_is_final: false,
    }
}

/// What was prepared, for whoever signs.
pub(crate) fn prepared_view(prepared: &Prepared) -> PreparedKeys {
    PreparedKeys {
        chain: HEX.encode(&cbor::encode(&prepared.chain.to_body())),
        key: key_text(&prepared.key),
        network: None,
    }
}

/// Reads what [`prepared_view`] wrote.
pub(crate) fn read_prepared(view: &PreparedKeys) -> Option<Prepared> {
    let bytes = HEX.decode(view.chain.as_bytes()).ok()?;
    let chain = cbor::decode::<KeyChain>(&bytes).ok()?;
    let chain = homehost_protocol::chain::Chain::verify(&chain).ok()?;
    Some(Prepared { chain, key: parse_key(&view.key)? })
}

/// Why a machine cannot join another root while it hosts.
pub(crate) fn servers_in_the_way(servers: usize) -> IdentityError {
    IdentityError::NotNow(format!(
        "this machine has {}, whose ids belong to its own identity: remove them with \
         `homehost server rm` first (their files stay), and add them again after it joined",
        count(servers, "server")
    ))
}

impl Control {
    /// What the owner should look at, in sentences.
    pub(super) fn attention(&self, unwritable: Option<&Unwritable>) -> Vec<String> {
        let view = self.keys.look(view);
        let phrase = (view.phrase == PhraseState::NotYet).then(|| NO_PHRASE.to_owned());
        let conflict = self.keys.conflict().map(|fork| fork.advice().to_owned());
        let clock = self.clock.attention();
        let disk = unwritable.map(Unwritable::attention);
        let keys = [disk, conflict, view.ended, self.lost.clone(), clock, phrase];
        let keys = keys.into_iter().flatten();
        keys.chain(self.settings.attention()).collect()
    }

    /// Does what changes keys.
    pub(super) async fn change_keys(&self, id: u64, action: &Action) -> Result<Receipt, ApiError> {
        let mut prepared = None;
        let message = match action {
            Action::IdPrepare => {
                let made = self.keys.prepare().await.map_err(refused)?;
                let network = Some(self.keys.network().to_string());
                prepared = Some(PreparedKeys { network, ..prepared_view(&made) });
                "a new key is ready: a rotation signed with the recovery key brings it in"
                    .to_owned()
            }
            Action::IdApply { event, keep_devices, record, force } => {
                if record.is_none() && !force {
                    self.check_rotation()?;
                }
                let event = SignedKeyEvent::from_bytes(&hex("event", event)?)
                    .map_err(|_| usage("the event is not a signed key event"))?;
                let record = record.as_deref().map(|text| hex("record", text)).transpose()?;
                self.check_carried(&event, record.as_deref())?;
                self.keys.apply(event, keep_devices.clone(), record).await.map_err(refused)?;
                let chain = &self.keys.state().chain;
                changed(chain.epoch(), chain.operating_key().is_some())
            }
            Action::IdDeviceAdd { key } => {
                let key = parse_key(key).ok_or_else(not_a_key)?;
                let dev = self.keys.add_device(key).await.map_err(refused)?;
                added(dev, &self.keys.state().chain.root())
            }
            Action::IdDeviceRevoke { device } => {
                self.keys.revoke_device(*device).await.map_err(refused)?;
                revoked(*device)
            }
            Action::IdDeviceJoin { root } => {
                let root = parse_root(root.as_deref())?;
                let servers = self.servers_now().len();
                if root.is_some() && servers > 0 {
                    return Err(refused(servers_in_the_way(servers)));
                }
                self.keys.join(root).await.map_err(refused)?;
                joins(root)
            }
            _ => return Err(usage("this action is not about keys")),
        };
        Ok(Receipt { prepared, ..self.receipt(id, action, None, message) })
    }
}

/// Why a machine that came from a backup does not rotate at once.
pub(crate) const FRESH: &str = "this identity came from a backup and no host has answered since \
                                what became of it: if it was rotated after that backup, another \
                                rotation would contradict the first for ever. Run `homehost up` \
                                until it has met a host for some seconds, then rotate; --force \
                                rotates all the same";

impl Control {
    /// Refuses a rotation that would contradict another, or mend nothing.
    fn check_rotation(&self) -> Result<(), ApiError> {
        if self.keys.look(Identity::is_fresh) {
            return Err(ApiError::new(ErrorKind::WrongState, FRESH));
        }
        match self.keys.conflict() {
            Some(fork @ Fork::Epochs) => {
                let text = format!("{}; --force rotates all the same", fork.advice());
                Err(ApiError::new(ErrorKind::WrongState, text))
            }
            Some(Fork::Devices) | None => Ok(()),
        }
    }

    /// Refuses a revocation without a record that carries it: nobody else would
    /// ever learn of it.
    fn check_carried(&self, event: &SignedKeyEvent, record: Option<&[u8]>) -> Result<(), ApiError> {
        let mut chain = self.keys.state().chain.clone();
        // What does not go on from here is refused with a reason later.
        let holds = chain.extend(event).is_ok();
        let carried = record.is_some_and(|record| {
            let now = UnixMillis(wall_ms());
            matches!(
                validate(record, self.keys.network(), &NoChains, now),
                Verdict::Accept(valid) if valid.record == Record::KeyChain(chain.to_body())
            )
        });
        match (holds && chain.operating_key().is_none(), record, carried) {
            (true, _, true) | (false, None, _) => Ok(()),
            _ => Err(usage("a revocation comes with the record that carries it, and nothing else")),
        }
    }
}

/// What to do where there is no phrase yet.
pub(crate) const NO_PHRASE: &str = "this identity has no recovery phrase yet: run \
                                    `homehost id recovery-phrase show` in a terminal and write it \
                                    down";

/// A root as it was typed; `None` for none.
pub(crate) fn parse_root(text: Option<&str>) -> Result<Option<RootId>, ApiError> {
    text.map(|text| text.parse::<RootId>().map_err(|error| usage(error.to_string()))).transpose()
}

/// What a rotation or revocation led to.
pub(crate) fn changed(epoch: u16, signs: bool) -> String {
    if signs {
        format!("the keys were rotated: this machine signs with a new key, epoch {epoch}")
    } else {
        format!(
            "all keys are revoked (epoch {epoch}): nothing is signed until `homehost id rotate`"
        )
    }
}

/// What to do after a machine was added.
pub(crate) fn added(dev: u8, root: &RootId) -> String {
    format!("device {dev} was added; now run there: homehost id device join {root}")
}

/// What happens next on a machine that joins.
pub(crate) fn joins(root: Option<RootId>) -> String {
    match root {
        Some(root) => format!(
            "this machine becomes a device of {root} as soon as it hears that it was added there"
        ),
        None => "this machine stays with its own identity".to_owned(),
    }
}

/// What happened to a machine that was revoked.
pub(crate) fn revoked(device: u8) -> String {
    format!("device {device} signs no longer")
}

/// What is said of a text that names no machine.
pub(crate) fn not_a_key() -> ApiError {
    usage("this is not a device key: `homehost id device key` on that machine prints it")
}

fn hex(what: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    HEX.decode(text.as_bytes()).map_err(|_| usage(format!("the {what} is not hexadecimal")))
}

fn usage(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Usage, text)
}

fn refused(error: IdentityError) -> ApiError {
    exit::identity(&error)
}
