//! Settings. Owns what may be configured, where it comes from, and what is allowed.
//!
//! `config/default.toml`, compiled in, is the schema: its keys are the only ones, and a value must have the
//! type of the default. A file overrides single keys of it, and the environment overrides both:
//! `CREDITSTREAM__LEDGER__WORKERS=2` sets `[ledger] workers`. What follows `CREDITSTREAM__KAFKA__PROPERTIES__`
//! names a librdkafka setting, `_` and `__` standing for its dots (no such setting has an underscore):
//! `CREDITSTREAM__KAFKA__PROPERTIES__SECURITY__PROTOCOL=SASL_SSL` sets `"security.protocol"`. An empty value
//! of such a variable takes the property away.
//!
//! Invariant: a [`Config`] that [`Config::load`] returned is valid in every setting, so no stage checks one
//! again. It must not read anything but the file it is given and the host's name: the pricing file is the
//! pricer's.

mod endpoints;
mod load;
mod properties;
mod secret;
#[cfg(test)]
mod tests;
mod validate;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use endpoints::{EndpointConfig, UnknownPlan, check_plans};
pub use load::{ConfigErrors, Fault};
pub use properties::KafkaProperties;
pub use secret::Secret;

/// All settings, one field per table of `config/default.toml`. Neither `Debug` nor
/// [`Config::effective_toml`] shows a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// Names of the topics, and how `init` makes them.
    pub topics: TopicsConfig,
    /// What an event may look like.
    pub events: EventsConfig,
    /// Where prices come from, and which grants pay first.
    pub pricing: PricingConfig,
    /// Thresholds of a wallet's level.
    pub alerts: AlertsConfig,
    /// How far back and ahead time may go.
    pub clock: ClockConfig,
    /// The ledger stage.
    pub ledger: LedgerConfig,
    /// Bounds of one wallet's state.
    pub limits: LimitsConfig,
    /// Checkpoints on local disk.
    pub store: StoreConfig,
    /// How to reach ClickHouse.
    pub clickhouse: ClickHouseConfig,
    /// The stage that fills ClickHouse.
    pub sink: SinkConfig,
    /// The comparison beside the running sink.
    pub drift: DriftConfig,
    /// The stage that sends alerts to webhooks.
    pub dispatcher: DispatcherConfig,
    /// The HTTP server.
    pub http: HttpConfig,
    /// Logs.
    pub log: LogConfig,
}

/// `[kafka]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port`, separated by commas; at least one.
    pub brokers: String,
    /// Prefix of the client ids.
    pub client_id: String,
    /// librdkafka settings for every client.
    pub properties: KafkaProperties,
}

/// `[topics]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicsConfig {
    /// Topics with usage, separated by commas: see [`TopicsConfig::generation_topics`].
    pub generation: String,
    /// Topics with contracts, top-ups and adjustments, separated by commas: see [`TopicsConfig::wallet_topics`].
    pub wallet: String,
    /// The entries.
    pub ledger: String,
    /// The latest state of each wallet.
    pub wallets: String,
    /// Positions and counts of the ledger stage.
    pub progress: String,
    /// Level changes and warnings.
    pub alerts: String,
    /// Alerts that no endpoint took.
    pub alerts_dead: String,
    /// Records that could not be applied.
    pub quarantine: String,
    /// Records on their way to their shard.
    pub intake: String,
    /// Number of shards, 1 to 1,000; `i32` as Kafka counts partitions.
    pub shards: i32,
    /// Copies of each partition that `init` asks for.
    pub replication_factor: i32,
}

/// `[events]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsConfig {
    /// What stands before every event type; may be empty.
    pub type_prefix: String,
    /// Types that cost nothing, without the prefix, separated by commas: see [`EventsConfig::free_types`].
    pub free_types: String,
    /// Largest value of a record, bytes.
    pub value_bytes_max: usize,
    /// Most images of one event.
    pub images_max: u32,
    /// Most seconds of video of one event.
    pub video_seconds_max: u32,
    /// Largest adjustment, credits, up or down.
    pub adjustment_credits_max: i64,
    /// Longest term of a contract, months.
    pub term_months_max: u32,
}

/// `[pricing]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PricingConfig {
    /// Pricing file, or empty for the one compiled in: see [`PricingConfig::file_path`].
    pub file: String,
    /// Priority of plan grants: the lowest pays first.
    pub plan_priority: u16,
    /// Priority of adjustment grants.
    pub adjustment_priority: u16,
    /// Priority of top-up grants.
    pub topup_priority: u16,
}

/// `[alerts]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsConfig {
    /// Share of the allocation at or below which a wallet is low, percent, 0 to 100.
    pub low_percent: u8,
    /// Share of the allocation at or below which a wallet is critical, percent; at most `low_percent`.
    pub critical_percent: u8,
    /// Share of the allocation by which a threshold must be exceeded again, percent, 0 to 100.
    pub hysteresis_percent: u8,
    /// Most wallets of an instance that have a series of their own: those most in need.
    pub series_limit: usize,
}

/// `[clock]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockConfig {
    /// Age beyond which an event is refused, days: see [`ClockConfig::horizon`].
    pub horizon_days: u32,
    /// How much ahead of the wall clock an event may be, seconds: see [`ClockConfig::max_clock_skew`].
    pub max_clock_skew_seconds: u32,
    /// What is left of a grant is taken away this long after its expiry, seconds.
    pub allowed_lateness_seconds: u32,
    /// Silence after which the wall clock takes over, seconds: see [`ClockConfig::idle_after`].
    pub idle_after_seconds: u32,
}

/// `[ledger]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// Consumer group.
    pub group: String,
    /// Name of this instance, or empty for the host's: see [`Config::instance_name`].
    pub instance: String,
    /// Whether the instance is a static member of its group.
    pub static_membership: bool,
    /// Workers of this instance.
    pub workers: usize,
    /// Most records of a batch.
    pub batch_events_max: usize,
    /// Most bytes of a batch's values; at least [`EventsConfig::value_bytes_max`].
    pub batch_bytes_max: usize,
    /// Longest wait for a batch to fill, milliseconds: see [`LedgerConfig::batch_wait_max`].
    pub batch_wait_ms_max: u32,
    /// Session timeout of the group, milliseconds: see [`LedgerConfig::session_timeout`].
    pub session_timeout_ms: u32,
    /// Transaction timeout, milliseconds: see [`LedgerConfig::transaction_timeout`].
    pub transaction_timeout_ms: u32,
    /// Most memory for fetched records, KiB per worker.
    pub fetch_queue_kib: u32,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Most open grants of a wallet.
    pub open_grants_max: usize,
    /// Most reservations of a wallet that are open at a time.
    pub open_holds_max: usize,
    /// Most contract, top-up and adjustment ids of a wallet.
    pub business_ids_max: usize,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Folder of the checkpoints, or empty for none: see [`StoreConfig::folder`].
    pub path: String,
    /// Time between two checkpoints of a shard, seconds: see [`StoreConfig::checkpoint_interval`].
    pub checkpoint_seconds: u32,
    /// Remembered events and jobs of a worker that stay in memory; older ones are sealed to disk.
    pub identities_in_memory: usize,
}

/// `[clickhouse]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// HTTP address: `http` or `https`, host, optional port and path; no user in it.
    pub url: String,
    /// Database: letters, digits and `_`.
    pub database: String,
    /// Cluster whose hosts hold the tables, as `remote_servers` of the servers names it, or empty for a single server.
    pub cluster: String,
    /// User.
    pub user: String,
    /// Password; may be empty.
    pub password: Secret,
    /// Longest attempt to connect, milliseconds: see [`ClickHouseConfig::connect_timeout`].
    pub connect_timeout_ms: u32,
    /// Longest request, milliseconds: see [`ClickHouseConfig::request_timeout`].
    pub request_timeout_ms: u32,
}

/// `[sink]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Consumer group; never the ledger stage's.
    pub group: String,
    /// Most records of a batch.
    pub batch_records_max: usize,
    /// Most bytes of a batch.
    pub batch_bytes_max: usize,
    /// Longest wait for a batch to fill, milliseconds: see [`SinkConfig::batch_wait_max`].
    pub batch_wait_ms_max: u32,
    /// First wait before an insert is tried again, milliseconds: see [`SinkConfig::retry_min`].
    pub retry_ms_min: u32,
    /// Longest wait before an insert is tried again, milliseconds: see [`SinkConfig::retry_max`].
    pub retry_ms_max: u32,
}

/// `[drift]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftConfig {
    /// Time between two comparisons, seconds; 0: none.
    pub interval_seconds: u32,
    /// How far back ClickHouse is compared each time, hours.
    pub window_hours: u32,
}

/// `[dispatcher]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatcherConfig {
    /// Beginning of the endpoints' consumer groups: see [`DispatcherConfig::group_of`].
    pub group: String,
    /// Most alerts of an endpoint that an instance holds in memory.
    pub pending_max: usize,
    /// Most requests to an endpoint at a time.
    pub requests_max: usize,
    /// Longest attempt to connect, milliseconds: see [`DispatcherConfig::connect_timeout`].
    pub connect_timeout_ms: u32,
    /// Longest request, answer included, milliseconds: see [`DispatcherConfig::request_timeout`].
    pub request_timeout_ms: u32,
    /// First wait before an alert is sent again, milliseconds.
    pub retry_ms_min: u32,
    /// Longest wait before an alert is sent again, milliseconds.
    pub retry_ms_max: u32,
    /// Age of an alert beyond which it is not sent again, seconds.
    pub give_up_after_seconds: u32,
    /// Where alerts go.
    pub endpoints: Vec<EndpointConfig>,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// `host:port`, or empty for no server: see [`HttpConfig::listen_address`].
    pub listen: String,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Filter, as `RUST_LOG` has it.
    pub filter: String,
    /// How a line of log looks.
    pub format: LogFormat,
}

/// How a line of log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON else.
    Auto,
    /// For a person.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    /// What `config/default.toml` says.
    fn default() -> Config {
        Config::load(None, std::iter::empty()).expect("config/default.toml is valid: a test loads it")
    }
}

impl Config {
    /// Lays the file at `path` over the defaults, and `env` (names and values; what does not begin with
    /// `CREDITSTREAM__` is ignored) over both.
    ///
    /// # Errors
    /// All faults at once, one a line: each names where it stands, the setting, its value (a secret as
    /// `***`) and what is allowed. The caller exits with 78.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        load::load(path, env)
    }

    /// All settings in force as TOML, in the order of `config/default.toml`, secrets as `***`.
    pub fn effective_toml(&self) -> String {
        toml::to_string(self).expect("settings are strings, integers, booleans and tables of them")
    }

    /// Name of this instance: `ledger.instance`, or the host's name. 1 to 128 printable ASCII characters.
    pub fn instance_name(&self) -> String {
        match self.ledger.instance.as_str() {
            "" => host_name(),
            configured => configured.to_owned(),
        }
    }
}

/// The process' environment, for [`Config::load`]. What is not UTF-8 comes with replacement characters,
/// so that an odd variable of somebody else's cannot stop us.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl KafkaConfig {
    /// The brokers as librdkafka's `bootstrap.servers`: without spaces.
    pub fn bootstrap_servers(&self) -> String {
        split_list(&self.brokers).join(",")
    }
}

impl TopicsConfig {
    /// The topics with usage; at least one.
    pub fn generation_topics(&self) -> Vec<String> {
        split_list(&self.generation)
    }

    /// The topics with contracts, top-ups and adjustments; at least one.
    pub fn wallet_topics(&self) -> Vec<String> {
        split_list(&self.wallet)
    }
}

impl EventsConfig {
    /// The types that cost nothing, without the prefix; may be none.
    pub fn free_types(&self) -> Vec<String> {
        split_list(&self.free_types)
    }
}

impl PricingConfig {
    /// The pricing file (relative to the working directory); `None`: the one compiled in.
    pub fn file_path(&self) -> Option<&Path> {
        not_empty(&self.file).map(Path::new)
    }
}

impl ClockConfig {
    /// Age beyond which an event is refused.
    pub fn horizon(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.horizon_days))
    }

    /// How much ahead of the wall clock an event may be.
    pub fn max_clock_skew(&self) -> Duration {
        Duration::from_secs(self.max_clock_skew_seconds.into())
    }

    /// Silence after which the wall clock takes over.
    pub fn idle_after(&self) -> Duration {
        Duration::from_secs(self.idle_after_seconds.into())
    }
}

impl LedgerConfig {
    /// Longest wait for a batch to fill.
    pub fn batch_wait_max(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms_max.into())
    }

    /// Session timeout of the group.
    pub fn session_timeout(&self) -> Duration {
        Duration::from_millis(self.session_timeout_ms.into())
    }

    /// Transaction timeout.
    pub fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.transaction_timeout_ms.into())
    }
}

impl StoreConfig {
    /// Folder of the checkpoints; `None`: there are none.
    pub fn folder(&self) -> Option<&Path> {
        not_empty(&self.path).map(Path::new)
    }

    /// Time between two checkpoints of a shard.
    pub fn checkpoint_interval(&self) -> Duration {
        Duration::from_secs(self.checkpoint_seconds.into())
    }
}

impl ClickHouseConfig {
    /// Longest attempt to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    /// Longest request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.into())
    }
}

impl SinkConfig {
    /// Longest wait for a batch to fill.
    pub fn batch_wait_max(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms_max.into())
    }

    /// First wait before an insert is tried again.
    pub fn retry_min(&self) -> Duration {
        Duration::from_millis(self.retry_ms_min.into())
    }

    /// Longest wait before an insert is tried again.
    pub fn retry_max(&self) -> Duration {
        Duration::from_millis(self.retry_ms_max.into())
    }
}

impl DriftConfig {
    /// How often; `None`: never.
    pub fn interval(&self) -> Option<Duration> {
        (self.interval_seconds > 0).then(|| Duration::from_secs(self.interval_seconds.into()))
    }

    /// How far back ClickHouse is compared each time.
    pub fn window(&self) -> Duration {
        Duration::from_secs(u64::from(self.window_hours) * 3_600)
    }
}

impl DispatcherConfig {
    /// The consumer group of an endpoint: each has positions of its own.
    pub fn group_of(&self, endpoint: &EndpointConfig) -> String {
        format!("{}-{}", self.group, endpoint.name)
    }

    /// Longest attempt to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms.into())
    }

    /// Longest request, answer included.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.into())
    }
}

impl HttpConfig {
    /// `host:port` to listen at; `None`: no server.
    pub fn listen_address(&self) -> Option<&str> {
        not_empty(&self.listen)
    }
}

/// The parts of a comma-separated setting, trimmed, without empty ones.
fn split_list(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn not_empty(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
