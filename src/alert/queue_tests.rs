//! The queue, with time and chance from the test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::Bytes;

use super::queue::{Answer, Decision, Item, Place, Queue, Retry, Source};
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

fn retry() -> Retry {
    Retry { min: Duration::from_secs(1), max: Duration::from_secs(900), give_up_after: 3 * DAY }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn item(wallet: &str, partition: i32, offset: i64, since_s: i64) -> Item {
    Item {
        place: Place { source: Source::Alerts, partition, offset },
        since: at(since_s),
        wallet: wallet.into(),
        id: format!("{wallet}:{offset}"),
        body: Bytes::from_static(b"{}"),
        unreadable: None,
    }
}

fn failed(retry_after_s: Option<u64>) -> Answer {
    Answer::Failed { detail: "status 500".to_owned(), retry_after: retry_after_s.map(Duration::from_secs) }
}

#[test]
fn pauses_double_up_to_the_longest_and_are_spread_over_their_upper_half() {
    let seconds = |failures, chance| retry().pause(failures, chance).as_secs_f64();
    let longest: Vec<f64> = [1, 2, 3, 10, 11, 40, u32::MAX].map(|failures| seconds(failures, 1.0)).to_vec();
    assert_eq!(longest, [1.0, 2.0, 4.0, 512.0, 900.0, 900.0, 900.0]);
    assert_eq!([seconds(1, 0.0), seconds(3, 0.5), seconds(11, 0.0)], [0.5, 3.0, 450.0]);
}

/// Goal: the schedule holds to its end, 3 days later. Method: time jumps to whatever is due next.
#[test]
fn an_alert_is_tried_for_3_days_to_the_end_and_then_given_up() {
    for chance in [0.0, 0.3, 1.0] {
        let mut queue = Queue::new(retry());
        queue.push(item("w", 0, 7, 1_000));
        let (mut now, mut tries, mut last) = (at(1_000), 0, at(0));
        let detail = loop {
            let due = queue.take_due(now).unwrap();
            tries += 1;
            match queue.answered(&due, failed(None), now, chance) {
                Decision::Later(next) => {
                    assert!(next > now && next.millis() - now.millis() <= 900_000, "{now} {next}");
                    assert!(queue.take_due(next.plus_millis(-1)).is_none(), "before its time");
                    (last, now) = (now, next);
                }
                Decision::GiveUp(detail) => break detail,
                Decision::Done => panic!("nobody took it"),
            }
        };
        assert_eq!(detail, "status 500");
        assert_eq!(now, at(1_000 + 3 * 86_400), "the last try is made at the very end");
        assert!(last < now && (290..=610).contains(&tries), "{tries} tries");
        assert!(
            queue.take_positions().iter().all(|(.., offset)| *offset == 7),
            "not passed before it is dead"
        );
        queue.settle(&item("w", 0, 7, 1_000), now);
        assert_eq!(queue.take_positions(), [(Source::Alerts, 0, 8)]);
        assert!(queue.is_empty());
    }
}

#[test]
fn an_alert_that_is_too_old_when_it_is_read_is_tried_once() {
    let mut queue = Queue::new(retry());
    queue.push(item("w", 0, 0, 0));
    let now = at(10 * 86_400);
    let due = queue.take_due(now).unwrap();
    assert_eq!(queue.answered(&due, failed(None), now, 0.5), Decision::GiveUp("status 500".to_owned()));
}

#[test]
fn one_wallets_alerts_go_one_after_the_other_and_another_wallet_overtakes() {
    let mut queue = Queue::new(retry());
    for (wallet, offset) in [("a", 0), ("a", 1), ("b", 2), ("a", 3)] {
        queue.push(item(wallet, 0, offset, offset));
    }
    let now = at(100);
    let first = queue.take_due(now).unwrap();
    let other = queue.take_due(now).unwrap();
    assert_eq!((first.place.offset, other.place.offset), (0, 2));
    assert_eq!(queue.take_due(now), None, "the second of a waits for the first");
    assert_eq!(queue.answered(&other, Answer::Delivered, now, 0.5), Decision::Done);
    let Decision::Later(next) = queue.answered(&first, failed(None), now, 1.0) else { panic!() };
    assert_eq!(queue.take_due(now), None, "nothing of a overtakes the one that failed");
    assert!(queue.take_positions().iter().all(|(.., offset)| *offset == 0));
    for expected in [0, 1, 3] {
        let due = queue.take_due(next).unwrap();
        assert_eq!(due.place.offset, expected);
        assert_eq!(queue.answered(&due, Answer::Delivered, next, 0.5), Decision::Done);
    }
    assert_eq!(queue.take_positions(), [(Source::Alerts, 0, 4)]);
    assert_eq!(queue.take_positions(), [], "said once");
}

#[test]
fn a_receiver_that_asks_for_a_pause_gets_it_from_all_wallets_even_beyond_the_end() {
    let mut queue = Queue::new(retry());
    queue.push(item("a", 0, 0, 0));
    queue.push(item("b", 0, 1, 0));
    let now = at(10);
    let due = queue.take_due(now).unwrap();
    assert_eq!(queue.answered(&due, failed(Some(300)), now, 0.5), Decision::Later(at(310)));
    assert_eq!(queue.take_due(at(309)), None);
    assert_eq!(queue.next_due(), Some(at(310)));
    assert!(queue.take_due(at(310)).is_some() && queue.take_due(at(310)).is_some());

    let mut queue = Queue::new(retry());
    queue.push(item("a", 0, 0, 0));
    let nearly_over = at(3 * 86_400 - 5);
    let due = queue.take_due(nearly_over).unwrap();
    let asked = queue.answered(&due, failed(Some(60)), nearly_over, 0.5);
    assert_eq!(asked, Decision::Later(at(3 * 86_400 + 55)));
    let for_ever = queue.answered(&due, failed(Some(u64::MAX)), nearly_over, 0.5);
    assert_eq!(for_ever, Decision::Later(nearly_over.plus_millis(86_400_000)), "a day at most");
}

#[test]
fn after_410_everything_is_given_up_without_waiting() {
    let mut queue = Queue::new(retry());
    queue.push(item("a", 0, 0, 0));
    queue.push(item("b", 0, 1, 0));
    queue.push(item("b", 0, 2, 0));
    let now = at(10);
    let first = queue.take_due(now).unwrap();
    let second = queue.take_due(now).unwrap();
    let Decision::Later(_) = queue.answered(&second, failed(Some(3_600)), now, 0.5) else { panic!() };
    assert!(matches!(queue.answered(&first, Answer::Gone, now, 0.5), Decision::GiveUp(_)));
    queue.settle(&first, now);
    for expected in [1, 2] {
        assert!(queue.is_gone());
        let due = queue.take_due(now).unwrap();
        assert_eq!(due.place.offset, expected);
        queue.settle(&due, now);
    }
    assert_eq!(queue.take_positions(), [(Source::Alerts, 0, 3)]);
}

#[test]
fn what_is_not_wanted_is_passed_but_never_overtakes_what_is_unsettled() {
    let mut queue = Queue::new(retry());
    let pass = |queue: &mut Queue, partition, offset| {
        queue.pass(Place { source: Source::Alerts, partition, offset });
    };
    pass(&mut queue, 1, 41);
    queue.push(item("a", 0, 5, 0));
    pass(&mut queue, 0, 6);
    assert_eq!(queue.take_positions(), [(Source::Alerts, 0, 5), (Source::Alerts, 1, 42)]);
    assert_eq!(queue.oldest(), Some(at(0)));
    let due = queue.take_due(at(1)).unwrap();
    queue.answered(&due, Answer::Delivered, at(1), 0.5);
    assert_eq!(queue.take_positions(), [(Source::Alerts, 0, 7)]);
    assert_eq!((queue.oldest(), queue.len()), (None, 0));
}
