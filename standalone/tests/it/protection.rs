//! Where links may not lead, and what they may not be called.

use serde_json::{Value, json};

use crate::process::{Waypost, command, token, wait_until};

/// What becomes of a link to this URL: the status, and the code if it is refused.
fn create(waypost: &Waypost, token: &str, body: &Value) -> (u16, String) {
    let answer = waypost.send("POST", "/api/v1/links", token, body);
    let status = answer.status().as_u16();
    let answer: Value = answer.json().unwrap();
    if status >= 400 {
        assert_eq!(answer["status"], status);
        assert!(answer["detail"].as_str().unwrap().ends_with('.'));
    }
    (
        status,
        answer["code"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Destinations that are refused by default, with the code that says why.
fn refused_destinations(waypost: &Waypost) -> Vec<(String, &'static str)> {
    let own = waypost.url.replace("127.0.0.1", "127.1");
    let destinations = [
        (format!("{}/abc", waypost.url), "url_own_domain"),
        (format!("{own}/abc"), "url_own_domain"),
        ("https://other.example/x".to_owned(), "url_own_domain"),
    ];
    let private = [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/",
        "http://localhost:3000/",
        "http://a.localhost./",
        "http://printer.local/",
        "http://100.64.0.1/",
        "http://[fe80::1]/",
        "http://intranet/",
    ];
    let others = [
        ("https://p\u{430}ypal.example/", "url_mixed_scripts"),
        ("https://a..b/", "url_host_invalid"),
        ("https://example.com:0/", "url_port_invalid"),
        (
            "https://example.com/\u{202e}",
            "url_with_control_characters",
        ),
        ("javascript:alert(1)", "url_scheme_refused"),
    ];
    let private = private.map(|url| (url.to_owned(), "url_not_public"));
    let others = others.map(|(url, code)| (url.to_owned(), code));
    destinations
        .into_iter()
        .chain(private)
        .chain(others)
        .collect()
}

#[test]
fn a_destination_that_nobody_should_be_led_to_is_refused_by_name_on_every_route() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_OWN_DOMAINS", "go.example,Other.Example.")];
    let waypost = Waypost::start_with(data.path(), &options);
    let token = token(data.path());
    let slug = waypost.shorten("https://example.com/before");
    let link = format!("/api/v1/links/{slug}");
    let destinations = refused_destinations(&waypost);
    for (url, code) in &destinations {
        let expected = (422, (*code).to_owned());
        let body = json!({ "longUrl": url });
        assert_eq!(create(&waypost, &token, &body), expected, "{url}");
        let shorten = waypost.send("POST", "/shorten", &token, &json!({ "url": url }));
        assert_eq!(shorten.status(), 422, "{url}");
        let edit = waypost.send("PATCH", &link, &token, &body);
        assert_eq!(edit.status(), 422, "{url}");
        assert_eq!(edit.json::<Value>().unwrap()["code"], *code, "{url}");
    }
    let links: Vec<Value> = destinations
        .iter()
        .map(|(url, _)| json!({ "longUrl": url }))
        .collect();
    let batch = json!({ "links": links });
    let batch = waypost.send("POST", "/api/v1/links/batch", &token, &batch);
    let results = batch.json::<Value>().unwrap()["results"].clone();
    for (result, (url, code)) in results.as_array().unwrap().iter().zip(&destinations) {
        assert_eq!(result["error"]["code"], *code, "{url}");
    }
    assert_eq!(
        waypost.follow(&slug),
        (302, "https://example.com/before".to_owned())
    );
}

#[test]
fn an_operator_may_allow_private_destinations_and_mixed_scripts() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &[("WAYPOST_PRIVATE_HOSTS", "wiki,10.0.0.7")]);
    let token = token(data.path());
    for url in ["http://wiki/page", "http://10.0.0.7:8080/"] {
        assert_eq!(waypost.follow(&waypost.shorten(url)), (302, url.to_owned()));
    }
    let other = json!({ "url": "http://10.0.0.8/" });
    let refused = waypost.send("POST", "/shorten", &token, &other);
    assert_eq!(refused.status(), 422);
    drop(waypost);
    let options = [
        ("WAYPOST_ALLOW_PRIVATE_DESTINATIONS", "true"),
        ("WAYPOST_MIXED_SCRIPT_HOSTS", "allow"),
    ];
    let waypost = Waypost::start_with(data.path(), &options);
    for (url, leads_to) in [
        ("http://localhost:3000/", "http://localhost:3000/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        (
            "https://p\u{430}ypal.example/",
            "https://xn--pypal-4ve.example/",
        ),
    ] {
        assert_eq!(
            waypost.follow(&waypost.shorten(url)),
            (302, leads_to.to_owned())
        );
    }
    let own = json!({ "url": format!("{}/x", waypost.url) });
    assert_eq!(waypost.send("POST", "/shorten", &token, &own).status(), 422);
}

#[test]
fn visitors_of_a_host_that_mixes_scripts_see_where_they_go_and_are_counted() {
    let data = tempfile::tempdir().unwrap();
    let options = [("WAYPOST_MIXED_SCRIPT_HOSTS", "preview")];
    let waypost = Waypost::start_with(data.path(), &options);
    let token = token(data.path());
    let shown = |slug: &str| {
        let answer = waypost.get(&format!("/{slug}"));
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "private, no-store");
        assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
        assert!(answer.headers().get("location").is_none());
        answer.text().unwrap()
    };
    let leads_to = "https://xn--pypal-4ve.example/a?b=1&amp;c=2";
    let go_on = format!("href=\"{leads_to}\" rel=\"noreferrer nofollow\">Go on</a>");
    let slug = waypost.shorten("https://p\u{430}ypal.example/a?b=1&c=2");
    // From memory, and as it was read.
    for _ in 0..2 {
        let page = shown(&slug);
        assert!(page.contains(&go_on), "{page}");
    }
    wait_until("both are counted", || waypost.clicks(&slug) == 2);
    let head = waypost.request("HEAD", &format!("/{slug}")).send().unwrap();
    assert_eq!(head.status(), 200);
    let link = waypost.request("GET", &format!("/api/v1/links/{slug}"));
    let link: Value = link.bearer_auth(&token).send().unwrap().json().unwrap();
    assert_eq!(
        (&link["state"], &link["blockedBy"]),
        (&json!("active"), &Value::Null)
    );

    // Whatever else a link says still holds.
    let limited = json!({
        "longUrl": "https://p\u{430}ypal.example/", "alias": "twice", "maxVisits": 2,
        "redirectStatus": 301, "forwardQuery": true,
    });
    assert_eq!(create(&waypost, &token, &limited).0, 201);
    let page = shown("twice?from=\"mail");
    assert!(
        page.contains("href=\"https://xn--pypal-4ve.example/?from=%22mail\""),
        "{page}"
    );
    shown("twice");
    assert_eq!(waypost.get("/twice").status(), 410);
    let secret = json!({
        "longUrl": "https://p\u{430}ypal.example/", "alias": "secret", "password": "open",
    });
    assert_eq!(create(&waypost, &token, &secret).0, 201);
    let form = waypost.request("POST", "/secret").body("password=open");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let page = form.send().unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().unwrap().contains("Go on</a>"));
    // One that mixes nothing leads on.
    let other = waypost.shorten("https://b\u{fc}cher.example/");
    assert_eq!(waypost.follow(&other).0, 302);
}

#[test]
fn links_follow_the_blocklist_as_it_changes_and_a_bad_list_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let list = data.path().join("blocklist");
    std::fs::write(&list, "nobody.example\n").unwrap();
    let options = [("WAYPOST_BLOCKLIST", list.to_str().unwrap())];
    let waypost = Waypost::start_with(data.path(), &options);
    let token = token(data.path());
    let urls = [
        "https://www.evil.example/a",
        "https://sites.example/evil/page?x",
        "https://good.example/",
    ];
    let slugs = urls.map(|url| waypost.shorten(url));
    let answers = || slugs.each_ref().map(|slug| waypost.follow(slug).0);
    let shown = |slug: &str| {
        let shown = waypost.send(
            "GET",
            &format!("/api/v1/links/{slug}"),
            &token,
            &Value::Null,
        );
        shown.json::<Value>().unwrap()["blockedBy"].clone()
    };
    let secret = json!({ "longUrl": urls[0], "alias": "locked", "password": "secret" });
    assert_eq!(create(&waypost, &token, &secret).0, 201);
    let unlock = || {
        let request = waypost.request("POST", "/locked");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body("password=secret").send().unwrap().status()
    };
    assert_eq!(unlock(), 303);
    assert_eq!(answers(), [302, 302, 302]);
    std::fs::write(&list, "evil.example\nsites.example/evil # both\n").unwrap();
    wait_until("the links are blocked", || answers() == [451, 451, 302]);
    let body = json!({ "longUrl": urls[0] });
    let blocked = (422, "url_blocked".to_owned());
    assert_eq!(create(&waypost, &token, &body), blocked);
    let link = format!("/api/v1/links/{}", slugs[2]);
    assert_eq!(waypost.send("PATCH", &link, &token, &body).status(), 422);
    assert_eq!(shown(&slugs[0]), "blocklist");
    assert_eq!(shown(&slugs[2]), Value::Null);
    // What is read past the memory is judged as well.
    assert_eq!(waypost.get(&format!("/{}+", slugs[0])).status(), 451);
    assert_eq!(waypost.get(&format!("/{}+", slugs[2])).status(), 200);
    assert_eq!(unlock(), 451);
    let metrics = || waypost.metrics();
    assert!(metrics().contains("\nwaypost_blocklist_entries 2\n"));
    let refused = "waypost_watched_file_readings_total{file=\"blocklist\",result=\"failed\"}";
    let bad = ["", "com\n", "evil.example\n<html>\n", "127.0.0.1\n"];
    for (count, text) in bad.iter().enumerate() {
        std::fs::write(&list, text).unwrap();
        wait_until("the list is refused", || {
            metrics().contains(&format!("\n{refused} {}\n", count + 1))
        });
        assert_eq!(answers(), [451, 451, 302], "{text:?}");
        assert_eq!(create(&waypost, &token, &body), blocked);
    }
    // What it held before memory and over a restart is the same for a link that is read.
    std::fs::write(&list, "good.example\n").unwrap();
    wait_until("the other links are back", || answers() == [302, 302, 451]);
    assert_eq!(create(&waypost, &token, &body).0, 201);
    drop(waypost);
    let waypost = Waypost::start_with(data.path(), &options);
    assert_eq!(
        slugs.each_ref().map(|slug| waypost.follow(slug).0),
        [302, 302, 451]
    );
}

#[test]
fn a_list_that_makes_no_sense_keeps_the_program_from_starting() {
    let data = tempfile::tempdir().unwrap();
    let list = data.path().join("list");
    for (option, text) in [
        ("--blocklist", "com\n"),
        ("--blocklist", ""),
        ("--reserved-words-file", "two words\n"),
    ] {
        std::fs::write(&list, text).unwrap();
        let output = command()
            .env("WAYPOST_DATA_DIR", data.path())
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg(option)
            .arg(&list)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{errors}");
        assert!(errors.contains(option), "{errors}");
    }
}

#[test]
fn no_alias_is_a_reserved_word_of_the_product_or_of_the_operator() {
    let data = tempfile::tempdir().unwrap();
    let words = data.path().join("words");
    std::fs::write(&words, "# ours\nAcme\n").unwrap();
    let options = [("WAYPOST_RESERVED_WORDS_FILE", words.to_str().unwrap())];
    let waypost = Waypost::start_with(data.path(), &options);
    let token = token(data.path());
    let alias = |alias: &str| {
        create(
            &waypost,
            &token,
            &json!({ "longUrl": "https://example.com/", "alias": alias }),
        )
    };
    for word in [
        "api",
        "Docs",
        "ADMIN",
        "login",
        "static",
        "well-known",
        "robots",
        "aCME",
    ] {
        assert_eq!(alias(word), (422, "alias_reserved".to_owned()), "{word}");
    }
    assert_eq!(alias("acme2").0, 201);
    assert_eq!(waypost.follow("acme2").0, 302);
    assert_eq!(alias("careers").0, 201);
    std::fs::write(&words, "acme\nacme2\ncareers2\n").unwrap();
    wait_until("the word is reserved", || alias("careers2").0 == 422);
    // A link that has the name already keeps it.
    assert_eq!(waypost.follow("acme2").0, 302);
}
