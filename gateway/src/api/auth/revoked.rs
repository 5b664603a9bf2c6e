//! The list of what is revoked: ids of API keys, and of JWTs by their `jti`.

use std::collections::HashSet;
use std::path::Path;

use waypost_runtime::config::Invalid;
use waypost_runtime::watched::{Content, Source, Watched, Watcher};

/// A million ids of keys are 17 MiB.
const MAX_BYTES: u64 = 32 << 20;

/// Bytes of an id; a `jti` is a UUID more often than not.
const MAX_ID: usize = 256;

/// The ids that are revoked.
#[derive(Debug, Default)]
pub(super) struct Revoked(HashSet<Box<str>>);

impl Revoked {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.contains(id)
    }
}

/// Reads the list and goes on watching it.
pub(super) fn watch(file: &Path, watcher: &Watcher) -> Result<Watched<Revoked>, Invalid> {
    let source = Source {
        option: "--revoked-keys",
        name: "revoked-keys",
        files: vec![file.to_owned()],
        max_bytes: MAX_BYTES,
    };
    watcher.watch(source, |contents: &[Content]| parse(&contents[0].bytes))
}

/// Whether a list can hold this id: it is one word of visible ASCII, and no comment.
#[must_use]
pub fn is_revocable(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(is_plain) && !id.starts_with('#')
}

/// One id a line; blank lines and lines that start with `#` are passed over.
///
/// A line of anything else makes the whole list unreadable: half of a list would let
/// in what the other half revokes.
fn parse(bytes: &[u8]) -> Result<Revoked, String> {
    let text = str::from_utf8(bytes).map_err(|_| "the list is not UTF-8".to_owned())?;
    text.lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, id)| {
            if !is_revocable(id) {
                return Err(format!("line {} is not one id", index + 1));
            }
            Ok(Box::from(id))
        })
        .collect::<Result<_, _>>()
        .map(Revoked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_an_id_a_line_and_comments() {
        let list = parse(b"# Lost laptop, 2026-11-25\n00010203fcfdfeff\n\n  jti:7 \r\n").unwrap();
        assert!(list.contains("00010203fcfdfeff") && list.contains("jti:7"));
        assert!(!list.contains("# Lost laptop, 2026-11-25") && !list.contains(""));
        assert!(!parse(b"").unwrap().contains("jti:7"));
    }

    #[test]
    fn a_line_that_is_no_id_spoils_the_list() {
        assert_eq!(parse(b"a\nb c\n").unwrap_err(), "line 2 is not one id");
        assert!(parse(b"\xff\n").is_err());
        assert!(parse("x".repeat(257).as_bytes()).is_err());
    }
}
