//! Lays the file and the environment over the defaults, and gathers every fault on the way.
//!
//! Invariant: what is laid over a default has its type and is allowed, so the result always deserializes. A
//! value that is refused leaves the one below it in place, so that the rest can still be checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::secret::{MASK, is_secret};
use super::{Config, properties, validate};

/// The defaults, and by them the schema.
pub(super) const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

const ENV_PREFIX: &str = "CREDITSTREAM__";
const DEFAULTS: &str = "default";
/// Longest part of a value that a fault repeats, characters.
const SHOWN_CHARS_MAX: usize = 120;

/// One fault of the configuration. Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands: a file (with line and column if it is not TOML), or an environment variable.
    pub origin: String,
    /// The setting, as `ledger.workers`; empty if the fault is about a file as a whole.
    pub key: String,
    /// What came, a secret as `***`; `None` if that is not what is wrong, or may not be shown.
    pub value: Option<String>,
    /// What is allowed, or what is wrong.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { origin, key, value, problem } = self;
        match (key.as_str(), value) {
            ("", _) => write!(f, "{origin}: {problem}"),
            (key, None) => write!(f, "{origin}: {key}: {problem}"),
            (key, Some(value)) => write!(f, "{origin}: {key} = {value}: {problem}"),
        }
    }
}

/// All faults of a configuration, at least one. Its `Display` is one fault a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    /// The faults: of the file, then of the environment, then of settings that contradict each other.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// See [`Config::load`].
pub(super) fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::of_defaults();
    if let Some(path) = path {
        layers.lay_file(path);
    }
    // Sorted, so that the same environment gives the same list of faults.
    let env: BTreeMap<String, String> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    for (name, value) in &env {
        layers.lay_variable(name, value);
    }
    layers.finish()
}

struct Layers {
    schema: Table,
    settings: Table,
    /// Where each setting that is not the default's comes from.
    origins: BTreeMap<String, String>,
    /// Settings of which a value was refused: rules about several settings are silent about them.
    refused: BTreeSet<String>,
    faults: Vec<Fault>,
}

impl Layers {
    fn of_defaults() -> Layers {
        let schema: Table = DEFAULT_TOML.parse().expect("config/default.toml is TOML: a test loads it");
        Layers {
            settings: schema.clone(),
            schema,
            origins: BTreeMap::new(),
            refused: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    fn lay_file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.fault(&origin, "", format!("cannot be read: {error}")),
        };
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            // Not the error's own Display: it quotes the line, and a secret may stand there.
            Err(error) => {
                let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
                let problem = format!("not TOML: {}", one_line(error.message()));
                return self.fault(&format!("{origin}:{line}:{column}"), "", problem);
            }
        };
        for (section, value) in table {
            self.lay_section(&origin, &section, value);
        }
    }

    fn lay_section(&mut self, origin: &str, section: &str, value: Value) {
        if !self.schema.contains_key(section) {
            let known = self.schema.keys().map(String::as_str);
            let hint = hint(nearest(section, known));
            return self.fault(origin, section, format!("there is no such section{hint}"));
        }
        let Value::Table(entries) = value else {
            return self.fault(origin, section, format!("must be a section, [{section}]"));
        };
        for (key, value) in entries {
            match (section, key.as_str(), value) {
                ("kafka", "properties", Value::Table(entries)) => self.lay_properties(origin, "", entries),
                (_, _, value) => self.lay_setting(origin, section, &key, value),
            }
        }
    }

    /// `security.protocol = …` without quotes is a table in a table for TOML: the names are put together again.
    fn lay_properties(&mut self, origin: &str, prefix: &str, entries: Table) {
        for (part, value) in entries {
            let name = format!("{prefix}{part}");
            match value {
                Value::Table(entries) => self.lay_properties(origin, &format!("{name}."), entries),
                Value::String(text) => self.lay_property(origin, &name, &text),
                Value::Integer(_) | Value::Boolean(_) => self.lay_property(origin, &name, &value.to_string()),
                other => {
                    let key = format!("kafka.properties.{name}");
                    self.refuse(origin, &key, &other, "must be a string, an integer or a boolean");
                }
            }
        }
    }

    fn lay_property(&mut self, origin: &str, name: &str, value: &str) {
        let key = format!("kafka.properties.{name}");
        let value = Value::String(value.to_owned());
        if let Some(allowed) = properties::fault_of(name, value.as_str().unwrap_or_default()) {
            return self.refuse(origin, &key, &value, &allowed);
        }
        if let Some(properties) = self.properties() {
            properties.insert(name.to_owned(), value);
            self.origins.insert(key, origin.to_owned());
        }
    }

    fn properties(&mut self) -> Option<&mut Table> {
        self.settings.get_mut("kafka")?.get_mut("properties")?.as_table_mut()
    }

    fn lay_setting(&mut self, origin: &str, section: &str, name: &str, value: Value) {
        let key = format!("{section}.{name}");
        let Some(default) = self.schema.get(section).and_then(|entries| entries.get(name)) else {
            let hint = hint(self.nearest_setting(section, name).as_deref());
            // The value is not shown: it may be a secret under a misspelt name.
            return self.fault(origin, &key, format!("there is no such setting{hint}"));
        };
        if !default.same_type(&value) {
            let allowed = format!("must be {}", type_name(default));
            return self.refuse(origin, &key, &value, &allowed);
        }
        if let Some(allowed) = validate::fault_of(&key, &value) {
            return self.refuse(origin, &key, &value, &allowed);
        }
        if let Some(slot) = self.settings.get_mut(section).and_then(|entries| entries.get_mut(name)) {
            *slot = value;
            self.origins.insert(key, origin.to_owned());
        }
    }

    fn lay_variable(&mut self, variable: &str, text: &str) {
        let path = variable.strip_prefix(ENV_PREFIX).unwrap_or_default().to_ascii_lowercase();
        let Some((section, name)) = path.split_once("__") else {
            return self.fault(variable, "", format!("must be {ENV_PREFIX}SECTION__KEY"));
        };
        if section == "kafka" && name == "properties" {
            return self.fault(variable, "", format!("must be {ENV_PREFIX}KAFKA__PROPERTIES__NAME"));
        }
        if let ("kafka", Some(property)) = (section, name.strip_prefix("properties__")) {
            let property = property.replace("__", ".").replace('_', ".");
            if text.is_empty() {
                self.properties().map(|properties| properties.remove(&property));
                return;
            }
            return self.lay_property(variable, &property, text);
        }
        let Some(default) = self.schema.get(section).and_then(|entries| entries.get(name)) else {
            let hint = hint(self.nearest_setting(section, name).as_deref());
            return self.fault(
                variable,
                &format!("{section}.{name}"),
                format!("there is no such setting{hint}"),
            );
        };
        match parse_as(default, text) {
            Some(value) => self.lay_setting(variable, section, name, value),
            None => {
                let allowed = format!("must be {}", type_name(default));
                self.refuse(
                    variable,
                    &format!("{section}.{name}"),
                    &Value::String(text.to_owned()),
                    &allowed,
                );
            }
        }
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        match Config::deserialize(Value::Table(self.settings.clone())) {
            Ok(config) => {
                self.report_contradictions(&config);
                if self.faults.is_empty() { Ok(config) } else { Err(ConfigErrors(self.faults)) }
            }
            // Out of reach while the schema is checked before; if it is not, a fault is better than a panic.
            Err(error) => {
                self.fault(DEFAULTS, "", one_line(error.message()));
                Err(ConfigErrors(self.faults))
            }
        }
    }

    fn report_contradictions(&mut self, config: &Config) {
        for found in validate::contradictions(config) {
            if found.keys.iter().any(|key| self.refused.contains(*key)) {
                continue;
            }
            let Some(first) = found.keys.first() else { continue };
            // Whoever changed the other one of two settings should not be sent to the defaults.
            let origin = found.keys.iter().find_map(|key| self.origins.get(*key));
            let origin = origin.map_or(DEFAULTS, String::as_str).to_owned();
            let value = self.value_of(first).map(|value| shown(first, value));
            self.faults.push(Fault { origin, key: (*first).to_owned(), value, problem: found.allowed });
        }
    }

    fn value_of(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        self.settings.get(section)?.get(name)
    }

    fn refuse(&mut self, origin: &str, key: &str, value: &Value, allowed: &str) {
        self.refused.insert(key.to_owned());
        let (origin, value) = (one_line(origin), Some(shown(key, value)));
        self.faults.push(Fault { origin, key: one_line(key), value, problem: allowed.to_owned() });
    }

    fn fault(&mut self, origin: &str, key: &str, problem: String) {
        self.faults.push(Fault { origin: one_line(origin), key: one_line(key), value: None, problem });
    }

    /// The setting that was meant: one that is exactly so called in another section, else one of the same
    /// section that is nearly so called, else one of any section.
    fn nearest_setting(&self, section: &str, name: &str) -> Option<String> {
        let mut sections = self.schema.iter().filter_map(|(other, value)| Some((other, value.as_table()?)));
        if let Some((other, _)) = sections.find(|(_, entries)| entries.contains_key(name)) {
            return Some(format!("{other}.{name}"));
        }
        let siblings = self.schema.get(section).and_then(Value::as_table);
        let siblings = siblings.into_iter().flat_map(Table::keys).map(String::as_str);
        if let Some(found) = nearest(name, siblings) {
            return Some(format!("{section}.{found}"));
        }
        let known = dotted_keys(&self.schema);
        nearest(&format!("{section}.{name}"), known.iter().map(String::as_str)).map(str::to_owned)
    }
}

/// All settings of a table of sections, as `ledger.workers`, sorted.
pub(super) fn dotted_keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (section, value) in table {
        let entries = value.as_table().into_iter().flat_map(Table::keys);
        keys.extend(entries.map(|name| format!("{section}.{name}")));
    }
    keys
}

/// The known name that differs least, if by no more than a third of its letters.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) = known.map(|other| (strsim::damerau_levenshtein(name, other), other)).min()?;
    (3 * distance <= best.chars().count()).then_some(best)
}

fn hint(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date and time",
        Value::Array(_) => "an array",
        Value::Table(_) => "a section",
    }
}

/// The text of a variable as the type of the default; `None` if it is not of that type.
fn parse_as(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        // As TOML has it, on one line.
        Value::Array(_) => format!("array = {text}").parse::<Table>().ok()?.remove("array"),
        _ => None,
    }
}

/// A value as a fault shows it: on one line, not endless, and not if it is a secret.
fn shown(key: &str, value: &Value) -> String {
    // A user and a password before the host have no place in an address, but people put them there.
    let is_address_with_user = key == "clickhouse.url" && value.as_str().is_some_and(|url| url.contains('@'));
    if is_secret(key) || key == "kafka.properties" || is_address_with_user {
        return MASK.to_owned();
    }
    let whole = match value {
        Value::String(text) => format!("{text:?}"),
        // Not their contents: a secret may stand there, under any name.
        Value::Table(_) => "{…}".to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        other => one_line(&other.to_string()),
    };
    match whole.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Line and column, both from 1, of a byte of a text.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}
