//! `export`: a span of the ledger, or of usage by the hour, as a file for finance. ClickHouse writes the format; the bytes
//! pass through as they come.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clickhouse::query::BytesCursor;
use indicatif::{HumanBytes, ProgressBar};

use super::args;
use super::exit::{self, Failure};
use super::output::Form;
use super::verify::spinner;
use crate::config::{ClickHouseConfig, Config};
use crate::sink::client::{bounded, client};
use crate::time::Timestamp;

/// In the order of the tables' keys: a month of entries passes through without being sorted, in bounded memory.
const LEDGER: &str = "SELECT * FROM ledger_entries FINAL \
    WHERE posted_at >= fromUnixTimestamp64Milli(?) AND posted_at < fromUnixTimestamp64Milli(?) \
    ORDER BY wallet_id, seq SETTINGS optimize_read_in_order = 1";
const USAGE: &str = "SELECT wallet_id, hour, asset_type, model, plan, sum(jobs) AS jobs, sum(images) AS images, \
    sum(video_seconds) AS video_seconds, sum(credits_charged) AS credits_charged, \
    sum(credits_reversed) AS credits_reversed, sum(credits_refused) AS credits_refused \
    FROM usage_hourly FINAL \
    WHERE hour >= fromUnixTimestamp64Milli(?) AND hour < fromUnixTimestamp64Milli(?) \
    GROUP BY wallet_id, hour, asset_type, model, plan ORDER BY wallet_id, hour, asset_type, model, plan \
    SETTINGS optimize_aggregation_in_order = 1";

/// Writes the rows of a span.
pub async fn run(config: &Config, command: &args::Export, form: Form) -> Result<u8, Failure> {
    let format = match form {
        Form::Parquet => "Parquet",
        Form::Csv => "CSVWithNames",
        Form::Table | Form::Json => {
            return Err(Failure::usage("export writes --format parquet or --format csv: say which"));
        }
    };
    let (from, to) = (instant("--from", &command.from)?, instant("--to", &command.to)?);
    if from >= to {
        return Err(Failure::usage(format!("--from {from} is not before --to {to}")));
    }
    if command.output.is_none() && form == Form::Parquet && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "parquet is not for a terminal: name a file with --output, or redirect stdout",
        ));
    }
    let sql = match command.what {
        args::Exported::Ledger => LEDGER,
        args::Exported::Usage => USAGE,
    };
    let clickhouse = &config.clickhouse;
    let query = client(clickhouse).with_database(&clickhouse.database).query(sql);
    let query = query.bind(from.millis()).bind(to.millis());
    let rows = query.fetch_bytes(format).map_err(Failure::unavailable)?;
    let bar = spinner();
    let bytes = match &command.output {
        Some(path) => to_file(rows, clickhouse, path, &bar).await?,
        None => pass_on(rows, clickhouse, &mut io::stdout().lock(), &bar).await?,
    };
    bar.finish_and_clear();
    if let Some(path) = &command.output {
        eprintln!("{}: {}", path.display(), HumanBytes(bytes));
    }
    Ok(exit::DONE)
}

/// Under another name until it is complete: nobody takes a half for the whole.
async fn to_file(
    rows: BytesCursor,
    clickhouse: &ClickHouseConfig,
    path: &Path,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let part = PathBuf::from(format!("{}.part", path.display()));
    let cannot = |error: io::Error| Failure::no(format!("{}: {error}", part.display()));
    let mut file = File::create(&part).map_err(cannot)?;
    let written = pass_on(rows, clickhouse, &mut file, bar).await;
    let kept = written.and_then(|bytes| {
        file.sync_all().and_then(|()| std::fs::rename(&part, path)).map_err(cannot)?;
        Ok(bytes)
    });
    if kept.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    kept
}

async fn pass_on(
    mut rows: BytesCursor,
    clickhouse: &ClickHouseConfig,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let mut bytes = 0;
    // The timeout is for each piece: a long answer is none that hangs.
    while let Some(piece) =
        bounded(clickhouse.request_timeout(), rows.next()).await.map_err(Failure::unavailable)?
    {
        out.write_all(&piece).map_err(|error| Failure::no(format!("the rows cannot be written: {error}")))?;
        bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        bar.set_message(HumanBytes(bytes).to_string());
    }
    out.flush().map_err(|error| Failure::no(format!("the rows cannot be written: {error}")))?;
    Ok(bytes)
}

/// A UTC day, from its first instant, or an instant.
fn instant(option: &str, text: &str) -> Result<Timestamp, Failure> {
    let day = || Timestamp::parse(&format!("{text}T00:00:00Z"));
    Timestamp::parse(text).or_else(day).ok_or_else(|| {
        Failure::usage(format!(
            "{option} {text:?} is no time: a UTC day such as 2026-11-01 or RFC 3339 is expected"
        ))
    })
}
