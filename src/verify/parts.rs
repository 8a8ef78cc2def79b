//! The parts of a comparison, beside each other: the sources, each shard, and what ClickHouse is asked about all of it.
//!
//! Most of what a part takes is waiting for a broker or for ClickHouse. So some shards are compared at once, each by a
//! thread with a reader of its own. **Invariant:** what the parts found is put together in their order, sources first:
//! a report does not depend on which of them was done first. Memory is bounded by the wallets of the shards that are
//! compared at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::available_parallelism;

use tokio::runtime::Handle;

use super::found::Found;
use super::{Common, Told, Verification, VerifyError};
use crate::kafka::{Clients, TopicReader};

/// Shards that are compared at once, as many as there are cores, but at least: while one waits, another computes; and at
/// most: each takes memory, and brokers have other readers.
const SHARDS_AT_ONCE: RangeInclusive<usize> = 4..=16;

/// The sources come before the first shard.
const SOURCES: i32 = -1;

/// What a part found, or why it could not tell.
type Done = (i32, Result<Found, VerifyError>);

impl Verification {
    /// Compares the parts; what ClickHouse answered about all of them is left to be compared.
    pub(super) fn compare_parts(&mut self, told: Told<'_>) -> Result<(), VerifyError> {
        let (common, runtime) = (&self.common, Handle::current());
        let at_once = available_parallelism().map_or(1, usize::from);
        let at_once = at_once.clamp(*SHARDS_AT_ONCE.start(), *SHARDS_AT_ONCE.end());
        let parts = Parts { common, told, next: AtomicI32::new(SOURCES) };
        let (sender, done) = sync_channel(1);
        std::thread::scope(|threads| {
            // One more: the sources are a part too.
            for _ in 0..=at_once {
                let (sender, runtime, parts) = (sender.clone(), &runtime, &parts);
                threads.spawn(move || runtime.block_on(parts.compare(&sender)));
            }
            drop(sender);
            // Who compares sees that nobody listens any more, and ends.
            self.found.append(in_order(done)?);
            Ok(())
        })
    }
}

/// What was found, put together as it comes.
fn in_order(done: Receiver<Done>) -> Result<Found, VerifyError> {
    let (mut all, mut due, mut early) = (Found::default(), SOURCES, BTreeMap::new());
    for (part, found) in done {
        early.insert(part, found?);
        while let Some(found) = early.remove(&due) {
            all.append(found);
            due += 1;
        }
    }
    Ok(all)
}

struct Parts<'v> {
    common: &'v Arc<Common>,
    told: Told<'v>,
    next: AtomicI32,
}

impl Parts<'_> {
    /// Takes one part after the other until none is left, or nobody wants to know.
    async fn compare(&self, sender: &SyncSender<Done>) {
        let mut reader = None;
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part > self.common.shards {
                return;
            }
            let found = self.compare_part(part, &mut reader).await;
            if sender.send((part, found)).is_err() {
                return;
            }
        }
    }

    /// `reader`: that of the part before, which goes on to the next one.
    async fn compare_part(&self, part: i32, reader: &mut Option<TopicReader>) -> Result<Found, VerifyError> {
        // After the shards: what they ask ClickHouse must not wait for scans of all entries.
        if part == self.common.shards {
            return Ok(Found { answers: self.common.answers().await?, ..Found::default() });
        }
        let clients = Clients::new(Arc::clone(&self.common.config));
        let own = match reader.take() {
            Some(reader) => reader,
            None => TopicReader::new(&clients, "verify")?,
        };
        let mut verification =
            Verification { common: Arc::clone(self.common), reader: own, found: Found::default() };
        if part == SOURCES {
            verification.compare_source(self.told)?;
        } else {
            (self.told)(&format!("shard {part} of {}: wallets and ledger", self.common.shards));
            verification.compare_shard(part).await?;
        }
        *reader = Some(verification.reader);
        Ok(verification.found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kafka::ReadError;
    use crate::verify::report::Difference;

    fn found(part: i32) -> Found {
        let mut found = Found { entries: 10, notes: vec![format!("note {part}")], ..Found::default() };
        let what = format!("difference {part}");
        let place = String::new();
        found.source.differs(Difference { place, wallet_id: None, seq: None, what, records: 1, credits: 2 });
        found
    }

    #[test]
    fn parts_are_put_together_in_their_order_whichever_comes_first() {
        let (sender, done) = sync_channel(8);
        for part in [2, SOURCES, 1, 3, 0] {
            sender.send((part, Ok(found(part)))).unwrap();
        }
        drop(sender);
        let all = in_order(done).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(all.notes, ["note -1", "note 0", "note 1", "note 2", "note 3"]);
        let differences: Vec<&str> = all.source.differences.iter().map(|found| found.what.as_str()).collect();
        assert_eq!(
            differences,
            ["difference -1", "difference 0", "difference 1", "difference 2", "difference 3"]
        );
        assert_eq!((all.entries, all.source.drift_records, all.source.drift_credits), (50, 5, 10));
    }

    #[test]
    fn a_part_that_cannot_tell_ends_it_all() {
        let (sender, done) = sync_channel(8);
        sender.send((1, Ok(found(1)))).unwrap();
        sender.send((0, Err(ReadError::NoTopic("t".to_owned()).into()))).unwrap();
        assert!(in_order(done).is_err_and(|error| error.to_string().contains("topic t")));
        assert!(sender.send((2, Ok(found(2)))).is_err(), "nobody listens any more");
    }
}
