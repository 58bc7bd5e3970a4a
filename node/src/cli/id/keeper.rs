//! Who keeps the keys at the moment: a running node, or their folder alone.

use std::path::Path;

use homehost_api::{Action, ErrorKind, Identity as View, Receipt};
use homehost_hosting::DefinitionStore as _;
use homehost_protocol::chain::SignedKeyEvent;
use homehost_runtime::Tasks;
use homehost_store::{DataDir, Ledger};

use super::folder;
use crate::cli::Client;
use crate::control::identity as views;
use crate::exit::{self, Failure, failure};
use crate::identity::{Identity, Prepared, parse_key};
use crate::wire::audit::now;
use crate::wire::definitions::DefinitionPort;

/// The one that changes the keys of a data folder.
pub(super) enum Keeper {
    /// A node that runs.
    Node(Client),
    /// The folder, which nobody else can have meanwhile.
    Folder { identity: Box<Identity>, lock: DataDir },
}

/// What is said where there is nothing.
pub(super) fn no_identity(data_dir: &Path) -> Failure {
    let text = format!(
        "no node is running in {}, and there is no identity yet: `homehost up` makes one, \
         `homehost id restore FILE` or `homehost id recover ROOT --via ADDR` brings one back",
        data_dir.display()
    );
    failure(ErrorKind::Unavailable, text)
}

impl Keeper {
    /// Finds the one of a data folder.
    ///
    /// # Errors
    /// When there is no identity, or it cannot be opened.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Failure> {
        if DataDir::is_in_use(data_dir) {
            return Client::find(data_dir).map(Self::Node);
        }
        let path = folder(data_dir);
        if !Identity::exists(&path) {
            return Err(no_identity(data_dir));
        }
        let lock = DataDir::open(data_dir).map_err(|error| exit::opening(&error))?;
        let identity = Identity::open(&path).map_err(|error| exit::identity(&error))?;
        Ok(Self::Folder { identity: Box::new(identity), lock })
    }

    /// Whether no node runs.
    pub(super) fn is_offline(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }

    pub(super) async fn view(&self) -> Result<View, Failure> {
        match self {
            Self::Node(client) => client.get("/api/v1/identity").await,
            Self::Folder { identity, .. } => Ok(views::view(identity)),
        }
    }

    /// What a rotation goes on from, and the network of the node.
    pub(super) async fn prepare(&mut self) -> Result<(Prepared, Option<String>), Failure> {
        match self {
            Self::Node(client) => {
                let keys = client.act(Action::IdPrepare).await?.prepared;
                let read = keys.as_ref().and_then(views::read_prepared);
                let prepared = read.ok_or_else(|| {
                    let text = "the node's answer was not understood: is it another version?";
                    failure(ErrorKind::Internal, text)
                })?;
                Ok((prepared, keys.and_then(|keys| keys.network)))
            }
            Self::Folder { identity, .. } => {
                identity.prepare().map(|prepared| (prepared, None)).map_err(refused)
            }
        }
    }

    pub(super) async fn apply(
        &mut self,
        event: &SignedKeyEvent,
        keep_devices: Vec<u8>,
        record: Option<Vec<u8>>,
        force: bool,
    ) -> Result<Receipt, Failure> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let action = Action::IdApply {
            event: hex(&event.to_bytes()),
            keep_devices: keep_devices.clone(),
            record: record.as_deref().map(hex),
            force,
        };
        match self {
            Self::Node(client) => client.act(action).await,
            Self::Folder { identity, .. } => {
                identity.apply(event, &keep_devices, record.as_deref()).map_err(refused)?;
                let signs = identity.chain().operating_key().is_some();
                Ok(receipt(&action, views::changed(identity.chain().epoch(), signs)))
            }
        }
    }

    pub(super) async fn device_add(&mut self, key: String) -> Result<Receipt, Failure> {
        let action = Action::IdDeviceAdd { key: key.clone() };
        match self {
            Self::Node(client) => client.act(action).await,
            Self::Folder { identity, .. } => {
                let key = parse_key(&key).ok_or_else(views::not_a_key)?;
                let dev = identity.add_device(key).map_err(refused)?;
                Ok(receipt(&action, views::added(dev, &identity.root())))
            }
        }
    }

    pub(super) async fn device_revoke(&mut self, device: u8) -> Result<Receipt, Failure> {
        let action = Action::IdDeviceRevoke { device };
        match self {
            Self::Node(client) => client.act(action).await,
            Self::Folder { identity, .. } => {
                identity.revoke_device(device).map_err(refused)?;
                Ok(receipt(&action, views::revoked(device)))
            }
        }
    }

    pub(super) async fn device_join(&mut self, root: Option<String>) -> Result<Receipt, Failure> {
        let action = Action::IdDeviceJoin { root: root.clone() };
        match self {
            Self::Node(client) => client.act(action).await,
            Self::Folder { identity, lock } => {
                let root = views::parse_root(root.as_deref())?;
                if root.is_some() {
                    let servers = servers(lock).await?;
                    if servers > 0 {
                        return Err(refused(views::servers_in_the_way(servers)));
                    }
                }
                identity.join(root).map_err(refused)?;
                Ok(receipt(&action, views::joins(root)))
            }
        }
    }
}

/// How many servers are defined in a folder.
async fn servers(folder: &DataDir) -> Result<usize, Failure> {
    let tasks = Tasks::default();
    let ledger = Ledger::open(folder, &tasks).map_err(|error| exit::opening(&error))?;
    let definitions = DefinitionPort(ledger.clone()).load().await;
    ledger.close().await;
    let definitions = definitions.map_err(|error| {
        failure(ErrorKind::Internal, format!("failed to read servers: {error}"))
    })?;
    Ok(definitions.len())
}

/// A receipt of what was done without a node, and is in no audit log.
fn receipt(action: &Action, message: String) -> Receipt {
    let action = action.name().to_owned();
    Receipt { id: 0, action, at: now(), message, server: None, prepared: None }
}

fn refused(error: crate::identity::IdentityError) -> Failure {
    exit::identity(&error)
}
