//! From a row, ours or of whoever shortened these links before, to what is asked of the API.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use waypost_domain::Timestamp;

/// The names of each field, the first of which that a row has is taken. Case, spaces and
/// signs in names do not matter.
const SLUG: &[&str] = &[
    "slug",
    "alias",
    "short",
    "shortcode",
    "keyword",
    "key",
    "backhalf",
    "shorturl",
    "shortlink",
    "bitlink",
];
const LONG_URL: &[&str] = &[
    "longurl",
    "url",
    "target",
    "destination",
    "destinationurl",
    "originalurl",
    "longlink",
];
const TITLE: &[&str] = &["title", "name"];
const TAGS: &[&str] = &["tags", "tag"];
const VALID_SINCE: &[&str] = &["validsince", "startsat"];
const VALID_UNTIL: &[&str] = &["validuntil", "expiresat", "expires", "expirationdate"];
const MAX_VISITS: &[&str] = &["maxvisits", "maxclicks"];
const REDIRECT_STATUS: &[&str] = &["redirectstatus"];
const FORWARD_QUERY: &[&str] = &["forwardquery"];
const PASSWORD: &[&str] = &["password"];
const STATE: &[&str] = &["state"];
const HAS_PASSWORD: &[&str] = &["haspassword"];

/// What an export says of a link and no create can ask for.
const READ_ONLY: &[&str] = &["createdat", "updatedat", "version", "blockedby"];

const KNOWN: [&[&str]; 13] = [
    SLUG,
    LONG_URL,
    TITLE,
    TAGS,
    VALID_SINCE,
    VALID_UNTIL,
    MAX_VISITS,
    REDIRECT_STATUS,
    FORWARD_QUERY,
    PASSWORD,
    STATE,
    HAS_PASSWORD,
    READ_ONLY,
];

/// The body of a create. The order of its fields is part of its key (see `import`).
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewLink {
    long_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_since: Option<String>,
    /// `null` where the file says that it never ends, whatever the server's default is.
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_visits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect_status: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    forward_query: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// An alias that leads the same way already is as good.
    find_if_exists: bool,
}

/// What a row asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) link: NewLink,
    pub(super) disabled: bool,
}

/// Why a row makes no link.
#[derive(Debug, PartialEq)]
pub(super) enum Unwanted {
    /// It has ended, or ends now.
    Ended,
    Refused {
        code: String,
        detail: String,
    },
}

impl Wanted {
    pub(super) fn of(fields: Vec<(String, Value)>, now: Timestamp) -> Result<Self, Unwanted> {
        let fields = Fields::new(fields);
        let alias = fields.text(SLUG)?.as_deref().map(last_segment);
        let valid_until = match fields.first(VALID_UNTIL) {
            Some(_) => Some(fields.text(VALID_UNTIL)?),
            None => None,
        };
        let ends = valid_until
            .iter()
            .flatten()
            .find_map(|at| Timestamp::parse(at));
        if ends.is_some_and(|ends| ends <= now) {
            return Err(Unwanted::Ended);
        }
        let disabled = match fields.text(STATE)?.as_deref() {
            None | Some("active") => false,
            Some("disabled") => true,
            Some("blocked") => {
                return Err(refused("link_blocked", "It was taken down where it was."));
            }
            Some(_) => return Err(invalid("state is active, disabled or blocked.")),
        };
        let password = fields.text(PASSWORD)?;
        if password.is_none() && fields.truth(HAS_PASSWORD)? {
            return Err(refused(
                "password_missing",
                "It had a password, without which it would be open to all. Add a password, or set \
                 hasPassword to false.",
            ));
        }
        let link = NewLink {
            long_url: fields
                .text(LONG_URL)?
                .ok_or_else(|| invalid("It has no longUrl."))?,
            find_if_exists: alias.is_some(),
            alias,
            valid_since: fields.text(VALID_SINCE)?,
            valid_until,
            max_visits: fields.number(MAX_VISITS)?,
            redirect_status: fields.number(REDIRECT_STATUS)?,
            title: fields.text(TITLE)?,
            tags: fields.tags()?,
            forward_query: fields.truth(FORWARD_QUERY)?,
            password,
        };
        Ok(Self { link, disabled })
    }
}

/// Notes names that say nothing to us.
pub(super) fn note_unknown(
    fields: &[(String, Value)],
    most: usize,
    unknown: &mut BTreeSet<String>,
) {
    for (name, _) in fields {
        let plain = plain(name);
        let known = KNOWN.iter().any(|names| names.contains(&&*plain));
        if !known && unknown.len() < most {
            unknown.insert(name.clone());
        }
    }
}

/// Of a short URL, its slug.
fn last_segment(slug: &str) -> String {
    let end = slug.trim_end_matches('/');
    end.rsplit_once('/')
        .map_or(end, |(_, segment)| segment)
        .to_owned()
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn refused(code: &str, detail: &str) -> Unwanted {
    Unwanted::Refused {
        code: code.to_owned(),
        detail: detail.to_owned(),
    }
}

fn invalid(detail: &str) -> Unwanted {
    refused("row_invalid", detail)
}

/// A row's fields by their plain names.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn new(fields: Vec<(String, Value)>) -> Self {
        let named = fields.into_iter();
        Self(named.map(|(name, value)| (plain(&name), value)).collect())
    }

    /// The first that says something, else one that is empty, else none.
    fn first(&self, names: &[&str]) -> Option<&Value> {
        let named = |name: &&str| self.0.iter().find(|(given, _)| given == name);
        let mut found = names.iter().filter_map(named).map(|(_, value)| value);
        let first = found.next()?;
        Some(if is_empty(first) {
            found.find(|value| !is_empty(value)).unwrap_or(first)
        } else {
            first
        })
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>, Unwanted> {
        match self.first(names) {
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            None | Some(Value::Null | Value::String(_)) => Ok(None),
            Some(_) => Err(invalid(&format!("{} is a text.", names[0]))),
        }
    }

    fn number(&self, names: &[&str]) -> Result<Option<u64>, Unwanted> {
        let text = self.text(names)?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|_| invalid(&format!("{} is a whole number.", names[0])))
    }

    fn truth(&self, names: &[&str]) -> Result<bool, Unwanted> {
        let no_truth = || invalid(&format!("{} is true or false.", names[0]));
        match self.first(names) {
            Some(Value::Bool(truth)) => Ok(*truth),
            None | Some(Value::Null) => Ok(false),
            Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(true),
                "" | "false" | "no" | "0" => Ok(false),
                _ => Err(no_truth()),
            },
            Some(_) => Err(no_truth()),
        }
    }

    /// A list, or a text: of a list as JSON, or with commas or bars between them.
    fn tags(&self) -> Result<Vec<String>, Unwanted> {
        let no_tags = || invalid("tags is a list of texts.");
        let list = match self.first(TAGS) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::String(text)) if text.starts_with('[') => {
                serde_json::from_str(text).map_err(|_| no_tags())?
            }
            Some(Value::String(text)) => {
                let tags = text.split([',', '|']).map(str::trim);
                return Ok(tags
                    .filter(|tag| !tag.is_empty())
                    .map(str::to_owned)
                    .collect());
            }
            Some(list) => list.clone(),
        };
        serde_json::from_value(list).map_err(|_| no_tags())
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(row: Value) -> Result<Wanted, Unwanted> {
        let Value::Object(fields) = row else {
            panic!("no object");
        };
        let now = Timestamp::parse("2026-11-25T00:00:00Z").unwrap();
        Wanted::of(fields.into_iter().collect(), now)
    }

    #[test]
    fn what_other_shorteners_call_a_field_is_understood() {
        let ours = wanted(json!({ "slug": "abcd", "longUrl": "https://example.com/",
                                  "title": "T", "tags": ["a", "b"] }));
        for theirs in [
            json!({ "Short URL": "https://bit.ly/abcd", "Long URL": "https://example.com/",
                    "Title": "T", "Tags": "a|b" }),
            json!({ "alias": "abcd", "target": "https://example.com/", "name": "T",
                    "tags": "a, b", "clicks": 7 }),
            json!({ "slug": "", "short_link": "https://dub.sh/abcd/",
                    "url": "https://example.com/", "title": "T", "tags": "[\"a\",\"b\"]" }),
        ] {
            assert_eq!(wanted(theirs.clone()), ours, "{theirs}");
        }
    }

    #[test]
    fn a_link_that_was_closed_or_has_ended_is_not_opened() {
        let code = |row: Value| match wanted(row) {
            Err(Unwanted::Refused { code, .. }) => code,
            other => format!("{other:?}"),
        };
        let url = "https://example.com/";
        assert_eq!(
            code(json!({ "url": url, "hasPassword": "true" })),
            "password_missing"
        );
        assert_eq!(
            code(json!({ "url": url, "state": "blocked" })),
            "link_blocked"
        );
        assert_eq!(code(json!({ "url": url, "state": "other" })), "row_invalid");
        let ended = json!({ "url": url, "validUntil": "2026-11-25T00:00:00Z" });
        assert_eq!(wanted(ended), Err(Unwanted::Ended));
        assert!(wanted(json!({ "url": url, "hasPassword": true, "password": "p" })).is_ok());
        assert!(
            wanted(json!({ "url": url, "state": "disabled" }))
                .unwrap()
                .disabled
        );
    }
}
