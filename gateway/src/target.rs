//! What a redirect needs to know of a link: the value of every cache.

use http::HeaderValue;
use waypost_domain::{
    Conditions, Link, LinkId, LinkKey, RedirectStatus, Timestamp, Verdict, Version,
};

/// A link as the redirect path sees it.
#[derive(Debug)]
pub struct Target {
    pub key: LinkKey,
    pub id: LinkId,
    pub version: Version,
    pub tenant: Box<str>,
    pub redirect_status: RedirectStatus,
    pub forward_query: bool,
    /// The `Location` as it is sent, unless a query is forwarded.
    pub location: HeaderValue,
    conditions: Conditions,
    has_visit_limit: bool,
}

impl Target {
    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        self.conditions.verdict(now)
    }

    /// Whether a client may keep a permanent redirect for a while: not if the link
    /// can end, or has to be asked for each visit.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.redirect_status.is_permanent()
            && self.conditions.valid_until.is_none()
            && !self.conditions.has_password
            && !self.has_visit_limit
    }

    /// Whether each visit is granted by the shard.
    #[must_use]
    pub fn has_visit_limit(&self) -> bool {
        self.has_visit_limit
    }

    /// Bytes that this takes in memory, heap included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.slug.as_str().len() + self.tenant.len() + self.location.len()
    }
}

impl From<&Link> for Target {
    fn from(link: &Link) -> Self {
        Self {
            key: link.key.clone(),
            id: link.id,
            version: link.version,
            tenant: link.tenant.as_str().into(),
            redirect_status: link.redirect_status,
            forward_query: link.forward_query,
            location: HeaderValue::from_str(link.long_url.as_str())
                .expect("a canonical URL is visible ASCII"),
            conditions: link.conditions(),
            has_visit_limit: link.max_visits.is_some(),
        }
    }
}
