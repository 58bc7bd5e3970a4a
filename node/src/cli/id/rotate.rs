//! `id rotate` and `id revoke`: signed here, with the words, and handed over.

use std::path::Path;

use homehost_api::{ErrorKind, Identity as View};
use homehost_protocol::chain::SignedKeyEvent;
use homehost_protocol::keys::{DeviceKey, KeyDigest};
use homehost_protocol::record::RecordSigner;
use homehost_protocol::{NetworkName, Record, UnixMillis};
use homehost_runtime::wall_ms;

use super::keeper::Keeper;
use super::phrase::{needs_phrase, read_phrase, recovery_key};
use super::talk::{Talk as _, Terminal};
use super::{RevokeArgs, RotateArgs, devices, folder, say, talking, terminal};
use crate::cli::Output;
use crate::control::identity::FRESH;
use crate::exit::{Failure, failure};
use crate::identity::{Identity, Prepared};

/// The event that brings in the prepared key.
pub(super) fn rotation(prepared: &Prepared, by: &DeviceKey, next: KeyDigest) -> SignedKeyEvent {
    let Prepared { chain, key } = prepared;
    let event = chain.rotation(*key, by.public(), next);
    SignedKeyEvent::sign(&event, &chain.root(), by)
}

/// Refuses a rotation that would contradict another, or mend nothing.
pub(super) fn check_rotation(view: &View, data_dir: &Path, force: bool) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    if Identity::is_fresh_from_backup(&folder(data_dir)) {
        return Err(failure(ErrorKind::WrongState, FRESH));
    }
    if let Some(conflict) = view.conflict.as_deref().filter(|_| view.conflict_is_final) {
        let text = format!("{conflict}; --force rotates all the same");
        return Err(failure(ErrorKind::WrongState, text));
    }
    Ok(())
}

pub(super) async fn rotate(
    args: &RotateArgs,
    data_dir: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let mut keeper = Keeper::open(data_dir)?;
    let view = keeper.view().await?;
    needs_phrase(&view)?;
    check_rotation(&view, data_dir, args.force)?;
    let phrase = read_phrase(&args.phrase, output)?;
    let (prepared, _) = keeper.prepare().await?;
    let (by, next) = recovery_key(&phrase, &prepared)?;
    let others: Vec<_> =
        view.devices.iter().filter(|other| other.device != 0 && !other.revoked).collect();
    let keep = match (others.is_empty(), Terminal::open(output)) {
        (true, _) => false,
        (false, _) if args.keep_devices => true,
        (false, None) => false,
        (false, Some(mut terminal)) => {
            terminal.say("These machines sign for this identity, besides device 0:");
            terminal.say(devices(&view, output).trim_end());
            terminal.confirm("Let them sign after the rotation, too?").map_err(talking)?
        }
    };
    // This machine gets the number 0; its former number is not wanted any more.
    let kept = others.iter().filter(|other| keep && !other.this).map(|other| other.device);
    let event = rotation(&prepared, &by, next);
    let mut receipt = keeper.apply(&event, kept.collect(), None, args.force).await?;
    if !others.is_empty() && !keep {
        receipt.message.push_str(
            "; the other machines sign no longer: add those that you want again with \
             `homehost id device add`",
        );
    }
    if keeper.is_offline() {
        receipt.message.push_str("; others learn of it when the node runs: `homehost up`");
    }
    output.receipt(&receipt);
    Ok(())
}

pub(super) async fn revoke(
    args: &RevokeArgs,
    data_dir: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let mut keeper = Keeper::open(data_dir)?;
    if keeper.is_offline() {
        let text = "a revocation that nobody hears of ends nothing: start the node with \
                    `homehost up` and try again";
        return Err(failure(ErrorKind::Unavailable, text));
    }
    needs_phrase(&keeper.view().await?)?;
    let phrase = read_phrase(&args.phrase, output)?;
    let (prepared, network) = keeper.prepare().await?;
    let (by, next) = recovery_key(&phrase, &prepared)?;
    if !args.yes {
        let mut terminal = terminal(output, "give --yes if it is meant")?;
        terminal.say("All keys of this identity end, on every machine. Its servers go on running");
        terminal.say("and are listed no longer, until `homehost id rotate`.");
        if !terminal.confirm("Revoke them all?").map_err(talking)? {
            say(output, "nothing was changed");
            return Ok(());
        }
    }
    let mut chain = prepared.chain;
    let event = chain.revocation(by.public(), next);
    let event = SignedKeyEvent::sign(&event, &chain.root(), &by);
    let failed = |error: &dyn std::fmt::Display| {
        failure(ErrorKind::WrongState, format!("failed to revoke: {error}"))
    };
    chain.extend(&event).map_err(|error| failed(&error))?;
    let network = network
        .and_then(|network| network.parse::<NetworkName>().ok())
        .ok_or_else(|| failed(&"the node did not name its network"))?;
    let signer = RecordSigner::carrier_of(by, &chain, network)
        .ok_or_else(|| failed(&"the recovery key does not carry the chain"))?;
    let now = wall_ms();
    let record = signer
        .sign(&Record::KeyChain(chain.to_body()), now, UnixMillis(now))
        .map_err(|error| failed(&error))?;
    let receipt = keeper.apply(&event, Vec::new(), Some(record), false).await?;
    output.receipt(&receipt);
    Ok(())
}
