//! `ResolveBatch`: all look-ups that wait for the shard share one statement.

use tonic::Status;
use waypost_domain::LinkKey;
use waypost_proto::link::{self as message, resolve_outcome::Outcome};

use super::{Service, check_size, key, moved};
use crate::lane::Operation;
use crate::store::{Error, LinkStore, Purpose, Resolved, Session};

/// The lane's operation.
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
        let mut moves = 0;
        let outcomes = self
            .resolves
            .run(keys)
            .await?
            .into_iter()
            .map(|resolved| {
                let outcome = match resolved {
                    Resolved::Found(link) => Outcome::Found((&*link).into()),
                    Resolved::Absent => Outcome::Absent(message::Absent {}),
                    Resolved::Moved(owner) => {
                        moves += 1;
                        Outcome::Moved(moved(&owner))
                    }
                };
                message::ResolveOutcome {
                    outcome: Some(outcome),
                }
            })
            .collect();
        self.count_moved("resolve_batch", moves);
        Ok(message::ResolveBatchResponse {
            outcomes,
            from_primary: true,
        })
    }
}
