//! `deploy/topology.yaml`: which regions and shards there are, and who talks to whom.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use waypost_domain::ShardId;

/// Those that are images of a release.
pub(super) const PROGRAMS: [&str; 4] = ["gateway", "shard-node", "keygen", "analytics-consumer"];

/// The version of the file that is read here.
const FORMAT: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topology {
    format: u32,
    pub(super) namespace: String,
    pub(super) images: Images,
    pub(super) calls: Vec<Call>,
    pub(super) outside: BTreeMap<String, Outside>,
    pub(super) deployments: Vec<Deployment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Images {
    /// Of our programs, without a slash at its end.
    pub(super) registry: String,
    /// Of the regions that have none of their own.
    release: Release,
    pub(super) postgres: String,
    pub(super) redis: String,
}

/// One build of our programs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    pub(super) tag: String,
    /// By program, as in `sha256:..`; of all programs, or none.
    #[serde(default)]
    pub(super) digests: BTreeMap<String, String>,
}

/// Who opens connections to whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) port: u16,
    /// Also from the pods of other regions.
    #[serde(default)]
    pub(super) everywhere: bool,
}

/// An end of a call that is no pod of ours.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outside {
    Namespace(String),
    Cidr(String),
}

/// What serves the same links.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deployment {
    pub(super) name: String,
    pub(super) size: Size,
    /// The region that counts clicks.
    pub(super) hub: String,
    pub(super) regions: Vec<Region>,
    pub(super) shards: Vec<Shard>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Size {
    /// One copy of each part, without what more than one node, a secret store or a
    /// load balancer bring.
    Single,
    Full,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Region {
    pub(super) name: String,
    /// Of kubectl.
    pub(super) context: String,
    /// What follows a Service's name where it resolves in all regions.
    pub(super) domain: String,
    /// What short URLs begin with.
    pub(super) url: String,
    /// The addresses of its pods.
    pub(super) pods: String,
    /// Where its databases are copied to.
    pub(super) backups: Option<String>,
    /// What runs there in place of what runs elsewhere.
    #[serde(default)]
    release: Option<Release>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shard {
    pub(super) id: String,
    /// The region of its primary.
    pub(super) home: String,
    /// The region of a replica cluster.
    pub(super) standby: Option<String>,
    /// The numbers of its instances of Postgres, which change when one is made anew.
    #[serde(default = "first_instances")]
    pub(super) instances: Vec<u32>,
}

fn first_instances() -> Vec<u32> {
    vec![1, 2, 3]
}

impl Topology {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // As plain data first: YAML has a notation of its own for enums.
        let value: serde_json::Value =
            serde_norway::from_str(text).map_err(|error| error.to_string())?;
        let topology: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if topology.format != FORMAT {
            return Err(format!("its format is not {FORMAT}"));
        }
        let regions = topology.deployments.iter().flat_map(|one| &one.regions);
        if let Some(twice) = repeated(regions.map(|region| &*region.name)) {
            return Err(format!("region {twice} is named twice"));
        }
        topology
            .deployments
            .iter()
            .try_for_each(Deployment::check)?;
        topology.images.release.check()?;
        for (_, region) in topology.regions() {
            topology.release(region).check()?;
        }
        Ok(topology)
    }

    /// What runs there.
    pub(super) fn release<'a>(&'a self, region: &'a Region) -> &'a Release {
        region.release.as_ref().unwrap_or(&self.images.release)
    }

    /// Each region with what it is part of.
    pub(super) fn regions(&self) -> impl Iterator<Item = (&Deployment, &Region)> {
        self.deployments
            .iter()
            .flat_map(|one| one.regions.iter().map(move |region| (one, region)))
    }
}

impl Release {
    fn check(&self) -> Result<(), String> {
        let tag = &self.tag;
        if tag == "latest" {
            return Err("the tag latest says nothing of what runs".to_owned());
        }
        if self.digests.is_empty() {
            return Ok(());
        }
        let named: BTreeSet<&str> = self.digests.keys().map(String::as_str).collect();
        if named != BTreeSet::from(PROGRAMS) {
            return Err(format!(
                "{tag}: digests of {named:?} and not of all programs"
            ));
        }
        let is_digest = |digest: &&String| {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        match self.digests.values().find(|digest| !is_digest(digest)) {
            Some(wrong) => Err(format!("{tag}: {wrong} is no digest")),
            None => Ok(()),
        }
    }
}

impl Deployment {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let is_region = |name: &str| self.regions.iter().any(|region| region.name == name);
        if !is_region(&self.hub) {
            return Err(format!("{name}: the hub {} is no region", self.hub));
        }
        if let Some(twice) = repeated(self.regions.iter().map(|region| &*region.pods)) {
            return Err(format!("{name}: two regions have the pods {twice}"));
        }
        if let Some(twice) = repeated(self.shards.iter().map(|shard| &*shard.id)) {
            return Err(format!("{name}: shard {twice} is named twice"));
        }
        for shard in &self.shards {
            let id = &shard.id;
            if ShardId::parse(id).is_none() {
                return Err(format!("{name}: \"{id}\" is no name of a shard"));
            }
            let places = std::iter::once(&shard.home).chain(&shard.standby);
            if let Some(place) = places.into_iter().find(|place| !is_region(place)) {
                return Err(format!("{name}: {id} is at {place}, which is no region"));
            }
            if shard.standby.as_ref() == Some(&shard.home) {
                return Err(format!("{name}: {id} has its standby at home"));
            }
        }
        if let (Size::Full, Some(region)) = (
            self.size,
            self.regions.iter().find(|region| region.backups.is_none()),
        ) {
            return Err(format!("{name}: {} has no backups", region.name));
        }
        Ok(())
    }

    /// The shards that are at home there.
    pub(super) fn homed<'a>(&'a self, region: &'a Region) -> impl Iterator<Item = &'a Shard> {
        self.shards.iter().filter(|shard| shard.home == region.name)
    }

    /// Whether pods of this role are in this region.
    pub(super) fn has(&self, region: &Region, role: &str) -> bool {
        let is_hub = region.name == self.hub;
        match role {
            "analytics-consumer" => is_hub,
            "mirror" => is_hub && self.regions.len() > 1,
            "shard-node" => self.homed(region).next().is_some(),
            _ => true,
        }
    }

    /// The others.
    pub(super) fn beside<'a>(&'a self, region: &'a Region) -> impl Iterator<Item = &'a Region> {
        self.regions
            .iter()
            .filter(|other| other.name != region.name)
    }

    pub(super) fn hub(&self) -> &Region {
        let hub = self.regions.iter().find(|region| region.name == self.hub);
        hub.expect("was checked")
    }
}

fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}
