//! `GET /api/v1/links`: pages of a tenant's links.

use serde_json::{Value, json};

use crate::process::{User, Waypost};

const LINKS: &str = "/api/v1/links";

fn slugs(page: &Value) -> Vec<String> {
    let links = page["links"].as_array().unwrap();
    let slug = |link: &Value| link["slug"].as_str().unwrap().to_owned();
    links.iter().map(slug).collect()
}

/// All pages, each with its slugs.
#[track_caller]
fn pages(user: &User<'_>, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = user.get(&format!("{LINKS}?{query}{cursor}"));
        assert_eq!(status, 200, "{page}");
        pages.push(slugs(&page));
        assert!(pages.len() < 100, "the list has no end");
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[test]
fn pages_hold_every_link_of_the_tenant_once_the_newest_first() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let user = User::of(&waypost, data.path(), "default");
    let stranger = User::of(&waypost, data.path(), "stranger");
    assert_eq!(
        user.get(LINKS),
        (200, json!({ "links": [], "nextCursor": null }))
    );
    let mut newest_first = Vec::new();
    // Batches, so that many have the same instant.
    for batch in 0..5 {
        let links: Vec<Value> = (0..10)
            .map(|n| {
                json!({ "longUrl": format!("https://example.com/Listed/{batch}/{n}"),
                             "tags": [if n < 2 { "rare" } else { "common" }],
                             "title": if n == 7 { "Ein Titel" } else { "A title" } })
            })
            .collect();
        let body = json!({ "links": links });
        let (_, made) = user.send("POST", "/api/v1/links/batch", &body);
        let made = made["results"].as_array().unwrap().clone();
        newest_first.extend(
            made.iter()
                .map(|one| one["slug"].as_str().unwrap().to_owned()),
        );
        stranger.send(
            "POST",
            LINKS,
            &json!({ "longUrl": "https://example.com/Listed" }),
        );
    }
    let deleted = newest_first.remove(3);
    let delete = user.request("DELETE", &format!("{LINKS}/{deleted}")).send();
    assert_eq!(delete.unwrap().status(), 204);

    let pages_of_7 = pages(&user, "limit=7");
    assert!(pages_of_7[..7].iter().all(|page| page.len() == 7));
    let mut all = pages_of_7.concat();
    // In the order of their creation, and by slug where that is the same.
    let created = |slug: &String| {
        let (_, link) = user.get(&format!("{LINKS}/{slug}"));
        (
            std::cmp::Reverse(link["createdAt"].as_str().unwrap().to_owned()),
            slug.clone(),
        )
    };
    let mut sorted = all.clone();
    sorted.sort_by_cached_key(created);
    assert_eq!(all, sorted);
    all.sort_unstable();
    newest_first.sort_unstable();
    assert_eq!(all, newest_first);
    assert_eq!(
        pages(&user, "limit=49").len(),
        1,
        "a full last page is the last"
    );
    assert_eq!(pages(&user, "").concat().len(), 49);

    assert_eq!(pages(&user, "limit=3&tag=rare").concat().len(), 10);
    assert_eq!(pages(&user, "tag=rar").concat().len(), 0);
    assert_eq!(pages(&user, "q=listed/4&limit=100").concat().len(), 10);
    assert_eq!(pages(&user, "q=ein+titel").concat().len(), 5);
    assert_eq!(pages(&user, "q=ein+titel&tag=rare").concat().len(), 0);
    assert_eq!(
        pages(&user, "q=%25").concat().len(),
        0,
        "no pattern, a text"
    );
    assert_eq!(
        pages(&user, &format!("q={}", newest_first[0]))
            .concat()
            .len(),
        1
    );
}

#[test]
fn queries_that_are_none_are_refused_and_a_cursor_shows_nobody_elses_links() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let user = User::of(&waypost, data.path(), "default");
    for (query, code) in [
        ("limit=0", "query_invalid"),
        ("limit=101", "query_invalid"),
        ("page=2", "query_invalid"),
        ("tag=a&tag=b", "query_invalid"),
        ("cursor=2", "cursor_invalid"),
    ] {
        let (status, problem) = user.get(&format!("{LINKS}?{query}"));
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{query}");
    }
    for n in 0..3 {
        user.send(
            "POST",
            LINKS,
            &json!({ "longUrl": format!("https://example.com/{n}") }),
        );
    }
    let (_, page) = user.get(&format!("{LINKS}?limit=1"));
    let cursor = page["nextCursor"].as_str().unwrap();
    let stranger = User::of(&waypost, data.path(), "stranger");
    let (status, theirs) = stranger.get(&format!("{LINKS}?cursor={cursor}"));
    assert_eq!((status, slugs(&theirs).len()), (200, 0));
    let reader = User::with_scopes(&waypost, data.path(), "default", "links:write");
    assert_eq!(reader.get(LINKS).0, 403);
}
