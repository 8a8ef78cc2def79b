//! What each step of the ledger stage takes for one event, on one core and without Kafka.
//!
//! `cargo bench --bench steps`; `cargo bench --bench steps -- apply` for one of them. An event is a completed image of a wallet
//! that has a contract, a top-up and open rollup buckets; identities are looked up among a million. `restore` reads a charge back
//! from the ledger and folds it into its wallet. The whole job on a real broker is `make bench`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure ends the measurement")]
#![allow(missing_docs, reason = "criterion's macros make functions of their own")]

use std::hint::black_box;
use std::sync::Arc;

use creditstream::config::Config;
use creditstream::event::{Event, EventRules, IdentityKey, IncomingRecord, SourceKind, decode, fingerprint};
use creditstream::ledger::identity_store::Recent;
use creditstream::rate::Pricing;
use creditstream::time::{PostedAt, ShardClock};
use creditstream::wallet::{
    Cause, Command, Entry, JobHistory, LEDGER_FORMAT, LedgerRecord, Moment, Origin, Policy, Wallet, apply,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REMEMBERED: u128 = 1_000_000;
/// Spreads numbers over all bits, as the hashes are that identities are made of.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const HORIZON_DAYS: i32 = 35;
const TIME: &str = "2026-11-03T10:15:30.123Z";
const CONTRACT: &str = r#"{"contract_id":"c_1","plan":"scale","starts_at":"2026-11-01T00:00:00Z"}"#;
const IMAGE: &str = r#"{"job_id":"job_00231","asset":"image","images":1,"model":"imagen-4","user_id":"u_9","project_id":"p_3"}"#;

fn value(id: &str, kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/render/eu-1","type":"{kind}","subject":"ws_000042","time":"{TIME}","datacontenttype":"application/json","data":{data}}}"#
    )
}

fn read<'v>(value: &'v str, rules: &EventRules) -> Event<'v> {
    let is_usage = value.contains("\"generation.");
    let source_kind = if is_usage { SourceKind::Generation } else { SourceKind::Wallet };
    decode(&IncomingRecord { source_kind, value: Some(value.as_bytes()), headers: &[] }, rules).unwrap()
}

fn price<'e>(event: &'e Event<'_>, policy: &'e Policy) -> Command<'e> {
    let data = event.data.as_ref().unwrap().as_ref().unwrap();
    Command::price(data, event.time, JobHistory::default(), &policy.pricing).unwrap()
}

fn cause<'e>(event: &'e Event<'_>) -> Cause<'e> {
    let data = event.data.as_ref().unwrap().as_ref().unwrap();
    let at = event.time.0;
    Cause {
        event_type: event.kind.as_str(),
        source: &event.source,
        event_id: &event.id,
        fingerprint: fingerprint(event.kind, event.time, data),
        origin: Origin { topic: "generation.events", partition: 3, offset: 123_456 },
        moment: Moment { event_time: event.time, clock: ShardClock(at), posted_at: PostedAt(at) },
    }
}

fn post<'e>(wallet: &mut Wallet, event: &'e Event<'_>, policy: &'e Policy) -> Vec<Entry<'e>> {
    apply(wallet, &cause(event), &price(event, policy), policy).unwrap()
}

fn a_wallet(rules: &EventRules, policy: &Policy) -> Wallet {
    let mut wallet = Wallet::default();
    let topup = r#"{"topup_id":"invoice-1","amount_usd":100}"#;
    for (kind, data) in
        [("contract.started", CONTRACT), ("topup.purchased", topup), ("generation.completed", IMAGE)]
    {
        let value = value(&wallet.seq.to_string(), kind, data);
        assert!(!post(&mut wallet, &read(&value, rules), policy).is_empty());
    }
    wallet
}

fn steps(criterion: &mut Criterion) {
    let config = Config::default();
    let policy = Policy::new(&config, Arc::new(Pricing::built_in().unwrap()));
    let rules = EventRules::new(&config.events);
    let wallet = a_wallet(&rules, &policy);
    let value = value("01J9ZKT3Q8V5", "generation.completed", IMAGE);
    let event = read(&value, &rules);
    let entries = post(&mut wallet.clone(), &event, &policy);
    assert_eq!(entries.len(), 1, "a charge and nothing else");
    let wallet_id = event.wallet_id.as_ref().into();
    let record = LedgerRecord { v: LEDGER_FORMAT, wallet_id, clock_day: None, entries };

    criterion.bench_function("decode", |bencher| bencher.iter(|| read(black_box(&value), &rules)));
    criterion.bench_function("rate", |bencher| bencher.iter(|| price(black_box(&event), &policy)));
    let (cause, command) = (cause(&event), price(&event, &policy));
    criterion.bench_function("apply", |bencher| {
        bencher.iter_batched_ref(
            || wallet.clone(),
            |wallet| apply(wallet, &cause, &command, &policy).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let mut out = Vec::new();
    record.encode(&mut out);
    criterion.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&record).encode(&mut out);
        });
    });
    criterion.bench_function("read back", |bencher| {
        bencher.iter(|| LedgerRecord::decode(black_box(&out)).unwrap());
    });
    criterion.bench_function("read back, by serde", |bencher| {
        bencher.iter(|| serde_json::from_slice::<LedgerRecord<'_>>(black_box(&out)).unwrap());
    });
    criterion.bench_function("restore", |bencher| {
        bencher.iter_batched_ref(
            || wallet.clone(),
            |wallet| {
                let record = LedgerRecord::decode(black_box(&out)).unwrap();
                wallet.fold_record(&record, HORIZON_DAYS).unwrap();
            },
            BatchSize::SmallInput,
        );
    });
}

fn identities(criterion: &mut Criterion) {
    let key = |number: u128| IdentityKey(number.wrapping_mul(SPREAD));
    let mut recent = Recent::new();
    (0..REMEMBERED).for_each(|number| recent.insert(key(number), 20_000, &[7; 8]));
    let mut number = 0;
    let mut next = |step: u128| {
        number = (number + step) % REMEMBERED;
        number
    };
    // A prime: neighbours in time are not neighbours in memory.
    criterion.bench_function("identity, known", |bencher| {
        bencher.iter(|| assert!(recent.get(key(next(7_919))).is_some()));
    });
    criterion.bench_function("identity, new", |bencher| {
        bencher.iter(|| assert!(recent.get(key(REMEMBERED + next(7_919))).is_none()));
    });
    let mut batch = Recent::new();
    criterion.bench_function("identity, insert", |bencher| {
        bencher.iter(|| {
            if batch.len() >= 20_000 {
                batch.clear();
            }
            batch.insert(key(next(1)), 20_000, &[7; 8]);
        });
    });
}

criterion_group!(benches, steps, identities);
criterion_main!(benches);
