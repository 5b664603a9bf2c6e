//! The distributed map: which shards there are, where their nodes listen, and
//! which prefixes each had when the map was written.
//!
//! The map seeds. Once a shard has stored its prefixes, its database is the truth
//! about them; a gateway corrects its table by what the shards tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::placement::{self, Member};
use crate::{Prefix, ShardId};

/// The version of the file's format that this release writes and reads.
const FORMAT: u32 = 1;

/// Why a text is no shard map.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the map is not valid JSON of the expected shape")]
    Json(#[from] serde_json::Error),
    #[error("the map has format {0}; this release reads format {FORMAT}")]
    Format(u32),
    #[error("the map names no shard")]
    Empty,
    #[error("shard id \"{0}\" is not 1 to 32 characters of 0-9, a-z, -")]
    ShardId(String),
    #[error("shard \"{0}\" is named twice")]
    Twice(String),
    #[error("shard \"{0}\" has prefixes but no entry under \"shards\"")]
    Unknown(String),
    #[error("\"{0}\" is not a prefix of two base62 characters")]
    Prefix(String),
    #[error("prefix {0} is given to two shards")]
    Overlap(Prefix),
    #[error("prefix {0} is given to no shard")]
    Unowned(Prefix),
}

/// One shard of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    /// Where its primary is.
    pub region: String,
    /// `host:port` of each node's gRPC service.
    pub nodes: Vec<String>,
}

/// A checked map: every prefix has exactly one owner, and each is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    shards: Vec<Shard>,
    /// Index into `shards`, by index of the prefix.
    owners: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    shards: Vec<FileShard>,
    /// The prefixes of each shard, separated by spaces.
    prefixes: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileShard {
    id: String,
    region: String,
    nodes: Vec<String>,
}

impl ShardMap {
    /// A map of these shards with equal weights, the prefixes planned from
    /// nothing.
    ///
    /// # Errors
    /// If there is no shard, or one is named twice.
    pub fn seed(shards: Vec<Shard>) -> Result<Self, Error> {
        if shards.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(twice) = repeated(&shards) {
            return Err(Error::Twice(twice.to_string()));
        }
        let members: Vec<Member> = shards
            .iter()
            .map(|shard| Member {
                shard: shard.id.clone(),
                weight: 1,
            })
            .collect();
        let owners = placement::plan(&members, &[]);
        Ok(Self { shards, owners })
    }

    /// The same map with one more shard, which has no prefixes: what moves some to it are
    /// the shards.
    ///
    /// # Errors
    /// If there is one of this name.
    pub fn with_empty(mut self, shard: Shard) -> Result<Self, Error> {
        self.shards.push(shard);
        match repeated(&self.shards) {
            Some(twice) => Err(Error::Twice(twice.to_string())),
            None => Ok(self),
        }
    }

    /// Reads and checks the JSON text of a map.
    ///
    /// # Errors
    /// Says what is wrong with the first thing that is.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = serde_json::from_str(text)?;
        if file.format != FORMAT {
            return Err(Error::Format(file.format));
        }
        let shards = file
            .shards
            .into_iter()
            .map(|shard| {
                let id = ShardId::parse(&shard.id).ok_or(Error::ShardId(shard.id))?;
                Ok(Shard {
                    id,
                    region: shard.region,
                    nodes: shard.nodes,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if shards.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(twice) = repeated(&shards) {
            return Err(Error::Twice(twice.to_string()));
        }
        let mut owners = vec![None; Prefix::COUNT];
        for (id, prefixes) in &file.prefixes {
            let owner = shards
                .iter()
                .position(|shard| shard.id.as_str() == id)
                .ok_or_else(|| Error::Unknown(id.clone()))?;
            for text in prefixes.split_whitespace() {
                let prefix = Prefix::parse(text).ok_or_else(|| Error::Prefix(text.to_owned()))?;
                if owners[prefix.index()].replace(owner).is_some() {
                    return Err(Error::Overlap(prefix));
                }
            }
        }
        let owners = Prefix::all()
            .map(|prefix| owners[prefix.index()].ok_or(Error::Unowned(prefix)))
            .collect::<Result<_, _>>()?;
        Ok(Self { shards, owners })
    }

    /// The JSON text of this map.
    #[must_use]
    pub fn to_json(&self) -> String {
        let prefixes_of = |owner: usize| {
            Prefix::all()
                .filter(|prefix| self.owners[prefix.index()] == owner)
                .map(|prefix| prefix.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let file = File {
            format: FORMAT,
            shards: self
                .shards
                .iter()
                .map(|shard| FileShard {
                    id: shard.id.to_string(),
                    region: shard.region.clone(),
                    nodes: shard.nodes.clone(),
                })
                .collect(),
            prefixes: self
                .shards
                .iter()
                .enumerate()
                .map(|(index, shard)| (shard.id.to_string(), prefixes_of(index)))
                .collect(),
        };
        serde_json::to_string_pretty(&file).expect("a map of strings is JSON")
    }

    /// In the order of the file; [`ShardMap::owner_index`] points into it.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Where the primary of a shard is; none: the map does not name the shard.
    #[must_use]
    pub fn region(&self, id: &ShardId) -> Option<&str> {
        let shard = self.shards.iter().find(|shard| shard.id == *id)?;
        Some(&shard.region)
    }

    #[must_use]
    pub fn owner_index(&self, prefix: Prefix) -> usize {
        self.owners[prefix.index()]
    }

    #[must_use]
    pub fn owner(&self, prefix: Prefix) -> &Shard {
        &self.shards[self.owner_index(prefix)]
    }
}

fn repeated(shards: &[Shard]) -> Option<&ShardId> {
    shards
        .iter()
        .enumerate()
        .find(|(at, shard)| shards[..*at].iter().any(|other| other.id == shard.id))
        .map(|(_, shard)| &shard.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ShardMap {
        let shard = |id: &str| Shard {
            id: ShardId::parse(id).unwrap(),
            region: "local".to_owned(),
            nodes: vec!["127.0.0.1:1".to_owned()],
        };
        ShardMap::seed(vec![shard("s0"), shard("s1"), shard("s2")]).unwrap()
    }

    #[test]
    fn a_map_survives_being_written_and_read() {
        assert_eq!(ShardMap::parse(&map().to_json()).unwrap(), map());
    }

    #[test]
    fn a_map_with_a_hole_an_overlap_or_a_stranger_is_refused() {
        let json = map().to_json();
        let error = |text: &str| ShardMap::parse(text).unwrap_err().to_string();
        let owner = map().owner(Prefix::parse("zz").unwrap()).id.to_string();
        let hole = json.replacen("zz\"", "\"", 1).replacen(" zz", "", 1);
        assert_eq!(error(&hole), "prefix zz is given to no shard");
        let other = if owner == "s0" { "s1" } else { "s0" };
        let list = format!("\"{other}\": \"");
        let overlap = json.replace(&list, &format!("{list}zz "));
        assert_eq!(error(&overlap), "prefix zz is given to two shards");
        let stranger = json.replace("\"s0\": \"", "\"s9\": \"");
        assert!(error(&stranger).contains("s9"));
        assert!(error(&json.replace("\"format\": 1", "\"format\": 2")).contains("format 2"));
    }
}
