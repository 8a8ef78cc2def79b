//! Work that threads share.

use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;

use crate::ledger::compute::{helpers, side_by_side};

#[test]
fn results_come_in_the_order_of_the_items_whoever_worked_on_them() {
    let pool = helpers(0, 3).unwrap().unwrap();
    // Three threads have to be there at once.
    let all_are_here = Barrier::new(3);
    let done = side_by_side(Some(&pool), (0..300).collect(), |item| {
        if matches!(item, 0 | 298 | 299) {
            all_are_here.wait();
        }
        (item, thread::current().id())
    });
    assert!(done.iter().map(|(item, _)| *item).eq(0..300));
    let threads: HashSet<_> = done.iter().map(|(_, thread)| *thread).collect();
    assert_eq!(threads.len(), 3);
    assert_eq!(done.first().unwrap().1, thread::current().id(), "this thread begins with the first");
    assert!(side_by_side(Some(&pool), Vec::new(), |item: i32| item).is_empty());
    assert_eq!(side_by_side(None, vec![3, 1, 2], |item| item * 2), [6, 2, 4]);
}

#[test]
#[should_panic(expected = "item 7")]
fn a_panic_beside_this_thread_is_one_of_this_thread() {
    let pool = helpers(0, 2).unwrap().unwrap();
    // This thread is at the first item while the other is at the last.
    let both_are_here = Barrier::new(2);
    side_by_side(Some(&pool), (0..8).collect(), |item| {
        if matches!(item, 0 | 7) {
            both_are_here.wait();
        }
        assert!(item != 7, "item {item}");
    });
}
