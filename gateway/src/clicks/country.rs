//! Which country an address is in, out of a file in MaxMind's format.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use maxminddb::{MaxMindDbError, PathElement, Reader};

/// Where the code is: a country's, or else the one that the network is registered in.
const PATHS: [[PathElement<'static>; 2]; 2] = [
    [PathElement::Key("country"), PathElement::Key("iso_code")],
    [
        PathElement::Key("registered_country"),
        PathElement::Key("iso_code"),
    ],
];

/// The countries of addresses. Cheap to clone; the file is in memory.
#[derive(Clone)]
pub struct Countries(Arc<Reader<Vec<u8>>>);

impl Countries {
    /// Reads a file, as of GeoLite2 Country or City, once: another takes a restart.
    ///
    /// # Errors
    /// If it cannot be read or is no such file.
    pub fn open(file: &Path) -> Result<Self, MaxMindDbError> {
        let reader = Reader::open_readfile(file)?;
        Ok(Self(Arc::new(reader)))
    }

    /// Two letters, in upper case.
    pub(super) fn of(&self, address: IpAddr) -> Option<[u8; 2]> {
        // A file of IPv4 alone refuses the others.
        let found = self.0.lookup(address.to_canonical()).ok()?;
        let code = PATHS.iter().find_map(|path| {
            let code: Option<&str> = found.decode_path(path).ok()?;
            code
        });
        let code = <[u8; 2]>::try_from(code?.as_bytes()).ok()?;
        let letters = code.iter().all(u8::is_ascii_alphabetic);
        letters.then(|| code.map(|letter| letter.to_ascii_uppercase()))
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Countries")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Made with the Python package mmdb-writer: 192.0.2.0/24 is in CH, 2001:db8::/32 in
    /// DE, 127.0.0.0/8 in FR, and 198.51.100.0/24 registered in US.
    pub(in crate::clicks) fn countries() -> Countries {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/country.mmdb");
        Countries::open(&file).unwrap()
    }

    #[test]
    fn addresses_have_countries_as_the_file_says() {
        let countries = countries();
        for (address, expected) in [
            ("192.0.2.77", Some(*b"CH")),
            ("::ffff:192.0.2.77", Some(*b"CH")),
            ("2001:db8::1", Some(*b"DE")),
            ("198.51.100.9", Some(*b"US")),
            ("203.0.113.1", None),
            ("2001:db9::1", None),
        ] {
            assert_eq!(
                countries.of(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(Countries::open(&here.join("Cargo.toml")).is_err());
        assert!(Countries::open(&here.join("nowhere.mmdb")).is_err());
    }
}
