//! A running instance: the real binary as a process that ends with the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{tail, wait_for};

/// How long an instance may take to say where it serves.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take until it has its shards.
const READY_PATIENCE: Duration = Duration::from_secs(40);

/// A process that is killed when it is dropped.
pub struct Instance {
    child: Child,
    log: PathBuf,
}

/// A line of `/metrics`.
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Instance {
    /// Starts the command with its output in a file.
    pub fn spawn(mut command: Command, log: PathBuf) -> Instance {
        let file = File::create(&log).unwrap();
        let child =
            command.stdout(Stdio::from(file.try_clone().unwrap())).stderr(Stdio::from(file)).spawn().unwrap();
        Instance { child, log }
    }

    /// Everything it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Lines of its log that hold a text.
    pub fn log_count(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits until its log holds a text.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) {
        let deadline = Instant::now() + READY_PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "never said {text:?}:\n{}", tail(&self.log()));
            self.assert_running();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Panics with the log if it has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("ended by itself with {status}:\n{}", tail(&self.log()));
        }
    }

    /// Where it serves HTTP: a free port, which its log names.
    pub fn address(&self) -> String {
        wait_for("an address in the log", START_PATIENCE, || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains("serving /metrics"))?;
            let fields: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(fields.get("address")?.as_str()?.to_owned())
        })
    }

    /// Status and body of a path.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits for 200 from `/readyz`.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let answer = self.get("/readyz");
            if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {answer:?}\n{}", tail(&self.log()));
            self.assert_running();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All metrics.
    pub fn metrics(&self) -> Vec<Sample> {
        let (status, body) = self.get("/metrics").expect("an answer to GET /metrics");
        assert_eq!(status, 200);
        body.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::read).collect()
    }

    /// Sum of the samples of a name that have these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            let has =
                |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        };
        self.metrics().iter().filter(fits).map(|sample| sample.value).sum()
    }

    /// SIGKILL: nothing of it is left to tidy up.
    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has died by `abort`, as it does at a fault point.
    #[track_caller]
    pub fn wait_for_abort(&mut self, patience: Duration) {
        use std::os::unix::process::ExitStatusExt;
        const SIGABRT: i32 = 6;
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it never got to that point:\n{}", tail(&self.log()));
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.signal(), Some(SIGABRT), "{status}:\n{}", tail(&self.log()));
    }

    /// Waits for its end; gives the exit code, and how long it took.
    #[track_caller]
    pub fn wait_for_exit(&mut self, patience: Duration) -> (i32, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code().unwrap_or(-1), begun.elapsed());
            }
            assert!(begun.elapsed() < patience, "still running after {patience:?}:\n{}", tail(&self.log()));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and 0 within ten seconds.
    #[track_caller]
    pub fn terminate(&mut self) -> Duration {
        self.signal("TERM");
        let (code, took) = self.wait_for_exit(Duration::from_secs(10));
        assert_eq!(code, 0, "{}", tail(&self.log()));
        took
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), tail(&self.log()));
        }
    }
}

impl Sample {
    fn read(line: &str) -> Option<Sample> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let label = |text: &str| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        };
        let labels = labels.split(',').filter_map(label).collect();
        Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}
