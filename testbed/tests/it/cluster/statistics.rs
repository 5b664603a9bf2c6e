//! Statistics out of what two gateways have sent through the log.

use serde_json::{Value, json};
use waypost_testbed::token;

use super::{User, shared};
use crate::patience::wait_until;

#[test]
fn statistics_of_a_link_and_of_its_tenant_add_up_what_all_gateways_have_seen() {
    let cluster = shared();
    // A tenant of its own: other tests follow links of the others.
    let token = cluster.token_for("counted", token::ALL_SCOPES);
    let users = [0, 1].map(|n| User::of(cluster, n).with_token(Some(token.clone())));
    let slugs = [0, 1].map(|n| users[0].shorten(&format!("https://example.com/stats/{n}")));
    let agents = [
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    ];
    for (slug, times) in slugs.iter().zip([8, 4]) {
        for user in &users {
            wait_until("both gateways know the link", || {
                user.send("HEAD", &format!("/{slug}"), None).status() == 302
            });
        }
        for n in 0..times {
            let user = &users[n % 2];
            let request = user.request("GET", &format!("/{slug}"), None);
            let request = request.header("user-agent", agents[n / 2 % 2]);
            let answer = request.header("referer", "https://news.example/").send();
            assert_eq!(answer.unwrap().status(), 302);
        }
    }
    let get = |path: &str| users[1].get(path).json::<Value>().unwrap();
    let of_tenant = || get("/api/v1/stats?top=1");
    wait_until("all clicks are counted", || of_tenant()["clicks"] == 12);

    let told = of_tenant();
    assert_eq!((&told["bots"], &told["other"]), (&json!(6), &json!(4)));
    let top = &told["links"][0];
    assert_eq!(
        (&top["slug"], &top["clicks"]),
        (&json!(slugs[0]), &json!(8))
    );
    let link = get(&format!(
        "/api/v1/links/{}/stats?by=browser,referrer",
        slugs[0]
    ));
    assert_eq!((&link["clicks"], &link["bots"]), (&json!(8), &json!(4)));
    for (by, value) in [("browser", "Firefox"), ("referrer", "news.example")] {
        assert_eq!(
            link["breakdowns"][by],
            json!({ "values": [{ "value": value, "clicks": 4 }], "other": 0 })
        );
    }
    let hours = get(&format!("/api/v1/links/{}/stats?interval=hour", slugs[0]));
    let series = hours["series"].as_array().unwrap();
    let clicks = series.iter().map(|point| point["clicks"].as_u64().unwrap());
    assert_eq!(clicks.sum::<u64>(), 8);
}
