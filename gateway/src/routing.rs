//! Which shard a slug belongs to: one array index.

use std::sync::Arc;

use arc_swap::ArcSwap;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::{Epoch, Prefix, ShardId};
use xxhash_rust::xxh3::xxh3_64;

/// The place of a shard in the list that the gateway was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShardIndex(pub(crate) u16);

impl ShardIndex {
    #[must_use]
    pub fn get(self) -> usize {
        self.0.into()
    }
}

#[derive(Debug, Clone, Copy)]
struct Route {
    shard: ShardIndex,
    epoch: Epoch,
}

/// The owner of every prefix, as far as this gateway knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routes {
    shards: Arc<[ShardId]>,
    table: Arc<ArcSwap<Vec<Route>>>,
}

impl Routes {
    /// The map's word, which any shard's word overrules.
    #[must_use]
    pub fn seeded_by(map: &ShardMap) -> Self {
        let table = Prefix::all()
            .map(|prefix| Route {
                shard: ShardIndex(map.owner_index(prefix) as u16),
                epoch: Epoch::SEED,
            })
            .collect();
        Self {
            shards: map.shards().iter().map(|shard| shard.id.clone()).collect(),
            table: Arc::new(ArcSwap::from_pointee(table)),
        }
    }

    /// The shard to ask about a prefix, and the epoch of what is known.
    #[must_use]
    pub fn owner(&self, prefix: Prefix) -> (ShardIndex, Epoch) {
        let route = self.table.load()[prefix.index()];
        (route.shard, route.epoch)
    }

    /// The id of a shard of the list.
    #[must_use]
    pub fn shard_id(&self, shard: ShardIndex) -> &ShardId {
        &self.shards[shard.get()]
    }

    /// By shard: how many prefixes it owns, and the highest of their epochs.
    #[must_use]
    pub fn holdings(&self) -> Vec<(u32, u32)> {
        let mut held = vec![(0, 0); self.shards.len()];
        for route in self.table.load().iter() {
            let (prefixes, epoch) = &mut held[route.shard.get()];
            *prefixes += 1;
            *epoch = route.epoch.get().max(*epoch);
        }
        held
    }

    /// The same at gateways that know the same of all owners, and hardly ever else: 16
    /// hex digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let known: Vec<u8> = self
            .table
            .load()
            .iter()
            .flat_map(|route| {
                let shard = self.shard_id(route.shard).as_str().bytes();
                shard.chain([0]).chain(route.epoch.get().to_be_bytes())
            })
            .collect();
        format!("{:016x}", xxh3_64(&known))
    }

    /// Takes over what shards say about owners, where it is newer than what is
    /// known. Answers how many entries that changed. A shard that is not in the
    /// list cannot be asked, so that its entry stays as it is.
    pub fn learn(&self, told: &[(Prefix, ShardId, Epoch)]) -> usize {
        let newer = |table: &[Route], prefix: Prefix, epoch| table[prefix.index()].epoch < epoch;
        let known = self.table.load();
        if !told
            .iter()
            .any(|(prefix, _, epoch)| newer(&known, *prefix, *epoch))
        {
            return 0;
        }
        let mut changed = 0;
        self.table.rcu(|known| {
            changed = 0;
            let mut table = Vec::clone(known);
            for (prefix, shard, epoch) in told {
                let index = self.shards.iter().position(|known| known == shard);
                if let Some(index) = index
                    && newer(&table, *prefix, *epoch)
                {
                    table[prefix.index()] = Route {
                        shard: ShardIndex(index as u16),
                        epoch: *epoch,
                    };
                    changed += 1;
                }
            }
            table
        });
        changed
    }
}

#[cfg(test)]
mod tests {
    use waypost_domain::shard_map::Shard;

    use super::*;

    #[test]
    fn the_higher_epoch_wins_and_unknown_shards_are_passed_over() {
        let id = |text| ShardId::parse(text).unwrap();
        let shard = |text| Shard {
            id: id(text),
            region: "local".to_owned(),
            nodes: Vec::new(),
        };
        let map = ShardMap::seed(vec![shard("s0"), shard("s1")]).unwrap();
        let routes = Routes::seeded_by(&map);
        let prefix = Prefix::parse("aa").unwrap();
        let epoch = |number| Epoch::new(number).unwrap();
        assert_eq!(routes.learn(&[(prefix, id("s1"), epoch(1))]), 1);
        assert_eq!(routes.learn(&[(prefix, id("s0"), epoch(1))]), 0);
        let (other, before) = (Routes::seeded_by(&map), routes.fingerprint());
        assert_ne!(other.fingerprint(), before);
        other.learn(&[(prefix, id("s1"), epoch(1))]);
        assert_eq!(other.fingerprint(), before);
        assert_eq!(routes.owner(prefix), (ShardIndex(1), epoch(1)));
        assert_eq!(routes.learn(&[(prefix, id("s0"), epoch(2))]), 1);
        assert_eq!(routes.learn(&[(prefix, id("s9"), epoch(3))]), 0);
        let seeded = |shard| {
            Prefix::all()
                .filter(|at| map.owner_index(*at) == shard)
                .count()
        };
        let held = [(0, 2), (1, 0)].map(|(shard, epoch)| (seeded(shard) as u32, epoch));
        assert_eq!(
            Routes::seeded_by(&map).holdings(),
            held.map(|(count, _)| (count, 0))
        );
        let owned: u32 = routes.holdings().iter().map(|(count, _)| count).sum();
        assert_eq!(owned, Prefix::COUNT as u32);
        assert_eq!(routes.holdings()[0].1, 2);
        assert_eq!(routes.owner(prefix), (ShardIndex(0), epoch(2)));
    }
}
