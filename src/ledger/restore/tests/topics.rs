//! Topics as a test writes them, and a reader of them that does what the test says: it stalls, fails, takes its time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use crate::config::TopicsConfig;
use crate::kafka::{KafkaConsumer, Polled, RecordView};
use crate::ledger::world::{Reader, RealProducer, World};
use crate::time::Timestamp;

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// All topics, their reader, and the clock.
#[derive(Clone, Default)]
pub struct Topics(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub logs: BTreeMap<(String, i32), Log>,
    /// Said before any record.
    pub says: VecDeque<Polled<()>>,
    is_mute: bool,
    /// Time that each record takes.
    pub takes: Duration,
    /// From where partitions were read, in order.
    pub reads: Vec<(String, i32, i64)>,
    /// Times that were looked for.
    pub looked_for: Vec<i64>,
    pub passed: Duration,
    places: BTreeMap<(String, i32), i64>,
}

#[derive(Default)]
pub struct Log {
    pub records: Vec<Record>,
    /// Its first offset.
    pub first: i64,
    /// Its end, where it is not the end of the records: there is a marker beyond them, or some come later.
    pub end: Option<i64>,
    /// A transaction is open from its first offset on, until then.
    pub open_until: Duration,
    /// Nothing of it is ever told.
    pub is_silent: bool,
}

pub struct Record {
    pub timestamp: i64,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

impl Topics {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn put(&self, topic: &str, partition: i32, timestamp: i64, key: &str, value: Option<&str>) {
        let record = Record {
            timestamp,
            key: key.as_bytes().to_vec(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        self.lock().log(topic, partition).records.push(record);
    }
}

impl State {
    pub fn log(&mut self, topic: &str, partition: i32) -> &mut Log {
        self.logs.entry((topic.to_owned(), partition)).or_default()
    }
}

impl Log {
    fn end(&self) -> i64 {
        self.end.unwrap_or(self.first + self.records.len() as i64)
    }
}

impl World for Topics {
    type Member = KafkaConsumer;
    type Reader = Topics;
    type Producer = RealProducer;

    fn member(&self, _worker: usize) -> KafkaResult<KafkaConsumer> {
        Err(KafkaError::Canceled)
    }

    fn reader(&self) -> KafkaResult<Topics> {
        Ok(self.clone())
    }

    fn producer(&self, _worker: usize, _topics: &TopicsConfig) -> KafkaResult<RealProducer> {
        Err(KafkaError::Canceled)
    }

    fn threads(&self, _workers: usize) -> usize {
        1
    }

    fn now(&self) -> Instant {
        *BEGINNING + self.lock().passed
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn sleep(&self, time: Duration) {
        self.lock().passed += time;
    }

    fn spawn(&self, _name: &str, _body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        Err(io::Error::other("no threads"))
    }

    fn receive<T>(&self, _: &Receiver<T>, _: Option<Duration>) -> Result<T, RecvTimeoutError> {
        Err(RecvTimeoutError::Disconnected)
    }
}

impl Reader for Topics {
    fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
        Ok(partitions)
    }

    fn ends(&self, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
        let mut state = self.lock();
        let log = state.log(topic, partition);
        Ok((log.first, log.end()))
    }

    fn stable_end(&self, topic: &str, partition: i32) -> KafkaResult<i64> {
        let mut state = self.lock();
        let passed = state.passed;
        let log = state.log(topic, partition);
        Ok(if passed < log.open_until { log.first } else { log.end() })
    }

    fn offset_at(&self, topic: &str, partition: i32, time_ms: i64) -> KafkaResult<Option<i64>> {
        let mut state = self.lock();
        state.looked_for.push(time_ms);
        let log = state.log(topic, partition);
        let place = log.records.iter().position(|record| record.timestamp >= time_ms);
        Ok(place.map(|place| log.first + place as i64))
    }

    fn assign(&self, places: &TopicPartitionList) -> KafkaResult<()> {
        let mut state = self.lock();
        for element in places.elements() {
            let from = element.offset().to_raw().unwrap();
            state.reads.push((element.topic().to_owned(), element.partition(), from));
            state.places.insert((element.topic().to_owned(), element.partition()), from);
        }
        Ok(())
    }

    fn unassign(&self) -> KafkaResult<()> {
        self.lock().places.clear();
        Ok(())
    }

    fn poll(&self) -> Polled<()> {
        let mut state = self.lock();
        let said = state.says.pop_front();
        state.is_mute = said.is_some();
        match said {
            Some(Polled::Error { code, message, is_fatal }) => Polled::Error { code, message, is_fatal },
            _ => Polled::Nothing,
        }
    }

    /// One at a time. Partitions take turns; each tells its end once. Nothing comes with what was said.
    fn take(
        &self,
        _max: usize,
        timeout: Duration,
        mut on_record: impl FnMut(&RecordView<'_>),
        mut on_end: impl FnMut(&str, i32, i64),
    ) -> usize {
        let mut state = self.lock();
        let State { logs, places, passed, takes, is_mute, .. } = &mut *state;
        for ((topic, partition), next) in places.iter_mut().filter(|_| !*is_mute) {
            let Some(log) = logs.get(&(topic.clone(), *partition)).filter(|log| !log.is_silent) else {
                continue;
            };
            let offset = *next;
            *next += 1;
            if let Some(record) = log.records.get((offset - log.first) as usize) {
                *passed += *takes;
                let parts = (Some(&record.key[..]), record.value.as_deref());
                on_record(&RecordView::made(topic, (*partition, offset), record.timestamp, parts, &[]));
                return 1;
            }
            if offset == log.first + log.records.len() as i64 {
                on_end(topic, *partition, log.end());
                return 1;
            }
        }
        *passed += timeout;
        0
    }
}

/// An error of the client.
pub fn error(is_fatal: bool) -> Polled<()> {
    Polled::Error { code: RDKafkaErrorCode::Fail, message: "made by the test".to_owned(), is_fatal }
}
