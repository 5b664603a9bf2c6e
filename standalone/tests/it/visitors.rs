//! What visitors meet besides a plain redirect: passwords, previews, limits.

use reqwest::blocking::Response;
use serde_json::{Value, json};

use crate::process::{Waypost, token, wait_until};

const FORM: &str = "application/x-www-form-urlencoded";

/// As browsers ask.
const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// A server, and its owner's token.
struct Place {
    waypost: Waypost,
    token: String,
    _data: tempfile::TempDir,
}

impl Place {
    fn open(options: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let waypost = Waypost::start_with(data.path(), options);
        Self {
            waypost,
            token: token(data.path()),
            _data: data,
        }
    }

    /// Creates a link, and answers it as the API shows it.
    #[track_caller]
    fn create(&self, link: &Value) -> Value {
        let created = self.api("POST", "/api/v1/links", link);
        assert_eq!(created.status(), 201, "{}", created.text().unwrap());
        created.json().unwrap()
    }

    #[track_caller]
    fn edit(&self, slug: &str, edit: &Value) -> Value {
        let edited = self.api("PATCH", &format!("/api/v1/links/{slug}"), edit);
        assert_eq!(edited.status(), 200, "{}", edited.text().unwrap());
        edited.json().unwrap()
    }

    fn api(&self, method: &str, path: &str, body: &Value) -> Response {
        self.waypost.send(method, path, &self.token, body)
    }

    fn browse(&self, method: &str, path: &str) -> Response {
        let request = self.waypost.request(method, path);
        request.header("accept", HTML).send().unwrap()
    }

    /// Sends a password as a form does.
    fn unlock(&self, path: &str, accept: &str, form: &str) -> Response {
        self.waypost
            .request("POST", path)
            .header("accept", accept)
            .header("content-type", FORM)
            .body(form.to_owned())
            .send()
            .unwrap()
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

fn code(response: Response) -> String {
    assert_eq!(
        header(&response, "content-type"),
        "application/problem+json"
    );
    let problem: Value = response.json().unwrap();
    problem["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_link_with_a_password_is_followed_by_those_who_know_it() {
    let place = Place::open(&[]);
    let link = place.create(&json!({ "longUrl": "https://example.com/secret?a=1",
        "alias": "locked", "password": "open sesame & më", "forwardQuery": true,
        "redirectStatus": 301 }));
    assert_eq!(link["hasPassword"], true);
    assert!(!link.to_string().contains("argon2"), "{link}");

    for method in ["GET", "HEAD"] {
        let asked = place.browse(method, "/locked?b=2");
        assert_eq!(asked.status(), 200);
        assert_eq!(header(&asked, "cache-control"), "private, no-store");
        assert_eq!(header(&asked, "location"), "");
        if method == "GET" {
            let page = asked.text().unwrap();
            assert!(page.contains("<form method=\"post\">"), "{page}");
            assert!(!page.contains("example.com"), "{page}");
        }
        let program = place.waypost.request(method, "/locked").send().unwrap();
        assert_eq!(program.status(), 401);
    }
    assert_eq!(code(place.waypost.get("/locked")), "password_required");

    let wrong = place.unlock("/locked", HTML, "password=open+sesame");
    assert_eq!(wrong.status(), 403);
    assert!(wrong.text().unwrap().contains("not the password"));
    let wrong = place.unlock("/locked", "*/*", "password=Open+sesame+%26+m%C3%AB");
    assert_eq!(
        (wrong.status().as_u16(), code(wrong).as_str()),
        (403, "password_wrong")
    );

    let right = place.unlock("/locked?a=9&b=2", HTML, "password=open+sesame+%26+m%C3%AB");
    assert_eq!(right.status(), 303);
    assert_eq!(
        header(&right, "location"),
        "https://example.com/secret?a=1&b=2"
    );
    assert_eq!(header(&right, "cache-control"), "private, no-store");
    assert_eq!(header(&right, "set-cookie"), "");
    // Nothing is remembered of it.
    assert_eq!(place.browse("GET", "/locked").status(), 200);
    let clicks = || {
        let stats = place.api("GET", "/api/v1/links/locked/stats", &Value::Null);
        stats.json::<Value>().unwrap()["clicks"].as_u64()
    };
    wait_until("the visit is counted", || clicks() >= Some(1));
    assert_eq!(clicks(), Some(1), "only the visitor who went on counts");
}

#[test]
fn a_password_is_changed_and_taken_away_by_edits() {
    let place = Place::open(&[]);
    let slug = place.waypost.shorten("https://example.com/later-locked");
    let path = format!("/{slug}");
    assert_eq!(place.waypost.follow(&slug).0, 302);
    assert_eq!(
        place.edit(&slug, &json!({ "password": "one" }))["hasPassword"],
        true
    );
    assert_eq!(place.waypost.follow(&slug).0, 401);
    assert_eq!(place.unlock(&path, "*/*", "password=one").status(), 303);
    place.edit(&slug, &json!({ "password": "two" }));
    assert_eq!(place.unlock(&path, "*/*", "password=one").status(), 403);
    assert_eq!(place.unlock(&path, "*/*", "password=two").status(), 303);
    // An edit of something else leaves it alone.
    assert_eq!(
        place.edit(&slug, &json!({ "title": "x" }))["hasPassword"],
        true
    );
    assert_eq!(place.unlock(&path, "*/*", "password=two").status(), 303);
    assert_eq!(
        place.edit(&slug, &json!({ "password": null }))["hasPassword"],
        false
    );
    assert_eq!(place.waypost.follow(&slug).0, 302);
    // Whoever has the form open still arrives, as everybody does.
    let late = place.unlock(&format!("{path}?x=1"), HTML, "password=two");
    assert_eq!(late.status(), 303);
    assert_eq!(header(&late, "location"), format!("{path}?x=1"));
}

#[test]
fn a_form_that_is_none_is_refused_by_name() {
    let place = Place::open(&[]);
    place.create(&json!({ "longUrl": "https://example.com/", "alias": "locked", "password": "x" }));
    let long = format!("password={}", "a".repeat(129));
    let huge = format!("password={}", "a".repeat(2_000));
    for (form, status, expected) in [
        ("", 400, "form_invalid"),
        ("password=", 400, "form_invalid"),
        ("pass=x", 400, "form_invalid"),
        ("password=x&password=x", 400, "form_invalid"),
        (&long, 400, "form_invalid"),
        (&huge, 413, "body_too_large"),
    ] {
        let answer = place.unlock("/locked", "*/*", form);
        assert_eq!(answer.status(), status, "{form:.40}");
        assert_eq!(code(answer), expected, "{form:.40}");
    }
    let json = place.api("POST", "/locked", &json!({ "password": "x" }));
    assert_eq!(code(json), "not_a_form");
    let unknown = place.unlock("/nosuchslug", "*/*", "password=x");
    assert_eq!(code(unknown), "link_not_found");
    for (field, value, expected) in [
        ("password", json!(""), "password_invalid"),
        ("password", json!("a".repeat(129)), "password_invalid"),
        ("maxVisits", json!(0), "max_visits_invalid"),
        ("maxVisits", json!(1_u64 << 53), "max_visits_invalid"),
    ] {
        let link = json!({ "longUrl": "https://example.com/", field: value });
        let refused = place.api("POST", "/api/v1/links", &link);
        assert_eq!(
            (refused.status().as_u16(), code(refused).as_str()),
            (422, expected)
        );
        let edit = place.api("PATCH", "/api/v1/links/locked", &json!({ field: value }));
        assert_eq!(
            (edit.status().as_u16(), code(edit).as_str()),
            (422, expected)
        );
    }
}

#[test]
fn guesses_are_heard_only_so_often_whatever_the_link_and_right_ones_cost_a_link_nothing() {
    let place = Place::open(&[]);
    for alias in ["guessed", "other"] {
        place.create(&json!({ "longUrl": "https://example.com/", "alias": alias,
                              "password": "right" }));
    }
    let tried = |path: &str, password: &str| {
        let answer = place.unlock(path, "*/*", &format!("password={password}"));
        let seconds = header(&answer, "retry-after").parse::<u32>().ok();
        (answer.status().as_u16(), seconds)
    };
    for _ in 0..12 {
        assert_eq!(tried("/guessed", "right").0, 303);
    }
    // In a row they take some time, in which one or two more are allowed.
    let wrong = (0..13).find_map(|_| match tried("/guessed", "wrong") {
        (403, None) => None,
        refused => Some(refused),
    });
    let (status, seconds) = wrong.expect("guesses of one link are limited");
    assert_eq!(status, 429);
    assert!((1..=6).contains(&seconds.unwrap()), "{seconds:?}");
    assert_eq!(
        tried("/guessed", "right").0,
        429,
        "nor is the right one looked at"
    );
    assert_eq!(tried("/other", "right").0, 303);
    // Who has guessed nothing is not kept out by those who do.
    let elsewhere = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .local_address(std::net::IpAddr::from([127, 0, 0, 2]))
        .build()
        .unwrap();
    let from_elsewhere = |password: &str| {
        let request = elsewhere.post(format!("{}/guessed", place.waypost.url));
        let request = request.header("content-type", FORM);
        let answer = request.body(format!("password={password}")).send();
        answer.unwrap().status().as_u16()
    };
    assert_eq!(from_elsewhere("right"), 303);
    assert_eq!(from_elsewhere("wrong"), 403);
    assert_eq!(from_elsewhere("right"), 429, "now it has guessed as well");
    let page = place.unlock("/guessed", HTML, "password=wrong");
    assert_eq!(page.status(), 429);
    assert!(page.text().unwrap().contains("Too many attempts"));
    // And then not even of the other: the address has used up its own.
    wait_until("the address has tried too often", || {
        tried("/other", "right").0 == 429
    });
}

#[test]
fn a_preview_shows_where_a_link_leads_without_going_there() {
    let place = Place::open(&[]);
    let evil = "<script>alert('x')</script>";
    place.create(
        &json!({ "longUrl": "https://example.com/?q=\"'<b>&x=1", "alias": "shown",
                          "title": evil }),
    );
    let page = place.browse("GET", "/shown+?k=\"v");
    assert_eq!(page.status(), 200);
    let page = page.text().unwrap();
    assert!(
        page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</dd>"),
        "{page}"
    );
    assert!(!page.contains("<script"), "{page}");
    assert!(
        page.contains("https://example.com/?q=%22%27%3Cb%3E&amp;x=1"),
        "{page}"
    );
    assert!(
        page.contains("href=\"/shown?k=%22v\" rel=\"noreferrer nofollow\""),
        "{page}"
    );

    for path in ["/shown+", "/shown%2B", "/shown%2b"] {
        let shown: Value = place.waypost.get(path).json().unwrap();
        assert_eq!(shown["longUrl"], "https://example.com/?q=%22%27%3Cb%3E&x=1");
        assert_eq!(shown["title"], evil);
        assert_eq!(shown["shortUrl"], format!("{}/shown", place.waypost.url));
        assert_eq!(shown["hasPassword"], false);
    }
    place.create(
        &json!({ "longUrl": "https://example.com/secret", "alias": "locked",
                          "title": "The secret", "password": "x" }),
    );
    for body in [
        place.browse("GET", "/locked+").text().unwrap(),
        place.waypost.get("/locked+").text().unwrap(),
    ] {
        assert!(!body.contains("secret"), "{body}");
    }
    // What leads nowhere has no preview.
    place.api("DELETE", "/api/v1/links/locked", &Value::Null);
    assert_eq!(place.browse("GET", "/locked+").status(), 410);
    assert_eq!(place.waypost.get("/locked+").status(), 410);
    assert_eq!(place.browse("GET", "/nosuchslug+").status(), 404);
    // Nobody has followed it; one who does is counted alone.
    assert_eq!(place.waypost.follow("shown").0, 302);
    wait_until("the visit is counted", || {
        place.waypost.clicks("shown") >= 1
    });
    assert_eq!(place.waypost.clicks("shown"), 1);
}

#[test]
fn who_asks_for_no_link_of_ours_is_sent_where_the_operator_wants() {
    let place = Place::open(&[
        (
            "WAYPOST_UNKNOWN_SLUG_REDIRECT",
            "https://example.com/lost?from=short",
        ),
        ("WAYPOST_HOME_REDIRECT", "https://example.com/home"),
    ]);
    place.create(
        &json!({ "longUrl": "https://example.com/", "alias": "not-yet",
                          "validSince": "2999-01-01T00:00:00Z" }),
    );
    let gone = place.waypost.shorten("https://example.com/gone");
    place.api("DELETE", &format!("/api/v1/links/{gone}"), &Value::Null);
    for path in ["/nosuchslug", "/not-yet", "/nosuchslug+", "/x", "/-no-slug"] {
        for answer in [place.browse("GET", path), place.waypost.get(path)] {
            assert_eq!(answer.status(), 302, "{path}");
            assert_eq!(
                header(&answer, "location"),
                "https://example.com/lost?from=short"
            );
            assert!(header(&answer, "cache-control").contains("no-store"));
        }
    }
    assert_eq!(place.browse("GET", &format!("/{gone}")).status(), 410);
    assert_eq!(place.waypost.get("/api/v1/nothing").status(), 404);
    assert_eq!(place.waypost.get("/robots.txt").status(), 200);
    let home = place.browse("GET", "/");
    assert_eq!(
        (home.status().as_u16(), header(&home, "location")),
        (302, "https://example.com/home")
    );
}

#[test]
fn a_link_with_a_limit_and_a_password_is_used_up_by_those_who_know_it() {
    let place = Place::open(&[]);
    place.create(
        &json!({ "longUrl": "https://example.com/", "alias": "limited",
                          "password": "x", "maxVisits": 2 }),
    );
    let tried = |password: &str| {
        let form = format!("password={password}");
        place.unlock("/limited", "*/*", &form).status().as_u16()
    };
    assert_eq!(
        [tried("x"), tried("y"), tried("y"), tried("x")],
        [303, 403, 403, 303]
    );
    assert_eq!([tried("x"), tried("y")], [410, 403]);
    assert_eq!(place.browse("GET", "/limited+").status(), 410);
    assert_eq!(
        place.edit("limited", &json!({ "password": null }))["maxVisits"],
        2
    );
    assert_eq!(place.waypost.follow("limited").0, 410);
    place.edit("limited", &json!({ "maxVisits": 3 }));
    assert_eq!(place.waypost.follow("limited").0, 302);
    assert_eq!(place.waypost.follow("limited").0, 410);
    assert_eq!(
        place.edit("limited", &json!({ "maxVisits": null }))["maxVisits"],
        Value::Null
    );
    assert_eq!(place.waypost.follow("limited").0, 302);
    wait_until("the visits are counted", || {
        place.waypost.clicks("limited") >= 4
    });
    assert_eq!(place.waypost.clicks("limited"), 4);
}

#[test]
fn a_limit_holds_over_the_end_of_the_process_and_a_kill_costs_one_lease() {
    let data = tempfile::tempdir().unwrap();
    let token = token(data.path());
    let waypost = Waypost::start(data.path());
    let link = json!({ "longUrl": "https://example.com/", "alias": "limited", "maxVisits": 500 });
    let created = waypost.send("POST", "/api/v1/links", &token, &link);
    assert_eq!(created.status(), 201);
    let visit = |waypost: &Waypost, count: u32| {
        for _ in 0..count {
            assert_eq!(waypost.follow("limited").0, 302);
        }
    };
    visit(&waypost, 150);
    assert!(waypost.terminate().success());
    let waypost = Waypost::start(data.path());
    visit(&waypost, 8);
    waypost.kill();
    let waypost = Waypost::start(data.path());
    let mut visits = 150 + 8;
    while waypost.follow("limited").0 == 302 {
        visits += 1;
    }
    // The killed one had leased 1, 2, 4 and, for the eighth visit, at most 8.
    assert!((500 - 7..=500).contains(&visits), "{visits}");
}
