//! Processor time, as the kernel accounts for it: all threads, in user and in kernel
//! mode.

use std::collections::HashMap;
use std::fs;
use std::ops::Sub;
use std::time::Duration;

use waypost_testbed::{Cluster, Service};

/// What Linux tells other programs in, whatever it counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own.
    ticks: u64,
    /// Of its children that have ended.
    ended_children_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in parentheses may hold anything; what is needed comes after it.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            ended_children_ticks: number(13)? + number(14)?,
        })
    }
}

/// All processes at one moment.
struct Snapshot(HashMap<u32, Stat>);

impl Snapshot {
    fn take() -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(
            ids.filter_map(|pid| Some((pid, Stat::read(pid)?)))
                .collect(),
        )
    }

    /// Of a process and its children, those included that have ended: Postgres has
    /// one for each session, nginx one for each worker.
    fn spent(&self, pid: u32) -> Duration {
        let children = self.0.values().filter(|stat| stat.parent == pid);
        let children: u64 = children.map(|stat| stat.ticks).sum();
        let own = self.0.get(&pid);
        let own = own.map_or(0, |stat| stat.ticks + stat.ended_children_ticks);
        Duration::from_millis((own + children) * 1_000 / TICKS_PER_SECOND)
    }
}

/// What a process and its children have spent so far.
pub(crate) fn spent(pid: u32) -> Duration {
    Snapshot::take().spent(pid)
}

/// What a cluster has spent so far, or in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) gateways: Duration,
    pub(crate) shard_nodes: Duration,
    /// keygen and the consumers of clicks.
    pub(crate) others: Duration,
    pub(crate) redis: Duration,
    /// That of the shards.
    pub(crate) postgres: Duration,
    /// The broker and the other Postgres.
    pub(crate) rest: Duration,
}

impl Spent {
    pub(crate) fn so_far(cluster: &Cluster) -> Self {
        let now = Snapshot::take();
        let services =
            |services: &[Service]| services.iter().map(|each| now.spent(each.pid())).sum();
        let nodes = cluster.shards.iter().map(|shard| services(&shard.nodes));
        let shards = cluster.shards.iter();
        let broker = cluster.broker.pid().map(|pid| now.spent(pid));
        Self {
            gateways: services(&cluster.gateways),
            shard_nodes: nodes.sum(),
            others: services(&cluster.keygens) + services(&cluster.consumers),
            redis: cluster
                .redis
                .nodes()
                .iter()
                .map(|node| now.spent(node.pid()))
                .sum(),
            postgres: shards.map(|shard| now.spent(shard.postgres.pid())).sum(),
            rest: now.spent(cluster.postgres.pid()) + broker.unwrap_or_default(),
        }
    }

    /// All our programs.
    pub(crate) fn ours(&self) -> Duration {
        self.gateways + self.shard_nodes + self.others
    }

    /// Theirs as well: all that it takes.
    pub(crate) fn all(&self) -> Duration {
        self.ours() + self.redis + self.postgres + self.rest
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            gateways: self.gateways.saturating_sub(before.gateways),
            shard_nodes: self.shard_nodes.saturating_sub(before.shard_nodes),
            others: self.others.saturating_sub(before.others),
            redis: self.redis.saturating_sub(before.redis),
            postgres: self.postgres.saturating_sub(before.postgres),
            rest: self.rest.saturating_sub(before.rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_holds() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 9 8 7 6 120 30 5 1 20 0 3 0 99 1 2\n";
        let expected = Stat {
            parent: 7,
            ticks: 150,
            ended_children_ticks: 6,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("42 (sh) S 7"), None);
    }

    #[test]
    fn children_count_whether_they_live_or_have_ended() {
        let stat = |parent, ticks, ended_children_ticks| Stat {
            parent,
            ticks,
            ended_children_ticks,
        };
        let stats = [
            (10, stat(1, 5, 7)),
            (11, stat(10, 20, 0)),
            (12, stat(1, 99, 0)),
        ];
        let snapshot = Snapshot(HashMap::from(stats));
        assert_eq!(snapshot.spent(10), Duration::from_millis(320));
    }
}
