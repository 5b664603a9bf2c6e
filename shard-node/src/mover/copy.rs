//! Makes the taker's rows those of the giver, stretch by stretch where they differ.

use waypost_proto::handover::{
    Change, Digest, DigestsRequest, PageRequest, PageResponse, Place, PutRequest,
};

use super::{Stop, asked};
use crate::peers::Peer;

/// Rows of a stretch: few enough to be sent for one that differs, and many enough that
/// most calls go into rows.
const STRETCH: u32 = 512;

/// The two shards, and how long each of their answers is waited for.
pub(super) struct Copy<'a> {
    pub(super) giver: &'a Peer,
    pub(super) taker: &'a Peer,
    pub(super) patience: std::time::Duration,
}

/// What a pass over some prefixes has found.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Of each prefix, in the order given: links, and rows of all kinds.
    pub(super) links: Vec<u64>,
    pub(super) rows: Vec<u64>,
    /// Stretches that differed and were written anew.
    pub(super) written: u64,
}

impl Copy<'_> {
    /// Compares the prefixes, and writes what differs under this id.
    pub(super) async fn pass(&self, changes: &[Change], move_id: &[u8]) -> Result<Pass, Stop> {
        let (here, there) = tokio::try_join!(
            self.digests(self.giver, changes),
            self.digests(self.taker, changes)
        )?;
        let mut pass = Pass {
            links: vec![0; changes.len()],
            rows: vec![0; changes.len()],
            written: 0,
        };
        if here.len() != there.len() {
            return Err(Stop::Strange("two shards compare other things"));
        }
        for (here, there) in here.iter().zip(&there) {
            if (&here.prefix, here.kind) != (&there.prefix, there.kind) {
                return Err(Stop::Strange("two shards compare other things"));
            }
            let at = changes
                .iter()
                .position(|change| change.prefix == here.prefix);
            let at = at.ok_or(Stop::Strange("a digest of another prefix"))?;
            pass.rows[at] += here.rows;
            if here.kind() == waypost_proto::handover::Kind::Links {
                pass.links[at] = here.rows;
            }
            if here.sum != there.sum || here.rows != there.rows {
                pass.written += self.stretches(here, move_id).await?;
            }
        }
        Ok(pass)
    }

    async fn digests(&self, peer: &Peer, changes: &[Change]) -> Result<Vec<Digest>, Stop> {
        let request = DigestsRequest {
            prefixes: changes.iter().map(|change| change.prefix.clone()).collect(),
        };
        let answer = peer
            .ask(self.patience, request, async |mut client, request| {
                client.digests(request).await
            })
            .await;
        Ok(answer.map_err(asked(peer, "sum its rows up"))?.digests)
    }

    /// Goes over the rows of one kind of a prefix; gives how many stretches were written.
    async fn stretches(&self, of: &Digest, move_id: &[u8]) -> Result<u64, Stop> {
        let (mut written, mut after, mut limit) = (0, None, STRETCH);
        loop {
            let here = self
                .page(self.giver, of, after.clone(), None, limit)
                .await?;
            let upto = here.upto.clone();
            let there = self
                .page(self.taker, of, after.clone(), upto.clone(), 0)
                .await?;
            if (&here.sum, here.rows) != (&there.sum, there.rows) {
                if here.rows > 1 && here.json.is_empty() {
                    // Too large for one answer.
                    limit = (limit / 2).max(1);
                    continue;
                }
                let request = PutRequest {
                    prefix: of.prefix.clone(),
                    kind: of.kind,
                    move_id: move_id.to_vec(),
                    after,
                    upto: upto.clone(),
                    json: here.json,
                };
                self.taker
                    .ask(self.patience, request, async |mut client, request| {
                        client.put(request).await
                    })
                    .await
                    .map_err(asked(self.taker, "write rows"))?;
                written += 1;
            }
            if upto.is_none() {
                return Ok(written);
            }
            after = upto;
        }
    }

    async fn page(
        &self,
        peer: &Peer,
        of: &Digest,
        after: Option<Place>,
        upto: Option<Place>,
        limit: u32,
    ) -> Result<PageResponse, Stop> {
        let request = PageRequest {
            prefix: of.prefix.clone(),
            kind: of.kind,
            after,
            upto,
            limit,
        };
        peer.ask(self.patience, request, async |mut client, request| {
            client.page(request).await
        })
        .await
        .map_err(asked(peer, "read rows"))
    }
}
