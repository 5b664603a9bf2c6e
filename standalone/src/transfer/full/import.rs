//! Everything of a file into a cluster: first what could go wrong is looked at, then the
//! counters, the links and the statistics are written, and at last all is read back.

use std::collections::HashSet;
use std::fmt;

use tonic::Code;
use waypost_domain::{Epoch, LinkKey};
use waypost_proto::analytics::analytics_service_client::AnalyticsServiceClient;
use waypost_proto::analytics::{Rollup, Rollups};
use waypost_proto::keygen::keygen_service_client::KeygenServiceClient;
use waypost_proto::keygen::{Counter, RaiseCountersRequest};
use waypost_proto::link::link_service_client::LinkServiceClient;
use waypost_proto::link::{
    BeginEpochRequest, ImportRequest, Moved, ResolveBatchRequest, import_outcome, resolve_outcome,
};

use super::cluster::Cluster;
use super::file::{Counts, FullFile, FullLink, Record};
use super::readback::{self, ReadBack};
use super::routes::{BATCH, Routes};
use super::{Names, Stop};

/// Rows of statistics in one request: the largest have some 64 KiB.
const MAX_ROLLUPS: usize = 48;

/// What became of everything.
#[derive(Debug)]
pub(super) struct Imported {
    counts: Counts,
    written: u64,
    kept: u64,
    left_out: Names,
    read_back: ReadBack,
}

/// What is known of a file that is whole.
struct Checked {
    counts: Counts,
    counters: Vec<Counter>,
    slug_key: Vec<u8>,
    epoch: Epoch,
}

/// Does it all; repeating it after whatever end is safe.
pub(super) async fn import(
    cluster: &Cluster,
    file: &mut FullFile,
    skip_occupied: bool,
) -> Result<Imported, Stop> {
    let Checked {
        counts,
        counters,
        slug_key,
        epoch,
    } = check(file)?;
    // Nothing moves by this: it asks whether the key is the same.
    let none = Counter {
        prefix: "00".to_owned(),
        next: 0,
    };
    raise(cluster, &[none], &slug_key).await?;

    let mut routes = Routes::of(cluster);
    let mut left_out = Names::default();
    let occupied = occupied(cluster, &mut routes, file, &mut left_out).await?;
    if !occupied.is_empty() && !skip_occupied {
        return Err(Stop::Occupied {
            count: left_out.count,
            names: left_out.told(),
        });
    }
    // Before the counters, which may be those of a later epoch than the cluster is in.
    for shard in &cluster.shards {
        let request = BeginEpochRequest { epoch: epoch.get() };
        let begun = shard.nodes.ask(&request, async |transport, request| {
            LinkServiceClient::new(transport).begin_epoch(request).await
        });
        begun.await?;
    }
    // Before the links: from now on no slug of the instance is handed out.
    for counters in counters.chunks(BATCH) {
        raise(cluster, counters, &slug_key).await?;
    }
    let (written, kept) = links(cluster, &mut routes, file, &occupied).await?;
    each_rollups(file, async |rollups| {
        let answer = cluster.consumers.ask(&rollups, async |transport, rollups| {
            AnalyticsServiceClient::new(transport)
                .import_rollups(rollups)
                .await
        });
        answer.await.map(drop)
    })
    .await?;
    let read_back = readback::all(cluster, &routes, file, &occupied).await?;
    Ok(Imported {
        counts,
        written,
        kept,
        left_out,
        read_back,
    })
}

/// Reads the whole file, before anything is written.
fn check(file: &mut FullFile) -> Result<Checked, Stop> {
    let mut reader = file.read()?;
    let mut counters = Vec::new();
    while let Some(record) = reader.next()? {
        if let Record::Counter(prefix, next) = record {
            let prefix = prefix.to_string();
            counters.push(Counter { prefix, next });
        }
    }
    Ok(Checked {
        counts: reader.counts(),
        counters,
        slug_key: reader.slug_key,
        epoch: reader.epoch,
    })
}

async fn raise(cluster: &Cluster, counters: &[Counter], slug_key: &[u8]) -> Result<(), Stop> {
    let request = RaiseCountersRequest {
        counters: counters.to_vec(),
        slug_key: slug_key.to_vec(),
    };
    let raised = cluster.keygens.ask(&request, async |transport, request| {
        KeygenServiceClient::new(transport)
            .raise_counters(request)
            .await
    });
    match raised.await {
        Ok(_) => Ok(()),
        Err(Stop::Refused { status, .. }) if status.code() == Code::FailedPrecondition => {
            Err(Stop::OtherKey)
        }
        Err(stop) => Err(stop),
    }
}

/// The links of the file whose slugs have other links in the cluster.
async fn occupied(
    cluster: &Cluster,
    routes: &mut Routes<'_>,
    file: &mut FullFile,
    names: &mut Names,
) -> Result<HashSet<LinkKey>, Stop> {
    let mut occupied = HashSet::new();
    let look = async |shard: usize, links: &[FullLink]| {
        let keys = links.iter().map(|link| (&link.link.key).into()).collect();
        let request = ResolveBatchRequest { keys };
        let answer = cluster.shards[shard]
            .nodes
            .ask(&request, async |transport, request| {
                LinkServiceClient::new(transport)
                    .resolve_batch(request)
                    .await
            });
        let outcomes = answer.await?.outcomes;
        let mut moves = Vec::with_capacity(links.len());
        for (link, outcome) in links.iter().zip(outcomes) {
            let is_free = match outcome.outcome {
                Some(resolve_outcome::Outcome::Moved(moved)) => {
                    moves.push(Some(moved));
                    continue;
                }
                Some(resolve_outcome::Outcome::Absent(_)) => true,
                Some(resolve_outcome::Outcome::Found(found)) => {
                    found.link_id[..] == link.link.id.0.as_bytes()[..]
                }
                // Its row is damaged: nobody can tell what it was.
                None => false,
            };
            if !is_free {
                names.add(link.link.key.slug.as_str());
                occupied.insert(link.link.key.clone());
            }
            moves.push(None);
        }
        Ok(moves)
    };
    routes.each(file, &HashSet::new(), look).await?;
    Ok(occupied)
}

/// Writes the links; gives how many are new and how many were there.
async fn links(
    cluster: &Cluster,
    routes: &mut Routes<'_>,
    file: &mut FullFile,
    left_out: &HashSet<LinkKey>,
) -> Result<(u64, u64), Stop> {
    let (mut written, mut kept) = (0, 0);
    let mut missing = Names::default();
    let write = async |shard: usize, links: &[FullLink]| {
        let request = ImportRequest {
            links: links.iter().map(|link| link.row.clone()).collect(),
        };
        let answer = cluster.shards[shard]
            .nodes
            .ask(&request, async |transport, request| {
                LinkServiceClient::new(transport).import(request).await
            });
        let outcomes = answer.await?.outcomes;
        let moves = links.iter().zip(outcomes).map(|(link, outcome)| {
            match outcome.outcome {
                Some(import_outcome::Outcome::Written(_)) => written += 1,
                Some(import_outcome::Outcome::Kept(_)) => kept += 1,
                Some(import_outcome::Outcome::Moved(moved)) => return Some(moved),
                // Somebody came before us, or the database cannot store it.
                Some(import_outcome::Outcome::Conflict(_)) | None => {
                    missing.add(link.link.key.slug.as_str());
                }
            }
            None
        });
        Ok(moves.collect::<Vec<Option<Moved>>>())
    };
    routes.each(file, left_out, write).await?;
    match missing.count {
        0 => Ok((written, kept)),
        count => Err(Stop::Missing {
            count,
            names: missing.told(),
        }),
    }
}

/// Gives the statistics of the file to `work`, some at a time.
pub(super) async fn each_rollups(
    file: &mut FullFile,
    mut work: impl AsyncFnMut(Rollups) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut reader = file.read()?;
    let mut rollups: Vec<Rollup> = Vec::new();
    loop {
        let record = reader.next()?;
        let is_end = record.is_none();
        if let Some(Record::Rollup(rollup)) = record {
            rollups.push(*rollup);
        }
        if rollups.len() >= MAX_ROLLUPS || is_end && !rollups.is_empty() {
            let rollups = std::mem::take(&mut rollups);
            work(Rollups { rollups }).await?;
        }
        if is_end {
            return Ok(());
        }
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            counters, rollups, ..
        } = self.counts;
        write!(
            f,
            "{} links imported, {} were there; {rollups} rows of statistics; {counters} counters \
             of slugs",
            self.written, self.kept
        )?;
        if self.left_out.count > 0 {
            write!(
                f,
                "\n{} links left out, whose slugs have other links: {}",
                self.left_out.count,
                self.left_out.told()
            )?;
        }
        write!(f, "\n{}", self.read_back)
    }
}
