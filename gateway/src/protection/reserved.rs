//! An operator's own words that no alias may be.

use std::collections::HashSet;

use waypost_domain::Slug;
use waypost_runtime::watched::Content;

/// In small letters.
#[derive(Debug, Default)]
pub(super) struct Reserved(HashSet<String>);

impl Reserved {
    /// Reads a word a line. What could be no alias is a mistake.
    pub(super) fn read(contents: &[Content]) -> Result<Self, String> {
        let mut words = HashSet::new();
        for Content { file, bytes } in contents {
            let file = file.display();
            let text = std::str::from_utf8(bytes).map_err(|_| format!("{file} is not in UTF-8"))?;
            for (index, line) in text.lines().enumerate() {
                let word = line.split_once('#').map_or(line, |(before, _)| before);
                let word = word.trim();
                if word.is_empty() {
                    continue;
                }
                Slug::parse(word)
                    .map_err(|error| format!("{file}: line {}: {error}", index + 1))?;
                words.insert(word.to_ascii_lowercase());
            }
        }
        Ok(Self(words))
    }

    pub(super) fn contains(&self, word: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&word.to_ascii_lowercase())
    }
}
