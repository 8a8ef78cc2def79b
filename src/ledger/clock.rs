//! The shard clock: how far a shard's sources have come, in event time.
//!
//! It is the least, over the sources that are not at their end, of the greatest event time accepted from each;
//! where all are at their end, the greatest of them all. A source that is not at its end and has shown nothing
//! yet holds it where it is. It never goes back and never passes the wall clock. Pure: the caller reads clocks.

use crate::time::{ShardClock, Timestamp};

/// The clock of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ClockState {
    now: ShardClock,
    sources: Vec<SourceClock>,
    /// Wall time since when all sources have been at their end; `None`: some is not.
    all_idle_since: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
struct SourceClock {
    /// Index of the topic.
    topic: usize,
    greatest: Option<Timestamp>,
    at_end: bool,
}

impl ClockState {
    /// A clock that stands at `now`, without sources.
    pub fn new(now: ShardClock) -> ClockState {
        ClockState { now, sources: Vec::new(), all_idle_since: None }
    }

    /// Its reading.
    pub fn now(&self) -> ShardClock {
        self.now
    }

    /// Forgets its sources and takes these: what a new assignment begins with.
    pub fn assign(&mut self, topics: impl IntoIterator<Item = usize>) {
        self.sources =
            topics.into_iter().map(|topic| SourceClock { topic, greatest: None, at_end: false }).collect();
        self.all_idle_since = None;
    }

    /// A record was read: its source is not at its end.
    pub fn record_read(&mut self, topic: usize) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.topic == topic) {
            source.at_end = false;
        }
        self.all_idle_since = None;
    }

    /// An event was accepted.
    pub fn accepted(&mut self, topic: usize, event_time: Timestamp, wall: Timestamp) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.topic == topic) {
            source.greatest = Some(source.greatest.map_or(event_time, |greatest| greatest.max(event_time)));
        }
        self.advance(wall);
    }

    /// A source has been read to its end.
    pub fn at_end(&mut self, topic: usize, wall: Timestamp) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.topic == topic) {
            source.at_end = true;
        }
        if self.all_idle_since.is_none() && self.sources.iter().all(|source| source.at_end) {
            self.all_idle_since = Some(wall);
        }
        self.advance(wall);
    }

    /// The wall clock takes over when all sources have been at their end and silent for `idle_after_ms`.
    pub fn tick(&mut self, wall: Timestamp, idle_after_ms: i64) {
        if self
            .all_idle_since
            .is_some_and(|since| wall.millis().saturating_sub(since.millis()) >= idle_after_ms)
        {
            self.now = self.now.max(ShardClock(wall));
        }
    }

    fn advance(&mut self, wall: Timestamp) {
        let mut behind = self.sources.iter().filter(|source| !source.at_end).peekable();
        let reading = if behind.peek().is_some() {
            // `None` sorts first: a source that has shown nothing holds the clock.
            behind.map(|source| source.greatest).min().flatten()
        } else {
            self.sources.iter().filter_map(|source| source.greatest).max()
        };
        if let Some(reading) = reading {
            self.now = self.now.max(ShardClock(reading.min(wall)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::from_millis(1_000);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn two_sources() -> ClockState {
        let mut clock = ClockState::new(ShardClock(at(0)));
        clock.assign([0, 1]);
        clock
    }

    #[test]
    fn a_source_that_has_shown_nothing_holds_the_clock() {
        let mut clock = two_sources();
        clock.accepted(0, at(500), WALL);
        assert_eq!(clock.now(), ShardClock(at(0)));
        clock.at_end(1, WALL);
        assert_eq!(clock.now(), ShardClock(at(500)));
    }

    #[test]
    fn the_slowest_source_leads_until_all_are_at_their_end() {
        let mut clock = two_sources();
        clock.accepted(0, at(500), WALL);
        clock.accepted(1, at(300), WALL);
        assert_eq!(clock.now(), ShardClock(at(300)));
        clock.at_end(0, WALL);
        clock.at_end(1, WALL);
        assert_eq!(clock.now(), ShardClock(at(500)));
        clock.record_read(1);
        clock.accepted(1, at(400), WALL);
        assert_eq!(clock.now(), ShardClock(at(500)), "it never goes back");
    }

    #[test]
    fn it_never_passes_the_wall_clock() {
        let mut clock = two_sources();
        clock.at_end(1, WALL);
        clock.accepted(0, at(1_500), WALL);
        assert_eq!(clock.now(), ShardClock(WALL));
    }

    #[test]
    fn the_wall_clock_takes_over_only_after_silence_of_all() {
        let mut clock = two_sources();
        clock.at_end(0, at(1_000));
        clock.tick(at(90_000), 60_000);
        assert_eq!(clock.now(), ShardClock(at(0)), "one source is not at its end");
        clock.at_end(1, at(100_000));
        clock.tick(at(159_999), 60_000);
        assert_eq!(clock.now(), ShardClock(at(0)));
        clock.tick(at(160_000), 60_000);
        assert_eq!(clock.now(), ShardClock(at(160_000)));
    }
}
