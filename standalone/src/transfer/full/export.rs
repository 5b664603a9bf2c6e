//! Everything out of a data folder, while nobody else uses it.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use prometheus::Registry;
use tokio::time::Instant;
use waypost_analytics_consumer::store::SqliteRollups;
use waypost_domain::mint::Mint;
use waypost_domain::signature::KeyRing;
use waypost_gateway::clicks::{self, Clicks, Flushed};
use waypost_keygen::store::SqliteCounters;
use waypost_proto::analytics::Rollup;
use waypost_proto::link::ExportedLink;
use waypost_runtime::config::Invalid;
use waypost_runtime::{Error, secrets};
use waypost_shard_node::store::sqlite::SqliteStore;
use waypost_shard_node::store::{LinkStore as _, Purpose, Session as _};

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
pub(super) struct Exported {
    counts: Counts,
    /// Links that are left out: their rows are not as the instance wrote them.
    pub(super) damaged: usize,
}

/// Counts the clicks that wait, and writes everything.
pub(super) async fn export(data: &Path, out: impl Write) -> Result<Exported, Error> {
    if !data.join("links.db").is_file() {
        return Err(Error::Config(Invalid {
            option: "--data-dir",
            problem: format!("{} is no data folder of waypost", data.display()),
        }));
    }
    let _only_one = serve::lock(data).map_err(|invalid| Invalid {
        problem: format!("{}; stop waypost first", invalid.problem),
        ..invalid
    })?;
    let secrets = Secrets::open(data)?;
    count_clicks(data, &secrets).await?;

    let mint = Mint::new(&serve::key(&secrets, "slug-key")?);
    let unwritable = |error: io::Error| Error::failed(format!("write the export: {error}"), error);
    let mut writer = Writer::begin(out, mint.fingerprint()).map_err(unwritable)?;

    let unreadable = |error| Error::failed("read the counters of slugs", error);
    let counters = SqliteCounters::open(&data.join("keys.db")).await;
    let counters = counters.map_err(|error| Error::failed("open the counters of slugs", error))?;
    for (prefix, next) in counters.every().await.map_err(unreadable)? {
        writer.counter(prefix, next).map_err(unwritable)?;
    }

    let damaged = links(data, &secrets, |row| writer.link(&row).map_err(unwritable)).await?;

    let rollups = SqliteRollups::open(&data.join("clicks.db")).await;
    let rollups = rollups.map_err(|error| Error::failed("open the statistics", error))?;
    let mut rows = rollups.rows();
    while let Some(row) = rows.next().await {
        let row = row.map_err(|error| Error::failed("read the statistics", error))?;
        let rollup = Rollup { row: Some(row) };
        writer.rollup(&rollup).map_err(unwritable)?;
    }
    let counts = writer.end().map_err(unwritable)?;
    Ok(Exported { counts, damaged })
}

/// Gives every link that its row still says, and how many rows do not.
async fn links(
    data: &Path,
    secrets: &Secrets,
    mut each: impl FnMut(ExportedLink) -> Result<(), Error>,
) -> Result<usize, Error> {
    let unreadable = |error| Error::failed("read the links", error);
    let key_ring = KeyRing::parse(&secrets.read("link-mac")?)
        .map_err(|problem| secrets::malformed("link-mac", &problem))?;
    let store = SqliteStore::open(&data.join("links.db"), serve::shard(), key_ring).await;
    let store = store.map_err(|error| Error::failed("open the links", error))?;
    store.prepare(&serve::map()?).await.map_err(unreadable)?;
    let mut session = store.connect(Purpose::Read).await.map_err(unreadable)?;
    let (mut after, mut damaged) = (None, 0);
    loop {
        let page = session
            .export(after.as_ref(), PAGE)
            .await
            .map_err(unreadable)?;
        damaged += page.damaged;
        let is_last = page.rows.len() < PAGE as usize;
        after = page.rows.last().map(|row| row.link.key.clone());
        for row in page.rows {
            each(row.into())?;
        }
        if is_last {
            return Ok(damaged);
        }
    }
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

impl fmt::Display for Exported {
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
