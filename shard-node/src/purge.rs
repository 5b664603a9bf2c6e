//! Makes tombstones of links that expired long ago, and forgets old claims, in steps
//! that leave the database to others in between.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::changes::Changes;
use crate::lane::cause;
use crate::metrics::Metrics;
use crate::store::{Error, KEY_LIFE, LinkStore, Purpose, Session as _};

/// Between two passes. What is due has been over for days, and answered so.
const EVERY: Duration = Duration::from_mins(10);

/// Rows per step: some 50 ms.
const STEP: u32 = 500;

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(200);

/// For one step. The server gives up a statement sooner.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the purge works with; the one process that leads runs it.
#[derive(Debug)]
pub(crate) struct Purge<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) after: Duration,
    pub(crate) changes: &'a Changes,
    pub(crate) metrics: &'a Metrics,
}

impl<S: LinkStore> Purge<'_, S> {
    /// Goes over the links again and again.
    pub(crate) async fn run(&self) -> Infallible {
        loop {
            if let Err(error) = self.pass().await {
                tracing::warn!(error = %cause(&error), "purge was interrupted");
            }
            sleep(EVERY).await;
        }
    }

    async fn pass(&self) -> Result<(), Error> {
        let mut session = within(self.store.connect(Purpose::Write)).await?;
        let mut after = None;
        loop {
            let purged = within(session.purge(self.after, after.as_ref(), STEP)).await?;
            self.metrics.links_purged.inc_by(purged.buried as u64);
            let damaged = self.metrics.rows_damaged.with_label_values(&["purge"]);
            damaged.inc_by(purged.damaged as u64);
            if purged.buried > 0 {
                self.changes.wrote();
            }
            let Some(next) = purged.next else { break };
            after = Some(next);
            sleep(PAUSE).await;
        }
        while within(session.forget_claims(KEY_LIFE, STEP)).await? >= u64::from(STEP) {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(DEADLINE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unavailable(sqlx::Error::Io(
            std::io::ErrorKind::TimedOut.into(),
        ))),
    }
}
