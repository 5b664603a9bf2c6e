//! `waypost keys`: makes, lists and revokes API keys, for this instance or, with the
//! folder of its secrets, for a cluster.

mod registry;
mod revocations;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::ArgGroup;
use waypost_domain::api_key::{self, ApiKey, KeyId};
use waypost_domain::{Scope, Scopes, Tenant, Timestamp};
use waypost_gateway::api::auth::is_revocable;
use waypost_runtime::config::Invalid;
use waypost_runtime::{Error, secrets};

use self::registry::Record;
pub(crate) use self::registry::Registry;
pub(crate) use self::revocations::Revocations;
use crate::secrets::{Secrets, TENANT};

/// The secret that keys are signed with.
pub(crate) const SECRET: &str = "api-key-mac";

/// The list of revoked ids, in the folder of the secrets unless an option says other.
pub(crate) const REVOKED_LIST: &str = "revoked-keys";

/// A key is to be replaced some day: nobody knows who has seen it by then.
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

/// Bytes of a key's name.
const MAX_NAME: usize = 100;

/// What `waypost keys` is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Keys {
    /// Folder with a cluster's secrets, to make keys for that cluster; none: the keys
    /// are of the instance in the data folder
    #[arg(
        long,
        env = "WAYPOST_SECRETS_DIR",
        value_name = "FOLDER",
        global = true
    )]
    secrets_dir: Option<PathBuf>,

    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// Print a new key, once: Authorization: Bearer <key>
    #[command(group = ArgGroup::new("allows").required(true))]
    Create {
        /// Whose links the key is for
        #[arg(long, default_value = TENANT, value_name = "NAME", value_parser = tenant)]
        tenant: Tenant,

        /// What the key allows, separated by commas: links:write, links:read, stats:read,
        /// links:takedown
        #[arg(long, group = "allows", value_name = "SCOPE,..", value_parser = scopes)]
        scopes: Option<Scopes>,

        /// Allow everything
        #[arg(long, group = "allows")]
        admin: bool,

        /// How long the key is valid: a number with s, m, h, d, w or y; at most 10y
        #[arg(long, default_value = "365d", value_name = "TIME", value_parser = span)]
        expires: Duration,

        /// What the key is for, to be found in the list
        #[arg(long, value_name = "TEXT", value_parser = name)]
        name: Option<String>,
    },

    /// List the keys that were made; never the keys themselves
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },

    /// Put a key onto the list of revoked ones
    Revoke {
        /// As `waypost keys list` shows it
        id: String,

        /// The id is the jti of a JWT
        #[arg(long)]
        jti: bool,

        /// The list to put it onto; by default revoked-keys beside the secrets
        #[arg(long, env = "WAYPOST_REVOKED_KEYS", value_name = "FILE")]
        revoked_keys: Option<PathBuf>,
    },
}

impl Keys {
    /// Does it. `revoked_keys` is the list that the instance's options name.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or there is no such key.
    pub(crate) fn run(&self, data: &Path, revoked_keys: Option<&Path>) -> Result<(), Error> {
        let folder = match &self.secrets_dir {
            Some(folder) => folder.clone(),
            None => Secrets::open(data)?.folder().to_owned(),
        };
        match &self.action {
            Action::Create {
                tenant,
                scopes,
                admin: _,
                expires,
                name,
            } => {
                let key = ApiKey {
                    id: random_id()?,
                    tenant: tenant.clone(),
                    scopes: scopes.unwrap_or_else(|| Scope::ALL.into_iter().collect()),
                    expires: in_whole_seconds(now().after(*expires)),
                };
                create(&folder, &key, name.clone())
            }
            Action::List { json } => list(&folder, *json),
            Action::Revoke {
                id,
                jti,
                revoked_keys: own,
            } => {
                let list = own.as_deref().or(revoked_keys);
                let list = list.map_or_else(|| folder.join(REVOKED_LIST), Path::to_owned);
                revoke(&folder, &list, id, *jti)
            }
        }
    }
}

/// Notes the key down before it is shown: none is out there that the list lacks.
fn create(folder: &Path, key: &ApiKey, name: Option<String>) -> Result<(), Error> {
    let secrets = api_key::Secrets::parse(&secrets::read(folder, SECRET)?)
        .map_err(|problem| secrets::malformed(SECRET, problem))?;
    Registry::in_folder(folder)
        .add(Record::new(key, name, now()))
        .map_err(|error| Error::failed("note the key down", error))?;
    eprintln!(
        "Key {} of tenant {}: {}; valid until {}. It is shown this once:",
        key.id, key.tenant, key.scopes, key.expires
    );
    println!("{}", secrets.token(key));
    Ok(())
}

fn list(folder: &Path, as_json: bool) -> Result<(), Error> {
    let records = Registry::in_folder(folder).records();
    let records = records.map_err(|error| Error::failed("read the list of keys", error))?;
    if as_json {
        for record in &records {
            println!("{}", record.to_json());
        }
        return Ok(());
    }
    println!(
        "{:16}  {:20}  {:9}  {:10}  {:40}  NAME",
        "ID", "TENANT", "STATE", "EXPIRES", "SCOPES"
    );
    let now = now();
    for record in &records {
        println!(
            "{:16}  {:20}  {:9}  {:.10}  {:40}  {}",
            record.id,
            record.tenant,
            record.state(now),
            record.expires,
            record.scopes.join(" "),
            record.name.as_deref().unwrap_or_default()
        );
    }
    Ok(())
}

/// The list first: it is what counts, and a second try mends the rest.
fn revoke(folder: &Path, list: &Path, id: &str, is_jti: bool) -> Result<(), Error> {
    let registry = Registry::in_folder(folder);
    // One line that is no id would make servers refuse the whole list.
    if !is_revocable(id) {
        let problem =
            "an id is 1 to 256 visible ASCII characters without spaces, not beginning with #";
        return Err(Error::failed(format!("revoke {id:?}"), problem));
    }
    if !is_jti {
        let records = registry.records();
        let records = records.map_err(|error| Error::failed("read the list of keys", error))?;
        if !records.iter().any(|record| record.id == id) {
            let problem = "no key here has this id (of a JWT, revoke the jti with --jti)";
            return Err(Error::failed(format!("revoke {id}"), problem));
        }
    }
    Revocations::in_file(list)
        .add(id, now())
        .map_err(|error| Error::failed(format!("write {}", list.display()), error))?;
    registry
        .mark_revoked(id, now())
        .map_err(|error| Error::failed("note it down", error))?;
    eprintln!(
        "{id} is on the list {}. A server that watches this file refuses it within 5 seconds.",
        list.display()
    );
    Ok(())
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

fn in_whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.millis() / 1_000 * 1_000).expect("it was one before it was cut")
}

fn random_id() -> Result<KeyId, Error> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| Error::failed("draw an id", error.to_string()))?;
    Ok(KeyId(id))
}

fn tenant(text: &str) -> Result<Tenant, String> {
    Tenant::parse(text).ok_or_else(|| "expected 1 to 64 printable bytes".to_owned())
}

fn scopes(text: &str) -> Result<Scopes, String> {
    text.split(',')
        .map(|name| Scope::parse(name).ok_or_else(|| format!("there is no scope \"{name}\"")))
        .collect()
}

fn name(text: &str) -> Result<String, String> {
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("expected at most {MAX_NAME} printable bytes"));
    }
    Ok(text.to_owned())
}

fn span(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with s, m, h, d, w or y, from 1s to 10y".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    let span = number.checked_mul(seconds).map(Duration::from_secs);
    span.filter(|span| (Duration::from_secs(1)..=LONGEST).contains(span))
        .ok_or_else(expected)
}

/// The error for a file of ours that does not read as one.
fn damaged(file: &Path, line: usize) -> std::io::Error {
    std::io::Error::other(format!("line {line} of {} is damaged", file.display()))
}

/// Writes a file so that it appears whole or not at all.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // Behind a link, as what is behind it is what others read.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let mut writer = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    if let Ok(before) = std::fs::metadata(&file) {
        writer.set_permissions(before.permissions())?;
    }
    writer.write_all(text.as_bytes())?;
    writer.sync_all()?;
    std::fs::rename(&draft, &file)
}

/// For the configuration, whose errors name options.
pub(crate) fn unwritable(file: &Path, error: &std::io::Error) -> Invalid {
    Invalid {
        option: "--data-dir",
        problem: format!("cannot keep {}: {error}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_ends_within_ten_years() {
        assert_eq!(span("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(span("10y"), Ok(LONGEST));
        for text in [
            "",
            "d",
            "90",
            "0d",
            "-1d",
            "11y",
            "1.5h",
            "9é",
            "99999999999999999999y",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
