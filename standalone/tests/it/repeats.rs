//! Creates that are sent again: found, not made twice.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{User, Waypost, answer, wait_until};

const LINKS: &str = "/api/v1/links";

fn start() -> (TempDir, Waypost) {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    (data, waypost)
}

/// Creates with an `Idempotency-Key`.
fn keyed(user: &User<'_>, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let request = user.request("POST", path).header("idempotency-key", key);
    answer(request.json(body).send().unwrap())
}

#[track_caller]
fn refusal((status, problem): (u16, Value)) -> (u16, String) {
    assert_eq!(problem["status"], status, "{problem}");
    (status, problem["code"].as_str().unwrap().to_owned())
}

fn path(link: &Value) -> String {
    format!("{LINKS}/{}", link["slug"].as_str().unwrap())
}

#[test]
fn a_link_that_leads_the_same_way_is_found_until_it_is_edited_or_deleted() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let find = |extra: Value| {
        let mut body = json!({ "longUrl": "HTTPS://example.com:443/found", "findIfExists": true });
        let fields = body.as_object_mut().unwrap();
        fields.extend(extra.as_object().unwrap().clone());
        user.send("POST", LINKS, &body)
    };
    let (status, first) = find(json!({}));
    assert_eq!(status, 201, "{first}");
    assert_eq!(find(json!({})), (200, first.clone()));
    // What decides nothing that a visitor gets makes no other link.
    assert_eq!(find(json!({ "title": "another" })), (200, first.clone()));
    assert_eq!(find(json!({ "tags": ["a"] })), (200, first.clone()));
    let plain = json!({ "longUrl": "https://example.com/found" });
    let other = user.send("POST", LINKS, &plain);
    assert_eq!(other.0, 201);
    assert_ne!(other.1["slug"], first["slug"], "nobody asked to find it");
    for deciding in [
        json!({ "redirectStatus": 301 }),
        json!({ "forwardQuery": true }),
        json!({ "validUntil": "2999-01-01T00:00:00Z" }),
        json!({ "ttlSeconds": 3600 }),
    ] {
        let (status, link) = find(deciding.clone());
        assert_eq!(status, 201, "{deciding}");
        assert_ne!(link["slug"], first["slug"]);
        assert_eq!(find(deciding).1["slug"], link["slug"]);
    }
    let stranger = User::of(&waypost, data.path(), "stranger");
    let body = json!({ "longUrl": "https://example.com/found", "findIfExists": true });
    let theirs = stranger.send("POST", LINKS, &body);
    assert_eq!(theirs.0, 201, "another tenant's link is not found");

    // A title is edited, and the link is still the one.
    let (status, _) = user.send("PATCH", &path(&first), &json!({ "title": "mine" }));
    assert_eq!(status, 200);
    let (status, found) = find(json!({}));
    assert_eq!((status, &found["slug"]), (200, &first["slug"]));
    // It is edited to lead elsewhere, and is not the one any more.
    let elsewhere = json!({ "longUrl": "https://example.com/elsewhere" });
    assert_eq!(user.send("PATCH", &path(&first), &elsewhere).0, 200);
    let (status, second) = find(json!({}));
    assert_eq!(status, 201);
    assert_ne!(second["slug"], first["slug"]);
    assert_eq!(find(json!({})), (200, second.clone()));
    // It is deleted, and its owner gets its slug back.
    assert_eq!(
        user.request("DELETE", &path(&second))
            .send()
            .unwrap()
            .status(),
        204
    );
    let (status, third) = find(json!({}));
    assert_eq!((status, &third["slug"]), (201, &second["slug"]));
    let slug = third["slug"].as_str().unwrap();
    assert_eq!(waypost.follow(slug).1, "https://example.com/found");
}

#[test]
fn a_link_that_has_ended_is_made_again_under_its_slug() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let body = json!({ "longUrl": "https://example.com/brief", "findIfExists": true,
                       "ttlSeconds": 1 });
    let (status, first) = user.send("POST", LINKS, &body);
    assert_eq!(status, 201);
    let slug = first["slug"].as_str().unwrap();
    wait_until("the link ends", || waypost.follow(slug).0 == 410);
    let (status, again) = user.send("POST", LINKS, &body);
    assert_eq!((status, &again["slug"]), (201, &first["slug"]));
    assert_eq!(waypost.follow(slug).0, 302);
}

#[test]
fn a_request_with_the_same_key_is_answered_by_the_same_link_and_another_is_refused() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let body = json!({ "longUrl": "https://example.com/keyed", "title": "One", "tags": ["a"] });
    let (status, first) = keyed(&user, LINKS, "order-1", &body);
    assert_eq!(status, 201, "{first}");
    assert_eq!(keyed(&user, LINKS, "order-1", &body), (200, first.clone()));
    // The same, written otherwise.
    let same = json!({ "tags": ["a"], "title": "One", "redirectStatus": 302,
                       "longUrl": "https://EXAMPLE.com/keyed" });
    assert_eq!(keyed(&user, LINKS, "order-1", &same), (200, first.clone()));
    let reused = (422, "idempotency_key_reused".to_owned());
    for other in [
        json!({ "longUrl": "https://example.com/other", "title": "One", "tags": ["a"] }),
        json!({ "longUrl": "https://example.com/keyed", "title": "Two", "tags": ["a"] }),
        json!({ "longUrl": "https://example.com/keyed", "title": "One" }),
        json!({ "longUrl": "https://example.com/keyed", "title": "One", "tags": ["a"],
                "alias": "keyed-alias" }),
    ] {
        assert_eq!(
            refusal(keyed(&user, LINKS, "order-1", &other)),
            reused,
            "{other}"
        );
    }
    assert_eq!(waypost.follow("keyed-alias").0, 404);
    let (status, second) = keyed(&user, LINKS, "order-2", &body);
    assert_eq!(status, 201, "another key names another request");
    assert_ne!(second["slug"], first["slug"]);
    let stranger = User::of(&waypost, data.path(), "stranger");
    let (status, theirs) = keyed(&stranger, LINKS, "order-1", &body);
    assert_eq!(status, 201, "a key is of its tenant");
    assert_ne!(theirs["slug"], first["slug"]);

    // The key stays with the link, whatever becomes of it.
    let edit = json!({ "longUrl": "https://example.com/edited" });
    let (_, edited) = user.send("PATCH", &path(&first), &edit);
    assert_eq!(keyed(&user, LINKS, "order-1", &body), (200, edited));
    assert_eq!(
        user.request("DELETE", &path(&first))
            .send()
            .unwrap()
            .status(),
        204
    );
    // A request that is sent again late brings nothing back that was deleted.
    let gone = (410, "link_gone".to_owned());
    assert_eq!(refusal(keyed(&user, LINKS, "order-1", &body)), gone);
    assert_eq!(waypost.follow(first["slug"].as_str().unwrap()).0, 410);
    let batch = json!({ "links": [{ "longUrl": "https://example.com/keyed", "ttlSeconds": 1 }] });
    let item = || keyed(&user, "/api/v1/links/batch", "brief", &batch).1["results"][0].clone();
    let brief = item();
    assert_eq!(brief["status"], 201);
    wait_until("it has expired", || item()["status"] == 410);
    assert_eq!(item()["error"]["code"], "link_gone");
    let (status, again) = keyed(&user, LINKS, "order-3", &body);
    assert_eq!(status, 201, "{again}");
}

#[test]
fn the_two_field_route_and_each_link_of_a_batch_can_be_repeated() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let body = json!({ "url": "https://example.com/shortened" });
    let (status, first) = keyed(&user, "/shorten", "a-key", &body);
    assert_eq!(status, 201);
    assert_eq!(keyed(&user, "/shorten", "a-key", &body), (200, first));

    let batch = |second: &str| {
        json!({ "links": [
            { "longUrl": "https://example.com/batch/1" },
            { "longUrl": second },
            { "longUrl": "javascript:alert(1)" },
            { "longUrl": "https://example.com/batch/1" },
        ]})
    };
    let send = |body: &Value| keyed(&user, "/api/v1/links/batch", "batch-key", body).1;
    let statuses = |answer: &Value| {
        let results = answer["results"].as_array().unwrap();
        results
            .iter()
            .map(|one| one["status"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let first = send(&batch("https://example.com/batch/2"));
    assert_eq!(statuses(&first), [201, 201, 422, 201]);
    let slugs: Vec<_> = [0, 1, 3]
        .map(|n| first["results"][n]["slug"].clone())
        .into();
    assert!(slugs[0] != slugs[2], "each item is a create of its own");
    let again = send(&batch("https://example.com/batch/2"));
    assert_eq!(statuses(&again), [200, 200, 422, 200]);
    assert_eq!(
        slugs,
        [0, 1, 3].map(|n| again["results"][n]["slug"].clone())
    );
    let changed = send(&batch("https://example.com/batch/changed"));
    assert_eq!(statuses(&changed), [200, 422, 422, 200]);
    assert_eq!(
        changed["results"][1]["error"]["code"],
        "idempotency_key_reused"
    );
    let found = json!({ "links": [
        { "longUrl": "https://example.com/batch/find", "findIfExists": true },
        { "longUrl": "https://example.com/batch/find", "findIfExists": true },
    ]});
    let (_, found) = user.send("POST", "/api/v1/links/batch", &found);
    let mut both = statuses(&found);
    both.sort_unstable();
    assert_eq!(both, [200, 201]);
    assert_eq!(found["results"][0]["slug"], found["results"][1]["slug"]);
}

#[test]
fn what_is_repeated_in_a_batchs_link_is_refused_as_elsewhere() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let batch = r#"{"links":[
        {"longUrl":"https://example.com/one","longUrl":"https://example.com/two"},
        {"longUrl":"https://example.com/one"},
        7]}"#;
    let request = user.request("POST", "/api/v1/links/batch");
    let request = request.header("content-type", "application/json");
    let (status, answer) = answer(request.body(batch).send().unwrap());
    assert_eq!(status, 200);
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|r| r["status"].as_u64()).collect();
    assert_eq!(statuses, [400, 201, 400].map(Some));
    let error = &answer["results"][0]["error"];
    assert_eq!(error["code"], "body_invalid");
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("duplicate field `longUrl`"), "{detail}");
}

#[test]
fn who_has_no_token_finds_a_strangers_link_without_its_notes() {
    let (_data, waypost) = start();
    let create = |body: &Value| {
        let request = waypost.request("POST", LINKS).json(body);
        answer(request.send().unwrap())
    };
    let notes = json!({ "longUrl": "https://example.com/shared", "findIfExists": true,
        "title": "Between us", "tags": ["secret"] });
    let (status, first) = create(&notes);
    assert_eq!((status, &first["title"]), (201, &json!("Between us")));
    let bare = json!({ "longUrl": "https://example.com/shared", "findIfExists": true });
    let (status, found) = create(&bare);
    assert_eq!((status, &found["slug"]), (200, &first["slug"]));
    assert_eq!(
        (&found["title"], &found["tags"]),
        (&Value::Null, &json!([]))
    );
}

#[test]
fn an_alias_with_a_key_is_made_once_and_the_key_is_bound_to_it() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let body = json!({ "longUrl": "https://example.com/alias", "alias": "once-only" });
    let (status, first) = keyed(&user, LINKS, "alias-key", &body);
    assert_eq!(status, 201, "{first}");
    assert_eq!(keyed(&user, LINKS, "alias-key", &body), (200, first));
    let reused = (422, "idempotency_key_reused".to_owned());
    let other_alias = json!({ "longUrl": "https://example.com/alias", "alias": "other-only" });
    assert_eq!(
        refusal(keyed(&user, LINKS, "alias-key", &other_alias)),
        reused
    );
    assert_eq!(waypost.follow("other-only").0, 404);
    let without = json!({ "longUrl": "https://example.com/alias" });
    assert_eq!(refusal(keyed(&user, LINKS, "alias-key", &without)), reused);
    // Without the key it is an alias like any other.
    let taken = (409, "alias_taken".to_owned());
    assert_eq!(refusal(user.send("POST", LINKS, &body)), taken);
    assert_eq!(refusal(keyed(&user, LINKS, "second-key", &body)), taken);
}

#[test]
fn an_alias_that_leads_the_same_way_is_found_and_any_other_is_taken() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let taken = (409, "alias_taken".to_owned());
    let find = |user: &User<'_>, extra: Value| {
        let mut body = json!({ "longUrl": "https://example.com/alias", "alias": "to-be-found",
                               "findIfExists": true });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        user.send("POST", LINKS, &body)
    };
    let (status, first) = find(&user, json!({}));
    assert_eq!(status, 201);
    assert_eq!(find(&user, json!({})), (200, first.clone()));
    for other in [
        json!({ "longUrl": "https://example.com/other" }),
        json!({ "redirectStatus": 308 }),
        json!({ "ttlSeconds": 60 }),
    ] {
        assert_eq!(refusal(find(&user, other.clone())), taken, "{other}");
    }
    let stranger = User::of(&waypost, data.path(), "stranger");
    assert_eq!(refusal(find(&stranger, json!({}))), taken);
    let brief = json!({ "alias": "to-end", "ttlSeconds": 600 });
    assert_eq!(find(&user, brief.clone()).0, 201);
    assert_eq!(find(&user, brief).0, 200);
    let longer = json!({ "alias": "to-end", "ttlSeconds": 700 });
    assert_eq!(refusal(find(&user, longer)), taken);
    // Switched off, it leads nowhere.
    let off = user.send("POST", &format!("{}/disable", path(&first)), &Value::Null);
    assert_eq!(off.0, 200);
    assert_eq!(refusal(find(&user, json!({}))), taken);
}

#[test]
fn a_key_that_is_none_is_refused() {
    let (data, waypost) = start();
    let user = User::of(&waypost, data.path(), "default");
    let body = json!({ "longUrl": "https://example.com/refused" });
    let invalid = (422, "idempotency_key_invalid".to_owned());
    let long = "k".repeat(256);
    for key in ["", "two words", "sch\u{f6}n", &long] {
        assert_eq!(refusal(keyed(&user, LINKS, key, &body)), invalid, "{key}");
    }
    let twice = user.request("POST", LINKS).header("idempotency-key", "a");
    let twice = twice.header("idempotency-key", "b").json(&body);
    assert_eq!(refusal(answer(twice.send().unwrap())), invalid);
    assert_eq!(keyed(&user, LINKS, &long[..255], &body).0, 201);
}
