//! The pricing file: rate cards, plans and top-up packs, each versioned by `effective_from`.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use super::{AssetType, Rate, UsdCents};
use crate::time::{EventTime, Timestamp};

/// `config/pricing.toml`, compiled in.
const DEFAULT_PRICING: &str = include_str!("../../config/pricing.toml");
/// Longest name of a plan, a rate card or a model, bytes.
const NAME_BYTES_MAX: usize = 128;

/// All versions of all prices, oldest first.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pricing {
    #[serde(rename = "rate_card", default)]
    rate_cards: Vec<RateCard>,
    #[serde(default)]
    plans: Vec<PlanSet>,
    #[serde(default)]
    topups: Vec<PackSet>,
}

/// What usage costs from `effective_from` on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateCard {
    /// Names the card in entries.
    pub id: String,
    /// First instant (inclusive) at which it is in force.
    pub effective_from: Timestamp,
    rates: Rates,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    image: AssetRates,
    video: AssetRates,
}

/// Credits for one image, or one second of video: in general, and for single models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetRates {
    credits: Rate,
    #[serde(default)]
    models: BTreeMap<String, ModelRate>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRate {
    credits: Rate,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanSet {
    effective_from: Timestamp,
    plan: BTreeMap<String, Plan>,
}

/// What a plan grants.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Credits granted at the start of each month of a contract.
    pub credits_per_month: i64,
    /// A charge that would take the overdraft past this is refused; `None`: never.
    pub overdraft_limit: Option<i64>,
    /// A wallet is low at or below this share of its allocation, percent; `None`: as `[alerts]` says.
    pub low_percent: Option<u8>,
    /// A wallet is critical at or below this share, percent; `None`: as `[alerts]` says.
    pub critical_percent: Option<u8>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PackSet {
    effective_from: Timestamp,
    packs: Vec<Pack>,
}

/// A top-up pack.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Its price.
    pub amount_usd: UsdCents,
    /// The credits that it brings.
    pub credits: i64,
}

/// All faults of a pricing file, one a line.
#[derive(Debug, Error)]
#[error("{}", .0.join("\n"))]
pub struct PricingErrors(pub Vec<String>);

impl Pricing {
    /// The prices that are compiled in.
    ///
    /// # Errors
    /// As [`Pricing::parse`]; a test holds that there are none.
    pub fn built_in() -> Result<Pricing, PricingErrors> {
        Pricing::parse(DEFAULT_PRICING)
    }

    /// Reads a pricing file.
    ///
    /// # Errors
    /// Every fault that it has, each naming the place, the value and what is allowed.
    pub fn parse(text: &str) -> Result<Pricing, PricingErrors> {
        let mut pricing: Pricing = toml::from_str(text)
            .map_err(|error| PricingErrors(vec![format!("pricing: {}", error.to_string().trim_end())]))?;
        pricing.rate_cards.sort_by_key(|card| card.effective_from);
        pricing.plans.sort_by_key(|set| set.effective_from);
        pricing.topups.sort_by_key(|set| set.effective_from);
        let faults = pricing.faults();
        if faults.is_empty() { Ok(pricing) } else { Err(PricingErrors(faults)) }
    }

    /// Whether some event inside the horizon would find no version in force.
    ///
    /// # Errors
    /// Names each list whose first version begins after `horizon_start`.
    pub fn check_covers(&self, horizon_start: Timestamp) -> Result<(), PricingErrors> {
        let firsts = [
            ("rate_card", self.rate_cards.first().map(|card| card.effective_from)),
            ("plans", self.plans.first().map(|set| set.effective_from)),
            ("topups", self.topups.first().map(|set| set.effective_from)),
        ];
        let faults: Vec<String> = firsts
            .into_iter()
            .filter_map(|(list, first)| first.map(|first| (list, first)))
            .filter(|(_, first)| *first > horizon_start)
            .map(|(list, first)| {
                format!("pricing: the first {list} has effective_from = {first}: it must be older than the horizon, which begins {horizon_start}")
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(PricingErrors(faults)) }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        version_faults("rate_card", self.rate_cards.iter().map(|card| card.effective_from), &mut faults);
        version_faults("plans", self.plans.iter().map(|set| set.effective_from), &mut faults);
        version_faults("topups", self.topups.iter().map(|set| set.effective_from), &mut faults);
        let mut card_ids: Vec<&str> = self.rate_cards.iter().map(|card| card.id.as_str()).collect();
        card_ids.sort_unstable();
        if card_ids.windows(2).any(|pair| pair.first() == pair.last()) {
            faults.push("pricing: two rate_cards have the same id: each needs its own".to_owned());
        }
        for card in &self.rate_cards {
            name_faults("rate_card.id", &card.id, &mut faults);
            for model in card.rates.image.models.keys().chain(card.rates.video.models.keys()) {
                name_faults("models", model, &mut faults);
            }
        }
        for set in &self.plans {
            for (name, plan) in &set.plan {
                name_faults("plans.plan", name, &mut faults);
                if !(1..=1_000_000_000).contains(&plan.credits_per_month) {
                    faults.push(format!(
                        "pricing: plans.plan.{name}.credits_per_month = {}: allowed is 1 to 1000000000",
                        plan.credits_per_month
                    ));
                }
                if plan.overdraft_limit.is_some_and(|limit| limit < 0) {
                    faults.push(format!("pricing: plans.plan.{name}.overdraft_limit: allowed is 0 or more"));
                }
                for (key, percent) in
                    [("low_percent", plan.low_percent), ("critical_percent", plan.critical_percent)]
                {
                    if let Some(percent) = percent.filter(|percent| *percent > 100) {
                        faults.push(format!(
                            "pricing: plans.plan.{name}.{key} = {percent}: allowed is 0 to 100"
                        ));
                    }
                }
                if let (Some(low), Some(critical)) = (plan.low_percent, plan.critical_percent)
                    && low < critical
                {
                    faults.push(format!(
                        "pricing: plans.plan.{name}.low_percent = {low}: allowed is at least its critical_percent ({critical})"
                    ));
                }
            }
        }
        for pack in self.topups.iter().flat_map(|set| &set.packs) {
            if pack.amount_usd.0 <= 0 || !(1..=1_000_000_000).contains(&pack.credits) {
                faults.push(format!(
                    "pricing: topups.packs: amount_usd = {}, credits = {}: allowed are prices above 0 and 1 to 1000000000 credits",
                    pack.amount_usd, pack.credits
                ));
            }
        }
        faults
    }

    /// The rate card in force.
    pub fn rate_card_at(&self, at: EventTime) -> Option<&RateCard> {
        self.rate_cards.iter().rev().find(|card| card.effective_from <= at.0)
    }

    /// The named plan, by the version in force: `None` where it is not on sale.
    pub fn plan_at(&self, name: &str, at: EventTime) -> Option<Plan> {
        let in_force = self.plans.iter().rev().find(|set| set.effective_from <= at.0)?;
        in_force.plan.get(name).copied()
    }

    /// The named plan as a contract has it, by the newest version up to then that has it: a contract goes on after its
    /// plan was taken off sale.
    pub fn contract_plan(&self, name: &str, at: EventTime) -> Option<Plan> {
        let versions = self.plans.iter().rev().filter(|set| set.effective_from <= at.0);
        versions.filter_map(|set| set.plan.get(name)).next().copied()
    }

    /// Credits that the named plan grants a month, as a contract has it.
    pub fn allocation(&self, name: &str, at: EventTime) -> i64 {
        self.contract_plan(name, at).map_or(0, |plan| plan.credits_per_month)
    }

    /// The pack at that price, by the version in force.
    pub fn pack_at(&self, amount_usd: UsdCents, at: EventTime) -> Option<Pack> {
        self.packs_at(at).iter().copied().find(|pack| pack.amount_usd == amount_usd)
    }

    /// Every plan of every version, by name: the closed set of plan labels.
    pub fn plan_names(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> =
            self.plans.iter().flat_map(|set| set.plan.keys()).collect();
        names.into_iter().cloned().collect()
    }

    /// Plans on sale at a time, by name.
    pub fn plans_at(&self, at: EventTime) -> Vec<&str> {
        let in_force = self.plans.iter().rev().find(|set| set.effective_from <= at.0);
        in_force.into_iter().flat_map(|set| set.plan.keys().map(String::as_str)).collect()
    }

    /// Prices of the packs on sale at a time.
    pub fn packs_at(&self, at: EventTime) -> &[Pack] {
        let in_force = self.topups.iter().rev().find(|set| set.effective_from <= at.0);
        in_force.map_or(&[], |set| set.packs.as_slice())
    }

    /// Every instant at which a version comes into force, ascending.
    pub fn version_starts(&self) -> Vec<Timestamp> {
        let cards = self.rate_cards.iter().map(|card| card.effective_from);
        let plans = self.plans.iter().map(|set| set.effective_from);
        let topups = self.topups.iter().map(|set| set.effective_from);
        let mut starts: Vec<Timestamp> = cards.chain(plans).chain(topups).collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// Hash of the versions in force up to a time. Two instances may share a shard only where theirs are equal;
    /// versions that begin later do not count, so that a rolling restart can add them.
    /// `settings`: whatever else decides about money.
    pub fn hash_up_to(&self, clock: Timestamp, settings: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(settings.as_bytes());
        for card in self.rate_cards.iter().filter(|card| card.effective_from <= clock) {
            hasher.update(format!("{card:?}").as_bytes());
        }
        for set in self.plans.iter().filter(|set| set.effective_from <= clock) {
            hasher.update(format!("{:?}", set.effective_from).as_bytes());
            // Thresholds decide about alerts, not about money: they may differ while instances are restarted one by one.
            for (name, plan) in &set.plan {
                let Plan { credits_per_month, overdraft_limit, low_percent: _, critical_percent: _ } = plan;
                hasher.update(format!("{name:?} {credits_per_month} {overdraft_limit:?}").as_bytes());
            }
        }
        for set in self.topups.iter().filter(|set| set.effective_from <= clock) {
            hasher.update(format!("{set:?}").as_bytes());
        }
        hasher.finalize().to_hex().chars().take(16).collect()
    }
}

impl RateCard {
    /// Whether it names the model at all; it need not, and then its general rates count.
    pub fn names_model(&self, model: &str) -> bool {
        [&self.rates.image, &self.rates.video].into_iter().any(|rates| rates.models.contains_key(model))
    }

    /// The rate for an asset made by `model`.
    pub fn rate(&self, asset: AssetType, model: &str) -> Rate {
        let rates = match asset {
            AssetType::Image => &self.rates.image,
            AssetType::Video => &self.rates.video,
        };
        rates.models.get(model).map_or(rates.credits, |of_model| of_model.credits)
    }
}

fn version_faults(list: &str, versions: impl Iterator<Item = Timestamp>, faults: &mut Vec<String>) {
    let versions: Vec<Timestamp> = versions.collect();
    if versions.is_empty() {
        faults.push(format!("pricing: {list} is missing: at least one version is needed"));
    }
    for pair in versions.windows(2) {
        if let [earlier, later] = pair
            && earlier == later
        {
            faults.push(format!(
                "pricing: two versions of {list} have effective_from = {earlier}: each needs its own"
            ));
        }
    }
}

fn name_faults(place: &str, name: &str, faults: &mut Vec<String>) {
    let printable = name.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !printable {
        faults.push(format!(
            "pricing: {place} {name:?}: allowed are 1 to {NAME_BYTES_MAX} bytes of printable ASCII"
        ));
    }
}
