//! The links of a file, created one by one, some at a time.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::time::SystemTime;

use futures_util::{StreamExt as _, stream};
use http::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use waypost_domain::Timestamp;

use super::Stop;
use super::client::{Answer, Api, Call};
use super::new_link::{NewLink, Unwanted, Wanted, note_unknown};
use super::rows::{Row, Rows};

/// Creates under way at once: the server commits them together, and each of them has a key
/// of its own, which a batch's items have not.
const AT_ONCE: usize = 32;

/// Names of unknown columns that are told.
const MOST_UNKNOWN: usize = 20;

/// What became of the rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    created: u64,
    existing: u64,
    ended: u64,
    pub(super) refused: u64,
    unknown: BTreeSet<String>,
}

/// What became of a row.
enum Outcome {
    Created,
    Existing,
    Ended,
    Refused { code: String, detail: String },
}

/// Creates every link, and says at once on standard error which was refused.
pub(super) async fn import(api: &Api, mut rows: Rows, report: &mut Report) -> Result<(), Stop> {
    let unknown = &mut report.unknown;
    let rows = std::iter::from_fn(|| {
        let row = rows.next().transpose()?;
        if let Ok(Row {
            fields: Ok(fields), ..
        }) = &row
        {
            note_unknown(fields, MOST_UNKNOWN, unknown);
        }
        Some(row)
    });
    let mut outcomes = std::pin::pin!(
        stream::iter(rows)
            .map(|row| async move {
                let row = row?;
                Ok::<_, Stop>((row.line, one(api, row).await?))
            })
            .buffered(AT_ONCE)
    );
    while let Some(outcome) = outcomes.next().await {
        let (line, outcome) = outcome?;
        match outcome {
            Outcome::Created => report.created += 1,
            Outcome::Existing => report.existing += 1,
            Outcome::Ended => report.ended += 1,
            Outcome::Refused { code, detail } => {
                report.refused += 1;
                eprintln!("line {line}: {code}: {detail}");
            }
        }
    }
    Ok(())
}

async fn one(api: &Api, row: Row) -> Result<Outcome, Stop> {
    let now = Timestamp::from(SystemTime::now());
    let wanted = match row.fields {
        Ok(fields) => Wanted::of(fields, now),
        Err(detail) => Err(Unwanted::Refused {
            code: "row_malformed".to_owned(),
            detail,
        }),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(Unwanted::Ended) => return Ok(Outcome::Ended),
        Err(Unwanted::Refused { code, detail }) => return Ok(Outcome::Refused { code, detail }),
    };
    let answer = api.ask(&create(&wanted.link)).await?;
    let outcome = match answer.status {
        201 => Outcome::Created,
        200 => Outcome::Existing,
        _ => return refused(&answer),
    };
    if wanted.disabled {
        // A create makes links that are on: for as long as this takes, it leads somewhere.
        let Value::String(slug) = &answer.body["slug"] else {
            return Err(Stop::Strange("its link has no slug"));
        };
        let switched = api.ask(&disable(slug)).await?;
        if switched.status != 200 {
            return refused(&switched);
        }
    }
    Ok(outcome)
}

/// Who may not create one link may create none.
fn refused(answer: &Answer) -> Result<Outcome, Stop> {
    if !(400..500).contains(&answer.status) || matches!(answer.status, 401 | 403) {
        return Err(answer.stop());
    }
    let (code, detail) = answer.problem();
    if code.is_empty() {
        return Err(Stop::Strange("it refuses without a code"));
    }
    Ok(Outcome::Refused { code, detail })
}

/// The key is what is asked for, wherever in the file: so a row is found again after rows
/// before it were mended or removed, and one without a slug that is there twice is one link.
fn create(link: &NewLink) -> Call {
    let body = serde_json::to_vec(link).expect("texts and numbers are JSON");
    let mut key = String::from("import-");
    for byte in Sha256::digest(&body) {
        write!(key, "{byte:02x}").expect("a string takes any text");
    }
    Call {
        method: Method::POST,
        path: "/api/v1/links".to_owned(),
        body: Some(body.into()),
        idempotency_key: Some(key),
    }
}

fn disable(slug: &str) -> Call {
    Call {
        method: Method::POST,
        path: format!("/api/v1/links/{slug}/disable"),
        body: None,
        idempotency_key: None,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} created, {} existing, {} refused",
            self.created, self.existing, self.refused
        )?;
        if self.ended > 0 {
            write!(f, "; {} left out, since they have ended", self.ended)?;
        }
        if !self.unknown.is_empty() {
            let names: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
            write!(f, "\nnot read: {}", names.join(", "))?;
        }
        Ok(())
    }
}
