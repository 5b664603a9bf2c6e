//! Taking what has been released, and taking back freezes that are over: what must happen
//! even if nobody is there any more who began it.
//!
//! The taker believes only the giver that a prefix was released. It asks by itself, so
//! that a mover which dies between the two leaves a prefix without an owner for a moment
//! and not until somebody comes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::Status;
use waypost_domain::{Prefix, ShardId};
use waypost_proto::handover::HoldingsRequest;

use super::Handover;
use crate::lane::cause;
use crate::store::postgres::{OwnerChange, PostgresSession};
use crate::store::{Error, LinkStore as _, Purpose};

/// How often the leader looks: for so long a prefix may be without an owner.
const LOOK: Duration = Duration::from_millis(250);

/// For a giver's answer. If it is away, it is asked at the next look.
const PATIENCE: Duration = Duration::from_millis(800);

/// For one look at the database.
const DEADLINE: Duration = Duration::from_secs(5);

/// What came of asking the givers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub(super) taken: u32,
    pub(super) waiting: u32,
}

impl Handover {
    /// Looks again and again; the one process of the shard that leads does so.
    pub(crate) async fn keep_settled(&self) -> Infallible {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(error = %cause(&error), "handover not looked after");
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<(), Error> {
        let mut session = within(self.store.connect(Purpose::Write)).await?;
        loop {
            let thawed = within(session.thaw_overdue()).await?;
            if thawed > 0 {
                tracing::warn!(
                    prefixes = thawed,
                    "a move did not end in time, writes go on"
                );
            }
            if !within(session.coming()).await?.is_empty()
                && let Err(status) = self.settle(&mut session).await
            {
                tracing::warn!(error = status.message(), "giver not asked");
            }
            sleep(LOOK).await;
        }
    }

    pub(super) async fn settle_all(&self) -> Result<Settled, Status> {
        self.with("settle", async |session| Ok(self.settle(session).await))
            .await?
    }

    /// Asks each giver what it has released, and takes that.
    async fn settle(&self, session: &mut PostgresSession) -> Result<Settled, Status> {
        let failed = |error: &Error| {
            tracing::warn!(operation = "settle", error = %cause(error), "database refused");
            Status::unavailable("the database refused")
        };
        let coming = within(session.coming())
            .await
            .map_err(|error| failed(&error))?;
        let mut by_giver: BTreeMap<ShardId, Vec<OwnerChange>> = BTreeMap::new();
        for (change, giver) in coming {
            by_giver.entry(giver).or_default().push(change);
        }
        let mut settled = Settled::default();
        for (giver, changes) in by_giver {
            let released = self.released(&giver, &changes).await?;
            let taken = match released.is_empty() {
                true => 0,
                false => within(session.take(&released))
                    .await
                    .map_err(|error| failed(&error))?,
            };
            settled.waiting += (changes.len() - released.len()) as u32;
            if taken > 0 {
                settled.taken += taken as u32;
                tracing::info!(%giver, prefixes = taken, "took prefixes");
                let counter = self.metrics.handed_over.with_label_values(&["taken"]);
                counter.inc_by(taken);
                self.changes.wrote();
            }
        }
        Ok(settled)
    }

    /// Which of these changes the giver has made.
    async fn released(
        &self,
        giver: &ShardId,
        changes: &[OwnerChange],
    ) -> Result<Vec<OwnerChange>, Status> {
        let peer = self
            .peers
            .get(giver)
            .ok_or_else(|| Status::unavailable(format!("the shard map does not name {giver}")))?;
        let request = HoldingsRequest {
            prefixes: changes
                .iter()
                .map(|change| change.prefix.to_string())
                .collect(),
            with_rows: false,
        };
        let answer = peer
            .ask(PATIENCE, request, async |mut client, request| {
                client.holdings(request).await
            })
            .await?;
        if answer.shard != giver.as_str() {
            return Err(Status::unavailable("another shard answers at its address"));
        }
        let has_released = |change: &&OwnerChange| {
            answer.holdings.iter().any(|holding| {
                Prefix::parse(&holding.prefix) == Some(change.prefix)
                    && holding.epoch == change.epoch.get()
                    && holding.owner == self.shard.as_str()
            })
        };
        Ok(changes.iter().filter(has_released).copied().collect())
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
