//! From one shard's hands into another's: copy, freeze, compare, release, take.
//!
//! Every step may be cut off anywhere. Until the release nothing has changed but rows
//! that nobody reads; the release is one transaction of the giver, which needs the freeze
//! of this very attempt; after it the taker goes on by itself.

use std::time::{Duration, Instant};

use tonic::{Response, Status};
use uuid::Uuid;
use waypost_proto::handover::{
    AdmitRequest, Change, FreezeRequest, HoldingsRequest, ReleaseRequest, SettleRequest,
    ThawRequest,
};

use super::copy::{Copy, Pass};
use super::{PATIENCE, Stop, asked};
use crate::peers::{Client, Peer};

/// Rows of prefixes that change hands together: to compare them takes some 100 ms.
const GROUP: u64 = 20_000;

/// Passes before the freeze: each has less to do than the one before it.
const PASSES: usize = 3;

/// A pass that wrote no more stretches leaves little to do while writes are held.
const FEW: u64 = 8;

/// Tries to move a group before the prefixes are looked at anew.
const ATTEMPTS: usize = 3;

/// Who moves what between whom.
pub(super) struct Mover<'a> {
    pub(super) giver: &'a Peer,
    pub(super) taker: &'a Peer,
    /// The longest that writes are held.
    pub(super) freeze: Duration,
}

/// What it came to.
pub(super) struct Done {
    pub(super) links: u64,
    /// The longest that writes were held.
    pub(super) held: Duration,
}

impl Mover<'_> {
    /// Moves prefixes of the giver.
    pub(super) async fn run(&self, changes: Vec<Change>) -> Result<Done, Stop> {
        let copy = self.copy(PATIENCE);
        let move_id = Uuid::now_v7();
        self.admit(&changes, move_id, false, PATIENCE).await?;
        let mut pass = Pass::default();
        for _ in 0..PASSES {
            pass = copy.pass(&changes, move_id.as_bytes()).await?;
            if pass.written <= FEW {
                break;
            }
        }
        let mut done = Done {
            links: pass.links.iter().sum(),
            held: Duration::ZERO,
        };
        for group in groups(changes, &pass.rows) {
            let mut attempt = 1;
            let held = loop {
                match self.hand_over(&group).await {
                    Ok(held) => break held,
                    Err(stop) if attempt == ATTEMPTS => return Err(stop),
                    Err(_) => attempt += 1,
                }
            };
            done.held = done.held.max(held);
        }
        Ok(done)
    }

    /// One attempt; gives how long writes were held.
    async fn hand_over(&self, group: &[Change]) -> Result<Duration, Stop> {
        let freeze_id = Uuid::now_v7();
        let began = Instant::now();
        let frozen = async {
            self.freeze(group, freeze_id).await?;
            self.compare(group).await?;
            self.release(group, freeze_id).await
        };
        let outcome = match tokio::time::timeout(self.freeze, frozen).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Stop::Asked {
                shard: self.giver.id.clone(),
                doing: "release prefixes",
                status: Status::deadline_exceeded("the freeze was over before all was compared"),
            }),
        };
        if let Err(stop) = outcome {
            // From here on a release of this attempt, which may still be under way, is
            // refused; one that has come through shows.
            self.thaw(group, freeze_id).await?;
            if !self.is_released(group).await? {
                return Err(stop);
            }
        }
        settle(self.taker, PATIENCE).await?;
        Ok(began.elapsed())
    }

    /// Makes the rows the same. The last pass has found no difference, and begins by
    /// shutting out whatever an earlier one has sent and the taker has not yet done.
    async fn compare(&self, group: &[Change]) -> Result<(), Stop> {
        let copy = self.copy(self.freeze);
        loop {
            let move_id = Uuid::now_v7();
            self.admit(group, move_id, true, self.freeze).await?;
            if copy.pass(group, move_id.as_bytes()).await?.written == 0 {
                return Ok(());
            }
        }
    }

    fn copy(&self, patience: Duration) -> Copy<'_> {
        Copy {
            giver: self.giver,
            taker: self.taker,
            patience,
        }
    }

    async fn admit(
        &self,
        changes: &[Change],
        move_id: Uuid,
        is_sealed: bool,
        patience: Duration,
    ) -> Result<(), Stop> {
        let request = AdmitRequest {
            changes: changes.to_vec(),
            giver: self.giver.id.to_string(),
            move_id: move_id.as_bytes().to_vec(),
            is_sealed,
        };
        ask(
            self.taker,
            "let rows in",
            patience,
            request,
            async |mut client, request| client.admit(request).await,
        )
        .await
        .map(drop)
    }

    async fn freeze(&self, group: &[Change], move_id: Uuid) -> Result<(), Stop> {
        let request = FreezeRequest {
            changes: group.to_vec(),
            move_id: move_id.as_bytes().to_vec(),
            duration_ms: u32::try_from(self.freeze.as_millis()).unwrap_or(u32::MAX),
        };
        ask(
            self.giver,
            "hold writes",
            self.freeze,
            request,
            async |mut client, request| client.freeze(request).await,
        )
        .await
        .map(drop)
    }

    async fn release(&self, group: &[Change], move_id: Uuid) -> Result<(), Stop> {
        let request = ReleaseRequest {
            changes: group.to_vec(),
            taker: self.taker.id.to_string(),
            move_id: move_id.as_bytes().to_vec(),
        };
        ask(
            self.giver,
            "release prefixes",
            self.freeze,
            request,
            async |mut client, request| client.release(request).await,
        )
        .await
        .map(drop)
    }

    async fn thaw(&self, group: &[Change], move_id: Uuid) -> Result<(), Stop> {
        let request = ThawRequest {
            changes: group.to_vec(),
            move_id: move_id.as_bytes().to_vec(),
        };
        ask(
            self.giver,
            "let writes in again",
            PATIENCE,
            request,
            async |mut client, request| client.thaw(request).await,
        )
        .await
        .map(drop)
    }

    /// Whether the giver has released all of the group. It never releases a part.
    async fn is_released(&self, group: &[Change]) -> Result<bool, Stop> {
        let request = HoldingsRequest {
            prefixes: group.iter().map(|change| change.prefix.clone()).collect(),
            with_rows: false,
        };
        let answer = ask(
            self.giver,
            "say what it owns",
            PATIENCE,
            request,
            async |mut client, request| client.holdings(request).await,
        )
        .await?;
        let epoch = |prefix: &str| {
            let change = group.iter().find(|change| change.prefix == prefix);
            change.map(|change| change.epoch)
        };
        Ok(answer.holdings.iter().all(|held| {
            held.owner == self.taker.id.as_str() && Some(held.epoch) == epoch(&held.prefix)
        }))
    }
}

/// Has a shard take what was released to it.
pub(super) async fn settle(taker: &Peer, patience: Duration) -> Result<(), Stop> {
    ask(
        taker,
        "take prefixes",
        patience,
        SettleRequest {},
        async |mut client, request| client.settle(request).await,
    )
    .await
    .map(drop)
}

async fn ask<R: Clone, T>(
    peer: &Peer,
    doing: &'static str,
    patience: Duration,
    request: R,
    call: impl AsyncFn(Client, R) -> Result<Response<T>, Status>,
) -> Result<T, Stop> {
    let answer = peer.ask(patience, request, call).await;
    answer.map_err(asked(peer, doing))
}

/// Splits prefixes by how many rows they have together, in their order.
fn groups(changes: Vec<Change>, rows: &[u64]) -> Vec<Vec<Change>> {
    let mut groups: Vec<Vec<Change>> = Vec::new();
    let mut together = 0;
    for (change, rows) in changes.into_iter().zip(rows) {
        together += rows;
        match groups.last_mut() {
            Some(group) if together <= GROUP => group.push(change),
            _ => {
                groups.push(vec![change]);
                together = *rows;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_few_rows_or_one_prefix() {
        let change = |n: usize| Change {
            prefix: n.to_string(),
            epoch: 2,
        };
        let rows = [1, 2, GROUP, 3, GROUP - 3, 1, 2 * GROUP];
        let groups = groups((0..rows.len()).map(change).collect(), &rows);
        let names: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.iter().map(|change| change.prefix.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["0", "1"],
                vec!["2"],
                vec!["3", "4"],
                vec!["5"],
                vec!["6"]
            ]
        );
    }
}
