//! Who has what, by the word of all shards of a region.

use std::fmt;
use std::time::Duration;

use tonic::Code;
use waypost_domain::placement::{self, Member};
use waypost_domain::{Epoch, Prefix, ShardId};
use waypost_proto::handover::{Change, Holding, HoldingsRequest};

use super::{PATIENCE, Stop, asked};
use crate::peers::{Peer, Peers, client};

/// For one node that may be away.
const ONE_NODE: Duration = Duration::from_secs(2);

/// What each of these shards says of each prefix.
pub(super) struct View<'a> {
    peers: &'a Peers,
    /// In the order of the map, and for each in that of the prefixes.
    holdings: Vec<Vec<Holding>>,
}

/// Whose a prefix is.
pub(super) enum Standing<'a> {
    Owned {
        by: &'a Peer,
        epoch: Epoch,
    },
    /// Its owner has released it to this shard, which takes it within a moment.
    Released {
        to: ShardId,
    },
    /// No shard says that it owns it.
    Nobodys,
    /// More than one does.
    Claimed {
        by: Vec<ShardId>,
    },
}

impl<'a> View<'a> {
    pub(super) async fn of(peers: &'a Peers) -> Result<Self, Stop> {
        Self::ask(peers, false, PATIENCE).await
    }

    /// The same for somebody who looks, and does not wait for a shard that is away.
    pub(super) async fn glance(peers: &'a Peers) -> Result<Self, Stop> {
        Self::ask(peers, false, ONE_NODE).await
    }

    /// The same, with what each shard has rows of.
    pub(super) async fn with_rows(peers: &'a Peers) -> Result<Self, Stop> {
        Self::ask(peers, true, PATIENCE).await
    }

    async fn ask(peers: &'a Peers, with_rows: bool, patience: Duration) -> Result<Self, Stop> {
        let mut holdings = Vec::new();
        for peer in peers.all() {
            refuse_old(peer).await?;
            let request = HoldingsRequest {
                prefixes: Vec::new(),
                with_rows,
            };
            let answer = peer
                .ask(patience, request, async |mut client, request| {
                    client.holdings(request).await
                })
                .await
                .map_err(asked(peer, "say what it owns"))?;
            let is_whole = answer.holdings.len() == Prefix::COUNT
                && answer
                    .holdings
                    .iter()
                    .zip(Prefix::all())
                    .all(|(holding, prefix)| holding.prefix == prefix.to_string());
            if !is_whole {
                return Err(Stop::Strange("a shard does not know all prefixes"));
            }
            holdings.push(answer.holdings);
        }
        Ok(Self { peers, holdings })
    }

    fn all(&self, prefix: Prefix) -> impl Iterator<Item = (&'a Peer, &Holding)> {
        let (peers, holdings): (&'a Peers, _) = (self.peers, self.holdings.iter());
        peers
            .all()
            .zip(holdings.map(move |holdings| &holdings[prefix.index()]))
    }

    pub(super) fn standing(&self, prefix: Prefix) -> Standing<'a> {
        let owners: Vec<(&Peer, &Holding)> = self
            .all(prefix)
            .filter(|(peer, holding)| holding.owner == peer.id.as_str())
            .collect();
        match owners[..] {
            [(by, holding)] => match Epoch::new(holding.epoch) {
                Some(epoch) => Standing::Owned { by, epoch },
                None => Standing::Nobodys,
            },
            [] => {
                let is_released = |to: &Peer, coming: u32| {
                    let says_so =
                        |giver: &Holding| giver.owner == to.id.as_str() && giver.epoch == coming;
                    self.all(prefix).any(|(_, holding)| says_so(holding))
                };
                let taker = self.all(prefix).find(|(peer, holding)| {
                    holding.coming_epoch > 0 && is_released(peer, holding.coming_epoch)
                });
                match taker {
                    Some((to, _)) => Standing::Released { to: to.id.clone() },
                    None => Standing::Nobodys,
                }
            }
            _ => Standing::Claimed {
                by: owners.iter().map(|(by, _)| by.id.clone()).collect(),
            },
        }
    }

    /// A shard to which something was released that it has not taken yet.
    pub(super) fn to_settle(&self) -> Option<ShardId> {
        Prefix::all().find_map(|prefix| match self.standing(prefix) {
            Standing::Released { to } => Some(to),
            _ => None,
        })
    }

    /// The prefixes that bring a shard to its share of those of all.
    pub(super) fn fill(&self, taker: &Peer) -> Vec<Prefix> {
        let region: Vec<&Peer> = self.peers.all().collect();
        let index = |peer: &Peer| region.iter().position(|other| other.id == peer.id);
        let members: Vec<Member> = region
            .iter()
            .map(|peer| Member {
                shard: peer.id.clone(),
                weight: 1,
            })
            .collect();
        let owners: Vec<Option<usize>> = Prefix::all()
            .map(|prefix| match self.standing(prefix) {
                Standing::Owned { by, .. } => index(by),
                _ => None,
            })
            .collect();
        index(taker).map_or_else(Vec::new, |to| placement::fill(&members, &owners, to))
    }

    /// What shards still have rows of that another owns since a later epoch.
    pub(super) fn leftovers(&self) -> Vec<(ShardId, Change)> {
        let mut leftovers = Vec::new();
        for prefix in Prefix::all() {
            let Standing::Owned { by, epoch } = self.standing(prefix) else {
                continue;
            };
            for (peer, holding) in self.all(prefix) {
                let is_others = peer.id != by.id && holding.coming_epoch == 0;
                if is_others && holding.has_rows && holding.epoch <= epoch.get() {
                    let change = Change {
                        prefix: prefix.to_string(),
                        epoch: holding.epoch,
                    };
                    leftovers.push((peer.id.clone(), change));
                }
            }
        }
        leftovers
    }
}

/// A node of an earlier release would write to prefixes that are frozen. One that does not
/// answer is passed over: it is asked again when it is there.
async fn refuse_old(peer: &Peer) -> Result<(), Stop> {
    for (address, node) in &peer.nodes {
        let request = HoldingsRequest {
            prefixes: vec!["00".to_owned()],
            with_rows: false,
        };
        let answer = tokio::time::timeout(ONE_NODE, client(node).holdings(request)).await;
        let (shard, node) = (peer.id.clone(), address.clone());
        match answer {
            Ok(Ok(answer)) => {
                let found = answer.into_inner().shard;
                if found != shard.as_str() {
                    return Err(Stop::OtherShard { shard, node, found });
                }
            }
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                return Err(Stop::Old { shard, node });
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(())
}

impl fmt::Display for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned { by, epoch } => {
                write!(f, "belongs to {} since epoch {}", by.id, epoch.get())
            }
            Self::Released { to } => write!(f, "was released to {to}, which has not taken it"),
            Self::Nobodys => f.write_str("belongs to no shard of this region"),
            Self::Claimed { by } => {
                let by: Vec<&str> = by.iter().map(ShardId::as_str).collect();
                write!(f, "is claimed by {}", by.join(" and by "))
            }
        }
    }
}

/// One line for each shard, and one for the prefixes that need somebody.
impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (peer, holdings) in self.peers.all().zip(&self.holdings) {
            let own = || {
                holdings
                    .iter()
                    .filter(|held| held.owner == peer.id.as_str())
            };
            let count = |has: fn(&&Holding) -> bool| holdings.iter().filter(has).count();
            let epoch = own().map(|held| held.epoch).max().unwrap_or_default();
            writeln!(
                f,
                "{} ({}): {} prefixes, highest epoch {epoch}; {} frozen, {} on their way here",
                peer.id,
                peer.region,
                own().count(),
                count(|held| held.is_frozen),
                count(|held| held.coming_epoch > 0),
            )?;
        }
        for prefix in Prefix::all() {
            match self.standing(prefix) {
                // Of another region, unless it is lost: then its owner's line lacks it.
                Standing::Owned { .. } | Standing::Nobodys => {}
                standing => writeln!(f, "prefix {prefix} {standing}")?,
            }
        }
        Ok(())
    }
}
