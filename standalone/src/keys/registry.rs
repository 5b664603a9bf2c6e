//! What is known of the keys that were made: one JSON object a line, in a file beside
//! the secrets. The keys themselves are in no file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use waypost_domain::Timestamp;
use waypost_domain::api_key::ApiKey;

use super::{damaged, write_whole};

/// One key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) created: String,
    pub(crate) expires: String,
    pub(crate) revoked: Option<String>,
}

impl Record {
    pub(crate) fn new(key: &ApiKey, name: Option<String>, now: Timestamp) -> Self {
        Self {
            id: key.id.to_string(),
            tenant: key.tenant.to_string(),
            scopes: key
                .scopes
                .iter()
                .map(|scope| scope.name().to_owned())
                .collect(),
            name,
            created: now.to_string(),
            expires: key.expires.to_string(),
            revoked: None,
        }
    }

    pub(crate) fn state(&self, now: Timestamp) -> &'static str {
        if self.revoked.is_some() {
            "revoked"
        } else if Timestamp::parse(&self.expires).is_some_and(|expires| expires <= now) {
            "expired"
        } else {
            "valid"
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts are JSON")
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Registry {
    file: PathBuf,
}

impl Registry {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            file: folder.join("api-keys.jsonl"),
        }
    }

    /// The oldest first.
    ///
    /// # Errors
    /// If the file cannot be read, or is not one of ours.
    pub(crate) fn records(&self) -> io::Result<Vec<Record>> {
        let text = match std::fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        text.lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|_| damaged(&self.file, index + 1))
            })
            .collect()
    }

    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn add(&self, record: Record) -> io::Result<()> {
        self.change(|records| records.push(record))
    }

    /// Notes down that a key was revoked, unless it was before; what is no key of the
    /// list is passed over.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn mark_revoked(&self, id: &str, now: Timestamp) -> io::Result<()> {
        self.change(|records| {
            for record in records.iter_mut().filter(|record| record.id == id) {
                record.revoked.get_or_insert_with(|| now.to_string());
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Record>)) -> io::Result<()> {
        // Two at a time would each write what the other has not read.
        let lock = File::create(self.file.with_extension("lock"))?;
        lock.lock()?;
        let mut records = self.records()?;
        change(&mut records);
        let text: String = records
            .iter()
            .map(|record| record.to_json() + "\n")
            .collect();
        write_whole(&self.file, &text)
    }
}
