//! Who may do what.

use serde_json::json;

use super::{User, problem, shared};

#[test]
fn without_a_token_links_are_followed_and_nothing_else() {
    let owner = User::of(shared(), 0);
    let slug = owner.shorten("https://example.com/public");
    let anyone = User::of(shared(), 0).with_token(None);
    assert_eq!(anyone.follow(&slug).0, 302);
    let create = anyone.send(
        "POST",
        "/shorten",
        Some(&json!({ "url": "https://example.com/" })),
    );
    assert_eq!(problem(create), (401, "token_missing".to_owned()));
    let path = format!("/api/v1/links/{slug}");
    assert_eq!(
        problem(anyone.get(&path)),
        (401, "token_missing".to_owned())
    );
    let stats = anyone.get(&format!("{path}/stats"));
    assert_eq!(problem(stats), (401, "token_missing".to_owned()));
    let forged = User::of(shared(), 0).with_token(Some(owner.token.unwrap() + "x"));
    assert_eq!(
        problem(forged.get(&path)),
        (401, "token_invalid".to_owned())
    );
}

#[test]
fn a_token_allows_what_its_scopes_say() {
    let slug = User::of(shared(), 0).shorten("https://example.com/scoped");
    let path = format!("/api/v1/links/{slug}");
    let token = shared().token_for("default", "links:read");
    let reader = User::of(shared(), 0).with_token(Some(token));
    assert_eq!(reader.get(&path).status(), 200);
    let delete = reader.send("DELETE", &path, None);
    assert_eq!(problem(delete), (403, "scope_missing".to_owned()));
    let stats = reader.get(&format!("{path}/stats"));
    assert_eq!(problem(stats), (403, "scope_missing".to_owned()));
    assert_eq!(reader.follow(&slug).0, 302);
}

#[test]
fn another_tenants_link_does_not_exist() {
    let slug = User::of(shared(), 0).shorten("https://example.com/mine");
    let path = format!("/api/v1/links/{slug}");
    let all = "links:write links:read stats:read";
    let token = shared().token_for("other", all);
    let other = User::of(shared(), 0).with_token(Some(token));
    let not_found = (404, "link_not_found".to_owned());
    assert_eq!(problem(other.get(&path)), not_found);
    assert_eq!(problem(other.get(&format!("{path}/stats"))), not_found);
    assert_eq!(problem(other.send("DELETE", &path, None)), not_found);
    let edit = json!({ "longUrl": "https://evil.example/" });
    assert_eq!(problem(other.send("PATCH", &path, Some(&edit))), not_found);
    assert_eq!(other.follow(&slug).1, "https://example.com/mine");
}
