//! From an item to the bytes of its record.

use std::fmt::Write;

use super::draft::Draft;
use super::faults::Edit;
use super::item::{Body, ChangeKind, Ended, Item, Key, Made, Overdraft, Usage, WalletChange};
use super::options::GenerateOptions;
use crate::event::SourceKind;
use crate::rate::VideoMillis;
use crate::time::{HOUR_MS, Timestamp};

/// Producers of usage. Those with an even place use ULIDs as event ids, the others UUIDs.
pub(super) const SOURCES: [&str; 4] = ["/render/eu-1", "/render/us-1", "/render/eu-2", "/studio/api"];
const WALLET_SOURCE: &str = "/billing";
pub(super) const IMAGE_MODELS: [&str; 4] = ["imagen-4", "flux-1.1-pro", "sdxl-turbo", "recraft-3"];
pub(super) const VIDEO_MODELS: [&str; 3] = ["veo-3", "kling-2.1", "runway-4"];
pub(super) const FREE_TYPES: [&str; 4] = ["ad.created", "asset.edited", "ad.published", "insights.viewed"];
/// Ends of a job that are no completion. The first three can come before it, the last one only refunds.
pub(super) const ENDINGS: [&str; 4] =
    ["generation.failed", "generation.rejected", "generation.cancelled", "generation.refunded"];
const END_REASONS: [&str; 4] = ["no GPU", "content policy", "user left", "artefacts"];
const GRANT_REASONS: [&str; 3] = ["goodwill after an outage", "campaign: autumn", "migrated balance"];
const DEBIT_REASONS: [&str; 2] = ["chargeback", "granted twice by hand"];
/// Offset from UTC in which respelt times are given.
const RESPELT_OFFSET_HOURS: i64 = 2;

/// A record for Kafka, as it is used again and again: the next one overwrites it.
#[derive(Clone, Debug)]
pub struct Record {
    source_kind: SourceKind,
    key: Option<String>,
    headers: Vec<(&'static str, String)>,
    value: Vec<u8>,
    is_tombstone: bool,
}

impl Default for Record {
    fn default() -> Record {
        Record {
            source_kind: SourceKind::Generation,
            key: None,
            headers: Vec::new(),
            value: Vec::new(),
            is_tombstone: false,
        }
    }
}

impl Record {
    /// Which kind of topic it is sent to.
    pub fn source_kind(&self) -> SourceKind {
        self.source_kind
    }

    /// Its key, ASCII.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its headers, in order; a name may stand twice.
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// Its value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        (!self.is_tombstone).then_some(self.value.as_slice())
    }
}

/// Spells items.
pub(super) struct Encoder {
    wallet_prefix: String,
    type_prefix: String,
    draft: Draft,
}

impl Encoder {
    pub(super) fn new(options: &GenerateOptions) -> Encoder {
        Encoder {
            wallet_prefix: options.wallet_prefix.clone(),
            type_prefix: options.type_prefix.clone(),
            draft: Draft::default(),
        }
    }

    /// Overwrites the record with the item's.
    pub(super) fn encode(&mut self, item: &Item, record: &mut Record) {
        self.draft.clear();
        self.envelope(item);
        match item.body {
            Body::Usage(usage) => self.usage_data(&usage, item.respelt),
            Body::Ended(ended) => self.ended_data(&ended, item.respelt),
            Body::Wallet(change) => self.wallet_data(&change, item.respelt),
        }
        let edit = item.fault.map_or(Edit::Nothing, |fault| fault.edit);
        edit.apply(&mut self.draft, item.at);
        if item.respelt {
            respell(&mut self.draft, item);
        }

        record.source_kind = item.source_kind;
        self.write_key(item, &mut record.key);
        record.headers.clear();
        if let Edit::Header(name, value) = edit {
            record.headers.push((name, value.to_owned()));
        }
        record.value.clear();
        if item.binary {
            self.write_binary(item, record);
        } else {
            self.write_structured(item, record);
        }
        record.is_tombstone = edit == Edit::Tombstone;
        match edit {
            Edit::Value(value) => {
                record.value.clear();
                record.value.extend_from_slice(value);
            }
            Edit::Half => record.value.truncate(record.value.len() / 2),
            _ => {}
        }
    }

    fn envelope(&mut self, item: &Item) {
        let attributes = &mut self.draft.attributes;
        let (source, name, is_ulid) = match item.body {
            Body::Usage(usage) => {
                let source = nth(&SOURCES, usage.source.into());
                let name = match usage.made {
                    Made::Free(kind) => nth(&FREE_TYPES, kind.into()),
                    _ if usage.is_request => "generation.requested",
                    Made::Images(_) | Made::VideoMillis(_) => "generation.completed",
                };
                (source, name, usage.source.is_multiple_of(2))
            }
            Body::Ended(ended) => {
                let name = nth(&ENDINGS, ended.ending.into());
                (nth(&SOURCES, ended.source.into()), name, ended.source.is_multiple_of(2))
            }
            Body::Wallet(change) => (WALLET_SOURCE, change.kind.type_name(), true),
        };
        attributes.raw("specversion", format_args!("\"1.0\""));
        if is_ulid {
            let mut id = [0; 26];
            attributes.string("id", format_args!("{}", ulid(item.event_id, &mut id)));
        } else {
            let id = uuid::Builder::from_random_bytes(item.event_id.to_be_bytes()).into_uuid();
            attributes.string("id", format_args!("{}", id.hyphenated()));
        }
        attributes.string("source", format_args!("{source}"));
        attributes.string("type", format_args!("{}{name}", self.type_prefix));
        attributes.string("subject", format_args!("{}{:06}", self.wallet_prefix, item.wallet));
        attributes.string("time", format_args!("{}", item.at));
        if !item.binary {
            attributes.string("datacontenttype", format_args!("application/json"));
        }
    }

    fn usage_data(&mut self, usage: &Usage, respelt: bool) {
        let data = &mut self.draft.data;
        match usage.made {
            Made::Images(images) => {
                data.string("job_id", format_args!("job_{:x}", usage.job));
                data.string("asset", format_args!("image"));
                if respelt {
                    data.raw("images", format_args!("{images}.0"));
                } else {
                    data.raw("images", format_args!("{images}"));
                }
                data.string("model", format_args!("{}", nth(&IMAGE_MODELS, usage.model.into())));
            }
            Made::VideoMillis(millis) => {
                data.string("job_id", format_args!("job_{:x}", usage.job));
                data.string("asset", format_args!("video"));
                if respelt {
                    data.raw("seconds", format_args!("{}.{:03}", millis / 1_000, millis % 1_000));
                } else {
                    data.raw("seconds", format_args!("{}", VideoMillis(millis)));
                }
                data.string("model", format_args!("{}", nth(&VIDEO_MODELS, usage.model.into())));
            }
            Made::Free(_) => data.string("object_id", format_args!("obj_{:x}", usage.job)),
        }
        if usage.asset > 0 {
            data.string("asset_id", format_args!("asset_{}", usage.asset));
        }
        data.string("user_id", format_args!("u_{}", usage.user));
        // Not every producer knows the project: absent and null are the same.
        if usage.project > 0 {
            data.string("project_id", format_args!("p_{}", usage.project));
        } else if respelt {
            data.raw("project_id", format_args!("null"));
        }
    }

    fn ended_data(&mut self, ended: &Ended, respelt: bool) {
        let data = &mut self.draft.data;
        data.string("job_id", format_args!("job_{:x}", ended.job));
        if ended.asset > 0 {
            data.string("asset_id", format_args!("asset_{}", ended.asset));
        }
        if ended.reason > 0 {
            data.string("reason", format_args!("{}", nth(&END_REASONS, ended.reason.into())));
        } else if respelt {
            data.raw("reason", format_args!("null"));
        }
    }

    fn wallet_data(&mut self, change: &WalletChange, respelt: bool) {
        let data = &mut self.draft.data;
        let business = change.business;
        match change.kind {
            ChangeKind::Contract { plan, starts_at } => {
                data.string("contract_id", format_args!("ctr_{business:x}"));
                data.string("plan", format_args!("{}", plan.as_str()));
                data.string("starts_at", format_args!("{}", spelt_time(starts_at, respelt)));
                // Left out, it is 12.
                if respelt {
                    data.raw("term_months", format_args!("12"));
                }
            }
            ChangeKind::PlanChange { to, effective_at, .. } => {
                data.string("contract_id", format_args!("ctr_{business:x}"));
                data.string("plan", format_args!("{}", to.as_str()));
                data.string("effective_at", format_args!("{}", spelt_time(effective_at, respelt)));
            }
            ChangeKind::Renewal { term_months } => {
                data.string("contract_id", format_args!("ctr_{business:x}"));
                data.raw("term_months", format_args!("{term_months}{}", if respelt { ".0" } else { "" }));
            }
            ChangeKind::Cancellation => {
                data.string("contract_id", format_args!("ctr_{business:x}"));
                data.string("reference", format_args!("LET-{}", business % 1_000_000));
            }
            ChangeKind::Limits { overdraft, low_percent, critical_percent } => {
                match overdraft {
                    Overdraft::Absent => {}
                    Overdraft::Unlimited => data.string("overdraft_limit", format_args!("none")),
                    Overdraft::Plan => data.string("overdraft_limit", format_args!("plan")),
                    Overdraft::Great => data.raw("overdraft_limit", format_args!("1000000000")),
                }
                data.raw("low_percent", format_args!("{low_percent}{}", if respelt { ".0" } else { "" }));
                data.raw("critical_percent", format_args!("{critical_percent}"));
            }
            ChangeKind::Topup { amount_usd, .. } => {
                data.string("topup_id", format_args!("top_{business:x}"));
                if respelt {
                    data.raw("amount_usd", format_args!("{amount_usd}.00"));
                } else {
                    data.raw("amount_usd", format_args!("{amount_usd}"));
                }
                data.string("reference", format_args!("INV-{}", business % 1_000_000));
            }
            ChangeKind::Adjustment { credits, expires_at } => {
                let reasons: &[&str] = if credits > 0 { &GRANT_REASONS } else { &DEBIT_REASONS };
                data.string("adjustment_id", format_args!("adj_{business:x}"));
                data.raw("credits", format_args!("{credits}"));
                data.string("reason", format_args!("{}", nth(reasons, business as usize)));
                data.string("actor", format_args!("support-{}", business % 7));
                if let Some(expiry) = expires_at {
                    data.string("expires_at", format_args!("{}", spelt_time(expiry, respelt)));
                }
            }
        }
    }

    fn write_key(&self, item: &Item, key: &mut Option<String>) {
        if item.key == Key::Absent {
            *key = None;
            return;
        }
        let text = key.get_or_insert_default();
        text.clear();
        // Writing to a String cannot fail.
        let _ = match item.key {
            Key::Wallet => write!(text, "{}{:06}", self.wallet_prefix, item.wallet),
            Key::OtherWallet(other) => write!(text, "{}{other:06}", self.wallet_prefix),
            Key::Random(number) => write!(text, "{number:016x}"),
            Key::Absent => Ok(()),
        };
    }

    fn write_structured(&self, item: &Item, record: &mut Record) {
        // Producers may say what the value is; most do not.
        if matches!(item.body, Body::Wallet(_)) {
            record.headers.push(("content-type", "application/cloudevents+json; charset=UTF-8".to_owned()));
        }
        let out = &mut record.value;
        out.push(b'{');
        let data_first = item.respelt;
        if data_first {
            out.extend_from_slice(b"\n  \"data\" : ");
            self.draft.write_data(out, true);
            out.extend_from_slice(b",\n  ");
        }
        self.draft.attributes.write_json(out, item.respelt);
        if !data_first {
            out.extend_from_slice(b",\"data\":");
            self.draft.write_data(out, false);
        }
        out.push(b'}');
    }

    fn write_binary(&self, item: &Item, record: &mut Record) {
        record.headers.push(("content-type", "application/json".to_owned()));
        for (name, raw) in self.draft.attributes.iter() {
            let header = match name {
                "specversion" => "ce_specversion",
                "id" => "ce_id",
                "source" => "ce_source",
                "type" => "ce_type",
                "subject" => "ce_subject",
                "time" => "ce_time",
                _ => "ce_traceparent",
            };
            record.headers.push((header, raw.trim_matches('"').to_owned()));
        }
        self.draft.write_data(&mut record.value, item.respelt);
    }
}

impl ChangeKind {
    const fn type_name(self) -> &'static str {
        match self {
            ChangeKind::Contract { .. } => "contract.started",
            ChangeKind::PlanChange { .. } => "contract.plan_changed",
            ChangeKind::Renewal { .. } => "contract.renewed",
            ChangeKind::Cancellation => "contract.cancelled",
            ChangeKind::Limits { .. } => "wallet.limits_changed",
            ChangeKind::Topup { .. } => "topup.purchased",
            ChangeKind::Adjustment { .. } => "wallet.adjusted",
        }
    }
}

/// Changes what does not count: order, offset of the time, unknown fields, escapes.
fn respell(draft: &mut Draft, item: &Item) {
    draft.attributes.set("time", format_args!("\"{}\"", spelt_time(item.at, true)));
    if let (Body::Usage(_) | Body::Ended(_), false) = (item.body, item.binary) {
        let escaped = draft
            .attributes
            .iter()
            .find(|(name, _)| *name == "source")
            .map(|(_, raw)| raw.replace('/', "\\/"));
        draft.attributes.set("source", format_args!("{}", escaped.unwrap_or_default()));
    }
    draft.attributes.string(
        "traceparent",
        format_args!("00-{:032x}-{:016x}-01", item.event_id ^ u128::from(item.wallet), item.event_id >> 64),
    );
    draft.attributes.reverse();
    draft.data.raw("retry", format_args!("{{\"attempt\":2,\"hosts\":[\"a\",\"b\"]}}"));
    draft.data.reverse();
}

fn spelt_time(at: Timestamp, respelt: bool) -> String {
    if !respelt {
        return at.to_string();
    }
    // The same instant, finer than a millisecond: what is finer is cut off.
    let shifted = at.plus_millis(RESPELT_OFFSET_HOURS * HOUR_MS).to_string();
    format!("{}789+0{RESPELT_OFFSET_HOURS}:00", shifted.trim_end_matches('Z'))
}

/// A ULID: 26 digits of Crockford's base 32.
fn ulid(id: u128, text: &mut [u8; 26]) -> &str {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut rest = id;
    for place in text.iter_mut().rev() {
        *place = DIGITS.get((rest & 31) as usize).copied().unwrap_or(b'0');
        rest >>= 5;
    }
    std::str::from_utf8(text).unwrap_or_default()
}

fn nth<'a>(names: &[&'a str], number: usize) -> &'a str {
    names.get(number % names.len().max(1)).copied().unwrap_or_default()
}
