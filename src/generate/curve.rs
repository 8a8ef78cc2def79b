//! Spreads events over time with a day's rise and fall, in order.

use crate::time::{DAY_MS, HOUR_MS, Timestamp};

/// How busy each hour of a UTC day is.
const HOUR_WEIGHTS: [u64; 24] =
    [3, 2, 2, 2, 2, 3, 5, 8, 12, 15, 16, 16, 15, 15, 16, 16, 15, 13, 11, 9, 8, 6, 5, 4];
/// Steps between one event and the next that its jitter may take.
const JITTER_STEPS: u128 = 1 << 16;

/// Times of `events` events, rising.
pub(super) struct DayCurve {
    end: Timestamp,
    events: u64,
    /// Start of the part of an hour under way, and the weight of all parts before it.
    part_start: Timestamp,
    weight_before: u128,
    weight_total: u128,
}

impl DayCurve {
    pub(super) fn new(start: Timestamp, end: Timestamp, events: u64) -> DayCurve {
        let mut weight_total = 0;
        let mut at = start;
        while at < end {
            let part_end = part_end(at, end);
            weight_total += weight(at, part_end);
            at = part_end;
        }
        DayCurve { end, events, part_start: start, weight_before: 0, weight_total }
    }

    /// When event number `index` happens; `index` must not fall from call to call.
    pub(super) fn time_of(&mut self, index: u64, jitter: u16) -> Timestamp {
        let step = u128::from(index) * JITTER_STEPS + u128::from(jitter);
        let target = self.weight_total * step / (u128::from(self.events.max(1)) * JITTER_STEPS);
        while self.part_start < self.end {
            let part_end = part_end(self.part_start, self.end);
            let part_weight = weight(self.part_start, part_end);
            if target < self.weight_before + part_weight {
                let inside =
                    target.saturating_sub(self.weight_before) / u128::from(hour_weight(self.part_start));
                return self.part_start.plus_millis(i64::try_from(inside).unwrap_or(i64::MAX));
            }
            self.weight_before += part_weight;
            self.part_start = part_end;
        }
        self.end
    }
}

/// The end of the hour, or of everything.
fn part_end(at: Timestamp, end: Timestamp) -> Timestamp {
    at.hour().plus_millis(HOUR_MS).min(end)
}

fn hour_weight(at: Timestamp) -> u64 {
    let hour = at.millis().rem_euclid(DAY_MS) / HOUR_MS;
    usize::try_from(hour).ok().and_then(|hour| HOUR_WEIGHTS.get(hour)).copied().unwrap_or(1)
}

fn weight(from: Timestamp, to: Timestamp) -> u128 {
    let millis = u64::try_from(to.millis() - from.millis()).unwrap_or(0);
    u128::from(millis) * u128::from(hour_weight(from))
}
