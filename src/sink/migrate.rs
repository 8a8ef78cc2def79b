//! Owns the schema in ClickHouse: numbered migrations, compiled in, each recorded with its checksum.
//!
//! **Invariant:** applying twice, or from two places at once, ends as applying once: every statement says
//! IF NOT EXISTS, and a migration is recorded only after all its statements. A database that was migrated by
//! something else than these files is left alone. Must not change data.

use std::collections::BTreeMap;
use std::time::Duration;

use clickhouse::Client;
use serde::Deserialize;
use thiserror::Error;

use super::client::{self, bounded};
use super::cluster;
use super::error::{ClickHouseError, ErrorKind};
use crate::config::ClickHouseConfig;

/// A numbered migration.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// 1, 2, 3 …
    pub version: u32,
    /// Name of its file.
    pub name: &'static str,
    /// Its statements. One ends where a line ends with a semicolon.
    pub sql: &'static str,
}

/// All migrations, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "0001_tables", sql: include_str!("../../migrations/0001_tables.sql") },
    Migration { version: 2, name: "0002_days", sql: include_str!("../../migrations/0002_days.sql") },
    Migration { version: 3, name: "0003_views", sql: include_str!("../../migrations/0003_views.sql") },
    Migration { version: 4, name: "0004_alerts", sql: include_str!("../../migrations/0004_alerts.sql") },
    Migration {
        version: 5,
        name: "0005_open_alerts",
        sql: include_str!("../../migrations/0005_open_alerts.sql"),
    },
];

/// Which migrations there are; made on the first use of a database.
const RECORDS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
    version UInt32 COMMENT 'Number of the migration', \
    name String COMMENT 'Name of its file', \
    checksum String COMMENT 'BLAKE3 of its file', \
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When it was last recorded') \
    ENGINE = ReplacingMergeTree ORDER BY version \
    COMMENT 'Migrations that creditstream init has applied'";

/// What [`migrate`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Migrations that this run applied.
    pub applied: Vec<String>,
    /// Migrations that had been applied before.
    pub present: Vec<String>,
}

/// Why the schema could not be brought up to date.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// ClickHouse cannot be reached, is overloaded, or did not answer in time: trying again may help.
    #[error("clickhouse could not {what}: {source}; check clickhouse.url and try again")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What came.
        source: ClickHouseError,
    },
    /// ClickHouse refuses.
    #[error("clickhouse refuses to {what}: {source}; {}", .source.advice_of_owner())]
    Refused {
        /// What was tried.
        what: String,
        /// What came.
        source: ClickHouseError,
    },
    /// The database was made for a single server, and a cluster is configured, or the other way round.
    #[error(
        "database {0} was made with another setting of clickhouse.cluster: set that again, or take another database"
    )]
    OtherForm(String),
    /// Our bug.
    #[error("a statement of the migrations has no form for a cluster; please report this: {0}")]
    NotForClusters(String),
    /// The database was migrated by another build.
    #[error(
        "migration {name} is recorded in database {database} with checksum {recorded}, this build has {expected}: a released migration was edited; use the build that made the database, or another database"
    )]
    ChecksumDiffers {
        /// The migration.
        name: String,
        /// The database.
        database: String,
        /// What the database says.
        recorded: String,
        /// What this build has.
        expected: String,
    },
    /// A later migration is recorded, an earlier one is not.
    #[error(
        "database {database} has migrations after {name}, but {name} itself is not recorded in schema_migrations: the record was lost, or the database was restored in part; restore it whole, or use another database"
    )]
    Missing {
        /// The database.
        database: String,
        /// The migration that is not recorded.
        name: String,
    },
    /// The database was migrated by a newer build.
    #[error(
        "database {database} has migration {version} ({name}), this build knows up to {known}: the schema is newer; start a newer version of creditstream"
    )]
    SchemaIsNewer {
        /// The database.
        database: String,
        /// The migration that is not known here.
        version: u32,
        /// Its name.
        name: String,
        /// The last one that is known here.
        known: u32,
    },
}

impl Migration {
    /// BLAKE3 of the file, hex.
    pub fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }

    fn statements(&self) -> Vec<String> {
        statements(self.sql)
    }

    /// Its statements, as a single server takes them or, where one is configured, a cluster.
    ///
    /// # Errors
    /// The statement that the rewriting for a cluster does not know: our bug.
    pub fn statements_for(&self, config: &ClickHouseConfig) -> Result<Vec<String>, MigrationError> {
        let forms = self.statements().into_iter().map(|statement| form_of(statement, config));
        Ok(forms.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

/// Creates the database if need be and applies what is missing.
///
/// # Errors
/// See [`MigrationError`]; what was applied until then stays, and the next run goes on from there.
pub async fn migrate(config: &ClickHouseConfig) -> Result<MigrationReport, MigrationError> {
    migrate_with(config, MIGRATIONS).await
}

/// The same with other migrations: for tests.
///
/// # Errors
/// See [`migrate`].
pub async fn migrate_with(
    config: &ClickHouseConfig,
    migrations: &[Migration],
) -> Result<MigrationReport, MigrationError> {
    let server = Session::new(config, None);
    server.check_version().await?;
    server.check_form(config).await?;
    let create =
        format!("CREATE DATABASE IF NOT EXISTS `{}`{}", config.database, cluster::on(&config.cluster));
    server.run("create the database", &create).await?;
    let database = Session::new(config, Some(&config.database));
    for statement in form_of(RECORDS.to_owned(), config)? {
        database.run("create schema_migrations", &statement).await?;
    }
    let recorded = database.recorded().await?;
    check_recorded(config, migrations, &recorded)?;

    let mut report = MigrationReport::default();
    for migration in migrations {
        if recorded.contains_key(&migration.version) {
            report.present.push(migration.name.to_owned());
            continue;
        }
        for statement in migration.statements_for(config)? {
            database.run(&format!("apply migration {}", migration.name), &statement).await?;
        }
        database.record(migration).await?;
        tracing::info!(migration = migration.name, database = config.database, "applied");
        report.applied.push(migration.name.to_owned());
    }
    Ok(report)
}

fn check_recorded(
    config: &ClickHouseConfig,
    migrations: &[Migration],
    recorded: &BTreeMap<u32, Recorded>,
) -> Result<(), MigrationError> {
    for (version, recorded) in recorded {
        let Some(migration) = migrations.iter().find(|migration| migration.version == *version) else {
            return Err(MigrationError::SchemaIsNewer {
                database: config.database.clone(),
                version: *version,
                name: recorded.name.clone(),
                known: migrations.iter().map(|migration| migration.version).max().unwrap_or(0),
            });
        };
        if migration.checksum() != recorded.checksum {
            return Err(MigrationError::ChecksumDiffers {
                name: migration.name.to_owned(),
                database: config.database.clone(),
                recorded: recorded.checksum.clone(),
                expected: migration.checksum(),
            });
        }
    }
    let last = recorded.keys().next_back().copied().unwrap_or(0);
    let missing = migrations.iter().find(|of| of.version < last && !recorded.contains_key(&of.version));
    match missing {
        None => Ok(()),
        Some(of) => {
            Err(MigrationError::Missing { database: config.database.clone(), name: of.name.to_owned() })
        }
    }
}

fn form_of(statement: String, config: &ClickHouseConfig) -> Result<Vec<String>, MigrationError> {
    if config.cluster.is_empty() {
        return Ok(vec![statement]);
    }
    let rewritten = cluster::rewrite(&statement, &config.database, &config.cluster);
    rewritten.ok_or(MigrationError::NotForClusters(statement))
}

/// Splits a file at lines that end with a semicolon. Comment lines stay with their statement; a rest without
/// one is no statement.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    for line in sql.lines() {
        statement.push_str(line.trim_end_matches([';', ' ']));
        statement.push('\n');
        let is_comment = line.trim_start().starts_with("--");
        if !is_comment && line.trim_end().ends_with(';') {
            statements.push(std::mem::take(&mut statement));
        }
    }
    statements
}

#[derive(clickhouse::Row, Deserialize)]
struct Recorded {
    version: u32,
    name: String,
    checksum: String,
}

/// Statements with a database or without, each bounded in time.
struct Session {
    client: Client,
    timeout: Duration,
}

impl Session {
    fn new(config: &ClickHouseConfig, database: Option<&str>) -> Session {
        let client = client::client(config);
        let client = match database {
            Some(database) => client.with_database(database),
            None => client,
        };
        Session { client, timeout: config.request_timeout() }
    }

    async fn check_version(&self) -> Result<(), MigrationError> {
        let new_enough = client::check_version(&self.client, self.timeout).await;
        new_enough.map_err(|source| failed("say its version", source))
    }

    /// `IF NOT EXISTS` would pass over tables of the other form.
    async fn check_form(&self, config: &ClickHouseConfig) -> Result<(), MigrationError> {
        let sql = "SELECT engine FROM system.tables WHERE database = ? AND name = 'schema_migrations'";
        let engine = self.client.query(sql).bind(&config.database).fetch_optional::<String>();
        let engine = bounded(self.timeout, engine).await;
        let engine = engine.map_err(|source| failed("look at the database", source))?;
        let is_other = |engine: String| (engine == "Distributed") == config.cluster.is_empty();
        match engine.is_some_and(is_other) {
            true => Err(MigrationError::OtherForm(config.database.clone())),
            false => Ok(()),
        }
    }

    async fn run(&self, what: &str, sql: &str) -> Result<(), MigrationError> {
        let done = bounded(self.timeout, self.client.query_raw(sql).execute()).await;
        done.map_err(|source| failed(what, source))
    }

    async fn recorded(&self) -> Result<BTreeMap<u32, Recorded>, MigrationError> {
        let query =
            self.client.query("SELECT version, name, checksum FROM schema_migrations FINAL ORDER BY version");
        let rows = bounded(self.timeout, query.fetch_all::<Recorded>()).await;
        let rows = rows.map_err(|source| failed("read schema_migrations", source))?;
        Ok(rows.into_iter().map(|row| (row.version, row)).collect())
    }

    async fn record(&self, migration: &Migration) -> Result<(), MigrationError> {
        let query = self
            .client
            .query("INSERT INTO schema_migrations (version, name, checksum) SETTINGS async_insert = 0 VALUES (?, ?, ?)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum());
        let done = bounded(self.timeout, query.execute()).await;
        done.map_err(|source| failed(&format!("record migration {}", migration.name), source))
    }
}

fn failed(what: &str, source: ClickHouseError) -> MigrationError {
    let what = what.to_owned();
    match source.kind() {
        ErrorKind::Permanent => MigrationError::Refused { what, source },
        ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Transient | ErrorKind::Other => {
            MigrationError::Unavailable { what, source }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_statement_ends_where_a_line_ends_with_a_semicolon() {
        let sql = "-- first; comment;\nCREATE a\n(\n  x -- y\n);\n\nCREATE b; \n-- the end\n";
        let split = statements(sql);
        assert_eq!(split.len(), 2, "{split:?}");
        assert!(split.iter().all(|statement| !statement.trim_end().ends_with(';')));
    }

    #[test]
    fn migrations_are_numbered_from_1_and_are_all_the_files_that_there_are() {
        for (migration, version) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.version, version);
            assert!(migration.name.starts_with(&format!("{version:04}_")), "{}", migration.name);
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort_unstable();
        let named: Vec<String> = MIGRATIONS.iter().map(|of| format!("{}.sql", of.name)).collect();
        assert_eq!(files, named);
    }

    #[test]
    fn every_statement_can_be_run_twice_and_names_no_database() {
        for statement in MIGRATIONS.iter().flat_map(Migration::statements) {
            let code: Vec<&str> =
                statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
            let code = code.join("\n");
            let (_, name) = code.split_once("EXISTS ").expect("IF EXISTS or IF NOT EXISTS");
            assert!(!name.split_whitespace().next().unwrap().contains('.'), "{code}");
        }
    }
}
