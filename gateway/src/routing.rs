//! Which shard a slug belongs to: one array index.

use std::sync::Arc;

use arc_swap::ArcSwap;
use waypost_domain::shard_map::ShardMap;
use waypost_domain::{Epoch, Prefix, ShardId};
use xxhash_rust::xxh3::xxh3_64;

/// Shards that one process meets in its life, those that have left the map among them:
/// far more than own prefixes at the same time.
pub(crate) const MAX_SHARDS: usize = 1_024;

/// The place of a shard in the list of those that this process has met. It is never
/// given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShardIndex(pub(crate) u16);

impl ShardIndex {
    #[must_use]
    pub fn get(self) -> usize {
        self.0.into()
    }
}

/// Why a changed map is not followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the shard {shard}, which it lacks, owns {prefixes} prefixes")]
    Missing { shard: ShardId, prefixes: u32 },
    #[error(
        "prefix {prefix} is given to {given}, and {owner} owns it; {others} others are given away as well. A map only seeds: what moves prefixes are the shards"
    )]
    Moved {
        prefix: Prefix,
        given: ShardId,
        owner: ShardId,
        others: usize,
    },
    #[error("it has more new shards than a process can meet, which are {MAX_SHARDS}: restart it")]
    TooMany,
}

#[derive(Debug, Clone, Copy)]
struct Route {
    shard: ShardIndex,
    epoch: Epoch,
}

#[derive(Debug, Clone)]
struct Table {
    /// By index; `None`: it owned nothing, and has left the map.
    shards: Vec<Option<ShardId>>,
    /// By index of the prefix.
    owners: Vec<Route>,
}

/// The owner of every prefix, as far as this gateway knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Routes(Arc<ArcSwap<Table>>);

impl Routes {
    /// The map's word, which any shard's word overrules.
    #[must_use]
    pub fn seeded_by(map: &ShardMap) -> Self {
        let owners = Prefix::all()
            .map(|prefix| Route {
                shard: ShardIndex(map.owner_index(prefix) as u16),
                epoch: Epoch::SEED,
            })
            .collect();
        let ids = map.shards().iter().map(|shard| Some(shard.id.clone()));
        Self(Arc::new(ArcSwap::from_pointee(Table {
            shards: ids.collect(),
            owners,
        })))
    }

    /// The shard to ask about a prefix, and the epoch of what is known.
    #[must_use]
    pub fn owner(&self, prefix: Prefix) -> (ShardIndex, Epoch) {
        let route = self.0.load().owners[prefix.index()];
        (route.shard, route.epoch)
    }

    /// The shards of the map, with their places.
    #[must_use]
    pub(crate) fn shards(&self) -> Vec<ShardIndex> {
        let table = self.0.load();
        let places = table.shards.iter().enumerate();
        places
            .filter(|(_, id)| id.is_some())
            .map(|(at, _)| ShardIndex(at as u16))
            .collect()
    }

    /// By shard: how many prefixes it owns, and the highest of their epochs.
    #[must_use]
    pub fn holdings(&self) -> Vec<(u32, u32)> {
        self.0.load().holdings()
    }

    /// The same at gateways that know the same of all owners, and hardly ever else: 16
    /// hex digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let table = self.0.load();
        let mut known = Vec::new();
        for route in &table.owners {
            let shard = table.shards[route.shard.get()].as_ref();
            known.extend(shard.map_or("", ShardId::as_str).bytes());
            known.push(0);
            known.extend(route.epoch.get().to_be_bytes());
        }
        format!("{:016x}", xxh3_64(&known))
    }

    /// Takes over what shards say about owners, where it is newer than what is
    /// known. Answers how many entries that changed. A shard that is not in the
    /// map cannot be asked, so that its entry stays as it is.
    pub fn learn(&self, told: &[(Prefix, ShardId, Epoch)]) -> usize {
        let newer = |table: &Table, prefix: Prefix, epoch| {
            let known = table.owners[prefix.index()].epoch;
            known < epoch
        };
        let known = self.0.load();
        if !told
            .iter()
            .any(|(prefix, _, epoch)| newer(&known, *prefix, *epoch))
        {
            return 0;
        }
        let mut changed = 0;
        self.0.rcu(|known| {
            changed = 0;
            let mut table = Table::clone(known);
            for (prefix, shard, epoch) in told {
                if let Some(shard) = table.place(shard)
                    && newer(&table, *prefix, *epoch)
                {
                    table.owners[prefix.index()] = Route {
                        shard,
                        epoch: *epoch,
                    };
                    changed += 1;
                }
            }
            table
        });
        changed
    }

    /// Whether a changed map can be followed. Of prefixes it may say what the map before
    /// it said, or what the shards say.
    ///
    /// # Errors
    /// If it cannot.
    pub fn judge(&self, before: &ShardMap, map: &ShardMap) -> Result<(), Refused> {
        let table = self.0.load();
        let is_listed = |id: &ShardId| map.shards().iter().any(|shard| shard.id == *id);
        for (id, (prefixes, _)) in table.shards.iter().zip(table.holdings()) {
            if let Some(id) = id
                && prefixes > 0
                && !is_listed(id)
            {
                return Err(Refused::Missing {
                    shard: id.clone(),
                    prefixes,
                });
            }
        }
        let owner =
            |prefix: Prefix| table.shards[table.owners[prefix.index()].shard.get()].as_ref();
        let is_moved = |prefix: &Prefix| {
            let given = &map.owner(*prefix).id;
            *given != before.owner(*prefix).id && Some(given) != owner(*prefix)
        };
        let mut moved = Prefix::all().filter(is_moved);
        if let Some(prefix) = moved.next()
            && let Some(owner) = owner(prefix)
        {
            return Err(Refused::Moved {
                prefix,
                given: map.owner(prefix).id.clone(),
                owner: owner.clone(),
                others: moved.count(),
            });
        }
        let ids = map.shards().iter().map(|shard| &shard.id);
        let new = ids.filter(|id| table.place(id).is_none()).count();
        if table.shards.len() + new > MAX_SHARDS {
            return Err(Refused::TooMany);
        }
        Ok(())
    }

    /// Where a shard is, or will be once it is added.
    pub(crate) fn place_for(&self, id: &ShardId) -> ShardIndex {
        let table = self.0.load();
        let next = ShardIndex(table.shards.len() as u16);
        table.place(id).unwrap_or(next)
    }

    /// From now on the shard can own prefixes.
    pub(crate) fn add(&self, id: &ShardId) {
        self.0.rcu(|known| {
            let mut table = Table::clone(known);
            if table.place(id).is_none() {
                table.shards.push(Some(id.clone()));
            }
            table
        });
    }

    /// From now on the shard cannot own prefixes. Answers whether that is so: it is not
    /// if it owns any.
    pub(crate) fn remove(&self, shard: ShardIndex) -> bool {
        let mut is_removed = false;
        self.0.rcu(|known| {
            let mut table = Table::clone(known);
            is_removed = table.holdings()[shard.get()].0 == 0;
            if is_removed {
                table.shards[shard.get()] = None;
            }
            table
        });
        is_removed
    }
}

impl Table {
    fn place(&self, id: &ShardId) -> Option<ShardIndex> {
        let is_it = |known: &Option<ShardId>| known.as_ref() == Some(id);
        let at = self.shards.iter().position(is_it)?;
        Some(ShardIndex(at as u16))
    }

    fn holdings(&self) -> Vec<(u32, u32)> {
        let mut held = vec![(0, 0); self.shards.len()];
        for route in &self.owners {
            let (prefixes, epoch) = &mut held[route.shard.get()];
            *prefixes += 1;
            *epoch = route.epoch.get().max(*epoch);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use waypost_domain::shard_map::Shard;

    use super::*;

    fn id(text: &str) -> ShardId {
        ShardId::parse(text).unwrap()
    }

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    /// A map of these shards, in which those of `empty` begin with nothing.
    fn map(ids: &[&str], empty: &[&str]) -> ShardMap {
        let shard = |id: &&str| Shard {
            id: ShardId::parse(id).unwrap(),
            region: "local".to_owned(),
            nodes: Vec::new(),
        };
        let seed = ShardMap::seed(ids.iter().map(shard).collect()).unwrap();
        let mut file: serde_json::Value = serde_json::from_str(&seed.to_json()).unwrap();
        for id in empty {
            let entry = serde_json::json!({ "id": id, "region": "local", "nodes": [] });
            file["shards"].as_array_mut().unwrap().push(entry);
        }
        ShardMap::parse(&file.to_string()).unwrap()
    }

    #[test]
    fn a_changed_map_adds_shards_and_takes_away_those_that_own_nothing() {
        let (two, three) = (map(&["s0", "s1"], &[]), map(&["s0", "s1"], &["s2"]));
        let routes = Routes::seeded_by(&two);
        let prefix = two.owner_index(Prefix::parse("aa").unwrap());
        assert_eq!(routes.judge(&two, &three), Ok(()));
        assert_eq!(routes.place_for(&id("s2")), ShardIndex(2));
        routes.add(&id("s2"));
        routes.add(&id("s2"));
        assert_eq!(routes.shards(), [0, 1, 2].map(ShardIndex));
        // It is given a prefix by a shard: now it must stay.
        let told = [(Prefix::parse("aa").unwrap(), id("s2"), epoch(2))];
        assert_eq!(routes.learn(&told), 1);
        let missing = Refused::Missing {
            shard: id("s2"),
            prefixes: 1,
        };
        assert_eq!(routes.judge(&three, &two), Err(missing));
        assert!(!routes.remove(ShardIndex(2)));
        let back = [(told[0].0, two.shards()[prefix].id.clone(), epoch(3))];
        assert_eq!(routes.learn(&back), 1);
        assert_eq!(routes.judge(&three, &two), Ok(()));
        assert!(routes.remove(ShardIndex(2)));
        assert_eq!(routes.learn(&[(told[0].0, id("s2"), epoch(4))]), 0);
        // Its place is nobody else's, and not its own when it comes back.
        assert_eq!(routes.place_for(&id("s2")), ShardIndex(3));
    }

    #[test]
    fn a_changed_map_gives_no_prefix_away_but_says_what_shards_have_said() {
        let (two, three) = (map(&["s0", "s1"], &[]), map(&["s0", "s1", "s2"], &[]));
        let routes = Routes::seeded_by(&two);
        let refused = routes.judge(&two, &three).unwrap_err();
        let Refused::Moved { given, others, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(*given, id("s2"));
        assert!((1_000..1_600).contains(others), "{refused}");
        // The shards' word, whatever the map before said.
        routes.add(&id("s2"));
        let moved: Vec<_> = Prefix::all()
            .map(|prefix| (prefix, three.owner(prefix).id.clone(), epoch(2)))
            .collect();
        routes.learn(&moved[1..]);
        let first = routes.judge(&two, &three);
        assert_eq!(
            first.is_ok(),
            three.owner(moved[0].0).id == two.owner(moved[0].0).id
        );
        routes.learn(&moved);
        assert_eq!(routes.judge(&two, &three), Ok(()));
        // The old seeds do no harm: what a map said before it may go on saying.
        assert_eq!(routes.judge(&two, &map(&["s0", "s1"], &["s2"])), Ok(()));
    }

    #[test]
    fn a_process_meets_so_many_shards_and_no_more() {
        let (two, one_more) = (map(&["s0", "s1"], &[]), map(&["s0", "s1"], &["more"]));
        let routes = Routes::seeded_by(&two);
        for count in 2..MAX_SHARDS {
            assert_eq!(routes.judge(&two, &one_more), Ok(()), "after {count}");
            let new = id(&format!("n{count}"));
            let place = routes.place_for(&new);
            routes.add(&new);
            assert!(routes.remove(place));
        }
        assert_eq!(routes.judge(&two, &one_more), Err(Refused::TooMany));
    }

    #[test]
    fn the_higher_epoch_wins_and_unknown_shards_are_passed_over() {
        let map = map(&["s0", "s1"], &[]);
        let routes = Routes::seeded_by(&map);
        let prefix = Prefix::parse("aa").unwrap();
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
