//! What the cluster has, compared with the file.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use waypost_domain::LinkKey;
use waypost_proto::analytics::analytics_service_client::AnalyticsServiceClient;
use waypost_proto::link::ExportRequest;
use waypost_proto::link::link_service_client::LinkServiceClient;

use super::cluster::{Cluster, Shard};
use super::file::{FullFile, FullLink, Record};
use super::import::each_rollups;
use super::routes::{BATCH, Routes};
use super::{Names, Stop};

/// What is in the cluster as the file has it.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    links: u64,
    /// Links with a newer version: somebody has changed them since, in the cluster.
    changed: u64,
    rollups: u64,
}

/// Reads all of it.
pub(super) async fn all(
    cluster: &Cluster,
    routes: &Routes<'_>,
    file: &mut FullFile,
    left_out: &HashSet<LinkKey>,
) -> Result<ReadBack, Stop> {
    let mut back = ReadBack::default();
    let mut wrong = Names::default();
    links(cluster, routes, file, left_out, &mut back, &mut wrong).await?;
    let mut wrong_rollups = 0;
    each_rollups(file, async |expected| {
        let answer = cluster
            .consumers
            .ask(&expected, async |transport, rollups| {
                AnalyticsServiceClient::new(transport)
                    .read_rollups(rollups)
                    .await
            });
        let stored = answer.await?.rollups;
        for (place, expected) in expected.rollups.iter().enumerate() {
            match stored.get(place) == Some(expected) {
                true => back.rollups += 1,
                false => wrong_rollups += 1,
            }
        }
        Ok(())
    })
    .await?;
    if wrong.count > 0 || wrong_rollups > 0 {
        return Err(Stop::Differs {
            links: wrong.count,
            names: wrong.told(),
            rollups: wrong_rollups,
        });
    }
    Ok(back)
}

async fn links(
    cluster: &Cluster,
    routes: &Routes<'_>,
    file: &mut FullFile,
    left_out: &HashSet<LinkKey>,
    back: &mut ReadBack,
    wrong: &mut Names,
) -> Result<(), Stop> {
    let mut cursors: Vec<Cursor<'_>> = cluster.shards.iter().map(Cursor::at_start).collect();
    let mut reader = file.read()?;
    while let Some(record) = reader.next()? {
        let Record::Link(expected) = record else {
            continue;
        };
        let key = &expected.link.key;
        if left_out.contains(key) {
            continue;
        }
        match cursors[routes.shard(key)].find(key).await? {
            Some(stored) if is_same(&stored, &expected) => back.links += 1,
            Some(stored) if is_later(&stored, &expected) => back.changed += 1,
            _ => wrong.add(key.slug.as_str()),
        }
    }
    Ok(())
}

fn is_same(stored: &FullLink, expected: &FullLink) -> bool {
    stored.content() == expected.content()
        // Visitors have come since, perhaps.
        && stored.row.visits_leased >= expected.row.visits_leased
        && stored.row.state_before_block == expected.row.state_before_block
}

fn is_later(stored: &FullLink, expected: &FullLink) -> bool {
    stored.link.version > expected.link.version
}

/// Goes through all links of a shard, in the order of their keys.
struct Cursor<'a> {
    shard: &'a Shard,
    page: VecDeque<FullLink>,
    after: Option<LinkKey>,
    is_last: bool,
}

impl<'a> Cursor<'a> {
    fn at_start(shard: &'a Shard) -> Self {
        Self {
            shard,
            page: VecDeque::new(),
            after: None,
            is_last: false,
        }
    }

    /// Goes on to this key; none if the shard has no such link.
    async fn find(&mut self, key: &LinkKey) -> Result<Option<FullLink>, Stop> {
        loop {
            while let Some(first) = self.page.front() {
                if first.link.key >= *key {
                    let is_it = first.link.key == *key;
                    return Ok(is_it.then(|| first.clone()));
                }
                self.page.pop_front();
            }
            if self.is_last {
                return Ok(None);
            }
            self.turn().await?;
        }
    }

    async fn turn(&mut self) -> Result<(), Stop> {
        let request = ExportRequest {
            after: self.after.as_ref().map(Into::into),
            limit: BATCH as u32,
        };
        let answer = self.shard.nodes.ask(&request, async |transport, request| {
            LinkServiceClient::new(transport).export(request).await
        });
        let links = answer.await?.links;
        self.is_last = links.len() < BATCH;
        // One that cannot be read is not as the file has it.
        self.page = links.into_iter().flat_map(FullLink::of).collect();
        match self.page.back() {
            Some(last) => self.after = Some(last.link.key.clone()),
            None => self.is_last = true,
        }
        Ok(())
    }
}

impl fmt::Display for ReadBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read back as they are in the file: {} links, {} rows of statistics",
            self.links, self.rollups
        )?;
        if self.changed > 0 {
            write!(
                f,
                "; {} links were changed in the cluster since",
                self.changed
            )?;
        }
        Ok(())
    }
}
