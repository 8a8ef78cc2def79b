//! `estimate`: what a plan's month, a top-up pack, or some number of credits buys.

use serde_json::{Map, Value, json};

use super::args;
use super::exit::{self, Failure};
use super::output::{Output, Table};
use super::publish::instant;
use crate::app;
use crate::config::Config;
use crate::rate::{Pricing, Purchase, RateCard, SHOOT_IMAGES, Unit, UsdCents, estimate, exact_scaled, rates};
use crate::text::{counted, thousands, thousands_decimal};
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
                let on_sale = on_sale(&pricing.plans_at(at));
                Failure::usage(format!("--plan {name:?}: no plan has that name at {}: {on_sale}", at.0))
            })?;
            let origin = format!("a month of plan {name}");
            let credits = plan.credits_per_month.unsigned_abs();
            return Ok(Asked { credits, origin, plan: Some(name.clone()), amount_usd: None });
        }
        if let Some(text) = &command.pack {
            let amount = exact_scaled(text, 2).and_then(|cents| i64::try_from(cents).ok()).map(UsdCents);
            let pack = amount.and_then(|amount| pricing.pack_at(amount, at)).ok_or_else(|| {
                let prices: Vec<String> =
                    pricing.packs_at(at).iter().map(|pack| pack.amount_usd.to_string()).collect();
                let on_sale = on_sale(&prices);
                Failure::usage(format!("--pack {text:?}: no pack has that price at {}: {on_sale}", at.0))
            })?;
            let origin = format!("the top-up pack of {} US dollars", pack.amount_usd);
            let credits = pack.credits.unsigned_abs();
            return Ok(Asked { credits, origin, plan: None, amount_usd: Some(pack.amount_usd) });
        }
        let credits = command.credits.unwrap_or_default();
        Ok(Asked { credits, origin: String::new(), plan: None, amount_usd: None })
    }
}

fn on_sale(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() {
        "none is for sale then".to_owned()
    } else {
        format!("there are {}", names.join(", "))
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
        "has_own_rate": card.names_model(model),
        "image_rate": image_rate,
        "video_rate": video_rate,
        "buys": buys,
    })
}

fn page(asked: &Asked, card: &RateCard, model: &str, at: Timestamp, purchases: &[Purchase]) -> String {
    let of = if asked.origin.is_empty() { String::new() } else { format!(", {},", asked.origin) };
    let by = match (model.is_empty(), card.names_model(model)) {
        (true, _) => String::new(),
        (false, true) => format!(" for model {model}"),
        (false, false) => format!(", which does not name model {model}: by its general rates"),
    };
    let (image_rate, video_rate) = rates(card, model);
    let mut table = Table::new(&["", ">each", ">buys"]);
    for purchase in purchases {
        // Many of them may be charged together: what one of them costs by itself, rounded up, is not what is counted.
        let each = match purchase.what {
            Unit::Image => thousands_decimal(image_rate),
            Unit::Second => thousands_decimal(video_rate),
            Unit::Shoot | Unit::Clip(_) => thousands(purchase.cost),
        };
        let count = purchase.count.map_or("any number".to_owned(), thousands);
        table.row(vec![name(purchase.what), each, count]);
    }
    format!(
        "{}{of} buy any one of these, rounded down\n(rate card {}{by}, in force at {at})\n\n{}",
        counted(asked.credits, "credit"),
        card.id,
        table.render("  ")
    )
}
