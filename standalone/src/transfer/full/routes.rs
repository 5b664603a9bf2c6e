//! Which shard has which links of the file.

use std::collections::HashSet;

use waypost_domain::{LinkKey, Prefix};
use waypost_proto::link::Moved;

use super::Stop;
use super::cluster::Cluster;
use super::file::{FullFile, FullLink, Record};

/// Links in one request: as many of the largest fit into a message of 4 MiB.
pub(super) const BATCH: usize = 256;

/// Times that a link may be sent on, over all links: each prefix once by far suffices.
const MAX_MOVES: usize = 1_000_000;

/// The shard of each prefix, as far as is known.
#[derive(Debug)]
pub(super) struct Routes<'a> {
    cluster: &'a Cluster,
    owners: Vec<usize>,
}

impl<'a> Routes<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            owners: cluster.owners(),
        }
    }

    /// The index of the shard that has this link.
    pub(super) fn shard(&self, key: &LinkKey) -> usize {
        self.owners[key.slug.prefix().index()]
    }

    /// A shard said that another has this prefix.
    fn follow(&mut self, prefix: Prefix, moved: &Moved) -> Result<(), Stop> {
        let mut shards = self.cluster.shards.iter();
        let shard = shards.position(|shard| shard.id.as_str() == moved.shard);
        self.owners[prefix.index()] = shard.ok_or_else(|| Stop::Unknown(moved.shard.clone()))?;
        Ok(())
    }

    /// Gives the links of the file to `work`, some of one shard at a time, which says for
    /// each whether it is another shard's.
    pub(super) async fn each(
        &mut self,
        file: &mut FullFile,
        left_out: &HashSet<LinkKey>,
        mut work: impl AsyncFnMut(usize, &[FullLink]) -> Result<Vec<Option<Moved>>, Stop>,
    ) -> Result<(), Stop> {
        let mut reader = file.read()?;
        let mut waiting: Vec<Vec<FullLink>> = vec![Vec::new(); self.cluster.shards.len()];
        let (mut moves, mut is_end) = (0, false);
        loop {
            let enough = if is_end { 1 } else { BATCH };
            if let Some(shard) = waiting.iter().position(|links| links.len() >= enough) {
                let links = std::mem::take(&mut waiting[shard]);
                let moved = work(shard, &links).await?;
                for (link, moved) in links.into_iter().zip(moved) {
                    let Some(moved) = moved else { continue };
                    moves += 1;
                    if moves > MAX_MOVES {
                        return Err(Stop::Unknown(moved.shard));
                    }
                    self.follow(link.link.key.slug.prefix(), &moved)?;
                    waiting[self.shard(&link.link.key)].push(link);
                }
                continue;
            }
            if is_end {
                return Ok(());
            }
            match reader.next()? {
                Some(Record::Link(link)) if left_out.contains(&link.link.key) => {}
                Some(Record::Link(link)) => waiting[self.shard(&link.link.key)].push(*link),
                Some(_) => {}
                None => is_end = true,
            }
        }
    }
}
