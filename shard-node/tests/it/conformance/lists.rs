//! A tenant's links in pages.

use std::collections::BTreeSet;

use waypost_shard_node::store::{Entry, ListPlace, Session};

use crate::fixture::*;

/// The slugs of all pages of this size; each but the last must be full.
async fn pages(session: &mut impl Session, size: u32) -> Vec<String> {
    let mut after: Option<ListPlace> = None;
    let mut slugs = Vec::new();
    loop {
        let page = session.list("acme", after.as_ref(), size).await.unwrap();
        let is_last = page.len() < size as usize;
        for row in page {
            slugs.push(row.place.slug.clone());
            after = Some(row.place);
        }
        if is_last {
            return slugs;
        }
    }
}

pub(crate) async fn a_list_has_each_link_once_newest_first_whatever_the_page(
    database: &impl Database,
) {
    let mut session = database.session().await;
    let mut made = Vec::new();
    // Each batch is of one instant, and each instant has more links than a page.
    for batch in 0..3 {
        let links: Vec<_> = (0..10)
            .map(|at| minted(&format!("{}i{batch}00000", at * 7 % 10)))
            .collect();
        let outcomes = session.create_batch(&links).await.unwrap();
        made.extend(outcomes.iter().map(stored));
    }
    let mut other = minted("other000");
    other.tenant = "other".to_owned();
    create(&mut session, &other).await;
    for stone in [4, 17] {
        let stone = made.remove(stone);
        delete(&mut session, stone.key.slug.as_str()).await;
    }
    // An edit changes no place.
    update(
        &mut session,
        made[3].key.slug.as_str(),
        "https://example.org/",
    )
    .await;
    made.sort_by(|a, b| (b.created_at, &a.key).cmp(&(a.created_at, &b.key)));
    let expected: Vec<String> = made.iter().map(|link| link.key.slug.to_string()).collect();
    for size in [1, 3, 7, 28, 100] {
        assert_eq!(pages(&mut session, size).await, expected, "by {size}");
    }
    let first = session.list("acme", None, 1).await.unwrap().remove(0);
    assert!(matches!(first.entry, Entry::Link(link) if *link == made[0]));
    assert!(session.list("nobody", None, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_list_passes_over_moved_and_damaged_rows_and_says_so(
    database: &impl Database,
) {
    let mut session = database.session().await;
    for slug in ["li-good", "mo-link", "li-evil"] {
        create(&mut session, &alias(slug)).await;
    }
    database
        .execute("UPDATE prefix_owner SET epoch = 2, state = 'moved', moved_to = 's7' WHERE prefix = 'mo'")
        .await;
    database
        .execute("UPDATE links SET long_url = 'evil' WHERE slug = 'li-evil'")
        .await;
    let rows = session.list("acme", None, 10).await.unwrap();
    let kinds: BTreeSet<_> = rows
        .iter()
        .map(|row| {
            let kind = match &row.entry {
                Entry::Link(_) => "link",
                Entry::Moved => "moved",
                Entry::Damaged => "damaged",
            };
            (row.place.slug.as_str(), kind)
        })
        .collect();
    let expected = [
        ("li-evil", "damaged"),
        ("li-good", "link"),
        ("mo-link", "moved"),
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
}
