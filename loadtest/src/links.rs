//! The links a run asks for, kept close together: a million of them are one
//! string and one table, so that picking one costs a cache miss or two and
//! does not disturb what is measured on the same machine.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

/// Slugs, each with its destination where that is known.
#[derive(Debug, Default)]
pub struct Links {
    text: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    start: usize,
    slug_len: u16,
    /// 0: unknown.
    long_url_len: u16,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    /// What is asked for.
    pub slug: &'a str,
    /// Where it leads, if known: then every redirect is checked against it.
    pub long_url: Option<&'a str>,
}

/// Why a file of links cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("open, read or write the file of links")]
    Io(#[from] std::io::Error),
    /// A line that is no link.
    #[error(
        "read line {0} of the links: expected a slug of up to 64 characters of [0-9A-Za-z_-], \
         then optionally a tab and the destination"
    )]
    Line(usize),
    /// No lines.
    #[error("find a link in the file of links: it is empty")]
    Empty,
}

impl Links {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The link at a place below [`Links::len`].
    #[must_use]
    pub fn at(&self, index: usize) -> Link<'_> {
        let entry = &self.entries[index];
        let slug_end = entry.start + usize::from(entry.slug_len);
        let url_end = slug_end + usize::from(entry.long_url_len);
        Link {
            slug: &self.text[entry.start..slug_end],
            long_url: (entry.long_url_len > 0).then(|| &self.text[slug_end..url_end]),
        }
    }

    /// Adds a link; `None` when it is not one (see [`Error::Line`]).
    pub fn push(&mut self, slug: &str, long_url: Option<&str>) -> Option<()> {
        let valid = (1..=64).contains(&slug.len())
            && slug
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if !valid {
            return None;
        }
        let long_url = long_url.unwrap_or_default();
        self.entries.push(Entry {
            start: self.text.len(),
            slug_len: u16::try_from(slug.len()).ok()?,
            long_url_len: u16::try_from(long_url.len()).ok()?,
        });
        self.text.push_str(slug);
        self.text.push_str(long_url);
        Some(())
    }

    /// Puts them into a random order. Popularity follows the order, and links
    /// made one after the other may share a shard; without this the hottest
    /// links would all be neighbours.
    pub fn shuffle(&mut self, rng: &mut fastrand::Rng) {
        rng.shuffle(&mut self.entries);
    }

    /// Reads a file of lines `slug` or `slug<TAB>destination`.
    ///
    /// # Errors
    /// When it cannot be read, is empty or a line is malformed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut links = Self::default();
        for (number, line) in BufReader::new(File::open(path)?).lines().enumerate() {
            let line = line?;
            let (slug, long_url) = match line.split_once('\t') {
                Some((slug, long_url)) => (slug, Some(long_url)),
                None => (line.as_str(), None),
            };
            links.push(slug, long_url).ok_or(Error::Line(number + 1))?;
        }
        if links.is_empty() {
            return Err(Error::Empty);
        }
        Ok(links)
    }

    /// Writes what [`Links::read`] reads.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut file = BufWriter::new(File::create(path)?);
        for index in 0..self.len() {
            let link = self.at(index);
            match link.long_url {
                Some(long_url) => writeln!(file, "{}\t{long_url}", link.slug)?,
                None => writeln!(file, "{}", link.slug)?,
            }
        }
        Ok(file.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_back_as_they_were_written() {
        let mut links = Links::default();
        links.push("abc", Some("https://example.com/1")).unwrap();
        links.push("d-_Z", None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links");
        links.write(&path).unwrap();
        let read = Links::read(&path).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.at(0).long_url, Some("https://example.com/1"));
        assert_eq!(read.at(1).slug, "d-_Z");
        assert_eq!(read.at(1).long_url, None);
    }

    #[test]
    fn a_malformed_line_is_named_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("links");
        std::fs::write(&path, "abc\nno slug\n").unwrap();
        assert!(matches!(Links::read(&path), Err(Error::Line(2))));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(Links::read(&path), Err(Error::Empty)));
    }

    #[test]
    fn shuffling_keeps_each_slug_with_its_destination() {
        let mut links = Links::default();
        for k in 0..100 {
            links
                .push(&format!("s{k}"), Some(&format!("u{k}")))
                .unwrap();
        }
        links.shuffle(&mut fastrand::Rng::with_seed(1));
        assert_ne!(links.at(0).slug, "s0");
        for k in 0..100 {
            let link = links.at(k);
            assert_eq!(link.slug[1..], link.long_url.unwrap()[1..]);
        }
    }
}
