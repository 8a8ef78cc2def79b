//! One shard: its books, its wallets' states, its ledger, its alerts, and what ClickHouse has of its wallets and alerts.

use super::alerts::LedgerAlerts;
use super::fold::{Origin, ShardFold};
use super::source::{self, Progress};
use super::{Verification, VerifyError, sources};
use crate::kafka::Stretch;

impl Verification {
    /// Compares one shard in all places.
    pub(super) async fn compare_shard(&mut self, shard: i32) -> Result<(), VerifyError> {
        let (stored, shards) = (&self.common.stored, self.common.shards);
        let rows = stored.wallets(shard, shards).await?;
        let alerts = match self.common.window.is_whole {
            true => Some((stored.alert_totals(shard, shards).await?, self.alert_ends(shard)?)),
            false => None,
        };
        let told_of = alerts.as_ref().map(|(_, ends)| ends.fold());
        let fold = tokio::task::block_in_place(|| self.fold_shard(shard, told_of))?;
        self.compare_wallet_rows(shard, &fold, &rows);
        match alerts {
            // What was told before the cut stands in the topic for ever, and some of it was told again.
            Some(_) if self.found.accepted.contains(&shard) => self.found.notes.push(format!(
                "the ledger of shard {shard} was cut, and that was accepted: its alerts are not compared"
            )),
            Some((rows, ends)) => self.compare_alerts(shard, &fold, ends, rows).await?,
            None => {}
        }
        Ok(())
    }

    /// Reads one shard: its books, then its wallets' states, then its ledger up to an end beyond all of them.
    fn fold_shard(&mut self, shard: i32, alerts: Option<LedgerAlerts>) -> Result<ShardFold, VerifyError> {
        let topics = self.common.config.topics.clone();
        // A shard's own progress, and that of the partitions that it may read at home, stand in the partition of its number.
        let progress = match self.common.window.is_whole {
            true => {
                let stretch = self.reader.whole(&topics.progress, shard)?;
                Progress::read(&self.reader, &topics.progress, &[stretch], &mut self.found.source)?
            }
            false => Progress::default(),
        };
        if progress.cuts(shard) > 0 {
            self.found.accepted.push(shard);
        }
        let position = self.common.ledger_positions.get(&shard).copied().unwrap_or(0);
        let mut fold = ShardFold::new(shard, self.common.window, position);
        fold.alerts = alerts;
        let states = self.reader.whole(&topics.wallets, shard)?;
        let wallets = &mut self.found.wallets;
        self.reader.read(&topics.wallets, &[states], |record| match (record.key, record.value) {
            (Some(key), Some(value)) => fold.add_snapshot(key, value, record.offset, wallets),
            (Some(key), None) => fold.remove_snapshot(key),
            (None, _) => {}
        })?;
        let ledger = self.stretch(shard)?;
        let (source, wallets) = (&mut self.found.source, &mut self.found.wallets);
        let cut = |origin: &Origin<'_>| progress.counts(shard, &topics.intake, origin);
        self.reader.read(&topics.ledger, &[ledger], |record| {
            fold.add(record.value.unwrap_or_default(), record.offset, &cut, source, wallets);
        })?;
        fold.finish(wallets);
        if self.common.window.is_whole {
            let books = progress.posted(shard, &sources(&self.common.config), &topics.intake);
            source::compare_posted(shard, &fold.posted, &books, source);
        }
        self.found.entries += fold.entries;
        self.found.hours.extend(fold.hours.iter().map(|(hour, totals)| ((shard, *hour), *totals)));
        if fold.ahead_of_sink > 0 {
            let entries = fold.ahead_of_sink;
            self.found.notes.push(format!(
                "shard {shard}: {entries} entries are not written by the sink yet: not compared"
            ));
        }
        Ok(fold)
    }

    /// The ledger of a shard, from where entries of the window may stand.
    fn stretch(&mut self, shard: i32) -> Result<Stretch, VerifyError> {
        let topic = &self.common.config.topics.ledger;
        let whole = self.reader.whole(topic, shard)?;
        if whole.from > 0 {
            self.found.cut.push(shard);
            let note =
                format!("the ledger of shard {shard} begins at offset {}: is it kept for ever?", whole.from);
            self.found.notes.push(note);
        }
        let mut stretch = [whole];
        if let Some(from) = self.common.scope.from {
            // A record's Kafka timestamp is that of its sending, a little later than the posting.
            self.reader.begin_at(topic, &mut stretch, from.millis())?;
        }
        let [stretch] = stretch;
        Ok(stretch)
    }
}
