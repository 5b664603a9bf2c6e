//! Where links may lead: what an operator refuses, whatever notation it comes in.
//!
//! No name is looked up. The redirector connects to nothing, so that what a name
//! resolves to endangers the visitor's network at most, and can change at any time.

pub mod address;
mod scripts;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

pub use address::Purpose;

use crate::LongUrl;

/// Why a URL is refused as a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It leads back to this service.
    #[error("the URL leads back to this service")]
    OwnDomain,
    /// Its address is none of the public internet.
    #[error("the URL's address is not public")]
    Address(Purpose),
    /// Its name is only known on a machine or in a network.
    #[error("the URL's host name is not public")]
    LocalName,
    /// Its host looks like another one.
    #[error("the URL's host mixes scripts")]
    MixedScripts,
}

/// Names without an owner on the public internet (RFC 6761, 6762, 8375; `internal` is
/// set aside by ICANN, and Google's metadata service is there).
const LOCAL_SUFFIXES: [&str; 5] = ["localhost", "localdomain", "local", "internal", "home.arpa"];

/// The parts of a canonical URL that rules look at, cut out without parsing it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Without the dot that may stand at the end. An IPv6 address is in brackets.
    pub host: &'a str,
    /// As written; `None`: the scheme's own.
    pub port: Option<&'a str>,
    /// From the slash on, without query and fragment.
    pub path: &'a str,
}

impl<'a> Place<'a> {
    /// Cuts up what [`LongUrl::parse`] made, or a release before this one.
    #[must_use]
    pub fn of(canonical: &'a str) -> Self {
        let rest = canonical.split_once("://").map_or("", |(_, rest)| rest);
        let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority.ends_with(']') => (&authority[..at], Some(&authority[at + 1..])),
            _ => (authority, None),
        };
        Self {
            host: host.strip_suffix('.').unwrap_or(host),
            port,
            path,
        }
    }

    /// The address, if the host is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let v6 = self.host.strip_prefix('[');
        v6.and_then(|host| host.strip_suffix(']'))
            .unwrap_or(self.host)
            .parse()
            .ok()
    }

    /// The host by the one name that it is compared under: an address of the old kind
    /// that is written as one of the new is reached all the same.
    #[must_use]
    pub fn plain_host(&self) -> Cow<'a, str> {
        match self.address() {
            Some(IpAddr::V6(address)) => match address::embedded(address) {
                Some(inner) => Cow::Owned(inner.to_string()),
                None => Cow::Borrowed(self.host),
            },
            _ => Cow::Borrowed(self.host),
        }
    }
}

/// What an operator allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    own: Vec<Own>,
    allows_private: bool,
    /// Canonical hosts that may be destinations though they are not public.
    private_hosts: Vec<String>,
    allows_mixed_scripts: bool,
}

/// A host of this service.
#[derive(Debug, Clone)]
struct Own {
    host: String,
    /// `None`: on every port, as a name serves http and https.
    port: Option<String>,
}

impl Policy {
    /// Refuses everything that leads back to the URL that short links begin with. A
    /// service that is reached by an address, or on this machine, shares it with others,
    /// so that only its own port is refused there.
    #[must_use]
    pub fn own_base(mut self, base: &LongUrl) -> Self {
        let place = Place::of(base.as_str());
        let is_shared = place.address().is_some() || is_local_name(place.host);
        let https = base.as_str().starts_with("https:");
        let port = place.port.unwrap_or(if https { "443" } else { "80" });
        self.own.push(Own {
            host: place.plain_host().into_owned(),
            port: is_shared.then(|| port.to_owned()),
        });
        self
    }

    /// Refuses a further name of this service.
    #[must_use]
    pub fn own_host(mut self, host: &Host) -> Self {
        self.own.push(Own {
            host: host.0.clone(),
            port: None,
        });
        self
    }

    /// Whether addresses and names that are not public may be destinations.
    #[must_use]
    pub fn private(mut self, are_allowed: bool) -> Self {
        self.allows_private = are_allowed;
        self
    }

    /// Allows a host though it is not public.
    #[must_use]
    pub fn private_host(mut self, host: &Host) -> Self {
        self.private_hosts.push(host.0.clone());
        self
    }

    /// Whether a host may mix scripts.
    #[must_use]
    pub fn mixed_scripts(mut self, are_allowed: bool) -> Self {
        self.allows_mixed_scripts = are_allowed;
        self
    }

    /// Says whether a link may be made to lead there.
    ///
    /// # Errors
    /// Says which rule forbids it.
    pub fn check(&self, url: &LongUrl) -> Result<(), Refusal> {
        let place = Place::of(url.as_str());
        if self.is_own(url.as_str()) {
            return Err(Refusal::OwnDomain);
        }
        let is_allowed = || {
            self.private_hosts
                .iter()
                .any(|host| *host == place.plain_host())
        };
        if !self.allows_private && !is_allowed() {
            match place.address() {
                Some(address) => {
                    address::purpose(address).map_or(Ok(()), |p| Err(Refusal::Address(p)))?;
                }
                None if is_local_name(place.host) => return Err(Refusal::LocalName),
                None => {}
            }
        }
        if !self.allows_mixed_scripts && scripts::are_mixed(place.host) {
            return Err(Refusal::MixedScripts);
        }
        Ok(())
    }

    /// Whether a canonical URL leads back to this service.
    #[must_use]
    pub fn is_own(&self, canonical: &str) -> bool {
        let place = Place::of(canonical);
        let https = canonical.starts_with("https:");
        let port = place.port.unwrap_or(if https { "443" } else { "80" });
        let host = place.plain_host();
        self.own.iter().any(|own| {
            own.host == host && own.port.as_deref().is_none_or(|own_port| own_port == port)
        })
    }

    /// The names and addresses of this service.
    pub fn own_hosts(&self) -> impl Iterator<Item = &str> {
        self.own.iter().map(|own| own.host.as_str())
    }
}

/// Whether the host of a canonical URL mixes scripts.
#[must_use]
pub fn mixes_scripts(canonical: &str) -> bool {
    scripts::are_mixed(Place::of(canonical).host)
}

/// A host's name or address in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Reads a name or an address, in whatever notation; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_v6 = text.parse::<Ipv6Addr>().is_ok();
        let has_port = text.contains(':') && !is_v6 && !text.ends_with(']');
        if has_port || text.contains(['/', '?', '#', '@', '\\']) {
            return None;
        }
        let url = if is_v6 {
            format!("http://[{text}]/")
        } else {
            format!("http://{text}/")
        };
        let url = LongUrl::parse(&url).ok()?;
        Some(Self(Place::of(url.as_str()).plain_host().into_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name without a dot is looked up in the visitor's own network.
fn is_local_name(host: &str) -> bool {
    !host.starts_with('[') && !host.contains('.')
        || LOCAL_SUFFIXES.iter().any(|suffix| {
            host.strip_suffix(suffix)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}

#[cfg(test)]
mod tests;
