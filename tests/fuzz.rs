//! Fuzzing: whatever bytes come, the decoders answer. No panic, no hang, no memory that grows with the number of inputs.
//!
//! Method: bytes are mutated from a corpus (the examples of docs/events.md; ledger records and a snapshot with every
//! type of entry). An input that gets an answer nobody got before joins the corpus, so that mutations build on each
//! other. It takes seconds by default; for longer, and with other choices:
//! `FUZZ_SECONDS=600 FUZZ_SEED=7 cargo test --release --test fuzz -- --nocapture`. What fails is kept as a file, which
//! the output names.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

#[allow(dead_code)]
mod examples;
#[allow(dead_code)]
#[path = "sink/samples.rs"]
mod samples;

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use creditstream::config::Config;
use creditstream::event::{EventRules, IncomingRecord, Reason, SourceKind, decode, fingerprint, is_id};
use creditstream::sink::guard::FoldGuard;
use creditstream::sink::record::Source;
use creditstream::sink::rows;
use creditstream::wallet::{LedgerRecord, Wallet, WalletSnapshot};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::de::IgnoredAny;

const SECONDS: u64 = 3;
/// An input may take so long, also on a busy machine.
const HANGS_AFTER: Duration = Duration::from_secs(20);
/// Most bytes by which the process may grow.
const GROWTH_KB_MAX: u64 = 256 * 1_024;
const CORPUS_MAX: usize = 4_096;
/// Larger inputs do not join the corpus: its own size must not look like a leak of what is tested.
const CORPUS_BYTES_MAX: usize = 8_192;
/// Above the largest value that is read.
const INPUT_BYTES_MAX: usize = 66_000;
/// Longest sentence of a rejection: 1,000 bytes, cut at a character, and what says that it was cut.
const DETAIL_BYTES_MAX: usize = 1_010;

/// An input: headers as lines, an empty line, the value. Without headers the value alone.
type Input = Vec<u8>;

/// Mutates a corpus until the time is over. `answer` says in a few words what came of an input.
fn fuzz(name: &str, corpus: Vec<Input>, answer: impl Fn(&[u8]) -> String) {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let time = Duration::from_secs(number("FUZZ_SECONDS", SECONDS));
    let seed = number("FUZZ_SEED", 1);
    let mut mutator = Mutator { chance: Xoshiro256PlusPlus::seed_from_u64(seed), corpus };
    let watched = Watched::new(name);
    let begun = Instant::now();
    let memory_before = memory_peak_kb();
    // By their hashes: the texts of an hour's answers would look like a leak of what is tested.
    let (mut answers, hashes) = (HashSet::new(), RandomState::new());
    let (mut inputs, mut next) = (0_u64, 0);
    while begun.elapsed() < time {
        // First every input as it stands.
        let input = mutator.corpus.get(next).cloned().unwrap_or_else(|| mutator.input());
        next += usize::from(next < mutator.corpus.len());
        let answer = watched.during(&input, || answer(&input));
        inputs += 1;
        if answers.insert(hashes.hash_one(&answer))
            && mutator.corpus.len() < CORPUS_MAX
            && input.len() <= CORPUS_BYTES_MAX
        {
            mutator.corpus.push(input);
            next += usize::from(next + 1 == mutator.corpus.len());
        }
    }
    // The kernel counts threads by and by: the peak may be told lower than before.
    let growth_kb = memory_peak_kb().saturating_sub(memory_before);
    println!(
        "{name}: {inputs} inputs in {} s with seed {seed}, {} different answers, {growth_kb} KB more memory at the peak",
        time.as_secs(),
        answers.len()
    );
    assert!(growth_kb < GROWTH_KB_MAX, "{name}: the process grew by {growth_kb} KB");
    assert!(answers.len() > 20, "{name}: only {} different answers", answers.len());
}

/// Peak of the process' memory so far.
fn memory_peak_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

/// Keeps what fails, and ends the process where an input hangs.
struct Watched {
    failed: PathBuf,
    under_way: Arc<Mutex<Option<(Instant, Input)>>>,
}

impl Watched {
    fn new(name: &str) -> Watched {
        let failed = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        let under_way: Arc<Mutex<Option<(Instant, Input)>>> = Arc::default();
        let (seen, file) = (Arc::downgrade(&under_way), failed.clone());
        std::thread::spawn(move || {
            while let Some(seen) = seen.upgrade() {
                if let Some((since, input)) = &*seen.lock().unwrap()
                    && since.elapsed() > HANGS_AFTER
                {
                    fs::write(&file, input).unwrap();
                    println!("hangs: see {}", file.display());
                    std::process::exit(101);
                }
                drop(seen);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Watched { failed, under_way }
    }

    fn during<R>(&self, input: &[u8], answer: impl FnOnce() -> R) -> R {
        *self.under_way.lock().unwrap() = Some((Instant::now(), input.to_vec()));
        let keep = KeepOnPanic { file: &self.failed, input };
        let answer = answer();
        drop(keep);
        *self.under_way.lock().unwrap() = None;
        answer
    }
}

struct KeepOnPanic<'k> {
    file: &'k PathBuf,
    input: &'k [u8],
}

impl Drop for KeepOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::write(self.file, self.input);
            println!("fails: see {}", self.file.display());
        }
    }
}

struct Mutator {
    chance: Xoshiro256PlusPlus,
    corpus: Vec<Input>,
}

/// What stands for a value, and is likely to be at the edge of something.
const VALUES: [&str; 26] = [
    "0",
    "-0",
    "-1",
    "1e1",
    "1e400",
    "-1e-400",
    "0.0005",
    "1.50",
    "101",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"plan\"",
    "\"none\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"9999-12-31T23:59:59.999Z\"",
    "\"0000-01-01T00:00:00+23:59\"",
];

/// Bytes that mean something to JSON, to UTF-8 or to headers.
const BYTES: &[u8] = b"{}[]\",:\\-+0eE.tfnu \n\x00\x7f\x80\xc3\xed\xf0\xff";

impl Mutator {
    fn below(&mut self, count: usize) -> usize {
        self.chance.random_range(0..count.max(1))
    }

    fn any(&mut self) -> Input {
        let place = self.below(self.corpus.len());
        self.corpus[place].clone()
    }

    fn input(&mut self) -> Input {
        let mut input = self.any();
        for _ in 0..=self.below(4) {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn mutate(&mut self, input: &mut Input) {
        let length = input.len();
        let (at, to) = (self.below(length + 1), self.below(length + 1));
        let (from, to) = (at.min(to), at.max(to));
        match self.below(10) {
            0 if at < length => input[at] = self.chance.random(),
            1 => input.insert(at, BYTES[self.below(BYTES.len())]),
            2 => drop(input.drain(from..to.min(from + 32))),
            3 => input.truncate(at),
            4 => {
                let piece = input[from..to].to_vec();
                drop(input.splice(at..at, piece));
            }
            5 => {
                // The beginning of one and the end of another.
                let other = self.any();
                let cut = self.below(other.len() + 1);
                drop(input.splice(at.., other[cut..].iter().copied()));
            }
            6 => {
                let deep = [b"[".as_slice(), b"{\"a\":", b"9", b"\\u0061", "\u{200b}".as_bytes()];
                let (piece, times) = (deep[self.below(deep.len())], self.below(12_000));
                drop(input.splice(at..at, piece.repeat(times)));
            }
            // A whole value, where one seems to stand.
            _ => {
                let begins =
                    input[at..].iter().position(|byte| *byte == b':').map_or(length, |colon| at + colon + 1);
                let ends = input[begins..]
                    .iter()
                    .position(|byte| b",}]".contains(byte))
                    .map_or(length, |end| begins + end);
                let value = VALUES[self.below(VALUES.len())];
                drop(input.splice(begins..ends, value.bytes()));
            }
        }
    }
}

/// A sentence without what is the input's own: digits, and what is quoted.
fn outline(sentence: &str) -> String {
    let outside = sentence.split('"').step_by(2).collect::<Vec<_>>().join("_");
    outside.chars().filter(|c| !c.is_ascii_digit()).take(80).collect()
}

#[test]
fn the_event_decoder_answers_whatever_comes() {
    let rules = EventRules::new(&Config::default().events);
    let corpus = examples::examples().into_iter().flat_map(|example| example.records).map(|record| {
        let headers: String =
            record.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        if headers.is_empty() {
            record.value.into_bytes()
        } else {
            format!("{headers}\n{}", record.value).into_bytes()
        }
    });
    fuzz("event-decoder", corpus.collect(), |input| {
        let end =
            if input.starts_with(b"c") { input.windows(2).position(|two| two == b"\n\n") } else { None };
        let (head, value) = end.map_or((&[][..], input), |end| (&input[..end], &input[end + 2..]));
        let headers: Vec<(&str, &[u8])> = head
            .split(|byte| *byte == b'\n')
            .filter_map(|line| {
                let colon = line.iter().position(|byte| *byte == b':')?;
                Some((std::str::from_utf8(&line[..colon]).ok()?, line.get(colon + 2..)?))
            })
            .collect();
        let answers = [SourceKind::Generation, SourceKind::Wallet].map(|source_kind| {
            let record = IncomingRecord { source_kind, value: Some(value), headers: &headers };
            let answer = decode(&record, &rules);
            assert_eq!(format!("{answer:?}"), format!("{:?}", decode(&record, &rules)), "twice the same");
            // Another reader says what is JSON. It wants text, and looks no further than syntax.
            let json = std::str::from_utf8(value)
                .ok()
                .and_then(|text| serde_json::from_str::<IgnoredAny>(text).ok());
            let reason = answer.as_ref().err().map(|rejection| rejection.reason);
            if headers.is_empty() && reason != Some(Reason::TooLarge) {
                assert_eq!(reason == Some(Reason::NotJson), json.is_none(), "{answer:?}");
            }
            let event = match answer {
                Ok(event) => event,
                Err(rejection) => {
                    assert!((1..=DETAIL_BYTES_MAX).contains(&rejection.detail.len()), "{rejection:?}");
                    return outline(&rejection.detail);
                }
            };
            assert!(is_id(&event.wallet_id) && is_id(&event.id) && event.source.len() <= 256, "{event:?}");
            match &event.data {
                Some(Ok(data)) => {
                    let _ = fingerprint(event.kind, event.time, data);
                    event.kind.as_str().to_owned()
                }
                Some(Err(rejection)) => {
                    assert!((1..=DETAIL_BYTES_MAX).contains(&rejection.detail.len()), "{rejection:?}");
                    format!("{} {}", event.kind.as_str(), outline(&rejection.detail))
                }
                None => "free".to_owned(),
            }
        });
        answers.join(" / ")
    });
}

/// What the sink and a restart read. What is read can be written, and reads as the same again; folding it into a wallet
/// may refuse it, no more.
#[test]
fn the_ledger_record_decoder_answers_whatever_comes() {
    let corpus = [samples::EVERY_TYPE, samples::FULL_ENTRY].map(|text| text.as_bytes().to_vec());
    let charges = samples::charges("ws_1", 1..=3).into_iter().map(|record| record.value.unwrap().to_vec());
    fuzz("ledger-record-decoder", corpus.into_iter().chain(charges).collect(), |input| {
        match serde_json::from_slice::<LedgerRecord<'_>>(input) {
            Err(error) => outline(&error.to_string()),
            Ok(record) => {
                let mut written = Vec::new();
                record.encode(&mut written);
                let again: LedgerRecord<'_> = serde_json::from_slice(&written).unwrap();
                assert_eq!(again, record);
                let folded = Wallet::default().fold_record(&record, 35);
                let row = sink_rows(Source::Ledger, input);
                format!(
                    "{} / {row}",
                    folded.map_or_else(|error| outline(&error.to_string()), |()| "folded".to_owned())
                )
            }
        }
    });
}

#[test]
fn the_snapshot_decoder_answers_whatever_comes() {
    fuzz(
        "snapshot-decoder",
        vec![samples::SNAPSHOT.as_bytes().to_vec()],
        |input| match serde_json::from_slice::<WalletSnapshot<'_>>(input) {
            Err(error) => outline(&error.to_string()),
            Ok(snapshot) => {
                let mut written = Vec::new();
                snapshot.encode(&mut written);
                let again: WalletSnapshot<'_> = serde_json::from_slice(&written).unwrap();
                assert_eq!(again, snapshot);
                let _ = snapshot.into_wallet();
                sink_rows(Source::Wallets, input)
            }
        },
    );
}

static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);

/// What the sink makes of a record's value.
fn sink_rows(source: Source, value: &[u8]) -> String {
    let record = creditstream::sink::record::Record {
        value: Some(value.into()),
        ..samples::record(source, 0, "w", "")
    };
    let none = HashSet::new();
    let rows = rows::build(&[record], &CONFIG.topics, &mut FoldGuard::default(), &none);
    rows.stops.first().map_or_else(|| "rows".to_owned(), |stop| outline(&stop.reason.to_string()))
}
