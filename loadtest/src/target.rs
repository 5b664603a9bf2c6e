//! Where load goes: loopback, unless the caller says twice that it may go
//! elsewhere.

use std::net::{SocketAddr, ToSocketAddrs as _};

use http::HeaderValue;
use url::Url;

/// A server under test, resolved once: every connection of a run goes to the
/// address that was checked.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
    host: String,
    host_header: HeaderValue,
    addr: SocketAddr,
}

/// Why a target is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL at all.
    #[error("{0:?} is not a URL like http://127.0.0.1:8080")]
    Malformed(String),
    /// A URL of the wrong form.
    #[error("{0} must be plain http://host:port, without user, path, query or TLS")]
    Form(Url),
    /// The name has no address.
    #[error("no address is known for {0}")]
    Unresolved(String),
    /// Not this machine, and not owned up to.
    #[error(
        "{0} is not on this machine: load on others needs both --allow-remote and \
         --yes-i-own-the-target {0}"
    )]
    Remote(String),
}

impl Target {
    /// Parses and resolves a URL of the form `http://host:port`.
    ///
    /// # Errors
    /// When the URL is malformed, has another form or its host no address.
    pub fn resolve(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed(text.to_owned());
        let url = Url::parse(text).map_err(|_| malformed())?;
        let plain = url.scheme() == "http"
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return Err(Error::Form(url));
        }
        let host = url.host_str().ok_or_else(malformed)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(malformed)?;
        let host_header = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let host_header = HeaderValue::try_from(host_header).map_err(|_| malformed())?;
        // The brackets of an IPv6 host belong to the URL, not to the address.
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let addr = (name, port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .ok_or_else(|| Error::Unresolved(host.clone()))?;
        Ok(Self {
            url,
            host,
            host_header,
            addr,
        })
    }

    /// Refuses a target elsewhere unless remote load is allowed *and* its
    /// host is among those the caller says to own.
    ///
    /// # Errors
    /// [`Error::Remote`].
    pub fn permit(self, allow_remote: bool, owned: &[String]) -> Result<Self, Error> {
        let loopback = self.addr.ip().to_canonical().is_loopback();
        if loopback || (allow_remote && owned.contains(&self.host)) {
            Ok(self)
        } else {
            Err(Error::Remote(self.host))
        }
    }

    /// The address to connect to.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The value of the `host` header.
    #[must_use]
    pub const fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// As given.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(url: &str, allow_remote: bool, owned: &[&str]) -> Result<Target, Error> {
        let owned: Vec<_> = owned.iter().map(|&host| host.to_owned()).collect();
        Target::resolve(url)?.permit(allow_remote, &owned)
    }

    #[test]
    fn loopback_needs_no_leave() {
        for url in [
            "http://127.0.0.1:8080",
            "http://127.9.8.7",
            "http://[::1]:8080/",
            "http://[::ffff:127.0.0.1]:8080",
            "http://localhost:8080",
        ] {
            assert!(permitted(url, false, &[]).is_ok(), "{url}");
        }
    }

    #[test]
    fn elsewhere_needs_both_words() {
        let url = "http://192.0.2.1:8080";
        for (allow_remote, owned) in [
            (false, &[][..]),
            (true, &[][..]),
            (false, &["192.0.2.1"][..]),
            (true, &["192.0.2.2"][..]),
        ] {
            let refused = permitted(url, allow_remote, owned);
            assert!(matches!(refused, Err(Error::Remote(_))), "{owned:?}");
        }
        assert!(permitted(url, true, &["192.0.2.1"]).is_ok());
    }

    #[test]
    fn only_plain_origins_are_targets() {
        for url in [
            "https://127.0.0.1",
            "http://127.0.0.1/path",
            "http://127.0.0.1/?q",
            "http://user@127.0.0.1",
        ] {
            assert!(matches!(Target::resolve(url), Err(Error::Form(_))), "{url}");
        }
        let malformed = Target::resolve("127.0.0.1:8080");
        assert!(matches!(malformed, Err(Error::Malformed(_))));
    }

    #[test]
    fn the_host_header_names_the_port_only_when_given() {
        let header = |url| Target::resolve(url).unwrap().host_header().clone();
        assert_eq!(header("http://127.0.0.1"), "127.0.0.1");
        assert_eq!(header("http://[::1]:8080"), "[::1]:8080");
    }
}
