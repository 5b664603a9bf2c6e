//! What a redirect needs to know of a link: the value of every cache.
//!
//! A gateway holds millions of these. Texts stand in one allocation without gaps, and
//! what a link does not have takes no room.

use std::sync::atomic::{AtomicU8, Ordering};

use http::HeaderValue;
use waypost_domain::{
    Conditions, DomainId, Link, LinkId, RedirectStatus, SlugRef, State, Timestamp, Verdict, Version,
};

use crate::protection::{Bar, unless_barred};

/// A link as the redirect path sees it.
#[derive(Debug)]
pub struct Target {
    pub id: LinkId,
    pub version: Version,
    pub domain: DomainId,
    /// Hardly any link has one.
    times: Option<Box<Times>>,
    /// Slug, tenant and location, one after another.
    text: Box<str>,
    slug_len: u8,
    tenant_len: u16,
    pub redirect_status: RedirectStatus,
    state: State,
    pub forward_query: bool,
    has_password: bool,
    has_visit_limit: bool,
    /// A [`Bar`], or 0. Changes in place when the blocklist does.
    bar: AtomicU8,
}

#[derive(Debug)]
struct Times {
    valid_since: Option<Timestamp>,
    valid_until: Option<Timestamp>,
}

impl Target {
    #[must_use]
    pub fn slug(&self) -> SlugRef<'_> {
        SlugRef::parse(self.slug_text()).expect("it was taken from a slug")
    }

    /// The slug for who only compares: it is not parsed again.
    pub(crate) fn slug_text(&self) -> &str {
        &self.text[..self.slug_len.into()]
    }

    #[must_use]
    pub fn tenant(&self) -> &str {
        let start = usize::from(self.slug_len);
        &self.text[start..start + usize::from(self.tenant_len)]
    }

    /// Where the link leads.
    #[must_use]
    pub fn long_url(&self) -> &str {
        &self.text[usize::from(self.slug_len) + usize::from(self.tenant_len)..]
    }

    /// The `Location` as it is sent, unless a query is forwarded.
    #[must_use]
    pub fn location(&self) -> HeaderValue {
        HeaderValue::from_str(self.long_url()).expect("a canonical URL is visible ASCII")
    }

    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        unless_barred(self.conditions().verdict(now), self.bar())
    }

    /// What stands before its destination whatever it says itself.
    #[must_use]
    pub(crate) fn bar(&self) -> Option<Bar> {
        match self.bar.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Bar::Blocklist),
            2 => Some(Bar::OwnDomain),
            _ => Some(Bar::MixedScripts),
        }
    }

    /// Ordered before a look at whether the list that the bar is of still holds.
    pub(crate) fn set_bar(&self, bar: Option<Bar>) {
        let bar = bar.map_or(0, |bar| bar as u8);
        self.bar.store(bar, Ordering::SeqCst);
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            state: self.state,
            valid_since: self.times.as_ref().and_then(|times| times.valid_since),
            valid_until: self.times.as_ref().and_then(|times| times.valid_until),
            has_password: self.has_password,
        }
    }

    /// Whether a client may keep a permanent redirect for a while: not if the link
    /// can end, or has to be asked for each visit.
    #[must_use]
    pub fn may_be_kept(&self) -> bool {
        self.redirect_status.is_permanent()
            && self.conditions().valid_until.is_none()
            && !self.has_password
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
        let times = self.times.as_ref().map_or(0, |_| size_of::<Times>());
        size_of::<Self>() + self.text.len() + times
    }
}

impl From<&Link> for Target {
    fn from(link: &Link) -> Self {
        let (slug, tenant) = (link.key.slug.as_str(), link.tenant.as_str());
        let has_times = link.valid_since.is_some() || link.valid_until.is_some();
        let times = has_times.then_some(Times {
            valid_since: link.valid_since,
            valid_until: link.valid_until,
        });
        Self {
            id: link.id,
            version: link.version,
            domain: link.key.domain,
            times: times.map(Box::new),
            text: [slug, tenant, link.long_url.as_str()].concat().into(),
            slug_len: u8::try_from(slug.len()).expect("a slug has at most 64 characters"),
            tenant_len: u16::try_from(tenant.len()).expect("a tenant has at most 64 characters"),
            redirect_status: link.redirect_status,
            state: link.state,
            forward_query: link.forward_query,
            has_password: link.password_hash.is_some(),
            has_visit_limit: link.max_visits.is_some(),
            bar: AtomicU8::new(0),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;
    use waypost_domain::{CreateId, Epoch, LinkKey, LongUrl, Slug};

    use super::*;

    fn link() -> Link {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        Link {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug: Slug::parse("abcdefgh").unwrap(),
            },
            id: LinkId(Uuid::from_u128(1)),
            long_url: LongUrl::parse("https://example.com/a?b=c").unwrap(),
            redirect_status: RedirectStatus::MovedPermanently,
            tenant: "acme".to_owned(),
            state: State::Active,
            version: Version::first(Epoch::FIRST),
            created_at: at(0),
            updated_at: at(0),
            valid_since: None,
            valid_until: None,
            max_visits: None,
            title: None,
            tags: Vec::new(),
            forward_query: false,
            password_hash: None,
            create_id: CreateId(Uuid::from_u128(2)),
            source: None,
            signature: [0; waypost_domain::signature::LEN],
        }
    }

    /// The target of a link of which only this matters.
    pub(crate) fn target(slug: &str, url: &str, version: u64) -> Target {
        let mut link = link();
        link.key.slug = Slug::parse(slug).unwrap();
        link.long_url = LongUrl::parse(url).unwrap();
        link.version = Version::from_stored(Version::first(Epoch::FIRST).get() + version).unwrap();
        Target::from(&link)
    }

    #[test]
    fn a_target_says_what_its_link_says() {
        let mut link = link();
        let target = Target::from(&link);
        assert_eq!(target.slug(), link.key.slug.borrowed());
        assert_eq!(target.tenant(), "acme");
        assert_eq!(target.location(), "https://example.com/a?b=c");
        assert!(target.may_be_kept());
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        assert_eq!(target.verdict(at(0)), Verdict::Redirect);
        assert_eq!(target.verdict(Timestamp::MAX), Verdict::Redirect);
        link.valid_since = Some(at(0));
        link.valid_until = Some(at(7));
        let target = Target::from(&link);
        assert_eq!(target.verdict(at(0)), Verdict::Redirect);
        assert_eq!(target.verdict(at(7)), Verdict::Gone);
        assert!(!target.may_be_kept());
        link.valid_since = Some(at(5));
        assert_eq!(Target::from(&link).verdict(at(4)), Verdict::NotFound);
    }

    /// A million links more or less are 8 MB for each 8 bytes.
    #[test]
    fn a_target_is_small() {
        assert_eq!(size_of::<Target>(), 64);
    }
}
