//! `CreateBatch`: all creates that wait for the shard share one commit.

use tonic::Status;
use waypost_domain::NewLink;
use waypost_proto::convert::Invalid;
use waypost_proto::link::{self as message, create_outcome::Outcome};

use super::{Service, check_domain, check_max_visits, check_size, moved};
use crate::lane::Operation;
use crate::store::{Created, Error, LinkStore, Purpose, Session};

/// The lane's operation.
#[derive(Debug)]
pub(super) struct Create;

impl<S: Session> Operation<S> for Create {
    type Item = NewLink;
    type Outcome = Created;
    const NAME: &'static str = "create";
    const PURPOSE: Purpose = Purpose::Write;
    const COALESCE: usize = 1_024;

    async fn run(session: &mut S, items: &[NewLink]) -> Result<Vec<Created>, Error> {
        session.create_batch(items).await
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn create(
        &self,
        request: message::CreateBatchRequest,
    ) -> Result<message::CreateBatchResponse, Status> {
        check_size(request.links.len())?;
        // A gateway puts the creates of many users into one request: one that is
        // malformed must not fail the others.
        let mut outcomes = Vec::with_capacity(request.links.len());
        let mut links = Vec::with_capacity(request.links.len());
        for link in request.links {
            match checked(link) {
                Ok(link) => {
                    links.push(link);
                    outcomes.push(None);
                }
                Err(invalid) => outcomes.push(Some(failed(invalid.to_string()))),
            }
        }
        let mut created = self.creates.run(links).await?.into_iter();
        let (mut moves, mut freezes, mut replaces) = (0, 0, false);
        let outcomes = outcomes
            .into_iter()
            .map(|refused| {
                let outcome = refused.or_else(|| {
                    Some(match created.next()? {
                        Created::Stored { link, replaced } => {
                            replaces |= replaced;
                            Outcome::Created((&*link).into())
                        }
                        Created::Existing(link) => Outcome::Existing((&*link).into()),
                        Created::Reused => Outcome::Reused(message::Reused {}),
                        Created::Ended => Outcome::Ended(message::Ended {}),
                        Created::Conflict => Outcome::Conflict(message::Conflict {}),
                        Created::Moved(owner) => {
                            moves += 1;
                            Outcome::Moved(moved(&owner))
                        }
                        Created::Frozen => {
                            freezes += 1;
                            Outcome::Frozen(message::Frozen {})
                        }
                        Created::Refused => failed("the link cannot be stored".to_owned()),
                        Created::Damaged => {
                            self.count_damaged("create_batch", 1);
                            failed("the slug's stored row is damaged".to_owned())
                        }
                    })
                });
                message::CreateOutcome { outcome }
            })
            .collect();
        self.count_moved("create_batch", moves);
        self.count_frozen("create_batch", freezes);
        if replaces {
            self.changes.wrote();
        }
        Ok(message::CreateBatchResponse { outcomes })
    }
}

fn checked(link: message::NewLink) -> Result<NewLink, Invalid> {
    let link = NewLink::try_from(link)?;
    check_domain(link.key.domain)?;
    check_max_visits(link.max_visits)?;
    Ok(link)
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed(message::Failure {
        reason,
        retry: false,
    })
}
