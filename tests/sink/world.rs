//! A database, topics and a consumer group of one test's own, on the real engine and broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use creditstream::config::{Config, process_env};
use creditstream::metrics::Metrics;
use creditstream::sink::client;
use creditstream::sink::insert::ClickHouse;
use creditstream::sink::record::{Record, Source};
use creditstream::sink::{self, SinkError, migrate, tables};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::sync::oneshot;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A database, topics and a group that nobody else uses; taken away at the end.
pub struct World {
    pub config: Config,
}

impl World {
    pub fn new() -> World {
        // Logs of a test that fails: RUST_LOG=creditstream=debug.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut config = Config::load(None, process_env()).unwrap();
        let id = uuid::Uuid::new_v4().simple().to_string();
        config.clickhouse.database = format!("sink_test_{id}");
        config.topics.ledger = format!("sink-test-{id}.ledger");
        config.topics.wallets = format!("sink-test-{id}.wallets");
        config.topics.alerts = format!("sink-test-{id}.alerts");
        config.topics.quarantine = format!("sink-test-{id}.quarantine");
        config.sink.group = format!("sink-test-{id}");
        config.sink.batch_wait_ms_max = 50;
        config.sink.retry_ms_min = 20;
        config.sink.retry_ms_max = 100;
        World { config }
    }

    /// With tables.
    pub async fn migrated() -> World {
        let world = World::new();
        migrate(&world.config.clickhouse).await.expect("is the stack up? python3 stack/stack.py up");
        world
    }

    /// With tables and topics.
    pub async fn whole() -> World {
        let world = World::migrated().await;
        let admin: AdminClient<DefaultClientContext> = world.kafka().create().unwrap();
        let topics = Source::ALL.map(|source| source.topic(&world.config.topics).to_owned());
        // The records are of 2026-01, and the broker deletes by their timestamps, every five minutes.
        let new = |topic| NewTopic::new(topic, 2, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let new: Vec<NewTopic<'_>> = topics.iter().map(|topic| new(topic)).collect();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for made in
            admin.create_topics(&new, &options).await.expect("is the stack up? python3 stack/stack.py up")
        {
            made.unwrap();
        }
        world
    }

    pub fn kafka(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.config.kafka.bootstrap_servers());
        client
    }

    pub fn clickhouse(&self) -> ClickHouse {
        ClickHouse::new(&self.config.clickhouse, &self.config.sink, Metrics::new())
    }

    /// The answer, one row a line, tabs between columns.
    pub async fn query(&self, sql: &str) -> String {
        self.query_as(sql, "TabSeparated").await.unwrap()
    }

    pub async fn query_as(&self, sql: &str, format: &str) -> clickhouse::error::Result<String> {
        let client = client::client(&self.config.clickhouse).with_database(&self.config.clickhouse.database);
        let answer = client.query_raw(sql).fetch_bytes(format)?.collect().await?;
        Ok(String::from_utf8(answer.to_vec()).unwrap())
    }

    /// Waits until a query has this answer.
    pub async fn until(&self, sql: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let answer = self.query(sql).await;
            if answer.trim_end() == expected {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{sql}\nexpected:\n{expected}\ncame:\n{answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All tables, as they read.
    pub async fn everything(&self) -> String {
        let mut text = String::new();
        for schema in tables::ALL {
            let sql = format!("SELECT * FROM {} FINAL ORDER BY ALL", schema.table);
            text.push_str(&self.query_as(&sql, "JSONEachRow").await.unwrap());
        }
        text
    }

    pub fn start(&self) -> Running {
        self.start_with(self.config.clone())
    }

    pub fn start_with(&self, config: Config) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Metrics::new();
        let owned = tokio::sync::watch::Sender::default();
        let stage = sink::run(Arc::new(config), metrics.clone(), owned, async {
            let _ = stopped.await;
        });
        Running { stop, task: tokio::spawn(stage), metrics }
    }

    /// Sends records in one transaction, in order.
    pub fn produce(&self, records: &[Record]) {
        self.send(records).commit_transaction(PATIENCE).unwrap();
    }

    /// Sends records in a transaction that is still open.
    pub fn send(&self, records: &[Record]) -> ThreadedProducer<DefaultProducerContext> {
        let mut client = self.kafka();
        client.set("transactional.id", uuid::Uuid::new_v4().to_string());
        let producer: ThreadedProducer<DefaultProducerContext> = client.create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for record in records {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&**value) })
            });
            let mut message = BaseRecord::to(record.from.source.topic(&self.config.topics))
                .partition(record.from.partition)
                .timestamp(record.timestamp.millis())
                .key(&*record.key)
                .headers(headers);
            if let Some(value) = &record.value {
                message = message.payload(&**value);
            }
            producer.send(message).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        producer
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (config, kafka) = (self.config.clone(), self.kafka());
        // A runtime of its own: the test's may be on its way out.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let sql = format!("DROP DATABASE IF EXISTS {}", config.clickhouse.database);
            let _ = runtime.block_on(client::client(&config.clickhouse).query_raw(&sql).execute());
            let topics = Source::ALL.map(|source| source.topic(&config.topics));
            let admin: AdminClient<DefaultClientContext> = kafka.create().unwrap();
            let _ = runtime.block_on(admin.delete_topics(&topics, &AdminOptions::new()));
        });
        let _ = cleaning.join();
    }
}

pub struct Running {
    pub stop: oneshot::Sender<()>,
    pub task: tokio::task::JoinHandle<Result<(), SinkError>>,
    pub metrics: Metrics,
}

impl Running {
    /// Waits until the metrics say that everything was read, markers of transactions not counted.
    pub async fn until_no_lag(&self, topic: &str) {
        let begun = Instant::now();
        let expected = |partition| {
            format!(
                "creditstream_lag_records{{partition=\"{partition}\",stage=\"sink\",topic=\"{topic}\"}} 0\n"
            )
        };
        loop {
            let text = self.metrics.encode();
            if (0..2).all(|partition| text.contains(&expected(partition))) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{text}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops it, and says how long that took.
    pub async fn stop(self) -> Duration {
        let begun = Instant::now();
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
        begun.elapsed()
    }
}
