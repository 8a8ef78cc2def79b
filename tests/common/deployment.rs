//! A deployment: a configuration file with names of its own, and what is done to it by command.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use creditstream::config::Config;
use creditstream::generate::{Books, GenerateOptions, Generator, KafkaTarget, Pace, Phase, Topics, to_kafka};

use super::{Instance, clickhouse::ClickHouse, kafka, random_name, tail};

/// Tests of one binary that run at a time: more only make each other slow.
const AT_A_TIME: usize = 3;
/// Shards: few, so that topics are made quickly; more than one, so that there is something to share.
pub const SHARDS: i32 = 4;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A place among the tests that run now.
struct Permit;

impl Permit {
    fn take() -> Permit {
        let running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut running = ENDED.wait_while(running, |running| *running >= AT_A_TIME).unwrap();
        *running += 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Topics, groups, a database, a folder, all with a name that no other test has.
pub struct Deployment {
    /// That name.
    pub name: String,
    /// What the configuration file says.
    pub config: Config,
    /// Configuration, store and logs.
    pub folder: tempfile::TempDir,
    begun: Instant,
    _permit: Permit,
}

/// What a command said.
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Panics with everything it said if the exit code is another one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Answer {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", tail(&self.stdout), tail(&self.stderr));
        self
    }

    /// Every line of stdout as a JSON document.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(read).collect()
    }
}

/// The environment of a child: ours, without settings, but with how to get into Kafka and ClickHouse.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CREDITSTREAM__")) {
        if !is_access(&name) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null())
}

fn is_access(name: &str) -> bool {
    name.starts_with("CREDITSTREAM__KAFKA__PROPERTIES__")
        || name == "CREDITSTREAM__CLICKHOUSE__USER"
        || name == "CREDITSTREAM__CLICKHOUSE__PASSWORD"
}

/// The binary under test.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_creditstream"));
    clean(&mut command);
    command
}

/// Where the components are: the environment, else the defaults.
pub fn components() -> Config {
    Config::load(None, std::env::vars()).unwrap()
}

impl Deployment {
    /// With topics and tables, as `init` makes them.
    #[track_caller]
    pub fn new() -> Deployment {
        Deployment::with(&[])
    }

    /// With settings of its own (values as TOML has them), and topics and tables.
    #[track_caller]
    pub fn with(settings: &[(&str, &str)]) -> Deployment {
        let deployment = Deployment::without_init(settings);
        deployment.run(&["init"]).expect(0);
        deployment
    }

    /// With settings of its own, and nothing made.
    #[track_caller]
    pub fn without_init(settings: &[(&str, &str)]) -> Deployment {
        let permit = Permit::take();
        let components = components();
        kafka::must_answer(&components);
        ClickHouse::of(&components).must_answer();
        let name = format!("e2e_{}", random_name());
        let folder = tempfile::tempdir().unwrap();
        let mut lines = vec![
            format!("kafka.brokers = {:?}", components.kafka.brokers),
            format!("clickhouse.url = {:?}", components.clickhouse.url),
            format!("clickhouse.database = {name:?}"),
            format!("topics.shards = {SHARDS}"),
            format!("ledger.group = \"{name}-ledger\""),
            format!("sink.group = \"{name}-sink\""),
            format!("dispatcher.group = \"{name}-dispatcher\""),
            format!("ledger.instance = \"{name}\""),
            "ledger.session_timeout_ms = 6000".to_owned(),
            "sink.batch_wait_ms_max = 100".to_owned(),
            "sink.retry_ms_max = 500".to_owned(),
            format!("store.path = {:?}", folder.path().join("store").display().to_string()),
            "store.checkpoint_seconds = 1".to_owned(),
            "http.listen = \"127.0.0.1:0\"".to_owned(),
            "log.format = \"json\"".to_owned(),
        ];
        let topics = [
            "generation",
            "wallet",
            "ledger",
            "wallets",
            "progress",
            "alerts",
            "alerts_dead",
            "quarantine",
            "intake",
        ];
        lines.extend(topics.iter().map(|topic| format!("topics.{topic} = \"{name}.{topic}\"")));
        for (setting, value) in settings {
            lines.retain(|line| !line.starts_with(&format!("{setting} =")));
            lines.push(format!("{setting} = {value}"));
        }
        let path = folder.path().join("config.toml");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let access = std::env::vars().filter(|(name, _)| is_access(name));
        let config = Config::load(Some(&path), access).unwrap();
        Deployment { name, config, folder, begun: Instant::now(), _permit: permit }
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// The folder of the checkpoints.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The database.
    pub fn clickhouse(&self) -> ClickHouse {
        ClickHouse::of(&self.config)
    }

    /// The binary with this configuration, and with settings that override single ones of it.
    pub fn command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = binary();
        command.arg("--config").arg(self.config_path()).args(arguments);
        for (setting, value) in settings {
            command.env(format!("CREDITSTREAM__{}", setting.to_uppercase().replace('.', "__")), value);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        self.run_with(arguments, &[])
    }

    /// Runs a command with other settings to its end.
    pub fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Answer {
        answer(&mut self.command(arguments, settings))
    }

    /// Starts `run` with these roles; none are all.
    pub fn start(&self, roles: &[&str]) -> Instance {
        self.start_with(roles, &[])
    }

    /// Starts `run` with other settings.
    pub fn start_with(&self, roles: &[&str], settings: &[(&str, &str)]) -> Instance {
        let mut arguments = vec!["run"];
        arguments.extend(roles.iter().flat_map(|role| ["--role", role]));
        let log = self.folder.path().join(format!("{}.log", random_name()));
        Instance::spawn(self.command(&arguments, settings), log)
    }

    /// Starts a process with these roles, none are all, that dies at a fault point: `name:time`.
    pub fn start_at_fault(&self, roles: &[&str], fault: &str) -> Instance {
        let roles = roles.iter().flat_map(|role| ["--role", role]);
        let mut command = self.command(&["run"].into_iter().chain(roles).collect::<Vec<_>>(), &[]);
        command.env("CREDITSTREAM_FAULT", fault);
        Instance::spawn(command, self.folder.path().join(format!("{}.log", random_name())))
    }

    /// Sends generated records, and gives the books.
    pub fn generate(&self, options: &GenerateOptions) -> Books {
        generate(&self.config, options, Pace::Full)
    }

    /// Sends generated records at a pace from a thread of its own.
    pub fn generate_slowly(&self, options: &GenerateOptions, records_per_second: u64) -> JoinHandle<Books> {
        let (config, options) = (self.config.clone(), options.clone());
        std::thread::spawn(move || generate(&config, &options, Pace::RecordsPerSecond(records_per_second)))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        println!("{test}: {:.1} s", self.begun.elapsed().as_secs_f64());
        let topics = &self.config.topics;
        let own = [
            &topics.generation,
            &topics.wallet,
            &topics.ledger,
            &topics.wallets,
            &topics.progress,
            &topics.alerts,
            &topics.alerts_dead,
            &topics.quarantine,
            &topics.intake,
        ];
        kafka::delete_topics(&self.config, &own.map(String::as_str));
        // What cannot be deleted is only litter.
        let _ = self.clickhouse().try_execute(&format!("DROP DATABASE IF EXISTS {}", self.name));
    }
}

/// Runs a command to its end.
pub fn answer(command: &mut Command) -> Answer {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn generate(config: &Config, options: &GenerateOptions, pace: Pace) -> Books {
    let mut generator = Generator::new(options).unwrap();
    let target = KafkaTarget { kafka: config.kafka.clone(), topics: Topics::first_of(&config.topics) };
    to_kafka(&mut generator, &target, pace, &mut |_| ControlFlow::Continue(())).unwrap();
    generator.books()
}

/// Records of every kind: duplicates, conflicts, bad, late, wrongly keyed and binary ones, more than usual.
pub fn everything(events: u64, wallets: u32) -> GenerateOptions {
    GenerateOptions {
        events,
        wallets,
        duplicates_percent: 2.0,
        id_conflicts_percent: 0.5,
        job_conflicts_percent: 0.5,
        bad_percent: 2.0,
        late_percent: 5.0,
        ..GenerateOptions::ending_now()
    }
}

/// Usage only, of the wallets of [`everything`], other events for every seed.
pub fn usage(seed: u64, events: u64, wallets: u32) -> GenerateOptions {
    GenerateOptions { seed, phase: Phase::Usage, ..everything(events, wallets) }
}
