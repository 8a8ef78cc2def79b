//! What `price` found, for programs and for people.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::output::Table;
use crate::rate::{AssetType, VideoMillis};
use crate::text::{counted, printable, thousands, thousands_decimal};

/// Wallets that the page shows; JSON has all.
const WALLETS_SHOWN: usize = 20;

/// Sums of charges.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    pub charges: u64,
    pub images: u64,
    pub video_seconds: VideoMillis,
    pub credits: i128,
    pub against: i128,
}

/// Everything.
#[derive(Serialize)]
pub struct Report {
    lines: u64,
    priced: u64,
    not_priced: BTreeMap<String, u64>,
    bad: Bad,
    total: Total,
    models: Vec<Named>,
    plans: Vec<Named>,
    wallets: Vec<Named>,
}

/// Lines that cannot be priced.
#[derive(Default, Serialize)]
pub struct Bad {
    pub lines: u64,
    pub reasons: BTreeMap<&'static str, u64>,
    pub first: Vec<BadLine>,
}

/// One of them.
#[derive(Serialize)]
pub struct BadLine {
    pub line: usize,
    pub reason: &'static str,
    pub detail: String,
}

/// Sums as they are shown.
#[derive(Serialize)]
struct Total {
    charges: u64,
    images: u64,
    video_seconds: VideoMillis,
    credits: i128,
    #[serde(flatten)]
    against: Option<Against>,
}

/// The other prices.
#[derive(Serialize)]
struct Against {
    against_credits: i128,
    difference: i128,
    /// Of the credits by the prices in force; `None`: those are 0.
    difference_percent: Option<String>,
}

/// Sums of a model, plan or wallet.
#[derive(Serialize)]
pub struct Named {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<AssetType>,
    #[serde(skip)]
    sums: Sums,
    #[serde(flatten)]
    total: Option<Total>,
}

/// Sums with a name.
pub fn named(name: String, asset: Option<AssetType>, sums: Sums) -> Named {
    Named { name, asset, sums, total: None }
}

impl Report {
    /// Sorts each list, the dearest first. `lists`: models, plans, wallets.
    pub fn new(
        lines: u64,
        not_priced: BTreeMap<String, u64>,
        bad: Bad,
        total: Sums,
        lists: [Vec<Named>; 3],
        has_against: bool,
    ) -> Report {
        let [models, plans, wallets] = lists.map(|mut list| {
            list.sort_by(|a, b| {
                (Reverse(a.sums.credits), &a.name, a.asset).cmp(&(Reverse(b.sums.credits), &b.name, b.asset))
            });
            list.iter_mut().for_each(|named| named.total = Some(Total::of(&named.sums, has_against)));
            list
        });
        let priced = total.charges;
        let total = Total::of(&total, has_against);
        Report { lines, priced, not_priced, bad, total, models, plans, wallets }
    }

    /// The page for people.
    pub fn page(&self) -> String {
        let mut parts = vec![self.head()];
        for (title, list, shown) in [
            ("By model", &self.models, usize::MAX),
            ("By plan", &self.plans, usize::MAX),
            ("By wallet", &self.wallets, WALLETS_SHOWN),
        ] {
            if list.is_empty() {
                continue;
            }
            let mut part = format!("{title}\n{}", self.table(list, shown));
            if list.len() > shown {
                let more = thousands(list.len() as u64 - shown as u64);
                part.push_str(&format!("\n  … and {more} more: --format json has all of them"));
            }
            parts.push(part);
        }
        if self.bad.lines > 0 {
            parts.push(self.bad_lines());
        }
        parts.join("\n\n")
    }

    fn head(&self) -> String {
        let mut said = format!(
            "{}, {} of them charges: {}",
            counted(self.lines - self.bad.lines, "event"),
            thousands(self.priced),
            counted(self.total.credits, "credit")
        );
        if let Some(against) = &self.total.against {
            said.push_str(&format!(
                "; by the other prices {}, {}",
                counted(against.against_credits, "credit"),
                against.sentence()
            ));
        }
        let others: Vec<String> =
            self.not_priced.iter().map(|(kind, count)| format!("{} {kind}", thousands(*count))).collect();
        if !others.is_empty() {
            said.push_str(&format!("\nnot charges: {}", others.join(", ")));
        }
        if self.bad.lines > 0 {
            said.push_str(&format!(
                "\nin no sum: {} that cannot be priced, see below",
                counted(self.bad.lines, "line")
            ));
        }
        said
    }

    fn table(&self, list: &[Named], shown: usize) -> String {
        let has_asset = list.iter().any(|named| named.asset.is_some());
        let mut header = vec!["name"];
        header.extend(has_asset.then_some("asset"));
        header.extend([">charges", ">images", ">seconds", ">credits"]);
        if self.total.against.is_some() {
            header.extend([">against", ">difference", ">%"]);
        }
        let mut table = Table::new(&header);
        for named in list.iter().take(shown) {
            let Some(total) = &named.total else { continue };
            let name = if named.name.is_empty() { "(none)".to_owned() } else { printable(&named.name) };
            let mut cells = vec![name];
            cells.extend(named.asset.map(|asset| asset.as_str().to_owned()));
            cells.extend([
                thousands(total.charges),
                thousands(total.images),
                thousands_decimal(total.video_seconds),
                thousands(total.credits),
            ]);
            if let Some(against) = &total.against {
                cells.extend([
                    thousands(against.against_credits),
                    signed(against.difference),
                    against.percent(),
                ]);
            }
            table.row(cells);
        }
        table.render("  ")
    }

    fn bad_lines(&self) -> String {
        let mut said = format!("{} cannot be priced", counted(self.bad.lines, "line"));
        let reasons: Vec<String> = self
            .bad
            .reasons
            .iter()
            .map(|(reason, count)| format!("{} {reason}", thousands(*count)))
            .collect();
        said.push_str(&format!(": {}", reasons.join(", ")));
        for BadLine { line, reason, detail } in &self.bad.first {
            said.push_str(&format!("\n  line {line}: {reason}: {}", printable(detail)));
        }
        let named = self.bad.first.len() as u64;
        if self.bad.lines > named {
            said.push_str(&format!("\n  … and {} more", thousands(self.bad.lines - named)));
        }
        said
    }
}

impl Total {
    fn of(sums: &Sums, has_against: bool) -> Total {
        let difference = sums.against - sums.credits;
        Total {
            charges: sums.charges,
            images: sums.images,
            video_seconds: sums.video_seconds,
            credits: sums.credits,
            against: has_against.then(|| Against {
                against_credits: sums.against,
                difference,
                difference_percent: percent(difference, sums.credits),
            }),
        }
    }
}

impl Against {
    fn percent(&self) -> String {
        self.difference_percent.clone().unwrap_or_else(|| "-".to_owned())
    }

    fn sentence(&self) -> String {
        let amount = thousands(self.difference.abs());
        let percent = self
            .difference_percent
            .as_deref()
            .map_or(String::new(), |percent| format!(" ({} %)", percent.trim_start_matches('-')));
        match self.difference {
            0 => "no difference".to_owned(),
            1.. => format!("{amount}{percent} more"),
            _ => format!("{amount}{percent} less"),
        }
    }
}

/// Percent of a base with one decimal, rounded half away from 0.
fn percent(part: i128, base: i128) -> Option<String> {
    let tenths = (part.abs() * 2_000 + base).checked_div(2 * base)?;
    let sign = if part < 0 && tenths > 0 { "-" } else { "" };
    Some(format!("{sign}{}.{}", tenths / 10, tenths % 10))
}

fn signed(number: i128) -> String {
    if number > 0 { format!("+{}", thousands(number)) } else { thousands(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_rounded_to_one_decimal_away_from_zero() {
        for (part, base, text) in [
            (16, 31, "51.6"),
            (-1, 3, "-33.3"),
            (1, 2_000, "0.1"),
            (-1, 2_000, "-0.1"),
            (1, 2_001, "0.0"),
            (-1, 2_001, "0.0"),
            (0, 7, "0.0"),
            (300, 100, "300.0"),
        ] {
            assert_eq!(percent(part, base).as_deref(), Some(text), "{part}/{base}");
        }
        assert_eq!(percent(5, 0), None);
    }
}
