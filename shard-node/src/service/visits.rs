//! `LeaseVisits`: all leases that wait for the shard share one commit.

use tonic::Status;
use uuid::Uuid;
use waypost_domain::LinkId;
use waypost_proto::convert::Invalid;
use waypost_proto::link::{self as message, lease_visits_response::Outcome};

use super::{Service, key, moved};
use crate::lane::Operation;
use crate::store::{Error, Lease, Leased, LinkStore, Purpose, Session};

/// The lane's operation.
#[derive(Debug)]
pub(super) struct LeaseVisits;

impl<S: Session> Operation<S> for LeaseVisits {
    type Item = Lease;
    type Outcome = Leased;
    const NAME: &'static str = "lease_visits";
    const PURPOSE: Purpose = Purpose::Write;
    const COALESCE: usize = 128;

    async fn run(session: &mut S, items: &[Lease]) -> Result<Vec<Leased>, Error> {
        session.lease_visits(items).await
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn lease(
        &self,
        request: message::LeaseVisitsRequest,
    ) -> Result<message::LeaseVisitsResponse, Status> {
        let link_id = Uuid::from_slice(&request.link_id).map_err(|_| Invalid("link_id"))?;
        let lease_id = Uuid::from_slice(&request.lease_id).ok();
        let lease = Lease {
            key: key(request.key)?,
            link_id: LinkId(link_id),
            wanted: request.wanted,
            lease_id: lease_id
                .filter(|id| !id.is_nil())
                .ok_or(Invalid("lease_id"))?,
            returned: request.returned,
        };
        let leased = self.visits.run(vec![lease]).await?.pop();
        let outcome = match leased.ok_or_else(|| Status::internal("no outcome"))? {
            Leased::Granted(granted) => {
                self.metrics.visits_leased.inc_by(granted.into());
                Outcome::Granted(granted)
            }
            Leased::UsedUp(link) => Outcome::UsedUp((*link).into()),
            Leased::Absent => Outcome::Absent(message::Absent {}),
            Leased::Moved(owner) => {
                self.count_moved("lease_visits", 1);
                Outcome::Moved(moved(&owner))
            }
            Leased::Frozen => {
                self.count_frozen("lease_visits", 1);
                Outcome::Frozen(message::Frozen {})
            }
            Leased::Damaged => {
                self.count_damaged("lease_visits", 1);
                return Err(Status::internal("the stored row is damaged"));
            }
        };
        Ok(message::LeaseVisitsResponse {
            outcome: Some(outcome),
        })
    }
}
