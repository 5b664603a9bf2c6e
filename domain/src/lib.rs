//! The rules of the shortener, free of I/O: what a slug, a link and a shard
//! are, where a prefix lives, how slugs are minted and links are signed.
//!
//! Nothing in this crate opens a socket, reads a clock or draws a random
//! number; those come in as arguments.

pub mod api_key;
pub mod base62;
pub mod blocklist;
pub mod click;
pub mod destination;
pub mod jwt;
pub mod link;
pub mod long_url;
pub mod mint;
pub mod placement;
pub mod scope;
pub mod shard;
pub mod shard_map;
pub mod signature;
pub mod slug;
pub mod source;
pub mod tenant;
pub mod timestamp;
pub mod version;

pub use link::{
    Change, ChangeId, Conditions, CreateId, DomainId, Link, LinkId, LinkKey, NewLink, Patch,
    RedirectStatus, SlugKind, Source, State, Verdict,
};
pub use long_url::LongUrl;
pub use scope::{Scope, Scopes};
pub use shard::{Epoch, ShardId};
pub use slug::{Prefix, Slug, SlugRef};
pub use tenant::Tenant;
pub use timestamp::Timestamp;
pub use version::Version;
