//! The whole shard within another process, on a SQLite file.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use waypost_domain::ShardId;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::signature::KeyRing;
use waypost_runtime::metrics::Registry;

use crate::cache::Cache;
use crate::changes::Changes;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::service::Service;
use crate::store::sqlite::SqliteStore;
use crate::store::{Error, LinkStore as _};

/// Why the shard could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to open the links' database")]
    Store(#[from] Error),
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Opens the file, brings it up to date and starts the shard's tasks, which end
/// with `shutdown`. Links that expired so long ago become tombstones. The service goes into a `LinkServiceServer`.
///
/// # Errors
/// If the file cannot be opened, or belongs to another shard or a later release.
pub async fn open_sqlite(
    path: &Path,
    shard: ShardId,
    map: &ShardMap,
    key_ring: KeyRing,
    purge_after: Duration,
    shutdown: &CancellationToken,
    registry: &Registry,
) -> Result<Service<SqliteStore>, OpenError> {
    let metrics = Metrics::register(registry)?;
    let store = SqliteStore::open(path, shard, key_ring).await?;
    store.prepare(map).await?;
    let changes = Changes::default();
    let relay = Relay {
        store: store.clone(),
        changes: changes.clone(),
        cache: Cache::None,
        metrics: metrics.clone(),
        purge_after,
        #[cfg(feature = "cluster")]
        handover: None,
    };
    tokio::spawn(relay.run(shutdown.clone()));
    Ok(Service::start(store, &[], changes, metrics, shutdown))
}
