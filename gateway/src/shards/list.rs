//! One list out of the lists of all shards: nothing twice, and nothing passed over.

use std::cmp::Reverse;

use waypost_domain::{Link, Slug, Timestamp};
use waypost_proto::convert::Invalid;
use waypost_proto::link::{ListPlace, ListRequest};

/// Which links of a tenant are asked for.
#[derive(Debug, Clone)]
pub struct Listing {
    pub tenant: String,
    /// Links with exactly this tag.
    pub tag: Option<String>,
    /// Links with this text in their slug, destination or title.
    pub text: Option<String>,
    /// Where the page before this one ended.
    pub after: Option<Place>,
    /// Links of a page, at least 1.
    pub limit: usize,
}

/// A place in the order of every list: later creation first, then lower slug.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    created_at: Reverse<Timestamp>,
    slug: Slug,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    pub links: Vec<Link>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<Place>,
}

/// One shard's part.
#[derive(Debug)]
pub(super) struct Listed {
    /// In the order of the list.
    pub(super) links: Vec<Link>,
    /// How far the shard has looked; `None`: to its end.
    pub(super) looked_to: Option<Place>,
}

impl Listing {
    /// One link more than a page has, so that the last page is known as such.
    pub(super) fn request(&self) -> ListRequest {
        ListRequest {
            tenant: self.tenant.clone(),
            tag: self.tag.clone(),
            text: self.text.clone(),
            after: self.after.as_ref().map(ListPlace::from),
            limit: self.limit as u32 + 1,
        }
    }

    /// Merges the parts up to where every shard has looked: behind that, one that has
    /// looked less far may have links that belong between those of the others.
    pub(super) fn page(&self, parts: Vec<Listed>) -> Page {
        let known_to = parts.iter().filter_map(|part| part.looked_to.clone()).min();
        let mut links: Vec<(Place, Link)> = parts
            .into_iter()
            .flat_map(|part| part.links)
            .map(|link| (Place::of(&link), link))
            .filter(|(place, _)| known_to.as_ref().is_none_or(|known_to| place <= known_to))
            .collect();
        links.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Two shards show the same link while its prefix moves from one to the other.
        links.dedup_by(|(a, _), (b, _)| a == b);
        let next = if links.len() > self.limit {
            links.truncate(self.limit);
            links.last().map(|(place, _)| place.clone())
        } else {
            known_to
        };
        Page {
            links: links.into_iter().map(|(_, link)| link).collect(),
            next,
        }
    }
}

impl Place {
    #[must_use]
    pub fn new(created_at: Timestamp, slug: Slug) -> Self {
        Self {
            created_at: Reverse(created_at),
            slug,
        }
    }

    fn of(link: &Link) -> Self {
        Self::new(link.created_at, link.key.slug.clone())
    }

    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at.0
    }

    #[must_use]
    pub fn slug(&self) -> &Slug {
        &self.slug
    }
}

impl From<&Place> for ListPlace {
    fn from(place: &Place) -> Self {
        Self {
            created_at_ms: place.created_at().millis(),
            slug: place.slug.to_string(),
        }
    }
}

impl TryFrom<ListPlace> for Place {
    type Error = Invalid;

    fn try_from(place: ListPlace) -> Result<Self, Invalid> {
        let created_at = Timestamp::from_millis(place.created_at_ms);
        let slug = Slug::parse(&place.slug).map_err(|_| Invalid("looked_to"))?;
        Ok(Self::new(created_at.ok_or(Invalid("looked_to"))?, slug))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use waypost_domain::{
        CreateId, DomainId, Epoch, LinkId, LinkKey, LongUrl, RedirectStatus, State, Version,
    };

    use super::*;

    fn link(created_at: i64, slug: &str) -> Link {
        let at = Timestamp::from_millis(created_at).unwrap();
        Link {
            key: LinkKey {
                domain: DomainId::MAIN,
                slug: Slug::parse(slug).unwrap(),
            },
            id: LinkId(uuid::Uuid::nil()),
            long_url: LongUrl::parse("https://example.com/").unwrap(),
            redirect_status: RedirectStatus::Found,
            tenant: "t".to_owned(),
            state: State::Active,
            version: Version::first(Epoch::FIRST),
            created_at: at,
            updated_at: at,
            valid_since: None,
            valid_until: None,
            max_visits: None,
            title: None,
            tags: Vec::new(),
            forward_query: false,
            password_hash: None,
            create_id: CreateId(uuid::Uuid::nil()),
            source: None,
            signature: [0; waypost_domain::signature::LEN],
        }
    }

    /// What a shard with these links answers that looks at so many of them, of which
    /// only some match.
    fn answer(shard: &BTreeMap<Place, bool>, listing: &Listing, rows: usize) -> Listed {
        let after = |place: &&Place| listing.after.as_ref().is_none_or(|after| *place > after);
        let limit = listing.request().limit as usize;
        let (mut links, mut looked_to, mut looked) = (Vec::new(), None, 0);
        for (place, matches) in shard.iter().filter(|(place, _)| after(place)) {
            if looked == rows || links.len() == limit {
                return Listed { links, looked_to };
            }
            looked += 1;
            looked_to = Some(place.clone());
            if *matches {
                links.push(link(place.created_at().millis(), place.slug().as_str()));
            }
        }
        Listed {
            links,
            looked_to: None,
        }
    }

    proptest! {
        #[test]
        fn pages_hold_every_link_once_in_order_however_far_each_shard_looks(
            // Few instants, so that many links share theirs.
            links in prop::collection::btree_map((0_i64..6, 0_u32..200), (0_usize..3, any::<bool>()), 0..60),
            rows in prop::array::uniform3(1_usize..12),
            limit in 1_usize..8,
        ) {
            let place = |at: i64, n: u32| {
                Place::new(Timestamp::from_millis(at).unwrap(), Slug::parse(&format!("aa{n}")).unwrap())
            };
            let mut shards = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
            for ((at, n), (shard, matches)) in &links {
                shards[*shard].insert(place(*at, *n), *matches);
            }
            let mut expected: Vec<Place> = links.iter()
                .filter(|(_, (_, matches))| *matches)
                .map(|((at, n), _)| place(*at, *n))
                .collect();
            expected.sort();
            let mut listing = Listing {
                tenant: "t".to_owned(), tag: None, text: None, after: None, limit,
            };
            let mut seen = Vec::new();
            for _ in 0..=links.len() {
                let parts = shards.iter().zip(rows).map(|(shard, rows)| answer(shard, &listing, rows));
                let page = listing.page(parts.collect());
                prop_assert!(page.links.len() <= limit);
                seen.extend(page.links.iter().map(Place::of));
                listing.after = page.next;
                if listing.after.is_none() {
                    break;
                }
            }
            prop_assert!(listing.after.is_none(), "the list has no end");
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_last_page_that_is_full_is_known_as_the_last() {
        let listing = Listing {
            tenant: "t".to_owned(),
            tag: None,
            text: None,
            after: None,
            limit: 2,
        };
        let part = |links: &[Link], looked_to| Listed {
            links: links.to_vec(),
            looked_to,
        };
        let (a, b, c) = (link(3, "aaa"), link(2, "bbb"), link(1, "ccc"));
        let full = listing.page(vec![
            part(std::slice::from_ref(&a), None),
            part(std::slice::from_ref(&b), None),
        ]);
        assert_eq!((full.links, full.next), (vec![a.clone(), b.clone()], None));
        let more = listing.page(vec![
            part(&[a, c], None),
            part(std::slice::from_ref(&b), None),
        ]);
        assert_eq!(more.next, Some(Place::of(&b)));
    }

    #[test]
    fn a_link_that_two_shards_show_is_there_once() {
        let listing = Listing {
            tenant: "t".to_owned(),
            tag: None,
            text: None,
            after: None,
            limit: 2,
        };
        let part = || Listed {
            links: vec![link(1, "aaa")],
            looked_to: None,
        };
        let page = listing.page(vec![part(), part()]);
        assert_eq!(page.links.len(), 1);
    }
}
