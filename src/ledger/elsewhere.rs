//! Records that are not posted here: to the quarantine, or on to the shard that owns their wallet. Both go as they came,
//! with where they were first written.

use sha2::{Digest, Sha256};

use super::books::Outcome;
use super::decoding::{Incoming, Source};
use super::headers;
use super::outbox::Outbox;
use super::process::{Context, Tally};
use crate::event::{Event, Reason, Rejection};

/// What the quarantine and intake take of any record: `init` sees to more than that.
const SURELY_TAKEN_BYTES: usize = 1_000_000;
/// What is left of a record that is cut: so much of its key, of its headers and of its value, each.
const CUT_BYTES: usize = 16 * 1024;

/// Sends a record to the quarantine as it came, with the reason and where it was first written.
pub fn quarantine(
    incoming: &Incoming<'_>,
    rejection: &Rejection,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Outcome {
    tally.reasons.push(rejection.reason);
    let truncated = is_cut(incoming, context).then(|| truncation(incoming));
    let bytes_max = if truncated.is_some() { CUT_BYTES } else { usize::MAX };
    let own = [
        (headers::REASON, Some(rejection.reason.as_str())),
        (headers::DETAIL, Some(rejection.detail.as_str())),
        (headers::TRUNCATED, truncated.as_deref()),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?.as_bytes())));
    let cut = |bytes| first_bytes(bytes, bytes_max);
    let (key, value) = (incoming.key.map(cut), incoming.value.map(cut));
    let place = (true, incoming.origin.partition.rem_euclid(context.shards.max(1)));
    let origin = SpeltOrigin::of(&incoming.origin);
    let headers = own_headers(incoming, bytes_max).chain(origin.headers()).chain(own);
    outbox.push_with_headers(place, (key, value), headers);
    Outcome::Quarantined
}

fn first_bytes(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

fn is_cut(incoming: &Incoming<'_>, context: &Context<'_>) -> bool {
    context.cuts_large && incoming.byte_count() > SURELY_TAKEN_BYTES
}

/// What a record was before it was cut.
fn truncation(incoming: &Incoming<'_>) -> String {
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let digest = Sha256::digest(incoming.value.unwrap_or_default());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "key_bytes={} value_bytes={} header_bytes={} value_sha256={digest}",
        bytes(incoming.key),
        bytes(incoming.value),
        incoming.header_byte_count()
    )
}

/// Sends a record on to the shard that owns its wallet.
pub fn hand_over(
    incoming: &Incoming<'_>,
    event: &Event<'_>,
    home: i32,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Outcome {
    // A value is bounded; key and headers may be what is too large.
    if is_cut(incoming, context) {
        let detail = format!(
            "{} bytes with key and headers: more than the topic takes through which it would reach its wallet's shard",
            incoming.byte_count()
        );
        return quarantine(incoming, &Rejection::new(Reason::TooLarge, detail), context, outbox, tally);
    }
    let key = incoming.key.map(|key| (headers::KEY, key));
    let origin = SpeltOrigin::of(&incoming.origin);
    let headers = own_headers(incoming, usize::MAX).chain(origin.headers()).chain(key);
    let wallet_id = event.wallet_id.as_bytes();
    outbox.push_with_headers((false, home), (Some(wallet_id), incoming.value), headers);
    Outcome::HandedOver
}

/// Its producer's headers, up to `bytes_max`. `cs_` headers that it came with are dropped: of a record that was
/// quarantined, copied and sent again they would name another origin, and that is what its shard guards by.
fn own_headers<'i>(
    incoming: &'i Incoming<'_>,
    bytes_max: usize,
) -> impl Iterator<Item = (&'i str, &'i [u8])> {
    let own = incoming.headers.iter().copied().filter(|(name, _)| !name.starts_with("cs_"));
    let mut bytes = 0;
    own.take_while(move |(name, value)| {
        bytes += name.len() + value.len();
        bytes <= bytes_max
    })
}

/// Where a record was first written, as headers say it.
struct SpeltOrigin<'s> {
    topic: &'s str,
    topic_id: &'s str,
    partition: String,
    offset: String,
    time: String,
}

impl<'s> SpeltOrigin<'s> {
    fn of(origin: &Source<'s>) -> SpeltOrigin<'s> {
        SpeltOrigin {
            topic: origin.topic,
            topic_id: origin.topic_id,
            partition: origin.partition.to_string(),
            offset: origin.offset.to_string(),
            time: origin.timestamp.to_string(),
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = [
            (headers::TOPIC, self.topic),
            (headers::TOPIC_ID, self.topic_id),
            (headers::PARTITION, &self.partition),
            (headers::OFFSET, &self.offset),
            (headers::TIME, &self.time),
        ];
        all.into_iter().map(|(name, value)| (name, value.as_bytes()))
    }
}
