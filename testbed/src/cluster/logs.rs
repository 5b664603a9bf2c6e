//! What the processes of a cluster wrote to their logs.

use serde_json::{Map, Value};

use super::Cluster;
use crate::error::{Doing as _, Result};

/// One line of a process of ours.
#[derive(Debug, Clone)]
pub struct Line {
    /// Who wrote it: `gateway-0`.
    pub process: String,
    pub text: String,
}

impl Line {
    /// What is wrong with it as a line of a healthy process; `None` if nothing is.
    #[must_use]
    pub fn complaint(&self) -> Option<&'static str> {
        let Ok(event) = serde_json::from_str::<Map<String, Value>>(&self.text) else {
            return Some("no JSON object");
        };
        let is_snake = |key: &String| {
            key.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let text = |key| event.get(key).and_then(Value::as_str).unwrap_or_default();
        // Written again it is as long, unless a key was there twice.
        let again = Value::from(event.clone()).to_string();
        if again.len() != self.text.len() {
            Some("a key twice, or blanks")
        } else if !event.keys().all(is_snake) {
            Some("a key that is not in snake_case")
        } else if text("timestamp").is_empty() || text("message").is_empty() {
            Some("no time or no message")
        } else if !text("target").starts_with("waypost_") {
            Some("not of ours")
        } else if text("level") != "INFO" {
            Some("trouble")
        } else {
            None
        }
    }
}

impl Cluster {
    /// Everything that processes of ours have written so far.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for service in self.services() {
            let process = service.name();
            let log = std::fs::read_to_string(self.sandbox.log(process))
                .doing(|| format!("read the log of {process}"))?;
            lines.extend(log.lines().map(|text| Line {
                process: process.to_owned(),
                text: text.to_owned(),
            }));
        }
        Ok(lines)
    }
}
