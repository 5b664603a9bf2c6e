//! `Claim`: binds an Idempotency-Key to one request.

use tonic::Status;
use waypost_domain::Source;
use waypost_proto::convert::Invalid;
use waypost_proto::link::{self as message, claim_response::Outcome};

use super::{Service, key, moved};
use crate::lane::Operation;
use crate::store::{Claim, Claimed, Error, LinkStore, Purpose, Session};

/// The lane's operation.
#[derive(Debug)]
pub(super) struct Claiming;

impl<S: Session> Operation<S> for Claiming {
    type Item = Claim;
    type Outcome = Claimed;
    const NAME: &'static str = "claim";
    const PURPOSE: Purpose = Purpose::Write;
    // Each waits for the lock of its own source.
    const COALESCE: usize = 1;

    async fn run(session: &mut S, items: &[Claim]) -> Result<Vec<Claimed>, Error> {
        let mut outcomes = Vec::with_capacity(items.len());
        for claim in items {
            outcomes.push(session.claim(claim).await?);
        }
        Ok(outcomes)
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn bind(
        &self,
        request: message::ClaimRequest,
    ) -> Result<message::ClaimResponse, Status> {
        let source = Source::from_bytes(&request.source).ok_or(Invalid("source"))?;
        let claim = Claim {
            key: key(request.key)?,
            id: source.id,
            digest: source.digest.ok_or(Invalid("source"))?,
        };
        let claimed = self.claims.run(vec![claim]).await?.pop();
        let outcome = match claimed.ok_or_else(|| Status::internal("no outcome"))? {
            Claimed::Claimed => Outcome::Claimed(message::Claimed {}),
            Claimed::Reused => Outcome::Reused(message::Reused {}),
            Claimed::Moved(owner) => {
                self.count_moved("claim", 1);
                Outcome::Moved(moved(&owner))
            }
            Claimed::Frozen => {
                self.count_frozen("claim", 1);
                Outcome::Frozen(message::Frozen {})
            }
        };
        Ok(message::ClaimResponse {
            outcome: Some(outcome),
        })
    }
}
