//! The map that the shards' databases are seeded from.

use serde_json::{Map, Value};
use waypost_domain::ShardId;
use waypost_domain::shard_map::{self, ShardMap};

use super::topology::Deployment;

/// Prefixes stay with whom they were given to first: a shard that is added has none until
/// they are moved to it, for two that begin with the same would both take them.
pub(super) fn seed(deployment: &Deployment, before: Option<&str>) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", deployment.name);
    let shards = deployment.shards.iter().map(|shard| {
        let home = deployment
            .regions
            .iter()
            .find(|region| region.name == shard.home);
        Ok(shard_map::Shard {
            id: ShardId::parse(&shard.id).ok_or("no shard's name")?,
            region: shard.home.clone(),
            nodes: home
                .iter()
                .map(|home| format!("shard-{}.{}:7101", shard.id, home.domain))
                .collect(),
        })
    });
    let shards: Vec<_> = shards
        .collect::<Result<_, &str>>()
        .map_err(|error| failed(&error))?;
    let seed = ShardMap::seed(shards)
        .map_err(|error| failed(&error))?
        .to_json();
    let Some(before) = before else {
        return Ok(seed + "\n");
    };
    ShardMap::parse(before).map_err(|error| failed(&error))?;
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text);
    let (mut map, before) = (
        parse(&seed).map_err(|error| failed(&error))?,
        parse(before).map_err(|error| failed(&error))?,
    );
    let prefixes: Map<String, Value> = deployment
        .shards
        .iter()
        .map(|shard| {
            let kept = before["prefixes"].get(&shard.id).cloned();
            (shard.id.clone(), kept.unwrap_or_else(|| "".into()))
        })
        .collect();
    map.insert("prefixes".to_owned(), prefixes.into());
    let text = serde_json::to_string(&map).map_err(|error| failed(&error))?;
    // Says so if a shard was taken out that has prefixes.
    let map = ShardMap::parse(&text).map_err(|error| failed(&error))?;
    Ok(map.to_json() + "\n")
}
