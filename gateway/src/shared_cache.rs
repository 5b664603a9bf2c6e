//! The cache that the gateways of a region share: Redis Cluster, or none.

use std::time::Instant;

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
        /// Hides in Redis whom the limits there are about.
        secret: [u8; 32],
    },
}

/// What the cache says of a slug.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "cluster"),
    expect(dead_code, reason = "no cache holds nothing")
)]
pub(crate) enum Held {
    Link(Box<Link>),
    /// The primary had no such link a moment ago.
    Absent,
    Nothing,
    /// A value that cannot be used, to be replaced whatever version it claims.
    Bad(Vec<u8>),
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
    pub(crate) async fn get(&self, key: &LinkKey) -> Held {
        match self {
            Self::None => Held::Nothing,
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => redis.get(key).await,
        }
    }

    /// Keeps a primary's answer. `asked` is when the primary was asked, and `bad`
    /// the value that is to be replaced even if it claims a newer version.
    pub(crate) async fn put(&self, link: &Link, bad: Option<Vec<u8>>, asked: Instant) {
        match self {
            Self::None => {}
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => redis.put(link, bad, asked).await,
        }
    }

    /// Keeps for a moment that the primary has no such link.
    pub(crate) async fn put_absent(&self, key: &LinkKey, bad: Option<Vec<u8>>, asked: Instant) {
        match self {
            Self::None => {}
            #[cfg(feature = "cluster")]
            Self::Redis(redis) => redis.put_absent(key, bad, asked).await,
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}
