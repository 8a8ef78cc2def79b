//! One try: sends an alert, and says what the answer means.
//!
//! **Invariant:** a try ends within the request timeout, reads a bounded part of the answer, follows no redirect, and
//! goes to no address that is not allowed. Certificates are verified, always.

use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;

use super::address::{NotPublic, Resolver, is_public, written_out};
use super::queue::{Answer, Item};
use super::sign::{SigningKey, signatures};
use crate::config::{DispatcherConfig, EndpointConfig};
use crate::outgoing::http_client;
use crate::time::Timestamp;

/// Idle connections are closed before a usual server or load balancer does.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(4);
/// So much of an answer is read: for a person to see why. Small ones are read to their end, so that the connection
/// can be used again.
const ANSWER_BYTES_MAX: usize = 4_096;
const SHOWN_CHARS_MAX: usize = 200;

/// What came of a try, for the metric. The names are those of the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Delivered,
    /// Any other status.
    Rejected,
    /// 410.
    Gone,
    /// No answer in time.
    TimedOut,
    /// No connection, no valid certificate, or it broke.
    Unreachable,
    /// Its address is not public.
    Blocked,
}

impl Outcome {
    /// The label of `webhook_deliveries_total`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Rejected => "rejected",
            Outcome::Gone => "gone",
            Outcome::TimedOut => "timed_out",
            Outcome::Unreachable => "unreachable",
            Outcome::Blocked => "blocked",
        }
    }
}

/// Sends to one endpoint.
#[derive(Debug)]
pub struct Sender {
    http: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    uri: Uri,
    keys: Vec<SigningKey>,
    allow_private: bool,
    request_timeout: Duration,
}

impl Sender {
    /// For an endpoint of a valid configuration.
    pub fn new(config: &DispatcherConfig, endpoint: &EndpointConfig) -> Sender {
        let connector = HttpConnector::new_with_resolver(Resolver { allow_private: endpoint.allow_private });
        let http = http_client(connector, config.connect_timeout(), IDLE_CONNECTION_MAX);
        let keys = endpoint.secrets.iter().filter_map(|secret| SigningKey::parse(secret.expose())).collect();
        Sender {
            http,
            uri: endpoint.url.parse().unwrap_or_default(),
            keys,
            allow_private: endpoint.allow_private,
            request_timeout: config.request_timeout(),
        }
    }

    /// One try.
    pub async fn send(&self, item: &Item) -> (Outcome, Answer) {
        // The connector asks no resolver about an address that is written out, and TLS knows no name like 127.1.
        if let Some(address) = self.literal_address()
            && !self.allow_private
            && !is_public(address)
        {
            return (Outcome::Blocked, failed(NotPublic(address).to_string(), None));
        }
        let now = Timestamp::now();
        let timestamp_s = now.millis().div_euclid(1_000);
        let request = Request::post(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("creditstream/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &item.id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", signatures(&self.keys, &item.id, timestamp_s, &item.body))
            .body(Full::new(item.body.clone()));
        let request = match request {
            Ok(request) => request,
            Err(error) => return (Outcome::Unreachable, failed(error.to_string(), None)),
        };
        let begun = Instant::now();
        let response = match tokio::time::timeout(self.request_timeout, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let is_blocked = chain(&error).any(|cause| cause.is::<NotPublic>());
                let outcome = if is_blocked { Outcome::Blocked } else { Outcome::Unreachable };
                let causes: Vec<String> = chain(&error).map(ToString::to_string).collect();
                return (outcome, failed(causes.join(": "), None));
            }
            Err(_) => {
                let detail = format!("no answer within {} ms", self.request_timeout.as_millis());
                return (Outcome::TimedOut, failed(detail, None));
            }
        };
        // The status is the answer; what follows it is only for people.
        let (head, body) = response.into_parts();
        let left = self.request_timeout.saturating_sub(begun.elapsed());
        let text = tokio::time::timeout(left, read_some(body)).await.unwrap_or_default();
        judge(head.status, &head.headers, &text, now)
    }

    fn literal_address(&self) -> Option<IpAddr> {
        written_out(self.uri.host()?)
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, text: &str, now: Timestamp) -> (Outcome, Answer) {
    if status.is_success() {
        return (Outcome::Delivered, Answer::Delivered);
    }
    if status == StatusCode::GONE {
        return (Outcome::Gone, Answer::Gone);
    }
    let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = headers.get(RETRY_AFTER).filter(|_| asks).and_then(|value| value.to_str().ok());
    let detail =
        if text.is_empty() { format!("status {status}") } else { format!("status {status}: {text}") };
    (Outcome::Rejected, failed(detail, retry_after.and_then(|value| parse_retry_after(value, now))))
}

fn failed(detail: String, retry_after: Option<Duration>) -> Answer {
    Answer::Failed { detail, retry_after }
}

/// Seconds, or a date in one of the three forms of HTTP.
fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
    Some(at.saturating_sub(now))
}

/// The beginning of a body, on one line. What is longer is left unread, and its connection is closed.
async fn read_some(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    let text = String::from_utf8_lossy(&bytes);
    let printable = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    printable.take(SHOWN_CHARS_MAX).collect::<String>().trim().to_owned()
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| <dyn Error>::source(*error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = Timestamp::from_millis(1_445_412_480_000); // 2015-10-21T07:28:00Z
        let cases = [
            ("120", Some(120)),
            ("Wed, 21 Oct 2015 07:29:30 GMT", Some(90)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("Wednesday, 21-Oct-15 07:29:30 GMT", Some(90)),
            ("Wed Oct 21 07:29:30 2015", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(parse_retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn only_2xx_is_taken_and_only_429_and_503_may_ask_for_a_pause() {
        let now = Timestamp::from_millis(0);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("7"));
        let asked = |code: u16| judge(StatusCode::from_u16(code).unwrap_or_default(), &headers, "", now);
        assert_eq!(asked(204), (Outcome::Delivered, Answer::Delivered));
        assert_eq!(asked(410), (Outcome::Gone, Answer::Gone));
        for (code, pause) in [(301, None), (400, None), (429, Some(7)), (500, None), (503, Some(7))] {
            let (outcome, answer) = asked(code);
            assert_eq!(outcome, Outcome::Rejected);
            let Answer::Failed { retry_after, .. } = answer else { panic!("{code}: {answer:?}") };
            assert_eq!(retry_after, pause.map(Duration::from_secs), "{code}");
        }
    }
}
