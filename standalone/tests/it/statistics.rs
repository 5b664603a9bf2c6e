//! What became of the clicks: statistics of links and tenants, for programs and people.

use std::time::SystemTime;

use reqwest::blocking::Response;
use serde_json::{Value, json};
use waypost_domain::Timestamp;

use crate::process::{User, Waypost, wait_until};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 \
                      (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1";
const CRAWLER: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// Somebody who follows links.
#[derive(Clone, Copy)]
pub(crate) struct Visitor {
    agent: &'static str,
    referrer: &'static str,
    country: &'static str,
    language: &'static str,
}

pub(crate) const ANNA: Visitor = Visitor {
    agent: FIREFOX,
    referrer: "https://news.example/today",
    country: "CH",
    language: "de-CH,en;q=0.5",
};
pub(crate) const BEN: Visitor = Visitor {
    agent: IPHONE,
    referrer: "",
    country: "FR",
    language: "fr",
};
pub(crate) const ROBOT: Visitor = Visitor {
    agent: CRAWLER,
    referrer: "",
    country: "US",
    language: "",
};

/// Countries are told by a proxy in front, which the tests stand in for.
pub(crate) const OPTIONS: [(&str, &str); 2] = [
    ("WAYPOST_COUNTRY_HEADER", "x-country"),
    ("WAYPOST_TRUSTED_HOPS", "1"),
];

impl Visitor {
    pub(crate) fn follow(self, waypost: &Waypost, slug: &str, times: usize) {
        for _ in 0..times {
            let mut request = waypost
                .request("GET", &format!("/{slug}"))
                .header("user-agent", self.agent)
                .header("x-country", self.country)
                .header("x-forwarded-for", "192.0.2.1");
            if !self.referrer.is_empty() {
                request = request.header("referer", self.referrer);
            }
            if !self.language.is_empty() {
                request = request.header("accept-language", self.language);
            }
            assert_eq!(request.send().unwrap().status(), 302);
        }
    }
}

fn stats(waypost: &Waypost, slug: &str, query: &str) -> Value {
    let answer = waypost.get(&format!("/api/v1/links/{slug}/stats?{query}"));
    let status = answer.status();
    let answer: Value = answer.json().unwrap();
    assert_eq!(status, 200, "{answer}");
    answer
}

/// A day of UTC, so many days from today.
fn day(offset: i64) -> String {
    let now = Timestamp::from(SystemTime::now()).millis();
    let at = Timestamp::from_millis(now + offset * 86_400_000).unwrap();
    at.to_string()[..10].to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[test]
fn a_links_clicks_are_told_by_time_and_by_who_came_bots_apart() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &OPTIONS);
    let slug = waypost.shorten("https://example.com/told");
    let before = day(0);
    ANNA.follow(&waypost, &slug, 5);
    BEN.follow(&waypost, &slug, 3);
    ROBOT.follow(&waypost, &slug, 2);
    wait_until("all clicks are counted", || waypost.clicks(&slug) == 10);

    let told = stats(
        &waypost,
        &slug,
        "by=referrer,country,device&by=browser,os,language",
    );
    if day(0) != before {
        return; // Midnight: the days below are others.
    }
    assert_eq!(told["slug"], slug);
    assert_eq!((&told["clicks"], &told["bots"]), (&json!(10), &json!(2)));
    assert_eq!(told["allTime"], json!({ "clicks": 10, "bots": 2 }));
    assert_eq!(told["visitorDays"], 2);
    assert_eq!(told["interval"], "day");
    assert_eq!(told["from"], format!("{}T00:00:00.000Z", day(-29)));
    assert_eq!(told["to"], format!("{}T00:00:00.000Z", day(1)));
    assert!(told["countedUpTo"].is_string(), "{told}");
    let series = told["series"].as_array().unwrap();
    assert_eq!(series.len(), 30);
    assert_eq!(
        series[29],
        json!({ "start": format!("{}T00:00:00.000Z", day(0)), "clicks": 10, "bots": 2,
                "visitors": 2 })
    );
    assert_eq!(series[28]["clicks"], 0);
    let values = |by: &str| {
        let values = told["breakdowns"][by]["values"].as_array().unwrap();
        assert_eq!(told["breakdowns"][by]["other"], 0);
        let pair = |value: &Value| (value["value"].clone(), value["clicks"].as_u64().unwrap());
        values.iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(
        values("referrer"),
        [(json!("news.example"), 5), (Value::Null, 3)]
    );
    assert_eq!(values("country"), [(json!("CH"), 5), (json!("FR"), 3)]);
    assert_eq!(
        values("device"),
        [(json!("desktop"), 5), (json!("mobile"), 3)]
    );
    assert_eq!(
        values("browser"),
        [(json!("Firefox"), 5), (json!("Safari"), 3)]
    );
    assert_eq!(values("os"), [(json!("Linux"), 5), (json!("iOS"), 3)]);
    assert_eq!(values("language"), [(json!("de"), 5), (json!("fr"), 3)]);

    let hours = stats(&waypost, &slug, &format!("interval=hour&from={}", day(0)));
    assert_eq!(hours["clicks"], 10);
    assert_eq!(hours["breakdowns"], json!({}));
    let sum = |series: &Value| {
        let series = series.as_array().unwrap();
        let clicks = |point: &Value| point["clicks"].as_u64().unwrap();
        series.iter().map(clicks).sum::<u64>()
    };
    assert_eq!(sum(&hours["series"]), 10);
    assert!(hours["series"][0].get("visitors").is_none());

    // Before today there was nothing; of all time there is.
    let earlier = stats(&waypost, &slug, &format!("to={}&by=os", day(-1)));
    assert_eq!(earlier["clicks"], 0);
    assert_eq!(earlier["visitorDays"], 0);
    assert_eq!(
        earlier["breakdowns"]["os"],
        json!({ "values": [], "other": 0 })
    );
    assert_eq!(earlier["allTime"]["clicks"], 10);
}

#[test]
fn spans_that_make_no_sense_are_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let slug = waypost.shorten("https://example.com/refused");
    let user = User::of(&waypost, data.path(), "default");
    for (query, code) in [
        ("from=2026-11-02&to=2026-11-01", "range_invalid"),
        (
            "from=2026-01-01&to=2026-11-01&interval=hour",
            "range_too_long",
        ),
        ("from=2020-01-01&to=2026-11-01", "range_too_long"),
        ("from=yesterday", "time_invalid"),
        ("interval=week", "query_invalid"),
        ("days=7", "query_invalid"),
    ] {
        for path in [format!("links/{slug}/stats"), "stats".to_owned()] {
            let (status, problem) = user.get(&format!("/api/v1/{path}?{query}"));
            assert_eq!(
                (status, &problem["code"]),
                (422, &json!(code)),
                "{path}?{query}"
            );
        }
    }
}

#[test]
fn a_tenant_sees_the_sum_of_its_links_and_the_most_followed_of_them() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let user = User::of(&waypost, data.path(), "shop");
    let stranger = User::of(&waypost, data.path(), "stranger");
    let create = |user: &User<'_>, alias: &str, title: &str| {
        let link = json!({ "longUrl": format!("https://example.com/{alias}"), "alias": alias,
                           "title": title });
        assert_eq!(user.send("POST", "/api/v1/links", &link).0, 201);
    };
    create(&user, "first", "=HYPERLINK(\"//evil.example\")");
    create(&user, "second", "Second, of two");
    create(&user, "third", "Third");
    create(&stranger, "foreign", "Somebody else's");
    ANNA.follow(&waypost, "first", 4);
    ROBOT.follow(&waypost, "first", 1);
    ANNA.follow(&waypost, "second", 3);
    BEN.follow(&waypost, "third", 1);
    BEN.follow(&waypost, "foreign", 6);
    let told = || user.get("/api/v1/stats?top=2");
    wait_until("all clicks are counted", || told().1["clicks"] == 9);

    let (_, told) = told();
    assert_eq!(told["bots"], 1);
    assert_eq!(told["other"], 1);
    assert_eq!(told["series"].as_array().unwrap().len(), 30);
    let link = |slug: &str, title: &str, clicks: u64| {
        json!({ "slug": slug, "shortUrl": format!("{}/{slug}", waypost.url), "title": title,
                "clicks": clicks })
    };
    let expected = [
        link("first", "=HYPERLINK(\"//evil.example\")", 5),
        link("second", "Second, of two", 3),
    ];
    assert_eq!(told["links"], json!(expected));
    // It would tell the slugs of all links.
    let anonymous = waypost.get("/api/v1/stats");
    assert_eq!(anonymous.status(), 401);
    let writer = User::with_scopes(&waypost, data.path(), "shop", "links:read links:write");
    assert_eq!(writer.get("/api/v1/stats").0, 403);
    // A link that is gone has no title any more, but its clicks stay.
    let gone = user.request("DELETE", "/api/v1/links/second").send();
    assert_eq!(gone.unwrap().status(), 204);
    let (_, told) = user.get("/api/v1/stats");
    assert_eq!(told["links"][1], {
        let mut link = link("second", "", 3);
        link["title"] = Value::Null;
        link
    });
    assert_eq!(user.get("/api/v1/links/second/stats").0, 410);

    let table = user.request("GET", "/api/v1/stats?top=1&format=csv");
    let table = table.send().unwrap();
    let name = format!("links-{}-to-{}.csv", day(-29), day(0));
    assert_eq!(
        header(&table, "content-disposition"),
        format!("attachment; filename=\"{name}\"")
    );
    assert_eq!(
        table.text().unwrap(),
        format!(
            "slug,shortUrl,title,clicks\r\n\
             first,{}/first,\"'=HYPERLINK(\"\"//evil.example\"\")\",5\r\n",
            waypost.url
        )
    );
}

#[test]
fn who_accepts_a_table_gets_the_series_or_the_values_as_a_file() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start_with(data.path(), &OPTIONS);
    let slug = waypost.shorten("https://example.com/table");
    ANNA.follow(&waypost, &slug, 2);
    BEN.follow(&waypost, &slug, 1);
    wait_until("all clicks are counted", || waypost.clicks(&slug) == 3);
    let table = |query: &str| {
        let path = format!("/api/v1/links/{slug}/stats?{query}");
        let answer = waypost.request("GET", &path).header("accept", "text/csv");
        let answer = answer.send().unwrap();
        assert_eq!(
            header(&answer, "content-type"),
            "text/csv; charset=utf-8; header=present"
        );
        let name = header(&answer, "content-disposition").to_owned();
        assert!(name.contains(&format!("filename=\"{slug}-")), "{name}");
        answer.text().unwrap()
    };
    let today = day(0);
    assert_eq!(
        table(&format!("from={today}")),
        format!("start,clicks,bots,visitors\r\n{today}T00:00:00.000Z,3,0,2\r\n")
    );
    assert_eq!(
        table("by=referrer&by=country"),
        "by,value,clicks\r\nreferrer,news.example,2\r\nreferrer,,1\r\n\
         country,CH,2\r\ncountry,FR,1\r\n"
    );
}

#[test]
fn statistics_of_somebody_elses_link_are_told_to_nobody() {
    let data = tempfile::tempdir().unwrap();
    let waypost = Waypost::start(data.path());
    let user = User::of(&waypost, data.path(), "shop");
    let link = json!({ "longUrl": "https://example.com/own", "alias": "ownlink" });
    assert_eq!(user.send("POST", "/api/v1/links", &link).0, 201);
    let path = "/api/v1/links/ownlink/stats";
    assert_eq!(user.get(path).0, 200);
    // Whoever has no token acts for another tenant.
    assert_eq!(waypost.get(path).status(), 404);
    let stranger = User::of(&waypost, data.path(), "stranger");
    assert_eq!(stranger.get(path).0, 404);
}
