//! `Export` and `Import`: rows as they are, out of a shard and into one.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use waypost_domain::{Epoch, Link, LinkKey, State};
use waypost_proto::convert::Invalid;
use waypost_proto::link::{self as message, import_outcome::Outcome};

use super::{MAX_BATCH, Service, check_domain, check_max_visits, check_size, key, moved};
use crate::lane::{Operation, Refusal, cause};
use crate::store::{Error, Exported, Imported, LinkStore, Purpose, Session, Transferred};

/// Requests of each kind that may wait or run: an operator's tool sends one at a time.
const MAX_WAITING: usize = 4;

/// For the rows of all prefixes, which a mover or a backup may hold for a moment.
const BEGIN_DEADLINE: Duration = Duration::from_secs(5);

/// The export's lane's operation.
#[derive(Debug)]
pub(super) struct Export;

/// Where a page begins, and how many rows it has.
#[derive(Debug)]
pub(super) struct Portion {
    after: Option<LinkKey>,
    limit: u32,
}

impl<S: Session> Operation<S> for Export {
    type Item = Portion;
    type Outcome = Exported;
    const NAME: &'static str = "export";
    const PURPOSE: Purpose = Purpose::Read;
    const COALESCE: usize = 1;
    const MAX_ITEMS: usize = MAX_WAITING;

    async fn run(session: &mut S, items: &[Portion]) -> Result<Vec<Exported>, Error> {
        let mut pages = Vec::with_capacity(items.len());
        for portion in items {
            let after = portion.after.as_ref();
            pages.push(session.export(after, portion.limit).await?);
        }
        Ok(pages)
    }
}

/// The import's lane's operation.
#[derive(Debug)]
pub(super) struct Import;

impl<S: Session> Operation<S> for Import {
    type Item = Vec<Transferred>;
    type Outcome = Vec<Imported>;
    const NAME: &'static str = "import";
    const PURPOSE: Purpose = Purpose::Write;
    const COALESCE: usize = 1;
    // A thousand rows that all replace others take that long.
    const DEADLINE: Duration = Duration::from_secs(5);
    const MAX_ITEMS: usize = MAX_WAITING;

    async fn run(session: &mut S, items: &[Vec<Transferred>]) -> Result<Vec<Vec<Imported>>, Error> {
        let mut outcomes = Vec::with_capacity(items.len());
        for rows in items {
            outcomes.push(session.import(rows).await?);
        }
        Ok(outcomes)
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn read_out(
        &self,
        request: message::ExportRequest,
    ) -> Result<message::ExportResponse, Status> {
        if !(1..=MAX_BATCH).contains(&(request.limit as usize)) {
            return Err(Invalid("limit").into());
        }
        let portion = Portion {
            after: request.after.map(|after| key(Some(after))).transpose()?,
            limit: request.limit,
        };
        let page = self.exports.run(vec![portion]).await?.pop();
        let page = page.ok_or_else(|| Status::internal("no outcome"))?;
        self.count_damaged("export", page.damaged);
        Ok(message::ExportResponse {
            links: page.rows.into_iter().map(Into::into).collect(),
            damaged: u32::try_from(page.damaged).unwrap_or(u32::MAX),
        })
    }

    pub(super) async fn take_over(
        &self,
        request: message::ImportRequest,
    ) -> Result<message::ImportResponse, Status> {
        check_size(request.links.len())?;
        let rows = request
            .links
            .into_iter()
            .map(transferred)
            .collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() {
            return Ok(message::ImportResponse::default());
        }
        let imported = self.imports.run(vec![rows]).await?.pop();
        let imported = imported.ok_or_else(|| Status::internal("no outcome"))?;
        let (mut moves, mut damages) = (0, 0);
        let outcomes = imported
            .into_iter()
            .map(|imported| {
                let outcome = match imported {
                    Imported::Written(link) => Some(Outcome::Written((*link).into())),
                    Imported::Kept(link) => Some(Outcome::Kept((*link).into())),
                    Imported::Conflict(link) => Some(Outcome::Conflict((*link).into())),
                    Imported::Moved(owner) => {
                        moves += 1;
                        Some(Outcome::Moved(moved(&owner)))
                    }
                    // The log says which, and why.
                    Imported::Refused => None,
                    Imported::Damaged => {
                        damages += 1;
                        None
                    }
                };
                message::ImportOutcome { outcome }
            })
            .collect();
        self.count_moved("import", moves);
        self.count_damaged("import", damages);
        self.changes.wrote();
        Ok(message::ImportResponse { outcomes })
    }
}

impl<S: LinkStore> Service<S> {
    /// On a session of its own: it is done once in the life of a cluster.
    pub(super) async fn begin(
        &self,
        request: message::BeginEpochRequest,
    ) -> Result<message::BeginEpochResponse, Status> {
        let epoch = Epoch::new(request.epoch).ok_or(Invalid("epoch"))?;
        let write = async {
            let mut session = self.store.connect(Purpose::Write).await?;
            session.begin_epoch(epoch).await
        };
        match timeout(BEGIN_DEADLINE, write).await {
            Ok(Ok(())) => Ok(message::BeginEpochResponse {}),
            Ok(Err(error)) => {
                tracing::warn!(operation = "begin_epoch", error = %cause(&error), "database refused");
                Err(Refusal::Unavailable.into())
            }
            Err(_) => Err(Refusal::Deadline.into()),
        }
    }
}

fn transferred(given: message::ExportedLink) -> Result<Transferred, Invalid> {
    let link = Link::try_from(given.link.ok_or(Invalid("link"))?)?;
    check_domain(link.key.domain)?;
    check_max_visits(link.max_visits)?;
    i64::try_from(given.visits_leased).map_err(|_| Invalid("visits_leased"))?;
    Ok(Transferred {
        link: Box::new(link),
        visits_leased: given.visits_leased,
        before_block: State::from_number(given.state_before_block),
    })
}
