//! Which addresses a webhook may go to, and a resolver that knows no others.
//!
//! **Invariant:** a name is resolved once, and the connection goes to an address that was checked: a name that
//! answers with a public address first and a private one afterwards gains nothing.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// An address that is not public.
#[derive(Debug)]
pub struct NotPublic(pub IpAddr);

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a public address (allow_private = true would allow it)", self.0)
    }
}

impl Error for NotPublic {}

/// Whether an address is one of the open internet: not of a host, a local network, a provider's inside, an example,
/// a group, nor one that stands for such a one.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || matches!((a, b, c), (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (240.., ..));
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let [a, b, ..] = address.segments();
    // What is given out so far is 2000::/3. Of it: protocols and tunnels (Teredo, ORCHID), examples, 6to4.
    let is_given_out = a & 0xe000 == 0x2000;
    let is_special = matches!((a, b), (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff));
    is_given_out && !is_special
}

/// The address that a host of a URL is, where it is no name: in any spelling that libc or a browser takes for one, such
/// as 127.1, 0x7f.1, 2130706433 or [::ffff:127.0.0.1].
pub fn written_out(host: &str) -> Option<IpAddr> {
    match url::Host::parse(host).ok()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

/// Resolves a name to its addresses; an error where one of them is not public, unless that is allowed.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Whether any address will do.
    pub allow_private: bool,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One is enough: whoever mixes them in wants us to reach it.
            match found.iter().find(|address| !allow_private && !is_public(address.ip())) {
                Some(address) => Err(NotPublic(address.ip()).into()),
                None => Ok(found.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_addresses_of_the_open_internet_are_public() {
        for text in ["8.8.8.8", "100.63.0.1", "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn an_address_is_known_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "127.0.0.1.",
            "0x7f.1",
            "0x7F000001",
            "0177.0.0.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::1]",
            "0",
            "10.1",
            "169.254.43518",
        ] {
            let address = written_out(host).unwrap();
            assert!(!is_public(address), "{host} is {address}");
        }
        for host in ["134744072", "8.8.8.8", "[2606:4700::1]"] {
            assert!(written_out(host).is_some_and(is_public), "{host}");
        }
        for host in ["localhost", "example.com", "1.example", "x.127.1"] {
            assert!(written_out(host).is_none_or(is_public), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_refused_unless_allowed() {
        let resolve = |allow_private| Resolver { allow_private }.call("localhost".parse().unwrap());
        assert!(resolve(false).await.unwrap_err().is::<NotPublic>());
        assert!(resolve(true).await.unwrap().next().unwrap().ip().is_loopback());
    }
}
