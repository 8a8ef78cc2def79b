//! Which segments become one: a pure decision.
//!
//! Time is cut into windows of a fifth of the horizon. The segments of a window become one when it is over; in the
//! newest window the newest segments become one whenever the one before them is at most twice as large as they are
//! together, so it holds a few of falling size. 35 days make 5 or 6 whole windows and 1 to 4 segments of the
//! newest; an identity is written about 5 times. A segment spans one window, so it is dropped whole at most a
//! window after its first identity was forgotten.
//!
//! While a horizon is read back, identities come as fast as they can be read, and what is merged is time that somebody waits
//! for: then neighbours of about one size are merged by the eight, an identity is written about twice, and the rest is
//! left for later.
//!
//! **Invariant:** only neighbours in age are merged: whichever is newer stays newer.

use std::ops::Range;

/// The horizon in windows. Fewer would keep forgotten identities longer, more would make more segments.
const WINDOWS: u32 = 5;
/// A larger factor merges more often and leaves fewer segments.
const GROWTH: u64 = 2;
/// So many of one size are merged while a horizon is read back.
const BULK: usize = 8;
/// More segments than this would make look-ups slow.
const BULK_SEGMENTS_MAX: usize = 32;

/// What the policy knows of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) count: u64,
    pub(super) max_day: i32,
}

/// Which neighbours to merge next, of segments from the oldest to the newest, and the days of a window.
pub(super) type Choose = fn(&[Facts], i32) -> Option<Range<usize>>;

/// Days in a window.
pub(super) fn window_days(horizon_days: u32) -> i32 {
    i32::try_from(horizon_days.div_ceil(WINDOWS)).unwrap_or(i32::MAX).max(1)
}

/// Which neighbours to merge next, of segments from the oldest to the newest.
pub(super) fn choose(segments: &[Facts], window_days: i32) -> Option<Range<usize>> {
    let windows = windows(segments, window_days);
    let (newest, closed) = windows.split_last()?;
    let closed = closed.iter().find(|window| window.len() > 1);
    closed.cloned().or_else(|| newest_run(segments, newest))
}

/// The same while a horizon is read back.
pub(super) fn choose_in_bulk(segments: &[Facts], window_days: i32) -> Option<Range<usize>> {
    if segments.len() > BULK_SEGMENTS_MAX {
        return choose(segments, window_days);
    }
    windows(segments, window_days).into_iter().find_map(|window| {
        let starts = window.start..(window.end + 1).saturating_sub(BULK).max(window.start);
        starts.map(|start| start..start + BULK).find(|run| {
            let counts = segments.get(run.clone()).unwrap_or_default().iter().map(|segment| segment.count);
            let smallest = counts.clone().min().unwrap_or_default();
            counts.max().is_some_and(|largest| largest <= smallest * GROWTH)
        })
    })
}

/// The segments of each window. A segment belongs to no older window than its elder, whatever its days: an event
/// ahead of the clock must not part neighbours for ever.
fn windows(segments: &[Facts], window_days: i32) -> Vec<Range<usize>> {
    let mut windows: Vec<Range<usize>> = Vec::new();
    let mut newest_window = i32::MIN;
    for (at, segment) in segments.iter().enumerate() {
        let window = segment.max_day.div_euclid(window_days);
        match windows.last_mut() {
            Some(last) if window <= newest_window => last.end = at + 1,
            _ => windows.push(at..at + 1),
        }
        newest_window = newest_window.max(window);
    }
    windows
}

fn newest_run(segments: &[Facts], window: &Range<usize>) -> Option<Range<usize>> {
    let mut start = window.end;
    let mut sum = 0;
    for (at, segment) in segments.iter().enumerate().take(window.end).skip(window.start).rev() {
        if start < window.end && segment.count > sum * GROWTH {
            break;
        }
        start = at;
        sum += segment.count;
    }
    (window.end - start > 1).then_some(start..window.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(segments: &[(u64, i32)]) -> Vec<Facts> {
        segments.iter().map(|(count, max_day)| Facts { count: *count, max_day: *max_day }).collect()
    }

    #[test]
    fn neighbours_are_merged_by_window_and_size() {
        /// Name, count and last day of each segment, and what is merged.
        type Case = (&'static str, &'static [(u64, i32)], Option<Range<usize>>);
        let table: [Case; 9] = [
            ("nothing", &[], None),
            ("one", &[(1, 3)], None),
            ("two alike", &[(1, 3), (1, 4)], Some(0..2)),
            ("a large one and a small one", &[(5, 3), (1, 4)], None),
            ("the small ones after a large one", &[(9, 3), (1, 4), (1, 5)], Some(1..3)),
            ("the small ones carry the large one along", &[(4, 3), (1, 4), (1, 5)], Some(0..3)),
            ("a window that is over", &[(5, 3), (1, 4), (1, 7)], Some(0..2)),
            ("one of each window", &[(1, 3), (1, 8), (1, 15)], None),
            ("an event ahead of the clock parts nobody", &[(1, 7), (1, 6), (1, 7), (1, 14)], Some(0..3)),
        ];
        for (name, segments, expected) in table {
            assert_eq!(choose(&facts(segments), 7), expected, "{name}");
        }
    }

    #[test]
    fn in_bulk_neighbours_of_one_size_and_window_are_merged_by_the_eight() {
        /// Name, count and last day of each segment, and what is merged.
        type Case = (&'static str, Vec<(u64, i32)>, Option<Range<usize>>);
        let run = |count: u64, day: i32, times: usize| vec![(count, day); times];
        let table: [Case; 7] = [
            ("nothing", vec![], None),
            ("seven", run(1, 3, 7), None),
            ("eight", run(1, 3, 8), Some(0..8)),
            ("eight after a large one", [run(9, 3, 1), run(1, 3, 8)].concat(), Some(1..9)),
            ("eight large ones before small ones", [run(8, 3, 8), run(1, 3, 3)].concat(), Some(0..8)),
            ("eight, a large one among them", [run(1, 3, 4), run(3, 3, 1), run(1, 3, 3)].concat(), None),
            ("eight of two windows", [run(1, 3, 4), run(1, 9, 4)].concat(), None),
        ];
        for (name, segments, expected) in table {
            assert_eq!(choose_in_bulk(&facts(&segments), 7), expected, "{name}");
        }
        // However they came about, there are not so many that each look-up takes long.
        let uneven = |segments: i32| -> Vec<Facts> {
            let count = |place: i32| if place < 31 { 1 + 2 * (place as u64 % 2) } else { 1 };
            (0..segments).map(|place| Facts { count: count(place), max_day: 3 }).collect()
        };
        assert_eq!(choose_in_bulk(&uneven(32), 7), None);
        assert_eq!(choose_in_bulk(&uneven(33), 7), choose(&uneven(33), 7));
        assert!(choose(&uneven(33), 7).is_some());
    }

    /// Seals so many segments of one identity, `per_day` a day, and merges whatever is to be merged: identities written, most
    /// segments at a time, and their sum after each.
    fn seal(sealed: i32, per_day: i32, choose: Choose) -> (u64, usize, usize) {
        let window_days = window_days(35);
        let mut segments: Vec<Facts> = Vec::new();
        let (mut written, mut most, mut sum) = (0, 0, 0);
        for sealed in 0..sealed {
            let day = sealed / per_day;
            segments.retain(|segment| segment.max_day >= day - 35);
            segments.push(Facts { count: 1, max_day: day });
            written += 1;
            while let Some(range) = choose(&segments, window_days) {
                let merged: Vec<Facts> = segments.drain(range.clone()).collect();
                let count = merged.iter().map(|segment| segment.count).sum();
                let max_day = merged.iter().map(|segment| segment.max_day).max().unwrap_or(day);
                segments.insert(range.start, Facts { count, max_day });
                written += count;
            }
            most = most.max(segments.len());
            sum += segments.len();
        }
        (written, most, sum)
    }

    #[test]
    fn thirty_five_days_make_few_segments_and_few_rewrites() {
        let (written, most, sum) = seal(1_000, 3, choose);
        assert!(most <= 10 && sum <= 8_000, "{most} at most, {sum} in a thousand");
        assert!(written <= 6_000, "{written} for a thousand");
    }

    #[test]
    fn in_bulk_an_identity_is_written_about_twice() {
        // Forty segments of a shard within one window.
        let (written, most, _) = seal(40, 40, choose_in_bulk);
        assert_eq!((written, most), (80, 11), "written, and segments at most");
        let (usual, _, _) = seal(40, 40, choose);
        assert!(usual >= 4 * 40, "{usual} as it is done otherwise");
    }
}
