//! Prices events one by one and adds up. Pure.
//!
//! **Invariant:** what is kept is bounded: sums for each wallet, plan and model, and a wallet's contracts within the
//! wallet core's own bounds. No event is remembered, so repeats and reversals are not recognised.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::report::{Bad, BadLine, Report, Sums, named};
use crate::cli::lines::{decode_line, priced};
use crate::config::Config;
use crate::event::{Event, EventRules, Reason, Rejection};
use crate::rate::{AssetType, Pricing, Quantity, VideoMillis};
use crate::time::{PostedAt, ShardClock};
use crate::wallet::{Cause, Command, Moment, Policy, PricedUsage, Refusal, Wallet, apply};

/// Bad lines that are named one by one; all are counted.
const BAD_NAMED_MAX: usize = 20;
/// Models that are told apart; the rest are one.
const MODELS_MAX: usize = 1_000;
/// Name of the rest.
const OTHER_MODELS: &str = "other";

/// What is known of a wallet.
#[derive(Default)]
struct WalletSums {
    sums: Sums,
    /// The wallet with its contracts; it has neither grants nor charges.
    contracts: Option<Box<Wallet>>,
}

/// Prices events.
pub struct Pricer<'p> {
    rules: EventRules,
    policy: Policy,
    pricing: Arc<Pricing>,
    against: Option<&'p Pricing>,
    lines: u64,
    not_priced: BTreeMap<String, u64>,
    bad: Bad,
    total: Sums,
    models: BTreeMap<(String, AssetType), Sums>,
    plans: BTreeMap<String, Sums>,
    wallets: HashMap<String, WalletSums>,
}

/// What a completion would cost.
struct Cost<'a> {
    wallet_id: &'a str,
    model: &'a str,
    quantity: Quantity,
    credits: i64,
    against: i64,
}

impl<'p> Pricer<'p> {
    /// By these prices, and by others beside them.
    pub fn new(config: &Config, pricing: Arc<Pricing>, against: Option<&'p Pricing>) -> Pricer<'p> {
        Pricer {
            rules: EventRules::new(&config.events),
            policy: Policy::new(config, Arc::clone(&pricing)),
            pricing,
            against,
            lines: 0,
            not_priced: BTreeMap::new(),
            bad: Bad::default(),
            total: Sums::default(),
            models: BTreeMap::new(),
            plans: BTreeMap::new(),
            wallets: HashMap::new(),
        }
    }

    /// Prices a line; an empty one is none.
    ///
    /// # Errors
    /// Only a fault of ours.
    pub fn line(&mut self, number: usize, line: &[u8]) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        self.lines += 1;
        match self.event(line) {
            Ok(()) => Ok(()),
            Err(Refusal::Rejected(rejection)) => {
                self.refuse(number, rejection);
                Ok(())
            }
            Err(Refusal::Breach(breach)) => Err(format!("line {number}: {breach}")),
        }
    }

    fn event(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let event = decode_line(line, None, &self.rules).map_err(Refusal::Rejected)?;
        let pricing = Arc::clone(&self.pricing);
        let asked = priced(&event, &pricing).map_err(Refusal::Rejected)?;
        match asked {
            Some(Command::Charge(usage)) => {
                let against = self.cost_against(&event, &usage).map_err(Refusal::Rejected)?;
                let cost = Cost {
                    wallet_id: &event.wallet_id,
                    model: &usage.usage.model,
                    quantity: usage.usage.quantity,
                    credits: usage.cost,
                    against,
                };
                self.add(&cost, &event);
                return Ok(());
            }
            Some(
                command @ (Command::StartContract(_)
                | Command::ChangePlan(_)
                | Command::RenewContract(_)
                | Command::CancelContract(_)),
            ) => self.contract(&event, &command)?,
            _ => {}
        }
        *self.not_priced.entry(event.kind.as_str().to_owned()).or_default() += 1;
        Ok(())
    }

    /// What the other prices say; the same again where there are none.
    fn cost_against(&self, event: &Event<'_>, usage: &PricedUsage<'_>) -> Result<i64, Rejection> {
        let Some(against) = self.against else { return Ok(usage.cost) };
        match priced(event, against) {
            Ok(Some(Command::Charge(usage))) => Ok(usage.cost),
            Ok(_) => Ok(0),
            Err(Rejection { reason, detail }) => {
                Err(Rejection::new(reason, format!("by the prices of --against: {detail}")))
            }
        }
    }

    /// Contracts follow the rules of the wallet core itself.
    fn contract(&mut self, event: &Event<'_>, command: &Command<'_>) -> Result<(), Refusal> {
        let moment = Moment {
            event_time: event.time,
            clock: ShardClock(event.time.0),
            posted_at: PostedAt(event.time.0),
        };
        let cause = Cause { moment, ..Cause::default() };
        let known = self.wallets.entry(event.wallet_id.to_string()).or_default();
        let wallet = known.contracts.get_or_insert_default();
        apply(wallet, &cause, command, &self.policy).map(drop)
    }

    fn add(&mut self, cost: &Cost<'_>, event: &Event<'_>) {
        let wallet = self.wallets.entry(cost.wallet_id.to_owned()).or_default();
        let contracts = wallet.contracts.as_deref();
        let contract = contracts.and_then(|contracts| contracts.contract_at(event.time.0));
        let plan = contract.map_or("", |contract| contract.plan_at(event.time.0)).to_owned();
        wallet.sums.add(cost.quantity, cost.credits, cost.against);

        let kind = cost.quantity.asset_type();
        let mut model = (cost.model.to_owned(), kind);
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(&model) {
            model.0 = OTHER_MODELS.to_owned();
        }
        for sums in
            [&mut self.total, self.models.entry(model).or_default(), self.plans.entry(plan).or_default()]
        {
            sums.add(cost.quantity, cost.credits, cost.against);
        }
    }

    fn refuse(&mut self, number: usize, rejection: Rejection) {
        let Rejection { reason, detail } = rejection;
        self.bad.lines += 1;
        *self.bad.reasons.entry(Reason::as_str(reason)).or_default() += 1;
        if self.bad.first.len() < BAD_NAMED_MAX {
            self.bad.first.push(BadLine { line: number, reason: reason.as_str(), detail });
        }
    }

    /// All sums, the dearest first.
    pub fn finish(self) -> Report {
        let has_against = self.against.is_some();
        let models = self.models.into_iter().map(|((model, kind), sums)| named(model, Some(kind), sums));
        let plans = self.plans.into_iter().map(|(plan, sums)| named(plan, None, sums));
        let wallets = self.wallets.into_iter().filter(|(_, wallet)| wallet.sums.charges > 0);
        let wallets = wallets.map(|(wallet_id, wallet)| named(wallet_id, None, wallet.sums));
        Report::new(
            self.lines,
            self.not_priced,
            self.bad,
            self.total,
            [models.collect(), plans.collect(), wallets.collect()],
            has_against,
        )
    }
}

impl Sums {
    fn add(&mut self, quantity: Quantity, credits: i64, against: i64) {
        self.charges += 1;
        match quantity {
            Quantity::Images(images) => self.images += u64::from(images),
            Quantity::Video(VideoMillis(millis)) => self.video_seconds.0 += millis,
        }
        self.credits += i128::from(credits);
        self.against += i128::from(against);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::{Value, json};

    use super::*;

    /// Images cost 2 from June on, video of veo-3 costs 4.5, and the rest is as it is built in.
    const DEARER: &str = r#"
        [[rate_card]]
        id = "dearer"
        effective_from = "2024-01-01T00:00:00Z"
        rates.image.credits = "2"
        rates.video.credits = "3"
        rates.video.models."veo-3".credits = "4.5"
        [[plans]]
        effective_from = "2024-01-01T00:00:00Z"
        plan.lite.credits_per_month = 200
        [[topups]]
        effective_from = "2024-01-01T00:00:00Z"
        packs = []
    "#;

    fn event(kind: &str, wallet: &str, time: &str, data: Value) -> String {
        json!({"specversion": "1.0", "id": "1", "source": "/t", "type": kind, "subject": wallet, "time": time, "data": data})
            .to_string()
    }

    fn images(wallet: &str, time: &str, images: u32) -> String {
        event(
            "generation.completed",
            wallet,
            time,
            json!({"job_id": "j", "asset": "image", "images": images}),
        )
    }

    fn video(wallet: &str, time: &str, seconds: f64) -> String {
        let data = json!({"job_id": "j", "asset": "video", "seconds": seconds, "model": "veo-3"});
        event("generation.completed", wallet, time, data)
    }

    fn report(lines: &[String], against: Option<&str>) -> Value {
        let against = against.map(|text| Pricing::parse(text).unwrap());
        let pricing = Arc::new(Pricing::built_in().unwrap());
        let mut pricer = Pricer::new(&Config::default(), pricing, against.as_ref());
        for (line, number) in lines.iter().zip(1..) {
            pricer.line(number, line.as_bytes()).unwrap();
        }
        serde_json::to_value(pricer.finish()).unwrap()
    }

    #[test]
    fn a_plan_follows_from_the_contract_events_that_stand_before() {
        let contract = |kind: &str, data: Value| event(kind, "ws_1", "2026-03-01T00:00:00Z", data);
        let lines = [
            images("ws_1", "2026-03-02T00:00:00Z", 1),
            contract(
                "contract.started",
                json!({"contract_id": "c", "plan": "lite", "starts_at": "2026-03-01T00:00:00Z"}),
            ),
            images("ws_1", "2026-02-28T00:00:00Z", 2),
            images("ws_1", "2026-03-02T00:00:00Z", 4),
            contract(
                "contract.plan_changed",
                json!({"contract_id": "c", "plan": "scale", "effective_at": "2026-04-01T00:00:00Z"}),
            ),
            images("ws_1", "2026-03-31T23:59:59Z", 8),
            images("ws_1", "2026-04-01T00:00:00Z", 16),
            contract(
                "contract.cancelled",
                json!({"contract_id": "c", "effective_at": "2026-05-01T00:00:00Z"}),
            ),
            images("ws_1", "2026-05-01T00:00:00Z", 32),
            contract("contract.renewed", json!({"contract_id": "unknown"})),
        ];
        let report = report(&lines, None);
        let plans: Vec<(&str, i64)> = report["plans"]
            .as_array()
            .unwrap()
            .iter()
            .map(|plan| (plan["name"].as_str().unwrap(), plan["credits"].as_i64().unwrap()))
            .collect();
        assert_eq!(plans, [("", 1 + 2 + 32), ("scale", 16), ("lite", 4 + 8)]);
        assert_eq!(report["bad"]["reasons"], json!({"no_contract": 1}));
        assert_eq!(report["bad"]["first"][0]["line"], 10);
    }

    #[test]
    fn two_prices_differ_by_model_plan_and_wallet() {
        let time = "2026-07-01T00:00:00Z";
        let lines = [images("ws_1", time, 3), video("ws_1", time, 8.0), video("ws_2", time, 1.001)];
        let report = report(&lines, Some(DEARER));
        let sums =
            |of: &Value| (of["credits"].clone(), of["against_credits"].clone(), of["difference"].clone());
        // 3 + 24 + 4 (3.003, rounded up) credits; 6 + 36 + 5 (4.5045, rounded up).
        assert_eq!(sums(&report["total"]), (json!(31), json!(47), json!(16)));
        assert_eq!(report["total"]["difference_percent"], "51.6");
        assert_eq!(report["total"]["video_seconds"], "9.001");
        assert_eq!(
            (&report["models"][0]["name"], &report["models"][0]["asset"]),
            (&json!("veo-3"), &json!("video"))
        );
        assert_eq!(sums(&report["models"][0]), (json!(28), json!(41), json!(13)));
        assert_eq!(report["models"][1]["difference_percent"], "100.0");
        assert_eq!(sums(&report["wallets"][0]), (json!(27), json!(42), json!(15)));
        assert_eq!(sums(&report["plans"][0]), (json!(31), json!(47), json!(16)));
        assert_eq!(
            (&report["wallets"][1]["name"], &report["wallets"][1]["credits"]),
            (&json!("ws_2"), &json!(4))
        );
    }

    #[test]
    fn bad_lines_are_named_and_counted_and_the_rest_is_priced() {
        let time = "2026-07-01T00:00:00Z";
        let mut lines = vec![images("ws_1", time, 3), "{".to_owned(), String::new(), images("ws_1", time, 0)];
        lines.push(images("ws_1", "2020-01-01T00:00:00Z", 1));
        lines.push(event("ad.created", "ws_1", time, json!({})));
        lines.push(event("generation.failed", "ws_1", time, json!({"job_id": "j"})));
        lines.extend((0..50).map(|_| "no json".to_owned()));
        let report = report(&lines, None);
        assert_eq!((&report["lines"], &report["priced"]), (&json!(56), &json!(1)));
        assert_eq!(report["bad"]["lines"], 53);
        assert_eq!(report["bad"]["reasons"], json!({"bad_value": 2, "not_json": 51}));
        assert_eq!(report["bad"]["first"].as_array().unwrap().len(), BAD_NAMED_MAX);
        assert!(report["bad"]["first"][2]["detail"].as_str().unwrap().contains("no rate card"));
        assert_eq!(report["not_priced"], json!({"free": 1, "generation.failed": 1}));
        assert_eq!(report["total"].get("against_credits"), None);
    }

    #[test]
    fn models_beyond_a_bound_are_one() {
        let time = "2026-07-01T00:00:00Z";
        let of = |model: usize| {
            let data = json!({"job_id": "j", "asset": "image", "images": 1, "model": format!("m{model}")});
            event("generation.completed", "ws_1", time, data)
        };
        let lines: Vec<String> = (0..MODELS_MAX + 5).map(of).collect();
        let report = report(&lines, None);
        let models = report["models"].as_array().unwrap();
        assert_eq!(models.len(), MODELS_MAX + 1);
        assert_eq!((&models[0]["name"], &models[0]["credits"]), (&json!(OTHER_MODELS), &json!(5)));
    }
}
