//! What a number of credits buys: the question of everybody who chooses a plan.

use super::{AssetType, Quantity, Rate, RateCard, RateError, VideoMillis};

/// Images of a shoot.
pub const SHOOT_IMAGES: u32 = 4;
/// Usual lengths of a clip, seconds.
pub const CLIP_SECONDS: [u64; 3] = [4, 8, 12];

/// One thing that credits buy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// What.
    pub what: Unit,
    /// Credits for one, as it would be charged: rounded up.
    pub cost: i64,
    /// How many all of the credits buy, if nothing else is bought: rounded down. `None`: it costs nothing.
    pub count: Option<u64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// An image.
    Image,
    /// A shoot of [`SHOOT_IMAGES`] images, charged together.
    Shoot,
    /// A second of video, in one piece with the others.
    Second,
    /// A clip of so many seconds.
    Clip(u64),
}

impl Unit {
    /// All of them, in the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Unit> {
        [Unit::Image, Unit::Shoot, Unit::Second].into_iter().chain(CLIP_SECONDS.map(Unit::Clip))
    }

    /// What is charged at a time.
    fn quantity(self) -> Quantity {
        match self {
            Unit::Image => Quantity::Images(1),
            Unit::Shoot => Quantity::Images(SHOOT_IMAGES),
            Unit::Second => Quantity::Video(VideoMillis(1_000)),
            Unit::Clip(seconds) => Quantity::Video(VideoMillis(seconds * 1_000)),
        }
    }
}

/// What `credits` buy by a rate card, made by `model` (empty: by any without a rate of its own).
///
/// Images and seconds may be charged many at a time, so they are counted at their exact rate; shoots and clips are
/// charged one by one, each rounded up.
///
/// # Errors
/// A rate so high that one of them costs more than fits into 64 bits.
pub fn estimate(credits: u64, card: &RateCard, model: &str) -> Result<Vec<Purchase>, RateError> {
    let purchase = |what: Unit| {
        let quantity = what.quantity();
        let rate = card.rate(quantity.asset_type(), model);
        let cost = quantity.cost(rate)?;
        let count = match what {
            Unit::Image | Unit::Second => count_at_rate(credits, rate),
            Unit::Shoot | Unit::Clip(_) => credits.checked_div(cost.unsigned_abs()),
        };
        Ok(Purchase { what, cost, count })
    };
    Unit::all().map(purchase).collect()
}

/// Whole images or seconds; what does not fit into 64 bits is as good as without end.
fn count_at_rate(credits: u64, rate: Rate) -> Option<u64> {
    let count = (u128::from(credits) * 1_000_000).checked_div(u128::from(rate.0))?;
    u64::try_from(count).ok()
}

/// Rates of both kinds of asset, for whoever wants to reckon by hand.
pub fn rates(card: &RateCard, model: &str) -> (Rate, Rate) {
    (card.rate(AssetType::Image, model), card.rate(AssetType::Video, model))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rate::{Pricing, UsdCents};
    use crate::time::{EventTime, Timestamp};

    fn now() -> EventTime {
        EventTime(Timestamp::parse("2026-11-03T00:00:00Z").unwrap())
    }

    fn counts(credits: u64, pricing: &Pricing, model: &str) -> Vec<Option<u64>> {
        let card = pricing.rate_card_at(now()).unwrap();
        estimate(credits, card, model).unwrap().iter().map(|purchase| purchase.count).collect()
    }

    /// The product's published figures: credits of each plan and pack, and what they are said to buy.
    #[test]
    fn the_published_figures_hold() {
        let pricing = Pricing::built_in().unwrap();
        let plan = |name| pricing.plan_at(name, now()).unwrap().credits_per_month;
        let pack = |usd: i64| pricing.pack_at(UsdCents(usd * 100), now()).unwrap().credits;
        #[rustfmt::skip]
        let figures = [
            //                    credits  images shoots seconds  4 s  8 s 12 s
            (plan("lite"),                  200, [  200,    50,    66,  16,   8,   5]),
            (plan("performance"),         1_100, [1_100,   275,   366,  91,  45,  30]),
            (plan("scale"),               3_300, [3_300,   825, 1_100, 275, 137,  91]),
            (pack(100),                     555, [  555,   138,   185,  46,  23,  15]),
            (pack(250),                   1_388, [1_388,   347,   462, 115,  57,  38]),
            (pack(500),                   2_777, [2_777,   694,   925, 231, 115,  77]),
            (pack(1_000),                 5_555, [5_555, 1_388, 1_851, 462, 231, 154]),
            (pack(2_000),                11_111, [11_111, 2_777, 3_703, 925, 462, 308]),
        ];
        for (credits, published, bought) in figures {
            assert_eq!(credits, published);
            assert_eq!(counts(credits.unsigned_abs(), &pricing, ""), bought.map(Some), "{credits}");
        }
    }

    #[test]
    fn the_published_usage_costs_what_is_published() {
        let pricing = Pricing::built_in().unwrap();
        let bought = estimate(0, pricing.rate_card_at(now()).unwrap(), "").unwrap();
        let costs: Vec<i64> = bought.iter().map(|purchase| purchase.cost).collect();
        assert_eq!(costs, [1, 4, 3, 12, 24, 36]);
    }

    #[test]
    fn a_decimal_rate_is_exact_and_each_clip_is_rounded_up() {
        let pricing = Pricing::parse(
            r#"
            [[rate_card]]
            id = "decimal"
            effective_from = "2026-01-01T00:00:00Z"
            rates.image.credits = "1.5"
            rates.image.models."free".credits = "0"
            rates.video.credits = "3.3"
            [[plans]]
            effective_from = "2026-01-01T00:00:00Z"
            plan.lite.credits_per_month = 200
            [[topups]]
            effective_from = "2026-01-01T00:00:00Z"
            packs = []
            "#,
        )
        .unwrap();
        // 100/1.5 = 66.7; 100/6; 100/3.3 = 30.3; 4 s cost 13.2, charged 14: 100/14 = 7; 8 s 26.4, 27; 12 s 39.6, 40.
        assert_eq!(counts(100, &pricing, ""), [66, 16, 30, 7, 3, 2].map(Some));
        assert_eq!(counts(100, &pricing, "free").first(), Some(&None), "what costs nothing has no end");
        assert_eq!(counts(u64::MAX, &pricing, "").first(), Some(&Some(12_297_829_382_473_034_410)));
    }
}
