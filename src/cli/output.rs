//! How results look: a table for people, JSON for programs.

use serde::Serialize;

use super::exit::{self, Failure};
use crate::config::Config;

/// Form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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
        println!("{text}");
        Ok(())
    }

    /// A list of sentences.
    pub fn lines(&self, lines: &[String], if_none: &str) -> Result<u8, Failure> {
        match self.format {
            Format::Json => println!("{}", serde_json::json!({ "done": lines })),
            Format::Table if lines.is_empty() => println!("{if_none}"),
            Format::Table => lines.iter().for_each(|line| println!("{line}")),
        }
        Ok(exit::DONE)
    }

    /// The settings in force.
    pub fn settings(&self, config: &Config) -> Result<u8, Failure> {
        match self.format {
            Format::Json => {
                println!("{}", serde_json::to_string(config).map_err(|error| Failure::bug(&error))?)
            }
            Format::Table => print_text(&config.effective_toml()),
        }
        Ok(exit::DONE)
    }

    /// An error, on stderr.
    pub fn failure(&self, failure: &Failure) {
        match self.format {
            Format::Json => eprintln!("{}", serde_json::json!({ "error": failure })),
            Format::Table => eprintln!("error: {}", failure.message),
        }
    }
}

fn print_text(text: &str) {
    print!("{text}");
}
