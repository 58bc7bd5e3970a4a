//! The record of the own key chain: signed, kept, said with what it proves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use homehost_directory::{Admission, Refusal, Source};
use homehost_protocol::chain::KeyChain;
use homehost_protocol::limits::AHEAD_MAX;
use homehost_protocol::validate::NoChains;
use homehost_protocol::{Record, UnixMillis, Verdict, validate};
use homehost_runtime::wall_ms;
use homehost_store::{Batch, Table};

use super::AnnounceTask;

/// The row of the record among own records.
pub(super) const CHAIN_ROW: &[u8] = b"chain";

/// It is signed anew this often, so that nobody forgets it (spec/records §5).
const RENEW: Duration = Duration::from_secs(7 * 24 * 3600);

/// At a start already after this time.
const RENEW_AT_START: Duration = Duration::from_secs(24 * 3600);

/// What failed is tried again after this time.
const PAUSE: Duration = Duration::from_secs(5);

/// After nobody could hear this node it is said again at most this often.
const REJOIN_PAUSE: Duration = Duration::from_secs(30);

/// The envelope of a key chain's record.
type ChainRecord = Arc<[u8]>;

/// What was said of the own chain last, and what is due.
#[derive(Default)]
pub(super) struct ChainSaid {
    said: Option<Said>,
    /// To be said with the next listings.
    due: Option<ChainRecord>,
    paused: Option<Instant>,
    rejoined_at: Option<Instant>,
}

struct Said {
    body: KeyChain,
    issued: UnixMillis,
    envelope: ChainRecord,
}

impl ChainSaid {
    /// From what the ledger holds.
    pub(super) fn at_start(
        stored: Option<(KeyChain, UnixMillis, Vec<u8>)>,
        now: UnixMillis,
    ) -> Self {
        let fresh = stored.filter(|(_, issued, _)| now.since(*issued) < RENEW_AT_START);
        let said =
            fresh.map(|(body, issued, envelope)| Said { body, issued, envelope: envelope.into() });
        Self { said, ..Self::default() }
    }

    /// Others can hear this node again, who may never have heard it.
    pub(super) fn rejoined(&mut self) {
        if self.rejoined_at.is_none_or(|at| at.elapsed() >= REJOIN_PAUSE) {
            self.rejoined_at = Some(Instant::now());
            self.due = self.said.as_ref().and_then(Said::worth_saying);
        }
    }

    /// What is to be said before the next rows, once.
    pub(super) fn due(&mut self) -> Option<Vec<u8>> {
        self.due.take().map(|envelope| envelope.to_vec())
    }
}

impl Said {
    /// A root that has only been born proves itself.
    fn worth_saying(&self) -> Option<ChainRecord> {
        (self.body.events.len() > 1).then(|| self.envelope.clone())
    }
}

impl AnnounceTask {
    /// Makes the record when there is none of the chain as it is, or it is old.
    pub(super) async fn keep_chain(&mut self) {
        let body = self.state.chain.to_body();
        let now = UnixMillis(wall_ms());
        let stands = self.chain.said.as_ref().is_some_and(|said| said.body == body);
        let issued = self.chain.said.as_ref().map(|said| said.issued);
        let old = issued.is_none_or(|issued| {
            // One that was dated by a clock that was ahead is heard by nobody.
            now.since(issued) >= RENEW || issued > now.plus(AHEAD_MAX)
        });
        let revoked = self.state.chain.operating_key().is_none();
        // Nobody can sign it anew after a revocation.
        if stands && (!old || revoked) {
            return;
        }
        if self.chain.paused.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        match self.make_chain_record(&body, now).await {
            Ok(None) => self.chain.said = None,
            Ok(Some(envelope)) => {
                let said = Said { body, issued: now, envelope: envelope.into() };
                self.chain.due = said.worth_saying();
                self.chain.said = Some(said);
                self.chain.paused = None;
            }
            Err(error) => {
                tracing::warn!("failed to sign the key chain: {error}");
                self.chain.paused = Some(Instant::now());
            }
        }
    }

    /// Signs and keeps the record, or takes the one that came with a revocation;
    /// none where neither can be.
    async fn make_chain_record(
        &self,
        body: &KeyChain,
        now: UnixMillis,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let key = self.parts.key(CHAIN_ROW);
        let envelope = match (self.state.carrier(), &self.state.revocation) {
            (Some(signer), _) => {
                let seq = self.parts.clock.next_seq(&self.parts.ledger, &key, now.0).await?;
                signer.sign(&Record::KeyChain(body.clone()), seq, now)?
            }
            (None, Some(record)) => match validate(record, &self.parts.network, &NoChains, now) {
                Verdict::Accept(valid) if valid.record == Record::KeyChain(body.clone()) => {
                    record.clone()
                }
                _ => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let batch = Batch::new().put(Table::OwnRecords, key, envelope.clone());
        self.parts.ledger.commit(batch).await?;
        let admitted = self.parts.directory.admit(vec![(envelope.clone(), Source::Own)]).await?;
        match admitted.admissions.into_iter().next() {
            Some(Admission::Refused(Refusal::Known)) => {}
            Some(Admission::Refused(refusal)) => return Err(refusal.into()),
            _ => {}
        }
        Ok(Some(envelope))
    }
}
