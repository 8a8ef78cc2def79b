//! Randomness: seeded, one independent stream per purpose, portable.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::item::Key;
use super::options::millionths;
use super::population::mix;
use crate::time::Timestamp;

const MILLION: u32 = 1_000_000;

/// A stream of random choices.
pub(super) struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// The stream of one purpose under a seed.
    pub(super) fn new(seed: u64, purpose: u64) -> Chance {
        Chance(Xoshiro256PlusPlus::seed_from_u64(mix(seed) ^ mix(purpose.wrapping_mul(3))))
    }

    /// A number of millionths, to be compared with shares.
    pub(super) fn roll(&mut self) -> u32 {
        self.0.random_range(0..MILLION)
    }

    pub(super) fn percent(&mut self, percent: f64) -> bool {
        self.roll() < millionths(percent)
    }

    pub(super) fn one_in(&mut self, number: u32) -> bool {
        self.0.random_range(0..number.max(1)) == 0
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        self.0.random_range(low..=high.max(low))
    }

    /// Any number below `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count.max(1))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.random()
    }

    /// An event id: begins with its time, as ULIDs do.
    pub(super) fn event_id(&mut self, at: Timestamp) -> u128 {
        let random: u128 = self.0.random();
        let millis = u128::try_from(at.millis()).unwrap_or(0) & 0xffff_ffff_ffff;
        (millis << 80) | (random >> 48)
    }

    /// A key, wrong in so many percent of cases.
    pub(super) fn key(&mut self, wrong_key_percent: f64, wallets: u32) -> Key {
        if !self.percent(wrong_key_percent) {
            return Key::Wallet;
        }
        match self.below(3) {
            0 => Key::OtherWallet(self.wallet(wallets)),
            1 => Key::Random(self.bits()),
            _ => Key::Absent,
        }
    }

    /// Any wallet's number.
    pub(super) fn wallet(&mut self, wallets: u32) -> u32 {
        self.0.random_range(1..=wallets.max(1))
    }

    pub(super) fn rng(&mut self) -> &mut Xoshiro256PlusPlus {
        &mut self.0
    }
}
