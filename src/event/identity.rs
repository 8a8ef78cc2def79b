//! Who an event is: 128-bit keys of events, jobs and business ids, and the fingerprint of what it says.
//!
//! Keys stand in stores and fingerprints in the ledger, so neither may ever change for the same event.

use std::cell::Cell;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Data, EventKind, Limit, OverdraftLimit};
use crate::rate::Quantity;
use crate::time::{EventTime, Timestamp};

/// Hash of an identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdentityKey(pub u128);

/// By what an event, what it says, and its job are found again. It is made where the event is decoded: hashing needs no
/// state, and who decides one event after another has no time for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the event.
    pub key: IdentityKey,
    /// Of what it says; `None`: its data are not valid, or it has none.
    pub fingerprint: Option<Fingerprint>,
    /// Of the job that it is about, if it is about one.
    pub job: Option<JobKeys>,
}

/// Identities of a job, and of that of its assets that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobKeys {
    /// Of the job.
    pub job: IdentityKey,
    /// Of the asset; of the job where no asset is meant.
    pub asset: IdentityKey,
}

/// Hash of what an event says: type, time and the data fields that we read. Spelt as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Fingerprint(pub u64);

/// Separates our hashes from those of anybody else.
const KEY: [u8; 32] = *b"creditstream identities format 1";

thread_local! {
    /// Memory for the parts: several lots of them are hashed for every event, one after the other.
    static PARTS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Builds the bytes that are hashed: every part is preceded by its length, so that no two differ only in where
/// one part ends.
struct Canonical {
    bytes: Vec<u8>,
}

impl Canonical {
    fn new(domain: u8) -> Canonical {
        let mut bytes = PARTS.take();
        bytes.clear();
        bytes.push(domain);
        Canonical { bytes }
    }

    fn text(&mut self, part: &str) -> &mut Canonical {
        self.bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(part.as_bytes());
        self
    }

    fn number(&mut self, part: i64) -> &mut Canonical {
        self.bytes.extend_from_slice(&part.to_le_bytes());
        self
    }

    fn hash(&mut self) -> u128 {
        let hash = blake3::keyed_hash(&KEY, &self.bytes);
        PARTS.set(std::mem::take(&mut self.bytes));
        hash.as_bytes().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
    }
}

impl Identity {
    /// Of an event with such attributes and such data.
    pub(super) fn of(
        (kind, time): (EventKind, EventTime),
        (wallet_id, source, id): (&str, &str, &str),
        data: Option<&Data<'_>>,
    ) -> Identity {
        Identity {
            key: event_key(wallet_id, source, id),
            fingerprint: data.map(|data| fingerprint(kind, time, data)),
            job: data.and_then(Data::job).map(|(job_id, asset_id)| JobKeys::of(wallet_id, job_id, asset_id)),
        }
    }
}

impl Identity {
    /// All keys of it.
    pub fn keys(&self) -> impl Iterator<Item = IdentityKey> {
        std::iter::once(self.key).chain(self.job.iter().flat_map(JobKeys::iter))
    }
}

impl JobKeys {
    /// The job's, and the asset's where one is meant.
    pub fn iter(&self) -> impl Iterator<Item = IdentityKey> {
        std::iter::once(self.job).chain((self.asset != self.job).then_some(self.asset))
    }

    /// Of a wallet's job, or of an asset of it (else empty).
    pub fn of(wallet_id: &str, job_id: &str, asset_id: &str) -> JobKeys {
        let job = job_key(wallet_id, job_id, "");
        JobKeys { job, asset: if asset_id.is_empty() { job } else { job_key(wallet_id, job_id, asset_id) } }
    }
}

/// The identity of an event: (wallet, source, id).
pub fn event_key(wallet_id: &str, source: &str, id: &str) -> IdentityKey {
    IdentityKey(Canonical::new(b'e').text(wallet_id).text(source).text(id).hash())
}

/// The identity of a job (`asset_id` empty) or of one of its assets.
pub fn job_key(wallet_id: &str, job_id: &str, asset_id: &str) -> IdentityKey {
    IdentityKey(Canonical::new(b'j').text(wallet_id).text(job_id).text(asset_id).hash())
}

/// The identity of a contract, top-up or adjustment inside its wallet; `business_id` is `kind:id`.
pub fn business_key(business_id: &str) -> IdentityKey {
    IdentityKey(Canonical::new(b'b').text(business_id).hash())
}

/// What the event says, whatever its spelling.
pub fn fingerprint(kind: EventKind, time: EventTime, data: &Data<'_>) -> Fingerprint {
    let mut whole = Canonical::new(b'p');
    let head = whole.text(kind.as_str()).number(time.0.millis());
    match data {
        Data::Requested(data) | Data::Completed(data) => {
            let (asset, quantity) = match data.quantity {
                Quantity::Images(images) => (0, i64::from(images)),
                Quantity::Video(length) => (1, i64::try_from(length.0).unwrap_or(i64::MAX)),
            };
            head.text(&data.job_id)
                .text(&data.asset_id)
                .number(asset)
                .number(quantity)
                .text(&data.model)
                .text(&data.user_id)
                .text(&data.project_id)
        }
        Data::JobEnded(data) => head.text(&data.job_id).text(&data.asset_id).text(&data.reason),
        Data::PlanChanged(data) => head
            .text(&data.contract_id)
            .text(&data.plan)
            .number(data.effective_at.map_or(i64::MIN, Timestamp::millis))
            .text(&data.reference),
        Data::ContractRenewed(data) => head
            .text(&data.contract_id)
            .text(&data.plan)
            .number(data.term_months.map_or(-1, i64::from))
            .text(&data.reference),
        Data::ContractCancelled(data) => head
            .text(&data.contract_id)
            .number(data.effective_at.map_or(i64::MIN, Timestamp::millis))
            .text(&data.reference),
        Data::LimitsChanged(data) => head
            .number(match data.overdraft_limit {
                None => -3,
                Some(Limit::Plan) => -2,
                Some(Limit::Own(OverdraftLimit::Unlimited)) => -1,
                Some(Limit::Own(OverdraftLimit::Credits(credits))) => credits,
            })
            .number(percent_number(data.low_percent))
            .number(percent_number(data.critical_percent))
            .text(&data.reference),
        Data::ContractStarted(data) => head
            .text(&data.contract_id)
            .text(&data.plan)
            .number(data.starts_at.millis())
            .number(i64::from(data.term_months))
            .text(&data.reference),
        Data::TopupPurchased(data) => head
            .text(&data.topup_id)
            .number(data.amount_usd.map_or(-1, |amount| amount.0))
            .text(&data.reference),
        Data::Adjusted(data) => head
            .text(&data.adjustment_id)
            .number(data.credits)
            .text(&data.reason)
            .text(&data.actor)
            .number(data.expires_at.map_or(i64::MIN, |at| at.millis()))
            .text(&data.reference),
    };
    Fingerprint((whole.hash() >> 64) as u64)
}

fn percent_number(percent: Option<Limit<u8>>) -> i64 {
    match percent {
        None => -2,
        Some(Limit::Plan) => -1,
        Some(Limit::Own(percent)) => i64::from(percent),
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Fingerprint).map_err(serde::de::Error::custom)
    }
}

impl Serialize for IdentityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.0.to_le_bytes().serialize(serializer);
        }
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for IdentityKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 16]>::deserialize(deserializer)
                .map(|bytes| IdentityKey(u128::from_le_bytes(bytes)));
        }
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(IdentityKey).map_err(serde::de::Error::custom)
    }
}
