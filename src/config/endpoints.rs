//! `dispatcher.endpoints`: where alerts go, and what is allowed there.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::Value;

use super::secret::{MASK, Secret};
use super::validate::is_http_url;
use crate::alert::{AlertKind, SigningKey};
use crate::wallet::Level;

/// Longest name: it becomes part of a consumer group and a label.
const NAME_BYTES_MAX: usize = 64;

/// `[[dispatcher.endpoints]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Name, unique: letters, digits, `-` and `_`. Its position belongs to the name, not to the address.
    pub name: String,
    /// `https` address; `http` only with `allow_private`.
    pub url: String,
    /// At least one, `whsec_…`. A request is signed with each, so that a receiver can change from one to the next.
    pub secrets: Vec<Secret>,
    /// Kinds that it wants; empty: all.
    #[serde(default)]
    pub kinds: Vec<AlertKind>,
    /// Levels that it wants, of the wallet after the alert; empty: all.
    #[serde(default)]
    pub levels: Vec<Level>,
    /// Plans that it wants, an empty name for wallets without one; empty: all.
    #[serde(default)]
    pub plans: Vec<String>,
    /// Whether it may be at an address that is not public, and without TLS.
    #[serde(default)]
    pub allow_private: bool,
}

/// An endpoint wants a plan that does not exist: it would wait for ever.
#[derive(Debug, Error)]
#[error(
    "dispatcher.endpoints: endpoint {endpoint}: plans has {plan:?}: must be plans of the pricing file ({known}), or \"\" for wallets without one"
)]
pub struct UnknownPlan {
    endpoint: String,
    plan: String,
    known: String,
}

/// Holds the plans that endpoints want against all that there are; the settings alone do not know them.
///
/// # Errors
/// See [`UnknownPlan`]: the first of them.
pub fn check_plans(endpoints: &[EndpointConfig], known: &[String]) -> Result<(), UnknownPlan> {
    let wanted =
        endpoints.iter().flat_map(|endpoint| endpoint.plans.iter().map(move |plan| (endpoint, plan)));
    match wanted.into_iter().find(|(_, plan)| !plan.is_empty() && !known.contains(plan)) {
        None => Ok(()),
        Some((endpoint, plan)) => {
            Err(UnknownPlan { endpoint: endpoint.name.clone(), plan: plan.clone(), known: known.join(", ") })
        }
    }
}

/// What is wrong with the endpoints, if anything is. Never shows a secret.
pub(super) fn fault_of(endpoints: &[Value]) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for (index, value) in endpoints.iter().enumerate() {
        let problem = match read(value) {
            Ok(endpoint) if names.contains(&endpoint.name) => Some(format!("name {} again", endpoint.name)),
            Ok(endpoint) => {
                names.push(endpoint.name.clone());
                fault_of_one(&endpoint)
            }
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem {
            return Some(format!("endpoint {}: {problem}", index + 1));
        }
    }
    None
}

fn read(value: &Value) -> Result<EndpointConfig, String> {
    // Before serde sees it: its message would show what came.
    let secrets = value.get("secrets").and_then(Value::as_array);
    if !secrets.is_some_and(|secrets| secrets.iter().all(Value::is_str)) {
        return Err("secrets must be an array of strings".to_owned());
    }
    let endpoint = EndpointConfig::deserialize(value.clone());
    endpoint.map_err(|error| error.message().lines().next().unwrap_or_default().to_owned())
}

fn fault_of_one(endpoint: &EndpointConfig) -> Option<String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let name = &endpoint.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_letter) {
        return Some("name must be 1 to 64 letters, digits, - and _".to_owned());
    }
    if endpoint.secrets.iter().any(|secret| secret.expose() == MASK) {
        return Some(format!(
            "secrets must be the secrets themselves; {MASK} is what check-config shows in their place"
        ));
    }
    if endpoint.secrets.is_empty()
        || endpoint.secrets.iter().any(|secret| SigningKey::parse(secret.expose()).is_none())
    {
        return Some("secrets must be one or more of whsec_ and 24 to 64 bytes in base64".to_owned());
    }
    // A query is no part of what other addresses may have, but receivers like to have a token there.
    let without_query = endpoint.url.split('?').next().unwrap_or_default();
    let is_secure = endpoint.url.starts_with("https://");
    if endpoint.url.parse::<axum::http::Uri>().is_err() || !is_http_url(without_query) {
        return Some("url must be https://, a host, and optionally :port, a path and a query".to_owned());
    }
    (!is_secure && !endpoint.allow_private)
        .then(|| "url must be https://, or allow_private = true".to_owned())
}
