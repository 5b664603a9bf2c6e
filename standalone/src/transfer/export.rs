//! A tenant's links, page by page.

use std::fmt;
use std::io::Write;

use http::Method;
use serde_json::Value;

use super::Stop;
use super::client::{Api, Call};
use super::sheet::Sheet;

/// The most links of a page that the API gives.
const PAGE: usize = 100;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Exported {
    links: u64,
    with_password: u64,
}

/// Writes every link that is there from beginning to end. One that is made or deleted
/// meanwhile may be in it or not.
pub(super) async fn export(api: &Api, sheet: &mut Sheet<impl Write>) -> Result<Exported, Stop> {
    let mut exported = Exported::default();
    let mut cursor = None;
    sheet.begin()?;
    loop {
        let (links, next) = page(api, cursor.as_deref()).await?;
        for link in &links {
            sheet.write(link)?;
            exported.links += 1;
            exported.with_password += u64::from(link["hasPassword"] == true);
        }
        if next.is_none() {
            break;
        }
        if next == cursor {
            return Err(Stop::Strange("its list does not go on"));
        }
        cursor = next;
    }
    sheet.end()?;
    Ok(exported)
}

async fn page(api: &Api, cursor: Option<&str>) -> Result<(Vec<Value>, Option<String>), Stop> {
    let mut path = format!("/api/v1/links?limit={PAGE}");
    if let Some(cursor) = cursor {
        path.push_str("&cursor=");
        path.push_str(cursor);
    }
    let call = Call {
        method: Method::GET,
        path,
        body: None,
        idempotency_key: None,
    };
    let mut answer = api.ask(&call).await?;
    if answer.status != 200 {
        return Err(answer.stop());
    }
    let next = match &answer.body["nextCursor"] {
        Value::Null => None,
        // It goes into a URL as it is.
        Value::String(next) if next.bytes().all(is_of_url) => Some(next.clone()),
        _ => return Err(Stop::Strange("its cursor is none")),
    };
    match answer.body["links"].take() {
        Value::Array(links) => Ok((links, next)),
        _ => Err(Stop::Strange("it lists no links")),
    }
}

fn is_of_url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} links exported", self.links)?;
        if self.with_password > 0 {
            write!(
                f,
                "; {} have a password, which nobody can read: put it into the file before it is \
                 imported",
                self.with_password
            )?;
        }
        Ok(())
    }
}
