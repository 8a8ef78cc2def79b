//! ClickHouse from outside: its HTTP interface, and tab-separated answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use creditstream::config::Config;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A database.
pub struct ClickHouse {
    address: String,
    url: String,
    database: String,
    user: String,
    password: String,
}

impl ClickHouse {
    /// The one of a configuration.
    pub fn of(config: &Config) -> ClickHouse {
        let url = config.clickhouse.url.clone();
        let address = url.strip_prefix("http://").expect("these tests speak plain HTTP to ClickHouse");
        let address = address.trim_end_matches('/').to_owned();
        ClickHouse {
            address,
            url,
            database: config.clickhouse.database.clone(),
            user: config.clickhouse.user.clone(),
            password: config.clickhouse.password.expose().to_owned(),
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Fails the test with what to do where ClickHouse is away.
    #[track_caller]
    pub fn must_answer(&self) {
        if let Err(error) = self.request("", "SELECT 1") {
            panic!("ClickHouse at {} does not answer ({error}): start it with `make stack-up`", self.url);
        }
    }

    /// Runs a statement outside of the database.
    pub fn try_execute(&self, statement: &str) -> Result<String, String> {
        self.request("", statement)
    }

    /// Rows of a query, each split at its tabs.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let path = format!("?database={}", self.database);
        let answer = self
            .request(&path, &format!("{query} FORMAT TSVRaw"))
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        answer.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// The one number that a query gives.
    #[track_caller]
    pub fn number(&self, query: &str) -> i64 {
        self.rows(query)[0][0].parse().unwrap()
    }

    /// HTTP 1.0: the answer ends with the connection, and is never chunked.
    fn request(&self, path: &str, body: &str) -> Result<String, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.address).map_err(text)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
        write!(
            stream,
            "POST /{path} HTTP/1.0\r\nHost: x\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.user,
            self.password,
            body.len()
        )
        .map_err(text)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(text)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(format!("{head}\n{body}")),
        }
    }
}
