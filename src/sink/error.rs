//! Owns what can go wrong with a request to ClickHouse: which errors pass by themselves, and what a person does about the others.
//!
//! **Invariant:** only an error that waiting cannot mend is permanent; one that is not known here is tried again. Pure.

use std::time::Duration;

use thiserror::Error;

/// Oldest version: the first long-term release with views that run with the rights of who made them (`SQL SECURITY`).
pub(super) const VERSION_MIN: &str = "24.3";

/// A failed request to ClickHouse.
#[derive(Debug, Error)]
pub enum ClickHouseError {
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// A server that lacks what the migrations use.
    #[error("the server has version {0}, expected at least {min}", min = VERSION_MIN)]
    TooOld(String),
    /// Anything else that the client reports.
    #[error(transparent)]
    Client(#[from] clickhouse::error::Error),
}

/// Code of a user who may only read.
const RIGHTS_READ_ONLY: u32 = 164;
/// Code of a cluster that `remote_servers` does not have.
const CLUSTER_UNKNOWN: u32 = 701;
/// Code of a user who lacks a right.
const RIGHTS_MISSING: u32 = 497;

/// What an error calls for. The names are those of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Overload and the like: it passes.
    Transient,
    /// The schema, the rights or the statement are wrong: trying again is no use.
    Permanent,
    /// Not known to be the one or the other: tried again.
    Other,
}

/// ClickHouse refuses, and will go on refusing.
#[derive(Debug, Error)]
#[error("clickhouse refuses {what}: {source}; {}, then start the sink again", .source.advice())]
pub struct Refused {
    /// The request.
    pub what: String,
    /// The answer.
    pub source: ClickHouseError,
}

impl ErrorKind {
    /// The label of `clickhouse_errors_total`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Transient => "transient",
            ErrorKind::Permanent => "permanent",
            ErrorKind::Other => "other",
        }
    }

    /// By ClickHouse's error code.
    pub const fn of_code(code: u32) -> ErrorKind {
        match code {
            // Columns, tables, databases and types that do not fit the statement.
            10 | 16 | 20 | 36 | 44 | 47 | 48 | 50 | 53 | 60 | 62 | 70 | 81 | 115 | 117 | 128
            | CLUSTER_UNKNOWN => ErrorKind::Permanent,
            // Rights, users, passwords; a user who may only read.
            RIGHTS_READ_ONLY | RIGHTS_MISSING | 192 | 193 | 194 | 195 | 291 | 452 | 492 | 516 => {
                ErrorKind::Permanent
            }
            // Too many queries, parts, bytes of memory, no room, a replica that is not ready, a table that is
            // locked, a query that was cancelled or took too long, ZooKeeper.
            159 | 160 | 202 | 203 | 225 | 236 | 241 | 242 | 243 | 252 | 285 | 286 | 289 | 319 | 373 | 394
            | 473 | 722 | 999 => ErrorKind::Transient,
            // Sockets of the server's own.
            209 | 210 => ErrorKind::Transient,
            _ => ErrorKind::Other,
        }
    }
}

impl ClickHouseError {
    /// ClickHouse's own code: a bad answer begins with `Code: 60. DB::Exception: …`.
    pub fn code(&self) -> Option<u32> {
        let ClickHouseError::Client(clickhouse::error::Error::BadResponse(text)) = self else {
            return None;
        };
        let digits = text.split_once("Code: ")?.1;
        digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    }

    /// What it calls for.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClickHouseError::Timeout(_) | ClickHouseError::Client(clickhouse::error::Error::TimedOut) => {
                ErrorKind::Timeout
            }
            ClickHouseError::Client(clickhouse::error::Error::Network(_)) => ErrorKind::Unreachable,
            ClickHouseError::TooOld(_)
            | ClickHouseError::Client(clickhouse::error::Error::InvalidParams(_)) => ErrorKind::Permanent,
            ClickHouseError::Client(_) => self.code().map_or(ErrorKind::Other, ErrorKind::of_code),
        }
    }

    /// Whether the user, its password or its rights are what is refused.
    pub fn is_about_rights(&self) -> bool {
        matches!(self.code(), Some(RIGHTS_READ_ONLY | RIGHTS_MISSING | 192..=195 | 291 | 452 | 492 | 516))
    }

    /// What a person does about one of `init`'s that is permanent.
    pub(super) fn advice_of_owner(&self) -> &'static str {
        match self {
            ClickHouseError::TooOld(_) => "upgrade the server",
            error if error.code() == Some(CLUSTER_UNKNOWN) => {
                "set clickhouse.cluster to a cluster of the server's remote_servers"
            }
            _ => "check user, password and rights (role creditstream_owner of config/clickhouse/access.sql)",
        }
    }

    /// What a person does about one that is permanent.
    fn advice(&self) -> &'static str {
        if matches!(self, ClickHouseError::TooOld(_)) {
            return "upgrade the server";
        }
        match self.code() {
            Some(RIGHTS_READ_ONLY) => {
                "this user may only read: take the setting readonly from its profile, or set clickhouse.user to one who may insert"
            }
            Some(RIGHTS_MISSING) => {
                "give the user of clickhouse.user the role creditstream_writer (config/clickhouse/access.sql)"
            }
            Some(192..=195 | 291 | 516) => {
                "set clickhouse.user and clickhouse.password to a user that exists"
            }
            Some(10 | 16 | 20 | 36 | 44 | 47 | 50 | 53 | 60 | 70 | 81) => {
                "run `creditstream init` if the schema is not there or older; else somebody changed it: make it again as the message says, or take another database"
            }
            _ => "mend what it says",
        }
    }
}
