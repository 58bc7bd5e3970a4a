//! `id recover`: the words say which keys come next, other nodes say whose they
//! are and which came before.

use std::path::Path;

use homehost_api::ErrorKind;
use homehost_mesh::Multiaddr;
use homehost_protocol::RootId;
use homehost_protocol::chain::Relation;
use homehost_store::DataDir;

use super::backup::no_identity_yet;
use super::phrase::{read_phrase, recovery_key};
use super::rotate::rotation;
use super::{RecoverArgs, folder, say};
use crate::cli::via::{self, KnownChain};
use crate::cli::{Output, usage};
use crate::exit::{self, Failure, failure};
use crate::identity::{Identity, Prepared};

pub(super) async fn run(
    args: &RecoverArgs,
    data_dir: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let root: RootId =
        args.root.parse().map_err(|error| usage(format!("{}: {error}", args.root)))?;
    let folder = folder(data_dir);
    let _lock = DataDir::open(data_dir).map_err(|error| exit::opening(&error))?;
    no_identity_yet(&folder)?;
    let known = ask(&args.via, root, output).await?;
    let phrase = read_phrase(&args.phrase, output)?;
    let key = known.chain.carrier();
    let prepared = Prepared { chain: known.chain.clone(), key };
    let (by, next) = recovery_key(&phrase, &prepared)?;
    let sign = |prepared: &Prepared| rotation(prepared, &by, next);
    let identity =
        Identity::recover(&folder, known.chain, sign).map_err(|error| exit::identity(&error))?;
    let network = if known.network.is_main() {
        String::new()
    } else {
        format!(" --network {}", known.network)
    };
    let bootstrap: String = args.via.iter().map(|address| format!(" {address}")).collect();
    say(
        output,
        format!(
            "root {root} is back: this machine signs for it with a new key, epoch {}, which goes \
             on from epoch {} as of {}. All other keys of it end, also those of your other \
             machines, as soon as others hear of it, so start it now: `homehost \
             up{network} --bootstrap{bootstrap}`. Servers were on the lost disk: add them again",
            identity.chain().epoch(),
            prepared.chain.epoch(),
            known.issued,
        ),
    );
    Ok(())
}

/// Asks all of them for the newest chain. Several are asked because one may be
/// gone, or behind.
async fn ask(via: &[Multiaddr], root: RootId, output: &Output) -> Result<KnownChain, Failure> {
    let (mut known, mut failures) = (Vec::new(), Vec::new());
    for address in via {
        match via::chains(address, root).await {
            Ok(chains) => known.extend(chains),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.len() == via.len()
        && let Some(failure) = failures.pop()
    {
        return Err(failure);
    }
    for failure in failures {
        output.hint(&failure.message);
    }
    newest(known)?.ok_or_else(|| unknown(&root))
}

/// The chain that goes on from all others; none when nobody knows one.
fn newest(known: Vec<KnownChain>) -> Result<Option<KnownChain>, Failure> {
    let mut newest: Option<KnownChain> = None;
    for known in known {
        let Some(before) = &newest else {
            newest = Some(known);
            continue;
        };
        match known.chain.relation(&before.chain) {
            Relation::Newer => newest = Some(known),
            Relation::Same | Relation::Older => {}
            // A rotation is put onto the last epoch and ends a fight about its
            // devices.
            Relation::Conflict if known.chain.epoch_head() == before.chain.epoch_head() => {}
            Relation::Conflict => {
                let text = format!(
                    "two key chains of root {} contradict each other: its recovery key was \
                     used twice in one epoch, perhaps after an old backup, perhaps by a thief. \
                     Nodes mark this root for as long as they know both, and a third chain would \
                     mend nothing: begin as somebody new with `homehost up`",
                    known.chain.root()
                );
                return Err(failure(ErrorKind::WrongState, text));
            }
        }
    }
    Ok(newest)
}

fn unknown(root: &RootId) -> Failure {
    let text = format!(
        "nobody who was asked knows the keys of root {root}: is the id right? Ask another node \
         with --via; a root that never was online with others is known to nobody"
    );
    failure(ErrorKind::NotFound, text)
}

#[cfg(test)]
mod tests {
    use homehost_protocol::chain::{Chain, SignedKeyEvent};
    use homehost_protocol::keys::DeviceKey;
    use homehost_protocol::{NetworkName, UnixMillis};

    use super::*;
    use crate::identity::phrase::Phrase;

    fn key(n: u8) -> DeviceKey {
        DeviceKey::from_seed([n; 32])
    }

    fn known(chain: &Chain) -> KnownChain {
        KnownChain { chain: chain.clone(), network: NetworkName::main(), issued: UnixMillis(0) }
    }

    fn rotated(chain: &Chain, phrase: &Phrase, to: u8) -> Chain {
        let prepared = Prepared { chain: chain.clone(), key: key(to).public() };
        let (by, next) = recovery_key(phrase, &prepared).unwrap();
        let mut chain = chain.clone();
        chain.extend(&rotation(&prepared, &by, next)).unwrap();
        chain
    }

    #[test]
    fn the_chain_that_goes_on_counts_and_a_contradiction_is_refused() {
        let phrase = Phrase::of_entropy(&[7; 16]);
        let born = Chain::genesis(key(1).public(), phrase.commitment(1));
        let [one, other] = [2, 3].map(|to| rotated(&born, &phrase, to));
        let later = rotated(&one, &phrase, 4);
        let of = |chains: &[&Chain]| {
            let known = chains.iter().map(|chain| known(chain)).collect();
            newest(known).map(|known| known.map(|known| known.chain))
        };
        assert_eq!(of(&[]).unwrap(), None);
        for chains in [[&born, &one, &later], [&later, &one, &born], [&one, &later, &later]] {
            assert_eq!(of(&chains).unwrap().as_ref(), Some(&later));
        }
        for chains in [[&one, &other], [&other, &one], [&later, &other]] {
            let error = of(&chains).unwrap_err();
            assert!(error.to_string().contains("contradict each other"), "{error}");
        }
        // Two machines that were added as the same device are no obstacle.
        let [a, b] = [5, 6].map(|device| {
            let mut chain = one.clone();
            let event = chain.addition(1, key(device).public());
            chain.extend(&SignedKeyEvent::sign(&event, &chain.root(), &key(2))).unwrap();
            chain
        });
        assert_eq!(a.relation(&b), Relation::Conflict);
        assert_eq!(of(&[&a, &b]).unwrap(), Some(a.clone()));
        assert_eq!(rotated(&a, &phrase, 8), rotated(&b, &phrase, 8));
    }
}
