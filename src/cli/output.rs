//! How results look: a table for people, JSON for programs.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use super::exit::{self, Failure};
use crate::config::Config;

/// Form of results, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    Table,
    /// One document; lists as one object a line.
    Json,
    /// `export` only.
    Parquet,
    /// `export` only.
    Csv,
}

/// Form of what a command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// One document; lists as one object a line.
    Json,
}

/// Where results go.
#[derive(Clone, Copy)]
pub struct Output {
    /// Their form.
    pub format: Format,
}

impl Output {
    /// One object: `table` says it to people.
    pub fn object(&self, value: &impl Serialize, table: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string(value).map_err(|error| Failure::bug(&error))?,
            Format::Table => table(),
        };
        say(&text)
    }

    /// A list of sentences.
    pub fn lines(&self, lines: &[String], if_none: &str) -> Result<u8, Failure> {
        match self.format {
            Format::Json => say(&serde_json::json!({ "done": lines }).to_string())?,
            Format::Table if lines.is_empty() => say(if_none)?,
            Format::Table => say(&lines.join("\n"))?,
        }
        Ok(exit::DONE)
    }

    /// The settings in force.
    pub fn settings(&self, config: &Config) -> Result<u8, Failure> {
        match self.format {
            Format::Json => say(&serde_json::to_string(config).map_err(|error| Failure::bug(&error))?)?,
            Format::Table => say(config.effective_toml().trim_end())?,
        }
        Ok(exit::DONE)
    }

    /// Something that a person should look at, on stderr; the command went on.
    pub fn warning(&self, message: &str) {
        match self.format {
            Format::Json => eprintln!("{}", serde_json::json!({ "warning": { "message": message } })),
            Format::Table => eprintln!("warning: {message}"),
        }
    }

    /// An error, on stderr.
    pub fn failure(&self, failure: &Failure) {
        match self.format {
            Format::Json => eprintln!("{}", serde_json::json!({ "error": failure })),
            Format::Table => eprintln!("error: {}", failure.message),
        }
    }
}

/// Writes a result. Where nobody reads any more (`creditstream wallet ws_42 | head -3`) there is nothing left to do.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(i32::from(exit::DONE)),
        Err(error) => Err(Failure::no(format!("stdout cannot be written: {error}"))),
    }
}

/// A table of text: what begins with `>` in the header is aligned to the right.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns.
    pub fn new(header: &[&'static str]) -> Table {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, each with that indent; columns are two spaces apart. A header of empty names is left out.
    pub fn render(&self, indent: &str) -> String {
        let names: Vec<String> =
            self.header.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        let has_header = names.iter().any(|name| !name.is_empty());
        let lines: Vec<&Vec<String>> = has_header.then_some(&names).into_iter().chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &&Vec<String>| {
            let aligned = cells.iter().zip(&self.header).zip(&widths).map(|((cell, name), width)| {
                if name.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let aligned: Vec<String> = aligned.collect();
            format!("{indent}{}", aligned.join("  ")).trim_end().to_owned()
        };
        lines.iter().map(line).collect::<Vec<String>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::thousands;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", ">credits"]);
        table.row(vec!["a".to_owned(), thousands(5)]);
        table.row(vec!["longer".to_owned(), thousands(1_000)]);
        assert_eq!(table.render("  "), "  name    credits\n  a             5\n  longer    1,000");
        let mut bare = Table::new(&["", ">"]);
        bare.row(vec!["a".to_owned(), String::new()]);
        assert_eq!(bare.render(""), "a");
    }
}
