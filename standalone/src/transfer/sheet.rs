//! Links on their way into a file.

use std::io::{self, Write};

use serde_json::Value;

use super::Format;

/// The columns of CSV: what the API says of a link, but its version.
const COLUMNS: [&str; 15] = [
    "slug",
    "shortUrl",
    "longUrl",
    "redirectStatus",
    "state",
    "blockedBy",
    "createdAt",
    "updatedAt",
    "validSince",
    "validUntil",
    "maxVisits",
    "title",
    "tags",
    "forwardQuery",
    "hasPassword",
];

/// A file that is being written.
#[derive(Debug)]
pub(super) enum Sheet<W: Write> {
    /// Each link as the API gives it.
    Jsonl(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Sheet<W> {
    pub(super) fn new(out: W, format: Format) -> Self {
        match format {
            Format::Jsonl => Self::Jsonl(out),
            Format::Csv => Self::Csv(Box::new(csv::Writer::from_writer(out))),
        }
    }

    pub(super) fn begin(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(_) => Ok(()),
            Self::Csv(writer) => Ok(writer.write_record(COLUMNS)?),
        }
    }

    pub(super) fn write(&mut self, link: &Value) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => writeln!(out, "{link}"),
            Self::Csv(writer) => Ok(writer.write_record(COLUMNS.map(|name| cell(&link[name])))?),
        }
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => out.flush(),
            Self::Csv(writer) => writer.flush(),
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(tags) => join(tags),
        other => other.to_string(),
    }
}

/// Tags with commas between them, or as JSON where one of them would be read otherwise.
fn join(tags: &[Value]) -> String {
    let texts: Vec<&str> = tags.iter().filter_map(Value::as_str).collect();
    let plain = |text: &&str| !text.contains([',', '|', '[']) && text.trim() == *text;
    if texts.iter().all(plain) {
        texts.join(",")
    } else {
        Value::from(texts).to_string()
    }
}
