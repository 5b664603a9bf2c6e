//! Hosts and URLs that nobody may be led to, a million of them in 8 MB.
//!
//! An entry is kept as 64 bits of a keyed hash. A URL is looked for by each name that
//! its host ends with and, if the list holds paths, by each beginning of its path: some
//! ten looks, each of which takes one of a million entries for another with a chance of
//! 10^6 / 2^64. So one URL in 10^12 is blocked by mistake; the key, new in each process,
//! keeps anyone from choosing which.

use psl::{Psl as _, Type};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::LongUrl;
use crate::destination::Place;

/// Entries of a list: 32 MB of memory. More is a mistake, or a wish for another design.
pub const MAX_ENTRIES: usize = 4_000_000;

/// Parts of an entry's path: what each URL may have to be looked for by.
const MAX_DEPTH: usize = 16;

/// How often a path is decoded: who encodes a path more often than this reaches a
/// server that decodes it less.
const DECODINGS: usize = 4;

/// Why a list is refused as a whole: half a list must not pass for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no entry")]
    Empty,
    #[error("there are more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("line {0} is neither a host nor a host with a path")]
    Malformed(usize),
    #[error("line {0} blocks this service itself")]
    OwnDomain(usize),
    #[error("line {0} blocks everything under a public suffix such as com")]
    PublicSuffix(usize),
}

/// Hosts, with all their subdomains, and beginnings of paths.
pub struct Blocklist {
    seed: u64,
    /// In order, none twice.
    fingerprints: Box<[u64]>,
    /// Where those begin whose first 16 bits are the index; one more for the end.
    begins: Box<[u32]>,
    /// Parts of the longest path; 0: there are only hosts.
    depth: usize,
}

/// A list that is being read.
pub struct Builder<'a> {
    seed: u64,
    own_hosts: Vec<&'a str>,
    fingerprints: Vec<u64>,
    depth: usize,
}

impl<'a> Builder<'a> {
    /// `seed` is random and secret. A list that blocks one of `own_hosts` is refused.
    #[must_use]
    pub fn new(seed: u64, own_hosts: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            seed,
            own_hosts: own_hosts.into_iter().collect(),
            fingerprints: Vec::new(),
            depth: 0,
        }
    }

    /// Reads a file's text: an entry a line, `host` or `host/path`, where `#` begins a
    /// comment. A scheme and a leading `*.` are passed over.
    ///
    /// # Errors
    /// Names the line that is wrong, and never shows it.
    pub fn read(&mut self, text: &str) -> Result<(), Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let entry = line.split_once('#').map_or(line, |(before, _)| before);
            let entry = entry.trim();
            if !entry.is_empty() {
                self.add(entry, index + 1)?;
            }
        }
        Ok(())
    }

    /// Entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    /// The list.
    ///
    /// # Errors
    /// If it has no entry.
    pub fn build(mut self) -> Result<Blocklist, Error> {
        if self.fingerprints.is_empty() {
            return Err(Error::Empty);
        }
        self.fingerprints.sort_unstable();
        self.fingerprints.dedup();
        let mut begins = vec![0; BUCKETS + 1];
        for fingerprint in &self.fingerprints {
            begins[bucket(*fingerprint) + 1] += 1;
        }
        for index in 1..begins.len() {
            begins[index] += begins[index - 1];
        }
        Ok(Blocklist {
            seed: self.seed,
            fingerprints: self.fingerprints.into_boxed_slice(),
            begins: begins.into_boxed_slice(),
            depth: self.depth,
        })
    }

    fn add(&mut self, entry: &str, line: usize) -> Result<(), Error> {
        if self.fingerprints.len() == MAX_ENTRIES {
            return Err(Error::TooMany);
        }
        let entry = entry
            .strip_prefix("https://")
            .or_else(|| entry.strip_prefix("http://"))
            .unwrap_or(entry);
        let entry = entry.strip_prefix("*.").unwrap_or(entry);
        if is_plain_host(entry) {
            return self.add_host(entry, line);
        }
        let authority = entry.split('/').next().unwrap_or_default();
        let has_port = authority.contains(':') && !authority.ends_with(']');
        // None of them has a say in what is blocked.
        if has_port || entry.contains(['?', '@', '\\']) {
            return Err(Error::Malformed(line));
        }
        let url = LongUrl::parse(&format!("http://{entry}"));
        let url = url.map_err(|_| Error::Malformed(line))?;
        let place = Place::of(url.as_str());
        let path = segments(&as_meant(place.path));
        if path.len() > MAX_DEPTH {
            return Err(Error::Malformed(line));
        }
        if path.is_empty() {
            return self.add_host(&place.plain_host(), line);
        }
        self.depth = self.depth.max(path.len());
        let whole = beginnings(&place.plain_host(), &path).last();
        let whole = whole.expect("the path has a part");
        self.fingerprints.push(fingerprint(&whole, self.seed));
        Ok(())
    }

    fn add_host(&mut self, host: &str, line: usize) -> Result<(), Error> {
        let is_ours = |own: &&str| {
            own.strip_suffix(host)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.own_hosts.iter().any(is_ours) {
            return Err(Error::OwnDomain(line));
        }
        if is_public_suffix(host) {
            return Err(Error::PublicSuffix(line));
        }
        self.fingerprints
            .push(fingerprint(host.as_bytes(), self.seed));
        Ok(())
    }
}

impl Blocklist {
    /// Whether a canonical URL leads to a host or below a path that is listed.
    #[must_use]
    pub fn blocks(&self, canonical: &str) -> bool {
        let place = Place::of(canonical);
        let host = place.plain_host();
        let is_host_listed = if place.address().is_some() {
            self.holds(host.as_bytes())
        } else {
            names(&host).any(|name| self.holds(name.as_bytes()))
        };
        is_host_listed || self.depth > 0 && self.blocks_path(&host, place.path)
    }

    /// A server decodes a path once, as most do, or once more for each proxy before it;
    /// what is listed by any of them is blocked.
    fn blocks_path(&self, host: &str, path: &str) -> bool {
        let mut readings = readings(path);
        readings.any(|path| {
            let path = segments(&path);
            let path = &path[..path.len().min(self.depth)];
            beginnings(host, path).any(|beginning| self.holds(&beginning))
        })
    }

    fn holds(&self, entry: &[u8]) -> bool {
        let wanted = fingerprint(entry, self.seed);
        let at = |index: usize| self.begins[index] as usize;
        let bucket = bucket(wanted);
        self.fingerprints[at(bucket)..at(bucket + 1)]
            .binary_search(&wanted)
            .is_ok()
    }

    /// Entries, each counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.fingerprints) + size_of_val(&*self.begins)
    }
}

/// Shows nothing that would help to find collisions.
impl std::fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blocklist({} entries)", self.len())
    }
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builder({} entries)", self.fingerprints.len())
    }
}

/// With a million entries, 15 to look through, in two lines of the processor's cache.
const BUCKETS: usize = 1 << 16;

fn bucket(fingerprint: u64) -> usize {
    (fingerprint >> 48) as usize
}

fn fingerprint(entry: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(entry, seed)
}

/// The host's name and each that it ends with, but for the last part alone: no list
/// holds that.
fn names(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |name| {
        name.split_once('.').map(|(_, rest)| rest)
    })
    .filter(|name| name.contains('.'))
}

/// `host/a`, `host/a/b` and so on.
fn beginnings(host: &str, path: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> {
    let mut beginning = host.as_bytes().to_vec();
    path.iter().map(move |segment| {
        beginning.push(b'/');
        beginning.extend_from_slice(segment);
        beginning.clone()
    })
}

/// A path as it is written, and decoded once, twice and so on, until nothing is left to
/// decode: at most [`DECODINGS`] times.
fn readings(path: &str) -> impl Iterator<Item = Vec<u8>> {
    let again = |bytes: &Vec<u8>| bytes.contains(&b'%').then(|| decoded(bytes));
    std::iter::successors(Some(path.as_bytes().to_vec()), again).take(1 + DECODINGS)
}

/// A path of a list: decoded for good, as its writer means it.
fn as_meant(path: &str) -> Vec<u8> {
    readings(path).last().unwrap_or_default()
}

/// A path's parts as most servers take them: without empty ones, `.` and `..` resolved.
/// Else a listed page would be reached by writing its path another way.
fn segments(path: &[u8]) -> Vec<Vec<u8>> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment.to_vec()),
        }
    }
    segments
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| {
        let byte = *bytes.get(at)?;
        char::from(byte).to_digit(16)
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Whether a text is a host's name in its canonical form already, as nearly every line
/// of a list is: parsing a million of them takes a second.
fn is_plain_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with("xn--")
            && label
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    // What ends in a number is an address.
    let last = text.rsplit_once('.').map_or("", |(_, last)| last);
    last.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 253
        && text.split('.').all(is_label)
}

/// Whether registries give out the names below this one, as with com and co.uk. Where
/// anybody else does, as with a dynamic DNS service, blocking all of it may be meant.
fn is_public_suffix(host: &str) -> bool {
    let is_name = !host.starts_with('[');
    let suffix = psl::List.suffix(host.as_bytes());
    let is_icann = suffix.is_some_and(|suffix| {
        suffix.as_bytes() == host.as_bytes() && suffix.typ() == Some(Type::Icann)
    });
    is_name && (is_icann || !host.contains('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x5eed;

    fn list(text: &str) -> Result<Blocklist, Error> {
        let mut builder = Builder::new(SEED, ["go.example.org", "192.0.2.7"]);
        builder.read(text)?;
        builder.build()
    }

    #[track_caller]
    fn blocks(list: &Blocklist, url: &str) -> bool {
        list.blocks(LongUrl::parse(url).unwrap().as_str())
    }

    #[test]
    fn a_host_blocks_its_subdomains_and_nothing_beside_them() {
        let list = list(
            "# bad\n\nEvil.example  # why\n*.worse.example\r\nhttp://b\u{fc}cher.example/\n\
                         0xc0a80101\n[2001:db8::1]\nduckdns.org\n",
        )
        .unwrap();
        for url in [
            "https://evil.example/",
            "http://EVIL.example:8080/x?y#z",
            "https://a.b.evil.example./",
            "https://worse.example/",
            "https://www.xn--bcher-kva.example/",
            "http://192.168.257/",
            "http://[2001:db8:0::1]:81/",
            "http://[::ffff:192.168.1.1]/",
            "http://[64:ff9b::c0a8:101]/x",
            "http://somebody.duckdns.org/",
            "http://evil%2eexample/",
        ] {
            assert!(blocks(&list, url), "{url}");
        }
        for url in [
            "https://example/",
            "https://notevil.example/",
            "https://evil.example.com/",
            "https://example.com/evil.example",
            "http://192.168.1.2/",
            "http://[2001:db8::2]/",
            "http://duckdns.com/",
        ] {
            assert!(!blocks(&list, url), "{url}");
        }
        assert_eq!(list.len(), 6);
    }

    #[test]
    fn a_path_blocks_what_is_below_it_however_it_is_written() {
        let list = list("sites.example/evil/page/\nhttps://other.example/%7euser\n").unwrap();
        for url in [
            "https://sites.example/evil/page",
            "http://sites.example:81/evil/page/deeper/still?x",
            "https://sites.example//evil/./page#x",
            "https://sites.example/%65vil/pa%67e",
            "https://sites.example/%2565vil%2fpage",
            "https://sites.example/x/%252e%252e/evil/page",
            "https://sites.example/evil/page/%252e%252e",
            "https://sites.example/evil/page/%2e%2e%2f..%252f",
            "https://other.example/~user",
            "https://other.example/%7Euser/x",
        ] {
            assert!(blocks(&list, url), "{url}");
        }
        for url in [
            "https://sites.example/evil/pages",
            "https://sites.example/evil",
            "https://sites.example/Evil/page",
            "https://sites.example/?/evil/page",
            "https://www.sites.example/evil/page",
            "https://other.example/user",
        ] {
            assert!(!blocks(&list, url), "{url}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused() {
        let refused = |text: &str| list(text).unwrap_err();
        assert_eq!(refused(""), Error::Empty);
        assert_eq!(refused("# nothing\n\n"), Error::Empty);
        for text in [
            "com",
            "co.uk",
            "\u{440}\u{444}",
            "xn--p1ai",
            "localhost",
            "*.com",
        ] {
            let text = format!("evil.example\n{text}");
            assert_eq!(refused(&text), Error::PublicSuffix(2), "{text}");
        }
        for own in [
            "go.example.org",
            "example.org",
            "GO.EXAMPLE.org/",
            "192.0.2.7",
        ] {
            assert_eq!(refused(own), Error::OwnDomain(1), "{own}");
        }
        // Below another name, or below a path of ours: not the service itself.
        assert!(list("x.go.example.org\no.example.org\n").is_ok());
        let deep = format!("evil.example{}", "/a".repeat(17));
        for text in [
            "evil example",
            "evil.example:80",
            "evil.example/?q",
            "me@evil.example",
            "<html>",
            "evil..example",
            "ftp://evil.example/",
            &deep,
        ] {
            assert_eq!(refused(text), Error::Malformed(1), "{text}");
        }
    }

    #[test]
    fn a_million_entries_take_at_most_16_megabytes() {
        let mut text = String::new();
        for n in 0..1_000_000 {
            text += &format!("host-{n}.bad{}.example\n", n % 1_000);
        }
        let started = std::time::Instant::now();
        let list = list(&text).unwrap();
        let took = started.elapsed();
        assert_eq!(list.len(), 1_000_000);
        assert!(list.bytes() <= 16_000_000, "{} bytes", list.bytes());
        assert!(cfg!(debug_assertions) || took.as_secs() < 2, "{took:?}");
        assert!(blocks(&list, "https://www.host-77.bad77.example/"));
        let others = (0..10_000).map(|n| format!("https://host-{n}.good.example/"));
        assert_eq!(others.filter(|url| list.blocks(url)).count(), 0);
    }

    #[test]
    fn one_entry_too_many_is_refused() {
        let mut builder = Builder::new(SEED, []);
        builder.fingerprints = vec![0; MAX_ENTRIES];
        assert_eq!(builder.read("evil.example"), Err(Error::TooMany));
    }

    proptest! {
        /// The short way of reading a line is the parser's.
        #[test]
        fn a_host_that_is_taken_as_it_is_is_canonical(host in "[a-z0-9.x-]{1,20}\\.[a-z0-9-]{1,5}") {
            if is_plain_host(&host) {
                let url = LongUrl::parse(&format!("http://{host}"));
                let url = url.unwrap();
                prop_assert_eq!(Place::of(url.as_str()).host, &host);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}", url in "\\PC{0,40}") {
            let listed = list(&format!("evil.example/a\n{text}"));
            if let (Ok(list), Ok(url)) = (listed, LongUrl::parse(&format!("http://{url}"))) {
                let _ = list.blocks(url.as_str());
            }
        }

        #[test]
        fn what_is_listed_is_blocked(host in "[a-z]{1,8}\\.example", path in "(/[a-z%2e./]{1,9}){0,4}") {
            let entry = format!("{host}{path}");
            if let Ok(list) = list(&entry) {
                let url = format!("https://{}/deeper", entry.trim_end_matches('/'));
                prop_assert!(blocks(&list, &url));
            }
        }
    }
}
