//! `ResolveBatch`: all look-ups that wait for the shard share one statement. The
//! primary is asked, and a replica if that cannot be.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use waypost_domain::LinkKey;
use waypost_proto::link::{self as message, resolve_outcome::Outcome};

use super::{Service, check_size, key, moved};
use crate::lane::{Operation, Refusal};
use crate::store::{Error, LinkStore, Purpose, Resolved, Session};

/// What a read waits for the primary where there is a replica. A gateway waits 700 ms,
/// and a replica may need some of them.
const PRIMARY_PATIENCE: Duration = Duration::from_millis(300);

/// The primary's lane's operation.
#[derive(Debug)]
pub(super) struct Resolve;

impl<S: Session> Operation<S> for Resolve {
    type Item = LinkKey;
    type Outcome = Resolved;
    const NAME: &'static str = "resolve";
    const PURPOSE: Purpose = Purpose::Read;
    // Larger batches bring no more throughput, and later answers.
    const COALESCE: usize = 128;

    async fn run(session: &mut S, items: &[LinkKey]) -> Result<Vec<Resolved>, Error> {
        session.resolve_batch(items).await
    }
}

/// The operation of a replica's lane.
#[derive(Debug)]
pub(super) struct ResolveAtReplica;

impl<S: Session> Operation<S> for ResolveAtReplica {
    type Item = LinkKey;
    type Outcome = Resolved;
    const NAME: &'static str = "resolve_replica";
    const PURPOSE: Purpose = Purpose::Read;
    const COALESCE: usize = <Resolve as Operation<S>>::COALESCE;

    async fn run(session: &mut S, items: &[LinkKey]) -> Result<Vec<Resolved>, Error> {
        session.resolve_batch(items).await
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn resolve(
        &self,
        request: message::ResolveBatchRequest,
    ) -> Result<message::ResolveBatchResponse, Status> {
        check_size(request.keys.len())?;
        let keys = request
            .keys
            .into_iter()
            .map(|asked| key(Some(asked)))
            .collect::<Result<Vec<_>, _>>()?;
        let (resolved, from_primary) = self.look_up(keys).await?;
        let (mut moves, mut damages) = (0, 0);
        let outcomes = resolved
            .into_iter()
            .map(|resolved| {
                let outcome = match resolved {
                    Resolved::Found(link) => Some(Outcome::Found((*link).into())),
                    Resolved::Absent => Some(Outcome::Absent(message::Absent {})),
                    Resolved::Moved(owner) => {
                        moves += 1;
                        Some(Outcome::Moved(moved(&owner)))
                    }
                    // Nobody can tell what is there: that is no outcome at all.
                    Resolved::Damaged => {
                        damages += 1;
                        None
                    }
                };
                message::ResolveOutcome { outcome }
            })
            .collect();
        self.count_damaged("resolve_batch", damages);
        self.count_moved("resolve_batch", moves);
        Ok(message::ResolveBatchResponse {
            outcomes,
            from_primary,
        })
    }

    /// What is known of each key, and whether it is the primary's word. A dead primary
    /// costs nothing where its port is closed; where nothing answers at all, it costs
    /// the reads that meet it first their patience, and the others nothing.
    async fn look_up(&self, keys: Vec<LinkKey>) -> Result<(Vec<Resolved>, bool), Refusal> {
        let replicas = self.replicas.as_ref().filter(|all| all.any_usable());
        let Some(replicas) = replicas else {
            return Ok((self.resolves.run(keys).await?, true));
        };
        let mut refusal = Refusal::Unavailable;
        if replicas.primary_answers() {
            let asking = self.resolves.run(keys.clone());
            refusal = match timeout(PRIMARY_PATIENCE, asking).await {
                Ok(Ok(resolved)) => return Ok((resolved, true)),
                // The primary is there: a replica would know no better, and be no less
                // busy with what is not its own work.
                Ok(Err(refusal @ (Refusal::Busy | Refusal::Internal))) => return Err(refusal),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::Deadline,
            };
            replicas.primary_failed();
        }
        let resolved = replicas.resolve(&keys).await.ok_or(refusal)?;
        Ok((resolved, false))
    }
}
