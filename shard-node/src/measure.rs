//! Tells how much the shard holds.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::lane::cause;
use crate::metrics::Metrics;
use crate::store::{Error, LinkStore, Purpose, Session as _, Size};

/// What it tells changes slowly.
const EVERY: Duration = Duration::from_mins(1);

const DEADLINE: Duration = Duration::from_secs(5);

/// Measures the shard again and again; the one process that leads does so.
pub(crate) async fn run<S: LinkStore>(store: &S, metrics: &Metrics) -> Infallible {
    loop {
        match timeout(DEADLINE, measure(store)).await {
            Ok(Ok(size)) => metrics.size.tell(size),
            Ok(Err(error)) => tracing::warn!(error = %cause(&error), "shard not measured"),
            Err(_) => tracing::warn!("shard not measured in time"),
        }
        sleep(EVERY).await;
    }
}

async fn measure<S: LinkStore>(store: &S) -> Result<Size, Error> {
    store.connect(Purpose::Relay).await?.size().await
}
