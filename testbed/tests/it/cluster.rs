//! The cluster as its users see it: over HTTP, on the real parts.

mod alone;
mod caches;
mod changes;
mod clicks;
mod counting;
mod failover;
mod input;
mod inside;
mod keys;
mod limits;
mod links;
mod lists;
mod map;
mod moving;
mod outages;
mod preparing;
mod promotion;
mod protection;
mod regions;
mod repeats;
mod replicas;
mod restarts;
mod restore;
mod retries;
mod runbooks;
mod spool;
mod statistics;
mod tls;
mod tokens;
mod traces;
mod visits;

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use waypost_testbed::Cluster;

/// For one request; well above every deadline inside.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// A cluster for tests that break nothing. It ends with the test program.
fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

/// The smallest cluster that has two gateways, for tests that break something.
fn small() -> waypost_testbed::cluster::Builder {
    Cluster::builder().shards(1).nodes_per_shard(1).keygens(1)
}

/// Follows no redirect.
fn client() -> Client {
    Client::builder()
        .redirect(Policy::none())
        .timeout(REQUEST_DEADLINE)
        .build()
        .unwrap()
}

/// A user of one gateway.
struct User {
    http: Client,
    url: String,
    token: Option<String>,
}

impl User {
    /// With a token that allows everything.
    fn of(cluster: &Cluster, gateway: usize) -> Self {
        Self {
            http: client(),
            url: cluster.url(gateway),
            token: Some(cluster.token()),
        }
    }

    fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> RequestBuilder {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.request(method, path, body).send().unwrap()
    }

    fn get(&self, path: &str) -> Response {
        self.send("GET", path, None)
    }

    /// Shortens a URL and answers its slug.
    #[track_caller]
    fn shorten(&self, url: &str) -> String {
        let response = self.send("POST", "/shorten", Some(&json!({ "url": url })));
        let status = response.status();
        let answer: Value = response.json().unwrap();
        assert_eq!(status, 201, "{answer}");
        answer["slug"].as_str().unwrap().to_owned()
    }

    /// Follows a slug, and answers the status and where it leads.
    fn follow(&self, slug: &str) -> (u16, String) {
        let response = self.get(&format!("/{slug}"));
        let location = response.headers().get("location");
        let location = location.map_or("", |location| location.to_str().unwrap());
        (response.status().as_u16(), location.to_owned())
    }

    /// The clicks of a slug that are counted so far; `None` while statistics
    /// cannot be read.
    fn clicks(&self, slug: &str) -> Option<u64> {
        let response = self.get(&format!("/api/v1/links/{slug}/stats"));
        if response.status() != 200 {
            return None;
        }
        response.json::<Value>().unwrap()["clicks"].as_u64()
    }
}

/// The `code` of a problem document, whose other members are checked as well.
#[track_caller]
fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "application/problem+json");
    let problem: Value = response.json().unwrap();
    assert_eq!(problem["status"], status);
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    (status, problem["code"].as_str().unwrap().to_owned())
}
