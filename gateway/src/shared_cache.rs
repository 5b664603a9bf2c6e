//! The cache that the gateways of a region share: Redis Cluster, or none.

use waypost_domain::{Link, LinkKey};

#[cfg(feature = "cluster")]
use crate::redis_tier::RedisTier;

/// What the gateway is to use.
#[derive(Debug)]
pub enum SharedCache {
    None,
    #[cfg(feature = "cluster")]
    Redis {
        redis: waypost_runtime::redis::Redis,
        /// Of the values in it; see [`waypost_proto::cache::key`].
        generation: u32,
    },
}

/// The cache in use. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Tier {
    None,
    #[cfg(feature = "cluster")]
    Redis(RedisTier),
}

#[cfg_attr(
    not(feature = "cluster"),
    expect(unused_variables, reason = "without a cache there is nothing to do")
)]
impl Tier {
    pub(crate) async fn get(&self, key: &LinkKey) -> Option<Link> {
        match self {
            Self::None => None,
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => redis.get(key).await,
        }
    }

    pub(crate) async fn put(&self, link: &Link) {
        match self {
            Self::None => {}
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => redis.put(link).await,
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}
