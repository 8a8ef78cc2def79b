//! Logs: to stderr, one line an event, for a person at a terminal or as JSON for a machine.
//!
//! librdkafka's logs come here through the `log` crate (target `librdkafka`). Results never do: they go to
//! stdout, and are the command line's.

use std::io::IsTerminal;

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// `log.filter` is not one. A configuration that was loaded has a good one.
    #[error("log.filter = {filter:?} is no filter: {source}")]
    Filter {
        /// What came.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already.
    #[error("logging is set up already: {0}")]
    SetUpAlready(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the whole process, once.
///
/// # Errors
/// See [`TelemetryError`]. Nothing is set up then.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let is_terminal = std::io::stderr().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let look = Look::of(config.format, is_terminal, no_color);
    subscriber(&config.filter, look, std::io::stderr)?.try_init()?;
    Ok(())
}

/// What a line looks like, once the terminal has been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Human { colored: bool },
    Json,
}

impl Look {
    /// `no_color` as no-color.org has it: set, and not empty.
    fn of(format: LogFormat, is_terminal: bool, no_color: bool) -> Look {
        match format {
            LogFormat::Json => Look::Json,
            LogFormat::Auto if !is_terminal => Look::Json,
            LogFormat::Auto | LogFormat::Human => Look::Human { colored: is_terminal && !no_color },
        }
    }
}

fn subscriber<W>(
    filter: &str,
    look: Look,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match look {
        Look::Human { colored } => Box::new(builder.with_ansi(colored).finish()),
        // Fields beside the message, not below it: that is what log stores index.
        Look::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What one event below the filter and one above it leave behind.
    fn logged(look: Look) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber("info,noisy=warn", look, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("hidden by the level");
            tracing::info!(target: "noisy", "hidden by the target");
            tracing::warn!(shard = 3, "shard stopped");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_beside_the_message() {
        let line = logged(Look::Json);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "shard stopped");
        assert_eq!(value["shard"], 3);
        assert!(value["timestamp"].is_string());
    }

    #[test]
    fn human_lines_are_colored_only_if_asked() {
        let plain = logged(Look::Human { colored: false });
        assert!(plain.contains("WARN") && plain.contains("shard stopped shard=3"), "{plain}");
        assert!(!plain.contains("hidden") && !plain.contains('\x1b'), "{plain}");
        assert!(logged(Look::Human { colored: true }).contains('\x1b'));
    }

    #[test]
    fn the_look_follows_format_terminal_and_no_color() {
        let table = [
            (LogFormat::Auto, true, false, Look::Human { colored: true }),
            (LogFormat::Auto, true, true, Look::Human { colored: false }),
            (LogFormat::Auto, false, false, Look::Json),
            (LogFormat::Human, false, false, Look::Human { colored: false }),
            (LogFormat::Human, true, false, Look::Human { colored: true }),
            (LogFormat::Json, true, false, Look::Json),
        ];
        for (format, is_terminal, no_color, look) in table {
            assert_eq!(Look::of(format, is_terminal, no_color), look, "{format:?} {is_terminal} {no_color}");
        }
    }

    #[test]
    fn a_bad_filter_is_named() {
        let result = subscriber("creditstream=loud", Look::Json, std::io::stderr);
        let error = result.err().unwrap().to_string();
        assert!(error.starts_with("log.filter = \"creditstream=loud\" is no filter: "), "{error}");
    }
}
