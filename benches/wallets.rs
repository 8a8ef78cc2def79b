//! What wallets cost at rest: bytes of memory each, and how fast what falls due for all of them at once is posted.
//!
//! `cargo bench --bench wallets` makes 1,000,000 wallets; `cargo bench --bench wallets -- 100000` fewer. Two kinds: with a
//! contract of one month and a top-up, and with a contract of 12 months and two top-ups; both with open rollup buckets of
//! two models, in the table that a shard keeps them in, timers and indexes included. Memory is what the process grew by.
//! Then the next allocation of every wallet is posted, packed again and encoded, on one core and without Kafka.
#![allow(clippy::print_stdout, reason = "figures for a person")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure ends the measurement")]

use std::sync::Arc;
use std::time::Instant;

use creditstream::config::Config;
use creditstream::event::{EventRules, IncomingRecord, SourceKind, decode, fingerprint};
use creditstream::ledger::wallets::WalletTable;
use creditstream::rate::Pricing;
use creditstream::time::{PostedAt, ShardClock, Timestamp};
use creditstream::wallet::{
    Cause, Command, JobHistory, LEDGER_FORMAT, LedgerRecord, Moment, Origin, Policy, Wallet, apply, next_due,
    post_due,
};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFAULT_COUNT: u32 = 1_000_000;
const START: &str = "2026-01-01T00:00:00Z";

const KINDS: [(&str, &str, u32); 2] = [
    ("one contract and two grants", "2026-01-15T00:00:00Z", 1),
    ("a contract, 12 plan grants and 2 top-ups", "2026-12-15T00:00:00Z", 2),
];

fn main() {
    let numbers: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(DEFAULT_COUNT);
    match numbers.get(1) {
        Some(kind) => measure(count, KINDS[*kind as usize]),
        // Each in a process of its own: what one frees the next would use again, unseen.
        None => (0..KINDS.len()).for_each(|kind| {
            let arguments = [count.to_string(), kind.to_string()];
            let ended = std::process::Command::new(std::env::current_exe().unwrap()).args(arguments).status();
            assert!(ended.unwrap().success());
        }),
    }
}

fn measure(count: u32, (what, clock, topups): (&str, &str, u32)) {
    let config = Config::default();
    let policy = Policy::new(&config, Arc::new(Pricing::built_in().unwrap()));
    let rules = EventRules::new(&config.events);
    let clock = ShardClock(Timestamp::parse(clock).unwrap());
    let wallet = a_wallet(&policy, &rules, clock, topups);
    let before = resident_bytes();
    let mut table = WalletTable::default();
    let begun = Instant::now();
    for number in 0..count {
        let handle = table.handle(&format!("ws_{number:06}"));
        table.put(handle, &wallet);
        table.set_due(handle, next_due(&wallet, &policy));
    }
    let bytes = (resident_bytes() - before) / u64::from(count);
    println!(
        "{count} wallets with {what}: {bytes} bytes each ({} grants, made in {:.1} s)",
        wallet.grants.len(),
        begun.elapsed().as_secs_f64()
    );
    if topups == 1 {
        first_of_the_month(&mut table, &policy, count);
    }
}

/// The next allocation of every wallet, as a shard posts it.
fn first_of_the_month(table: &mut WalletTable, policy: &Policy, count: u32) {
    let clock = ShardClock(Timestamp::parse("2026-02-01T00:00:00Z").unwrap());
    let begun = Instant::now();
    let (mut posted, mut out) = (0_u32, Vec::new());
    while let Some((due, handle)) = table.first_due().filter(|(due, _)| *due <= clock.0) {
        let mut wallet = table.get(handle).unwrap();
        let entries = post_due(&mut wallet, due, clock, PostedAt(due), policy).unwrap().unwrap();
        let record =
            LedgerRecord { v: LEDGER_FORMAT, wallet_id: table.id(handle).into(), clock_day: None, entries };
        out.clear();
        record.encode(&mut out);
        table.put(handle, &wallet);
        table.set_due(handle, next_due(&wallet, policy));
        posted += 1;
    }
    assert_eq!(posted, count, "one allocation each");
    let seconds = begun.elapsed().as_secs_f64();
    println!("{posted} allocations due at one instant: {:.0} a second", f64::from(posted) / seconds);
}

fn a_wallet(policy: &Policy, rules: &EventRules, clock: ShardClock, topups: u32) -> Wallet {
    let mut wallet = Wallet::default();
    let contract = r#"{"contract_id":"contract-1","plan":"lite","starts_at":"2026-01-01T00:00:00Z"}"#;
    event(&mut wallet, policy, rules, "contract.started", START, contract);
    while let Some(entries) = post_due(&mut wallet, clock.0, clock, PostedAt(clock.0), policy).unwrap() {
        assert!(!entries.is_empty());
    }
    let now = clock.0.to_string();
    for number in 0..topups {
        let data = format!(r#"{{"topup_id":"invoice-{number}","amount_usd":100}}"#);
        event(&mut wallet, policy, rules, "topup.purchased", &now, &data);
    }
    for (number, model) in ["veo-3", "imagen-4"].iter().enumerate() {
        let data = format!(r#"{{"job_id":"j{number}","asset":"video","seconds":8,"model":"{model}"}}"#);
        event(&mut wallet, policy, rules, "generation.completed", &now, &data);
    }
    wallet
}

fn event(wallet: &mut Wallet, policy: &Policy, rules: &EventRules, kind: &str, time: &str, data: &str) {
    let value = format!(
        r#"{{"specversion":"1.0","id":"{}","source":"/bench","type":"{kind}","subject":"ws","time":"{time}","data":{data}}}"#,
        wallet.seq
    );
    let source_kind =
        if kind.starts_with("generation") { SourceKind::Generation } else { SourceKind::Wallet };
    let incoming = IncomingRecord { source_kind, value: Some(value.as_bytes()), headers: &[] };
    let event = decode(&incoming, rules).unwrap();
    let data = event.data.as_ref().unwrap().as_ref().unwrap();
    let command = Command::price(data, event.time, JobHistory::default(), &policy.pricing).unwrap();
    let cause = Cause {
        event_type: event.kind.as_str(),
        source: &event.source,
        event_id: &event.id,
        fingerprint: fingerprint(event.kind, event.time, data),
        origin: Origin::default(),
        moment: Moment {
            event_time: event.time,
            clock: ShardClock(event.time.0),
            posted_at: PostedAt(event.time.0),
        },
    };
    apply(wallet, &cause, &command, policy).unwrap();
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}
