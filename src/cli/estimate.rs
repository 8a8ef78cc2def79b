//! `estimate`: what a plan's month, a top-up pack, or some number of credits buys.

use serde_json::{Map, Value, json};

use super::args;
use super::exit::{self, Failure};
use super::output::{Output, Table};
use super::publish::instant;
use crate::app;
use crate::config::Config;
use crate::rate::{Pricing, Purchase, RateCard, SHOOT_IMAGES, Unit, UsdCents, estimate, exact_scaled, rates};
use crate::text::thousands;
use crate::time::{EventTime, Timestamp};

/// Answers from the prices in force.
pub fn run(config: &Config, command: &args::Estimate, output: Output) -> Result<u8, Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let at = command.at.as_deref().map_or_else(|| Ok(Timestamp::now()), |at| instant("--at", at))?;
    let asked = Asked::of(command, &pricing, EventTime(at))?;
    let card = pricing
        .rate_card_at(EventTime(at))
        .ok_or_else(|| Failure::no(format!("no rate card is in force at {at}: see the pricing file")))?;
    let model = command.model.as_deref().unwrap_or_default();
    let purchases = estimate(asked.credits, card, model).map_err(Failure::no)?;
    let document = document(&asked, card, model, at, &purchases);
    output.object(&document, || page(&asked, card, model, at, &purchases))?;
    Ok(exit::DONE)
}

/// The credits that are asked about, and what they are.
struct Asked {
    credits: u64,
    /// As a sentence has it; empty where only a number was given.
    origin: String,
    plan: Option<String>,
    amount_usd: Option<UsdCents>,
}

impl Asked {
    fn of(command: &args::Estimate, pricing: &Pricing, at: EventTime) -> Result<Asked, Failure> {
        if let Some(name) = &command.plan {
            let plan = pricing.plan_at(name, at).ok_or_else(|| {
                let known = pricing.plan_names().join(", ");
                Failure::usage(format!(
                    "--plan {name:?} is not for sale at {}: known plans are {known}",
                    at.0
                ))
            })?;
            let origin = format!("a month of plan {name}");
            let credits = plan.credits_per_month.unsigned_abs();
            return Ok(Asked { credits, origin, plan: Some(name.clone()), amount_usd: None });
        }
        if let Some(text) = &command.pack {
            let amount = exact_scaled(text, 2).and_then(|cents| i64::try_from(cents).ok()).map(UsdCents);
            let pack = amount.and_then(|amount| pricing.pack_at(amount, at)).ok_or_else(|| {
                let on_sale: Vec<String> =
                    pricing.packs_at(at).iter().map(|pack| pack.amount_usd.to_string()).collect();
                Failure::usage(format!(
                    "--pack {text:?}: no pack has that price at {}: there are {}",
                    at.0,
                    on_sale.join(", ")
                ))
            })?;
            let origin = format!("the top-up pack of {} US dollars", pack.amount_usd);
            let credits = pack.credits.unsigned_abs();
            return Ok(Asked { credits, origin, plan: None, amount_usd: Some(pack.amount_usd) });
        }
        let credits = command.credits.unwrap_or_default();
        Ok(Asked { credits, origin: String::new(), plan: None, amount_usd: None })
    }
}

fn key(unit: Unit) -> String {
    match unit {
        Unit::Image => "images".to_owned(),
        Unit::Shoot => format!("shoots_of_{SHOOT_IMAGES}_images"),
        Unit::Second => "video_seconds".to_owned(),
        Unit::Clip(seconds) => format!("clips_of_{seconds}_seconds"),
    }
}

fn name(unit: Unit) -> String {
    match unit {
        Unit::Image => "image".to_owned(),
        Unit::Shoot => format!("shoot of {SHOOT_IMAGES} images"),
        Unit::Second => "second of video".to_owned(),
        Unit::Clip(seconds) => format!("clip of {seconds} seconds"),
    }
}

fn document(asked: &Asked, card: &RateCard, model: &str, at: Timestamp, purchases: &[Purchase]) -> Value {
    let buys: Map<String, Value> =
        purchases.iter().map(|purchase| (key(purchase.what), json!(purchase.count))).collect();
    let (image_rate, video_rate) = rates(card, model);
    json!({
        "credits": asked.credits,
        "plan": asked.plan,
        "amount_usd": asked.amount_usd,
        "at": at,
        "rate_card": card.id,
        "model": if model.is_empty() { None } else { Some(model) },
        "image_rate": image_rate,
        "video_rate": video_rate,
        "buys": buys,
    })
}

fn page(asked: &Asked, card: &RateCard, model: &str, at: Timestamp, purchases: &[Purchase]) -> String {
    let of = if asked.origin.is_empty() { String::new() } else { format!(", {},", asked.origin) };
    let by = if model.is_empty() { String::new() } else { format!(" for model {model}") };
    let mut table = Table::new(&["", ">each", ">buys"]);
    for purchase in purchases {
        let count = purchase.count.map_or("any number".to_owned(), thousands);
        table.row(vec![name(purchase.what), thousands(purchase.cost), count]);
    }
    format!(
        "{} credits{of} buy any one of these, rounded down\n(rate card {}{by}, in force at {at})\n\n{}",
        thousands(asked.credits),
        card.id,
        table.render("  ")
    )
}
