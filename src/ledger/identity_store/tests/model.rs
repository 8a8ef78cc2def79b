//! Random lives of a store against a map.
//!
//! Method: batches, days, seals, merges, checkpoints and crashes in any order; after each, every key that was ever
//! used is looked up and must be as in the map. Days of a key never fall, as the store demands. A crash brings
//! store and map back to the last durable checkpoint.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const HORIZON_DAYS: i32 = 10;
const KEYS: u64 = 150;

#[derive(Clone, Debug)]
enum Step {
    /// Number of the key, days ahead of the clock, length of the value.
    Batch(Vec<(u64, i32, usize)>),
    Days(i32),
    Maintain,
    Settle,
    Checkpoint,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let insert = (0..KEYS, 0..3_i32, prop_oneof![Just(8_usize), 0..60_usize, Just(5_000)]);
    let step = prop_oneof![
        6 => prop::collection::vec(insert, 1..60).prop_map(Step::Batch),
        2 => (1..4_i32).prop_map(Step::Days),
        3 => Just(Step::Maintain),
        3 => Just(Step::Settle),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Clone, Default)]
struct Model {
    memos: HashMap<u64, (i32, Vec<u8>)>,
    clock: i32,
}

impl Model {
    fn first_day(&self) -> i32 {
        self.clock - HORIZON_DAYS
    }

    fn batch(&mut self, inserts: &[(u64, i32, usize)]) -> Recent {
        let mut batch = Recent::new();
        for (at, (number, ahead, length)) in inserts.iter().enumerate() {
            let before = self.memos.get(number).map_or(0, |(day, _)| *day);
            let day = before.max(self.clock + ahead);
            let value = vec![at as u8; *length];
            batch.insert(key(*number), day, &value);
            self.memos.insert(*number, (day, value));
        }
        batch
    }

    fn check(&self, store: &IdentityStore) {
        for number in 0..KEYS + 10 {
            let is_remembered = |memo: &(i32, Vec<u8>)| memo.0 >= self.first_day();
            let expected = self.memos.get(&number).cloned().filter(is_remembered);
            let found = day_and_value(store, key(number)).filter(is_remembered);
            assert_eq!(found, expected, "key {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_store_remembers_as_a_map_does(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let maintenance = Maintenance::start().unwrap();
        let settings = StoreSettings { recent_max: 40, ..settings(folder.path()) };
        let mut store = IdentityStore::new(settings.clone(), &maintenance);
        let mut model = Model { clock: 100, ..Model::default() };
        let mut durable: Option<(Saved, Model)> = None;
        for step in steps {
            match step {
                Step::Batch(inserts) => store.absorb(&model.batch(&inserts)),
                Step::Days(days) => {
                    model.clock += days;
                    store.forget_before(model.first_day());
                }
                Step::Maintain => store.maintain().unwrap(),
                Step::Settle => settle(&mut store),
                Step::Checkpoint => {
                    let saved = save(&store);
                    store.manifest_is_durable(&serde_json::from_str(&saved.manifest).unwrap());
                    durable = Some((saved, model.clone()));
                }
                Step::Crash => {
                    drop(store);
                    (store, model) = match &durable {
                        Some((saved, model)) => {
                            (restart(settings.clone(), &maintenance, saved).unwrap(), model.clone())
                        }
                        None => {
                            let model = Model { clock: 100, ..Model::default() };
                            (IdentityStore::new(settings.clone(), &maintenance), model)
                        }
                    };
                }
            }
            model.check(&store);
        }
    }
}
