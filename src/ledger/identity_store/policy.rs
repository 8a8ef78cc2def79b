//! Which segments become one: a pure decision.
//!
//! Time is cut into windows of a fifth of the horizon. The segments of a window become one when it is over; in the
//! newest window the newest segments become one whenever the one before them is at most twice as large as they are
//! together, so it holds a few of falling size. 35 days make 5 or 6 whole windows and 1 to 4 segments of the
//! newest; an identity is written about 5 times. A segment spans one window, so it is dropped whole at most a
//! window after its first identity was forgotten.
//!
//! **Invariant:** only neighbours in age are merged: whichever is newer stays newer.

use std::ops::Range;

/// The horizon in windows. Fewer would keep forgotten identities longer, more would make more segments.
const WINDOWS: u32 = 5;
/// A larger factor merges more often and leaves fewer segments.
const GROWTH: u64 = 2;

/// What the policy knows of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) count: u64,
    pub(super) max_day: i32,
}

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
    fn thirty_five_days_make_few_segments_and_few_rewrites() {
        let window_days = window_days(35);
        let mut segments: Vec<Facts> = Vec::new();
        let (mut written, mut most, mut sum) = (0, 0, 0);
        for sealed in 0..1_000 {
            let day = sealed / 3;
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
        assert!(most <= 10 && sum <= 8_000, "{most} at most, {sum} in a thousand");
        assert!(written <= 6_000, "{written} for a thousand");
    }
}
