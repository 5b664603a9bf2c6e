//! `List`: a tenant's links, newest first. What nobody waits for in a redirect or a
//! create has a short queue of its own, and is refused first.

use std::time::{Duration, Instant};

use tonic::Status;
use waypost_domain::{Link, Timestamp};
use waypost_proto::convert::Invalid;
use waypost_proto::link as message;

use super::{MAX_BATCH, Service};
use crate::lane::Operation;
use crate::store::{Entry, Error, LinkStore, ListPlace, Purpose, Session};

/// Rows that one request looks at: with few matches among them, tens of milliseconds.
const MAX_LOOKED_AT: usize = 10_000;

/// Rows per statement where not every row is a match.
const PORTION: usize = 512;

/// A request that takes longer answers what it has.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Debug)]
pub(super) struct Query {
    tenant: String,
    tag: Option<String>,
    /// In small letters.
    text: Option<String>,
    after: Option<ListPlace>,
    limit: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Page {
    links: Vec<Link>,
    looked_to: Option<ListPlace>,
    damaged: usize,
}

/// The lane's operation.
#[derive(Debug)]
pub(super) struct List;

impl<S: Session> Operation<S> for List {
    type Item = Query;
    type Outcome = Page;
    const NAME: &'static str = "list";
    const PURPOSE: Purpose = Purpose::Read;
    const COALESCE: usize = 1;
    const DEADLINE: Duration = Duration::from_secs(1);
    const MAX_ITEMS: usize = 16;

    async fn run(session: &mut S, items: &[Query]) -> Result<Vec<Page>, Error> {
        let mut pages = Vec::with_capacity(items.len());
        for query in items {
            pages.push(query.run(session).await?);
        }
        Ok(pages)
    }
}

impl Query {
    async fn run(&self, session: &mut impl Session) -> Result<Page, Error> {
        let begun = Instant::now();
        let mut page = Page {
            looked_to: self.after.clone(),
            ..Page::default()
        };
        let mut looked_at = 0;
        let is_filtered = self.tag.is_some() || self.text.is_some();
        while looked_at < MAX_LOOKED_AT && begun.elapsed() < PATIENCE {
            let wanted = match is_filtered {
                true => PORTION.min(MAX_LOOKED_AT - looked_at),
                false => self.limit - page.links.len(),
            };
            let after = page.looked_to.as_ref();
            let rows = session.list(&self.tenant, after, wanted as u32).await?;
            let is_last = rows.len() < wanted;
            looked_at += rows.len();
            for row in rows {
                page.looked_to = Some(row.place);
                match row.entry {
                    Entry::Link(link) if self.matches(&link) => page.links.push(*link),
                    Entry::Link(_) | Entry::Moved => {}
                    Entry::Damaged => page.damaged += 1,
                }
                if page.links.len() == self.limit {
                    return Ok(page);
                }
            }
            if is_last {
                page.looked_to = None;
                break;
            }
        }
        Ok(page)
    }

    fn matches(&self, link: &Link) -> bool {
        let has_tag = |tag: &String| link.tags.contains(tag);
        let has_text = |text: &String| {
            let holds = |field: &str| field.to_lowercase().contains(text);
            holds(link.key.slug.as_str())
                || holds(link.long_url.as_str())
                || link.title.as_deref().is_some_and(holds)
        };
        self.tag.as_ref().is_none_or(has_tag) && self.text.as_ref().is_none_or(has_text)
    }
}

impl<S: LinkStore> Service<S> {
    pub(super) async fn page(
        &self,
        request: message::ListRequest,
    ) -> Result<message::ListResponse, Status> {
        let limit = request.limit as usize;
        if !(1..=MAX_BATCH).contains(&limit) {
            return Err(Invalid("limit").into());
        }
        let place = |place: message::ListPlace| {
            let created_at = Timestamp::from_millis(place.created_at_ms);
            Ok::<_, Invalid>(ListPlace {
                created_at: created_at.ok_or(Invalid("after"))?,
                slug: place.slug,
            })
        };
        let query = Query {
            tenant: request.tenant,
            tag: request.tag,
            text: request.text.map(|text| text.to_lowercase()),
            after: request.after.map(place).transpose()?,
            limit,
        };
        let page = self.lists.run(vec![query]).await?.pop();
        let page = page.ok_or_else(|| Status::internal("no outcome"))?;
        self.count_damaged("list", page.damaged);
        Ok(message::ListResponse {
            links: page.links.into_iter().map(Into::into).collect(),
            looked_to: page.looked_to.map(|place| message::ListPlace {
                created_at_ms: place.created_at.millis(),
                slug: place.slug,
            }),
        })
    }
}
