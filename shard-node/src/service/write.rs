//! `Update` and `Delete`: one link each, under a row lock.

use tonic::Status;
use uuid::Uuid;
use waypost_domain::{ChangeId, Patch, State, Version};
use waypost_proto::convert::Invalid;
use waypost_proto::link::{self as message, write_response::Outcome};

use super::{Service, check_max_visits, key, moved};
use crate::lane::Operation;
use crate::store::{Error, LinkStore, Purpose, Session, Write, WriteKind, Writer, Written};

/// The lane's operation.
#[derive(Debug)]
pub(super) struct Change;

impl<S: Session> Operation<S> for Change {
    type Item = Write;
    type Outcome = Written;
    const NAME: &'static str = "write";
    const PURPOSE: Purpose = Purpose::Write;
    // Each is a transaction of its own, so that none waits for another's row.
    const COALESCE: usize = 1;

    async fn run(session: &mut S, items: &[Write]) -> Result<Vec<Written>, Error> {
        let mut outcomes = Vec::with_capacity(items.len());
        for write in items {
            outcomes.push(session.write(write).await?);
        }
        Ok(outcomes)
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn change(
        &self,
        request: message::UpdateRequest,
    ) -> Result<message::WriteResponse, Status> {
        let patch = Patch::try_from(request.patch.ok_or(Invalid("patch"))?)?;
        if let waypost_domain::Change::Set(max) = patch.max_visits {
            check_max_visits(Some(max))?;
        }
        let writer = writer(request.by_operator, request.tenant, &patch)?;
        let write = Write {
            key: key(request.key)?,
            writer,
            if_version: version(request.if_version)?,
            change_id: change_id(&request.change_id)?,
            kind: WriteKind::Update(Box::new(patch)),
        };
        self.write("update", write).await
    }

    pub(super) async fn remove(
        &self,
        request: message::DeleteRequest,
    ) -> Result<message::WriteResponse, Status> {
        let write = Write {
            key: key(request.key)?,
            writer: Writer::Tenant(request.tenant),
            if_version: version(request.if_version)?,
            change_id: change_id(&request.change_id)?,
            kind: WriteKind::Delete,
        };
        self.write("delete", write).await
    }

    async fn write(
        &self,
        rpc: &'static str,
        write: Write,
    ) -> Result<message::WriteResponse, Status> {
        let written = self.writes.run(vec![write]).await?.pop();
        let outcome = match written.ok_or_else(|| Status::internal("no outcome"))? {
            Written::Link(link) => {
                self.changes.wrote();
                Outcome::Written((&*link).into())
            }
            Written::Absent => Outcome::Absent(message::Absent {}),
            Written::Gone(link) => Outcome::Gone((&*link).into()),
            Written::VersionMismatch(link) => Outcome::VersionMismatch((&*link).into()),
            Written::Blocked(link) => Outcome::Blocked((&*link).into()),
            Written::NeverValid(link) => Outcome::NeverValid((&*link).into()),
            Written::Moved(owner) => {
                self.count_moved(rpc, 1);
                Outcome::Moved(moved(&owner))
            }
            Written::Frozen => {
                self.count_frozen(rpc, 1);
                Outcome::Frozen(message::Frozen {})
            }
            Written::Refused => {
                return Err(Status::invalid_argument("the change cannot be stored"));
            }
            Written::Damaged => {
                self.count_damaged(rpc, 1);
                return Err(Status::internal("the stored row is damaged"));
            }
        };
        Ok(message::WriteResponse {
            outcome: Some(outcome),
        })
    }
}

/// The operator takes down and lets up, and the tenants do all else.
fn writer(by_operator: bool, tenant: String, patch: &Patch) -> Result<Writer, Invalid> {
    if !by_operator {
        let is_theirs = patch.state != Some(State::Blocked);
        return is_theirs
            .then_some(Writer::Tenant(tenant))
            .ok_or(Invalid("state"));
    }
    if !tenant.is_empty() {
        return Err(Invalid("tenant"));
    }
    let is_takedown = Patch {
        state: None,
        ..patch.clone()
    } == Patch::default();
    match patch.state {
        Some(State::Active | State::Blocked) if is_takedown => Ok(Writer::Operator),
        _ => Err(Invalid("patch")),
    }
}

fn version(version: Option<u64>) -> Result<Option<Version>, Invalid> {
    version
        .filter(|version| *version != 0)
        .map(|version| Version::from_stored(version).ok_or(Invalid("if_version")))
        .transpose()
}

/// A gateway that does not name its changes does not repeat them either.
fn change_id(bytes: &[u8]) -> Result<ChangeId, Invalid> {
    if bytes.is_empty() {
        return Ok(ChangeId(Uuid::new_v4()));
    }
    Uuid::from_slice(bytes)
        .map(ChangeId)
        .map_err(|_| Invalid("change_id"))
}
