//! Everything out of a data folder, while nobody else uses it.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use waypost_analytics_consumer::store::SqliteRollups;
use waypost_domain::mint::Mint;
use waypost_domain::signature::KeyRing;
use waypost_domain::{Epoch, LinkKey};
use waypost_gateway::clicks::{self, Clicks, Flushed};
use waypost_keygen::store::SqliteCounters;
use waypost_proto::analytics::Rollup;
use waypost_runtime::config::Invalid;
use waypost_runtime::metrics::Registry;
use waypost_runtime::{Error, secrets};
use waypost_shard_node::store::sqlite::{SqliteSession, SqliteStore};
use waypost_shard_node::store::{Exported, LinkStore as _, Purpose, Session as _};

use super::Names;
use super::file::{Counts, Writer};
use crate::secrets::Secrets;
use crate::serve::{self, CountedHere};

/// Rows read at a time.
const PAGE: u32 = 256;

/// For the clicks that wait to be counted: a spool of 1 GiB takes some minutes.
const COUNTING: Duration = Duration::from_secs(1_800);

/// Of the spool: only a running server drops clicks to stay below a bound.
const NO_BOUND: u64 = 1 << 60;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    counts: Counts,
    /// Links that are left out: their rows are not as the instance wrote them.
    pub(super) damaged: Names,
}

/// Counts the clicks that wait, and writes everything.
pub(super) async fn export(data: &Path, out: impl Write) -> Result<Written, Error> {
    if !data.join("links.db").is_file() {
        return Err(Error::Config(Invalid {
            option: "--data-dir",
            problem: format!("{} is no data folder of waypost", data.display()),
        }));
    }
    serve::refuse_half_a_restore(data)?;
    let _only_one = serve::lock(data).map_err(|invalid| Invalid {
        problem: format!("{}; stop waypost first", invalid.problem),
        ..invalid
    })?;
    let secrets = Secrets::open(data)?;
    count_clicks(data, &secrets).await?;

    let mint = Mint::new(&serve::key(&secrets, "slug-key")?);
    let unwritable = |error: io::Error| Error::failed(format!("write the export: {error}"), error);
    let mut links = Links::open(data, &secrets).await?;
    let epoch = links.epoch().await?;
    let mut writer = Writer::begin(out, mint.fingerprint(), epoch).map_err(unwritable)?;

    let counters = SqliteCounters::open(&data.join("keys.db")).await;
    let counters = counters.map_err(|error| Error::failed("open the counters of slugs", error))?;
    let counters = counters.every().await;
    let counters = counters.map_err(|error| Error::failed("read the counters of slugs", error))?;
    for (prefix, next) in counters {
        writer.counter(prefix, next).map_err(unwritable)?;
    }

    let mut damaged = Names::default();
    while let Some(page) = links.next().await? {
        damaged.add_some(page.damaged, &page.first_damaged);
        for row in page.rows {
            writer.link(&row.into()).map_err(unwritable)?;
        }
    }

    let rollups = SqliteRollups::open(&data.join("clicks.db")).await;
    let rollups = rollups.map_err(|error| Error::failed("open the statistics", error))?;
    let mut rows = rollups.rows();
    while let Some(row) = rows.next().await {
        let row = row.map_err(|error| Error::failed("read the statistics", error))?;
        let rollup = Rollup { row: Some(row) };
        writer.rollup(&rollup).map_err(unwritable)?;
    }
    let counts = writer.end().map_err(unwritable)?;
    Ok(Written { counts, damaged })
}

/// The links of a folder, page by page.
struct Links {
    session: SqliteSession,
    after: Option<LinkKey>,
    is_last: bool,
}

impl Links {
    async fn open(data: &Path, secrets: &Secrets) -> Result<Self, Error> {
        let key_ring = KeyRing::parse(&secrets.read("link-mac")?)
            .map_err(|problem| secrets::malformed("link-mac", &problem))?;
        let store = SqliteStore::open(&data.join("links.db"), serve::shard(), key_ring).await;
        let store = store.map_err(|error| Error::failed("open the links", error))?;
        store.prepare(&serve::map()?).await.map_err(unreadable)?;
        Ok(Self {
            session: store.connect(Purpose::Read).await.map_err(unreadable)?,
            after: None,
            is_last: false,
        })
    }

    /// The highest epoch that a prefix is in: a restored instance has begun a later one.
    async fn epoch(&mut self) -> Result<Epoch, Error> {
        let owners = self.session.ownership().await.map_err(unreadable)?;
        let epochs = owners.iter().map(|owner| owner.epoch);
        Ok(epochs.max().unwrap_or(Epoch::FIRST))
    }

    async fn next(&mut self) -> Result<Option<Exported>, Error> {
        if self.is_last {
            return Ok(None);
        }
        let page = self.session.export(self.after.as_ref(), PAGE).await;
        let page = page.map_err(unreadable)?;
        self.is_last = page.rows.len() < PAGE as usize;
        self.after = page.rows.last().map(|row| row.link.key.clone());
        Ok(Some(page))
    }
}

fn unreadable(error: waypost_shard_node::store::Error) -> Error {
    Error::failed("read the links", error)
}

/// Clicks that a killed server has left are counted first.
async fn count_clicks(data: &Path, secrets: &Secrets) -> Result<(), Error> {
    let registry = Registry::new();
    let counting =
        waypost_analytics_consumer::open_sqlite(&data.join("clicks.db"), &registry).await?;
    let settings = clicks::Settings {
        gateway: serve::GATEWAY.to_owned(),
        threads: 1,
        folder: data.join("spool"),
        max_bytes: NO_BOUND,
        visitor_key: serve::key(secrets, "visitor-key")?,
        country_header: None,
        countries: None,
    };
    let clicks = Clicks::start(&settings, CountedHere(counting), &registry)
        .map_err(|error| Error::failed("open the spool of clicks", error))?;
    match clicks.flush(Instant::now() + COUNTING).await {
        Flushed::All => Ok(()),
        Flushed::Remainder { clicks, .. } => Err(Error::failed(
            format!(
                "count {clicks} clicks that wait in {}. Start waypost to see why in its log, or \
                 move the folder away to go without them",
                data.join("spool").display()
            ),
            "they are not counted",
        )),
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            counters,
            links,
            rollups,
        } = self.counts;
        write!(
            f,
            "{links} links, {rollups} rows of statistics and {counters} counters of slugs exported"
        )
    }
}
